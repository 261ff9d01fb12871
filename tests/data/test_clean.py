import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.conversation import Conversation, Message
from tunesmith.data.curation.clean import Clean, repaired, with_plain_space
from tunesmith.data.curation.filter import Filter
from tunesmith.data.curation.personal import KINDS

clean = Clean()


def row(response: str, asked: str = "Tell me about the moon.", **more) -> Conversation:
    return Conversation("a:1", (Message("user", asked), Message("assistant", response, **more)))


def cleaned(response: str, asked: str = "Tell me about the moon.") -> str:
    outcome = clean(row(response, asked))
    assert outcome.row is not None
    return outcome.row.response


@pytest.mark.parametrize(
    "response, left",
    [
        ("Sure! The moon is far.", "The moon is far."),
        ("Certainly!\n\nThe moon is far.", "The moon is far."),
        ("Of course. I'd be happy to help you with that! The moon is far.", "The moon is far."),
        ("Of course, I can help with that. Which moon do you mean?", "Which moon do you mean?"),
        ("Sure, here is a text about the moon:\n\nIt is far.", "It is far."),
        ("Here's the code:\n```\nx\n```", "```\nx\n```"),
        ("Here is the code about the moon:\n\ndef moon(): ...", "def moon(): ..."),
        ("Here are three facts about the moon: 1. It is far. 2. It is round.", "1. It is far. 2. It is round."),
        ("As an AI language model, I don't have personal opinions. However, it is far.", "It is far."),
        ("As an AI language model, I can say that it is far.", "I can say that it is far."),
        ("It is far. I hope this helps! Let me know if you have any other questions.", "It is far."),
        ("It is far.\n\nIf you need more details, feel free to ask.", "It is far."),
        ("You're welcome! Is there anything else I can help you with?", "You're welcome!"),
    ],
)
def test_empty_phrases_go(response, left):
    assert cleaned(response) == left


@pytest.mark.parametrize(
    "response",
    [
        "Sure, Alabama is a state.",
        "Certainly not.",
        "Sure!",
        "Of course it is far.",
        "Absolutely everything about it is known.",
        "Here is where it began. Far away.",
        "Here's the deal: People lie.",
        "As an AI language model, I can't tell.",
        "As an AI, I do not have the ability to say what others are feeling. It depends.",
        "As an AI language model, I have no feelings, but I can say that it is far.",
        "As an astronomer, I can say that it is far.",
        "I hope this helps you sleep, said the moon. Then it set.",
        "Let me know if you can come on Friday.",
        "Let me know if you need anything else.",
        "Let me know your budget.",
        "`Sure! The moon`",
    ],
)
def test_content_stays(response):
    outcome = clean(row(response))
    assert outcome.row == row(response) and not outcome.changes


@pytest.mark.parametrize(
    "asked, response",
    [
        ("Is the moon far?", "Absolutely! It is 384,400 km away."),
        ("It rose. Do you like the moon?", "Of course! Everybody does."),
        ("Write a reply to this invitation.", "Sure! I will come."),
        ("Write an e-mail to a client.", "It is done. Let me know if you have any questions."),
        ("Do you like the moon?", "As an AI language model, I don't have feelings. The moon is far."),
        ("Tell me about the moon.", "Hello Ann, it is done. Let me know if you have any questions."),
    ],
)
def test_phrases_stay_where_they_are_the_answer(asked, response):
    assert cleaned(response, asked) == response


def test_only_responses_lose_phrases():
    before = Conversation(
        "a:1", (Message("system", "Sure! Be kind."), Message("user", "Sure! Go."), Message("assistant", "Gone."))
    )
    assert clean(before).row == before


def test_changes_are_written_down():
    outcome = clean(row("Sure! The moon is far.  \nVery."))
    assert [change.what for change in outcome.changes] == ["preamble removed"]
    assert outcome.changes[0].before.startswith("Sure!") and outcome.changes[0].after.startswith("The moon")
    tail = clean(row("word " * 1000 + "end \nof it")).changes
    assert [change.what for change in tail] == ["white space"]
    assert "end \nof" in tail[0].before and len(tail[0].before) < 100


def test_a_response_of_nothing_but_a_preamble_drops_its_row():
    for response in ("Sure, here is the list of moons:", "\ufeff\x00", "Here is the code:\n"):
        outcome = clean(row(response))
        assert outcome.row is None and outcome.reason == "empty_after_cleaning" and "message 2" in outcome.detail
    called = clean(row("\ufeff", tool_calls=({"name": "f", "arguments": {}},)))
    assert called.row is not None and called.row.messages[1].tool_calls


def test_tool_calls_results_and_reasoning_stay():
    before = Conversation(
        "a:1",
        (
            Message("user", "Go."),
            Message(
                "assistant", "", "Sure!  \n\n\n\nLet me think.", ({"name": "f", "arguments": {"x": "naÃ¯ve  \n"}},)
            ),
            Message("tool", "naÃ¯ve  \n\n\n\n"),
            Message("assistant", "Done.", "Certainly! Hm. "),
        ),
    )
    assert clean(before).row == before


