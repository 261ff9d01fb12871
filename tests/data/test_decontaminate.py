"""Items in rows, against a search for words in a row written out; and files of any format."""

import json
import pickle
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError
from tunesmith.data.duplicates.decontaminate import COMMON, Decontaminator
from tunesmith.data.duplicates.items import Item, item_of, read_items
from tunesmith.data.sources.read import read_source

REAL = Path(__file__).parents[3] / "shared" / "data"
QUESTION = (
    "Maria picks 14 baskets of red apples on Monday, then twice as many on Tuesday, and she gives 5 of all her baskets "
    "to a neighbour. How many baskets of apples are left for Maria to sell?"
)


def row(instruction, response="I see.", **more):
    return Conversation("r:1", (Message("user", instruction), Message("assistant", response, **more)))


def stage(*texts, kind="question", **options):
    return Decontaminator([Item(f"e:{n}", ((kind, text),)) for n, text in enumerate(texts, 1)], **options)


def test_whole_texts_whatever_their_form():
    found = stage(QUESTION)
    for text in (
        QUESTION,
        QUESTION.upper(),
        "Hello. " + QUESTION.replace(" ", " \n\t") + " Bye.",
        QUESTION.replace(",", ""),
    ):
        hit = found.find(row(text))
        assert (hit.item, hit.kind, hit.where, hit.how) == ("e:1", "question", 1, "the whole text")
        assert hit.span.startswith("maria picks 14") and hit.span.endswith("to sell")
    outcome = found(row("Fine?", QUESTION))
    assert outcome.row is None and outcome.reason == "contaminated"
    assert outcome.detail.startswith("e:1 (question) in message 2, the whole text: 'maria picks 14 baskets")
    assert found.find(row("Fine?", reasoning=QUESTION)).where == 2
    fine = row("Maria picks 14 baskets of something else")
    assert found(fine).row is fine


