"""Categories against what a person says of instructions; half of these were looked at while cues were chosen."""

from pathlib import Path

import pytest

from tunesmith.base.conversation import Conversation, Message
from tunesmith.data.coverage.category import CATEGORIES, FAMILIES, Kind, category_named, category_of, recognised
from tunesmith.data.sources.read import read_source

HERE = Path(__file__).parent
SHARED = Path(__file__).parents[3] / "shared" / "data"


def labelled() -> list[list[str]]:
    lines = (HERE / "instructions.tsv").read_text(encoding="utf-8").splitlines()
    return [line.replace("\\n", "\n").split("\t") for line in lines]


def row(*said: tuple[str, str], cluster: str = "", **more: object) -> Conversation:
    return Conversation("a:1", tuple(Message(role, text) for role, text in said), cluster=cluster, **more)


@pytest.mark.parametrize(("first", "least"), [(0, 0.93), (1, 0.90)], ids=["looked at", "not looked at"])
def test_categories_are_those_a_person_gave(first, least):
    rows = labelled()[first::2]
    right = [
        recognised(f"{asked}\n\n{given}" if given else asked, answer) == category
        for category, _, asked, given, answer in rows
    ]
    assert sum(right) >= least * len(rows), f"{sum(right)} of {len(rows)}"


def test_the_labels_are_categories_and_spread_over_them():
    rows = labelled()
    assert len(rows) >= 150
    assert {category for category, *_ in rows} == set(CATEGORIES) - {"other", "tool_use"}
    assert len({asked for _, _, asked, given, _ in rows}) == len(rows)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize(
    ("file", "map", "category", "least"),
    [
        ("code_alpaca.json", {"instruction": "instruction", "input": "input", "response": "output"}, "coding", 0.98),
        ("gsm8k_train.jsonl", {"instruction": "question", "response": "answer"}, "math", 0.97),
        ("conversations_sharegpt.json", None, "conversation", 0.6),
        ("toolcalls_sharegpt.json", None, "tool_use", 0.6),
        ("roleplay.json", {"instruction": "instruction", "input": "input", "response": "response"}, "role_play", 0.35),
    ],
)
def test_real_rows_of_one_kind_are_recognised_as_that(file, map, category, least):
    rows = read_source("rows", str(SHARED / file), map=map).rows
    found = [category_of(each).category for each in rows]
    assert found.count(category) >= least * len(rows), f"{found.count(category)} of {len(rows)}"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_alpaca_rows_are_what_a_person_said():
    rows = {each.id: each for each in read_source("alpaca_1k", str(SHARED / "alpaca_1k.json")).rows}
    said = [line.split("\t") for line in (HERE / "alpaca_categories.tsv").read_text(encoding="utf-8").splitlines()]
    right = sum(category_of(rows[id]).category == category for id, category in said)
    assert len(said) >= 70
    assert right >= 0.7 * len(said), f"{right} of {len(said)}"


def test_what_a_cluster_is_called_comes_first():
    asked = row(("user", "Write a poem."), ("assistant", "Rain"), cluster="Arithmetic")
    assert category_of(asked) == Kind("math", given=True)
    assert category_of(asked, {"Arithmetic": "reasoning"}) == Kind("reasoning", given=True)
    assert category_of(row(("user", "Write a poem."), ("assistant", "Rain"), cluster="alpaca")) == Kind("writing")


def test_names_of_clusters():
    for name in CATEGORIES:
        assert category_named(name) == category_named(name.upper().replace("_", " ")) == name
    assert category_named("summarization") == "summarisation"
    assert category_named("my data") is None and category_named("") is None
    assert set(FAMILIES) < set(CATEGORIES)


def test_tools_and_turns_are_seen():
    tools = ({"name": "weather"},)
    assert category_of(row(("user", "Write a poem."), ("assistant", "Rain"), tools=tools)).category == "tool_use"
    result = row(("user", "Is it wet?"), ("tool", "rain"), ("assistant", "Yes."))
    assert category_of(result).category == "tool_use"
    once = (("user", "What is a fjord?"), ("assistant", "A long inlet."))
    assert category_of(row(*once)).category == "open_qa"
    assert category_of(row(*once, ("user", "Thanks!"), ("assistant", "Gladly."))).category == "conversation"


@pytest.mark.parametrize("text", ["", " \n", "x" * 200_000, "\ud800", "((((" * 5_000, "than than, " * 20_000])
def test_any_text_has_a_category(text):
    assert recognised(text, text) in CATEGORIES