@given(st.sampled_from(["naïve", "Lübeck", "café — bar", "“quoted”", "£30", "straße", "El Niño’s"]), st.booleans())
def test_mojibake_is_undone_but_not_in_code(word, latin):
    broken = word.encode().decode("latin-1") if latin else word.encode().decode("windows-1252", "ignore")
    if broken.encode("latin-1" if latin else "windows-1252", "ignore") != word.encode():
        return
    assert repaired(f"It is {broken} here.") == f"It is {word} here."
    assert repaired(f"It is `{broken}` here.") == f"It is `{broken}` here."
    assert repaired(f"```\n{broken}\n```\n{broken}") == f"```\n{broken}\n```\n{word}"


@pytest.mark.parametrize(
    "text",
    [
        "“Curly” quotes, ‘single’ too… ﬁne, ｆｕｌｌ, &amp; entities",
        "A NÃO and an Ação", "Ãbc", "我们在学校",
        "Привет, мир", "Ελληνικά", "cafe\u0301", "👩‍👩‍👧 ok", "100 Å = 10 nm", "a\tb\fc",
        "Mojibake such as naÃ¯ve comes of reading UTF-8 as Latin-1.",
    ],
)  # fmt: skip
def test_straight_text_is_not_repaired(text):
    assert repaired(text) == text


def test_white_space():
    assert with_plain_space("a \n\n\n\nb\t\nc\r\nd  ") == "a\n\nb\nc\nd"
    assert with_plain_space("\n \n a\n") == "a"
    assert with_plain_space("a  \nb") == "a  \nb"  # Markdown's line break
    assert with_plain_space("a  \n\nb") == "a\n\nb"
    assert with_plain_space("    return x") == "    return x"
    assert with_plain_space("a\n```\nx \n\n\n\ny\n```\n\n") == "a\n```\nx \n\n\n\ny\n```"
    assert with_plain_space("a `b \nc` d \n") == "a `b \nc` d"
    assert (
        with_plain_space("def f():\n    pass\n\n\ndef g():\n    pass\n") == "def f():\n    pass\n\n\ndef g():\n    pass"
    )


TEXT = st.lists(
    st.sampled_from(
        ["Sure! ", "Here is the list:", "\n", "\n\n\n", " ", "  \n", "```", "~~~\n", "`", "The moon is far. ",
         "x = 1;", "Ã¯", "I hope this helps! ",
         "Let me know if you have any questions.", "\r\n", "\xa0", "However, it", "é",
         "\ufeff", "- a",
         "As an AI language model, I don't have feelings. "]
    ),
    min_size=1, max_size=12,
).map("".join)  # fmt: skip


@given(TEXT, TEXT)
def test_cleaning_twice_changes_nothing_more_and_nothing_is_left_empty(asked, response):
    once = clean(row(response, asked)).row
    if once is not None:
        again = clean(once)
        assert again.row == once and not again.changes
        assert not response.strip() or once.response.strip()


@given(st.text(max_size=60), st.text("ab \n\t=ï¯Ã", max_size=40))
def test_fenced_code_stays_as_it_is(prose, code):
    block = f"```\n{code}\n```"
    outcome = clean(row(f"It is so. {prose}\n\n{block}\n\nAnd so. "))
    assert outcome.row is None or "```" in prose or "~~~" in prose or "`" in prose or block in outcome.row.response


def test_switches_and_plain_text():
    text = " Sure! naÃ¯ve. I hope this helps! "
    assert Clean(False, False, False, False)(row(text)).row == row(text)
    only = Clean(repair=False, preambles=False, closings=True, white_space=False)(row("It is far. I hope this helps!"))
    assert only.row is not None and only.row.response == "It is far."
    plain = clean(Conversation.from_text("t:1", "Sure! naÃ¯ve. I hope this helps! "))
    assert plain.row is not None and plain.row.response == "Sure! naïve. I hope this helps!"


def test_the_stage_goes_to_other_processes():
    assert pickle.loads(pickle.dumps(clean)) == clean


@pytest.mark.parametrize(
    "piece", ["\n", " ", "`", "```\n", "a=b\n", "Sure! ", "x. Let me know if you ", "é", "Ã¯", "1 ", "a@b.", "("]
)
def test_long_hostile_texts_take_no_time(piece):
    text = piece * (20_000 // len(piece)) + "x"
    start = time.process_time()
    outcome = clean(row(text, text))
    Filter(personal="redact", personal_kinds=KINDS, min_relevance=0.1)(outcome.row or row(text, text))
    assert time.process_time() - start < 2  # 0.1 s and less; what grows with the square takes many