def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not():
    words = QUESTION.split()
    found = stage(QUESTION, near=1.0)
    for start in (0, 5, len(words) - 13):
        hit = found.find(row("x y " + " ".join(words[start : start + 13]) + " z"))
        assert hit.how == "13 words in a row" and len(hit.span.split()) == 13
        assert not found.find(row("x y " + " ".join(words[start : start + 12]) + " z"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_longest_runs_are_those_of_brute_force(seed):
    draw = random.Random(seed)
    item = [draw.choice("abcdefgh") + str(draw.randrange(40)) for _ in range(draw.randint(6, 40))]
    text = [f"z{k}" for k in range(30)]
    for _ in range(3):  # pieces of the item at random places
        start, at = draw.randrange(len(item)), draw.randrange(len(text))
        text[at:at] = item[start : start + draw.randint(1, 25)]
    longest = max(
        (
            size
            for size in range(1, len(item) + 1)
            for k in range(len(item) - size + 1)
            if within(item[k : k + size], text)
        ),
        default=0,
    )
    hit = stage(" ".join(item), near=1.0).find(row(" ".join(text)))
    if longest == len(item):
        assert hit.how == "the whole text"
    elif len(item) >= 13 and longest >= 13:
        assert hit.how == f"{longest} words in a row" and len(hit.span.split()) == longest
    else:
        assert hit is None or hit.how.startswith("100%")


def within(part, text):
    return f" {' '.join(part)} " in f" {' '.join(text)} "


def test_a_dropped_clause_does_not_hide_an_item():
    clipped = QUESTION.replace("then twice as many on Tuesday, ", "").replace("Monday", "monday")
    hit = stage(QUESTION).find(row(f"Solve this. {clipped}"))
    assert hit.how == "22 words in a row" and hit.span.startswith("and she gives")
    words = QUESTION.split()
    scattered = " ".join(" ".join([*words[k : k + 8], "oh"]) for k in range(0, len(words), 8))
    hit = stage(QUESTION, near=0.5).find(row(scattered))
    assert re.fullmatch(r"\d\d% of its 4-grams", hit.how) and hit.span.startswith("maria")
    assert not stage(QUESTION, near=0.9).find(row(scattered))


def test_short_texts_are_looked_for_whole():
    found = stage("What is the capital of France?", "Say hello")
    assert found.find(row("Tell me: what is the capital of France, please")).how == "the whole text"
    assert not found.find(row("Tell me what the capital of France is"))
    assert found.find(row("say, HELLO!")).item == "e:2"
    assert not found.find(row("please say hello"))


def test_short_answers_are_not_looked_for():
    answer = " ".join(f"step{k}" for k in range(20))
    item = Item("e:1", (("question", QUESTION), ("answer", "She has eighteen baskets left now")))
    assert not Decontaminator([item]).find(row("Hm", "She has eighteen baskets left now"))
    assert stage(answer, kind="answer").find(row("Hm", answer)).kind == "answer"
    assert not stage(answer, kind="answer", answers=False).find(row("Hm", answer))


def test_what_many_items_share_accuses_nobody():
    template = "Read the premise and the hypothesis below and say whether the one follows from the other, yes or no."
    items = [f"{template} Premise: number {k} {k + 1} {k + 2} is {k * 7} {k * 9} in all" for k in range(COMMON + 5)]
    found = stage(*items)
    assert not found.find(row(template + " Premise: something new that nobody has asked so far"))
    assert found.find(row(items[3])).item == "e:4"
    same = [f"{template} {'yes' if k % 2 else 'no'}" for k in range(50)]
    assert stage(*same).find(row(same[1])).how == "the whole text"


def test_messages_are_not_read_on_into_each_other():
    words = QUESTION.split()
    assert not stage(QUESTION, near=1.0).find(row(" ".join(words[:12]), " ".join(words[12:20])))


def test_a_stage_travels_and_an_empty_one_finds_nothing():
    found = pickle.loads(pickle.dumps(stage(QUESTION)))
    assert found.find(row(QUESTION)).item == "e:1"
    assert not Decontaminator([]).find(row(QUESTION)) and not stage("...").find(row("..."))
    with pytest.raises(DataError, match="share of an item"):
        stage(QUESTION, near=0)


def test_files_of_any_format(tmp_path):
    lines = [
        {"question": "How many?", "answer": "Two"},
        {"question_id": 4, "turns": ["First turn here", "Second turn here"]},
        {"stem": "Which of these?", "choices": [{"text": "red"}, {"text": "blue"}], "label": 1},
        {
            "messages": [
                {"role": "system", "content": "Be kind"},
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "A"},
            ]
        },
        {"text": "Only text"},
    ]
    path = tmp_path / "eval.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert read_items("e", path) == [
        Item("e:1", (("question", "How many?"), ("answer", "Two"))),
        Item("e:2", (("text", "First turn here"), ("text", "Second turn here"))),
        Item("e:3", (("text", "Which of these?"), ("text", "red"), ("text", "blue"))),
        Item("e:4", (("question", "Q"), ("answer", "A"))),
        Item("e:5", (("text", "Only text"),)),
    ]
    assert item_of(row("Q", "A")).texts == (("question", "Q"), ("answer", "A"))
    mapped = read_items("e", path, {"instruction": "stem", "response": "label"})
    assert mapped[2] == Item("e:3", (("question", "Which of these?"), ("answer", "1"))) and len(mapped) == 5
    (tmp_path / "bad.jsonl").write_text('{"question": "a"}\n{broken\n', encoding="utf-8")
    with pytest.raises(DataError, match="item 2 can't be read"):
        read_items("e", tmp_path / "bad.jsonl")
    (tmp_path / "none.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no evaluation items"):
        read_items("e", tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"no item has it\. .*stem"):
        read_items("e", path, {"instruction": "stam", "response": "label"})
    with pytest.raises(DataError, match=r"evaluation file .* names instruction, which is no whole item"):
        read_items("e", path, {"instruction": "stem"})
    with pytest.raises(DataError):
        read_items("e", tmp_path / "missing.jsonl")


@pytest.mark.skipif(not (REAL / "gsm8k_test.jsonl").exists(), reason="the shared real data is not there")
def test_real_items_are_found_and_real_rows_are_not_accused():
    items = read_items("gsm8k", REAL / "gsm8k_test.jsonl")[:300]
    found = Decontaminator(items)
    for item in items:
        assert found.find(row("Please answer. " + item.texts[0][1].swapcase().replace(" ", "  "))).item == item.id
    rows = read_source("alpaca", REAL / "alpaca_1k.json").rows
    assert not [found.find(one) for one in rows if found.find(one)]


def test_a_word_of_unknown_kind_says_nothing():
    """A benchmark's file may hold bare answers and categories in columns of any name."""
    stage = Decontaminator([Item("t:1", (("text", "no"), ("text", "writing"), ("text", "What is two plus two?")))])
    answered = Conversation("r:1", (Message("user", "Is it raining?"), Message("assistant", "No.")))
    asked = Conversation("r:2", (Message("user", "what is two plus two"), Message("assistant", "4")))
    assert stage(answered).row is answered and stage(asked).row is None
