"""Verbs and objects against what a person named, the same instructions as in `test_category`."""

from pathlib import Path

import pytest

from tunesmith.data.coverage.verbs import singular, verb_object


@pytest.mark.parametrize(("first", "least"), [(0, 0.95), (1, 0.85)], ids=["looked at", "not looked at"])
def test_verb_and_object_are_those_a_person_named(first, least):
    lines = (Path(__file__).parent / "instructions.tsv").read_text(encoding="utf-8").splitlines()[first::2]
    right = 0
    for _, named, asked, *_ in (line.split("\t") for line in lines):
        verb, _, noun = named.partition(" ")
        right += verb_object(asked) == (None if named == "-" else (verb, singular(noun)))
    assert right >= least * len(lines), f"{right} of {len(lines)}"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Write a C++ function that sorts.", ("write", "function")),
        ("Could you please give me three short ideas?", ("give", "idea")),
        ("Read the text and write a summary of it.", ("write", "summary")),
        ("I need a recipe for soup.", ("need", "recipe")),
        ("It rained. Describe the road!", ("describe", "road")),
        ("What is a fjord?", None),
        ("Think.", None),
        ("", None),
        ("!" * 100_000, None),
    ],
)
def test_examples(asked, found):
    assert verb_object(asked) == found


def test_plurals_lose_their_ending():
    plurals = {
        "stories": "story",
        "boxes": "box",
        "ideas": "idea",
        "class": "class",
        "bus": "bus",
        "analysis": "analysis",
    }
    assert {noun: singular(noun) for noun in plurals} == plurals
