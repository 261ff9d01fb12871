import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import UserError
from tunesmith.data.curation.clean import Clean
from tunesmith.data.curation.filter import Filter, count_words, is_copy
from tunesmith.data.curation.phrases import is_refusal
from tunesmith.data.sources.read import read_source

REAL = Path(__file__).parents[3] / "shared/data"
ASKED = "Explain in a few words why the sky over our town is blue at noon and red in the evening."

SENTENCES = ("Then say what a prism does to light.", "Give an example from a child's day, and name one book on it.")


def row(response: str, asked: str = ASKED, **more) -> Conversation:
    return Conversation("a:1", (Message("user", asked), Message("assistant", response, **more)))


def reason(response: str, asked: str = ASKED, **settings) -> str:
    outcome = Filter(**settings)(row(response, asked))
    assert (outcome.row is None) == bool(outcome.reason)
    return outcome.reason


def flags(response: str, asked: str = ASKED, **settings) -> tuple[str, ...]:
    outcome = Filter(**settings)(row(response, asked))
    assert outcome.row == row(response, asked)
    return outcome.flags


def test_ordinary_rows_pass_untouched():
    for response in ("Blue light is scattered most.", "No", "42", "def f():\n    return 1", "None of these."):
        outcome = Filter()(row(response))
        assert outcome.row == row(response) and not outcome.flags and not outcome.changes


def test_lengths_in_words():
    assert reason("Because it is.", min_response_words=4) == "response_too_short"
    assert reason("Because it is.", max_response_words=2) == "response_too_long"
    assert reason("Because it is.", min_response_words=3, max_response_words=3) == ""
    assert reason("Because.", "Why?", min_instruction_words=2) == "instruction_too_short"
    assert reason("Because.", "Why not?", max_instruction_words=1) == "instruction_too_long"
    assert count_words("two words") == 2 and count_words("学校 ok") == 3
    assert "4 words, at least 9" in Filter(min_response_words=9)(row("It is just so.")).detail


def test_a_response_of_tool_calls_is_long_enough():
    called = row("", tool_calls=({"name": "f", "arguments": {}},))
    assert Filter(min_response_words=3)(called).row == called


def test_repetition():
    loop = "The sky is blue since light is scattered by air. " + "And so it goes on and on. " * 20
    assert reason(loop) == "repetition"
    assert reason(loop, repetition="off") == "" and flags(loop, repetition="flag") == ("repetition",)
    table = "```\n" + "0 0 0 0 0 0 0 0\n" * 30 + "```"
    assert reason("Here:\n" + table) == "" and reason("for (;;) { x = x + 1; }\n" * 30) == ""


@pytest.mark.parametrize(
    "response, refuses",
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m sorry, but as an AI language model, I’m unable to create images.", True),
        ("As an AI, I cannot provide medical advice.", True),
        ("I cannot assist with that request.", True),
        ("I'm unable to help you with this.", True),
        ("Unfortunately, I am not able to browse the internet.", True),
        ("I'm sorry to hear that you are ill.", False),
        ("I'm sorry, but I can't come to your party.", False),
        ("I can't believe it.", False),
        ("I cannot wait to see you.", False),
        ("Sorry for the delay.", False),
        ("As an astronaut, I can tell you of space.", False),
        ("The model says: I'm sorry, but I can't help with that.", False),
    ],
)
def test_refusals(response, refuses):
    assert is_refusal(response) == refuses
    assert flags(response) == (("refusal",) if refuses else ())
    assert reason(response, refusals="drop") == ("refusal" if refuses else "")
    assert flags(response, refusals="off") == ()


@pytest.mark.parametrize("blank", ["<noinput>", "< noinput >", "N/A", "None", "No input.", "[No Input]", "<no input>"])
def test_an_input_that_says_there_is_none_is_taken_out(blank):
    outcome = Filter()(row("Apple, Google.", f"Name two firms.\n\n{blank}"))
    assert outcome.row == row("Apple, Google.", "Name two firms.")
    assert [change.what for change in outcome.changes] == ["empty input removed"]
    assert Filter(placeholders="off")(row("x", f"Name two.\n\n{blank}")).row == row("x", f"Name two.\n\n{blank}")


@pytest.mark.parametrize(
    "blank", ["[insert text here]", "<your text here>", "TODO", "[Your paragraph]", "{insert name}", "???"]
)
def test_unfilled_inputs_drop_their_rows(blank):
    assert reason("It is fine.", f"Correct this text.\n\n{blank}") == "placeholder"
    assert flags("It is fine.", f"Correct this text.\n\n{blank}", placeholders="flag") == ("placeholder",)


def test_what_only_looks_like_a_placeholder():
    for last in (
        "<input>",
        "[1, 2, 3]",
        "todo",
        "None of it",
        "Todo list: milk",
        "(type 2 diabetes)",
        "null",
        "lorem ipsum",
    ):
        assert reason("It is fine.", f"What is this?\n\n{last}") == ""
    assert reason("Dear [Your Name],\n\nthank you.") == "" and reason("None") == "" and reason("N/A") == ""
    assert reason("<nooutput>") == "placeholder" and reason("TODO") == "placeholder"


def test_copies():
    assert reason(ASKED) == "copy" and reason(ASKED.upper() + "!!") == "copy"
    assert reason(ASKED.replace("noon", "midday"), ASKED + " " + ASKED) == ""
    assert reason(" ".join([ASKED, *SENTENCES]).replace("noon", "midday"), " ".join([ASKED, *SENTENCES])) == "copy"
    text = "The cat sat on the mat while the dog slept under the old table by the fire."
    assert reason(text, f"Correct the grammar of the following text, if need be.\n\n{text}") == ""
    assert reason("Say hi to me.", "Say hi to me.") == ""
    assert not is_copy(" ".join(reversed(ASKED.split())), ASKED)


def test_open_fences():
    assert reason("Look:\n```python\nprint(1)") == "open_fence"
    assert reason("Look:\n```python\nprint(1)\n```") == ""
    assert flags("```\nx", open_fences="flag") == ("open_fence",)


def test_languages():
    german = "Das Licht der Sonne wird in der Luft gestreut, das blaue viel stärker als das rote, daher ist er blau."
    assert reason(german, languages=("en",)) == "language"
    assert reason(german, languages=("en", "de")) == "" and reason(german) == ""
    assert reason("ok", languages=("en",)) == ""


def test_relevance():
    other = "Mix flour, salt and yeast, knead the dough for ten minutes, let it rise until doubled, shape a loaf, "
    other += "and put it on a tray for half an hour until the crust becomes brown and hollow."
    assert reason(other) == "" and reason(other, min_relevance=0.05) == "low_relevance"


def test_personal_data():
    text = "Write to ann@uni-koeln.de or call +49 30 9018 2035."
    assert flags(text) == ("personal_email", "personal_phone")
    assert reason(text, personal="drop") == "personal_email" and flags(text, personal="off") == ()
    assert flags(text, personal_kinds=("phone",)) == ("personal_phone",)
    outcome = Filter(personal="redact")(row(text))
    assert outcome.row is not None and outcome.row.response == "Write to [email] or call [phone]."
    assert "ann@" not in repr(outcome.changes) and "9018" not in repr(outcome.changes)


def test_redaction_reaches_reasoning_arguments_and_results():
    mail = "ann@uni-koeln.de"
    call = {"name": "send", "arguments": {"to": [mail, 7], "deep": {"cc": mail}}}
    before = Conversation(
        "a:1",
        (
            Message("user", f"Mail {mail}"),
            Message("assistant", "", f"I mail {mail}.", (call,)),
            Message("tool", f"Sent to {mail}"),
            Message("assistant", "Done."),
        ),
    )
    after = Filter(personal="redact")(before).row
    assert after is not None and mail not in json.dumps(json.loads(after.to_json()))
    assert after.messages[1].tool_calls[0]["arguments"] == {"to": ["[email]", 7], "deep": {"cc": "[email]"}}
    assert mail in before.to_json()


def test_plain_text_is_judged_as_text():
    assert Filter()(Conversation.from_text("t:1", "Words of a page.")).row is not None
    assert Filter()(Conversation.from_text("t:1", "on and on and on it goes " * 40)).reason == "repetition"


def test_settings_that_can_not_be_met_are_refused():
    with pytest.raises(UserError, match="at least 5 and at most 2 words"):
        Filter(min_response_words=5, max_response_words=2)
    with pytest.raises(UserError, match="'en-US' can't be recognised"):
        Filter(languages=("en-US",))
    with pytest.raises(UserError, match="no kind of personal data"):
        Filter(personal_kinds=("name",))  # type: ignore[arg-type]


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_has_one_outcome_and_passing_twice_is_passing_once(asked, response):
    stage = Filter(personal="redact", min_relevance=0.1)
    outcome = stage(row(response, asked))
    assert outcome == stage(row(response, asked))
    if outcome.row is not None:
        assert stage(outcome.row).row == outcome.row
    else:
        assert outcome.reason and outcome.detail


def test_the_stage_goes_to_other_processes():
    stage = Filter(languages=("en",), refusals="drop")
    assert pickle.loads(pickle.dumps(stage)) == stage


@pytest.mark.skipif(not REAL.exists(), reason="the real instruction data is not there")
@pytest.mark.parametrize(
    "file, columns, most",
    [
        ("alpaca_1k.json", None, 1),
        ("gsm8k_test.jsonl", {"instruction": "question", "response": "answer"}, 1),
        ("roleplay.json", None, 0),
        ("code_alpaca.json", None, 1),
    ],
)
def test_hardly_a_sound_row_is_dropped_by_default(file, columns, most):
    rows = read_source("real", REAL / file, map=columns, sample=900).rows
    clean, select = Clean(), Filter(languages=("en",))
    outcomes = [select(cleaned) for outcome in map(clean, rows) if (cleaned := outcome.row)]
    assert len(outcomes) == len(rows)
    assert sum(outcome.row is None for outcome in outcomes) <= most
