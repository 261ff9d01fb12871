"""A log that asks other things is told from one that asks the same; failures that are alike are put together."""

import random

import numpy as np
import pytest

from tunesmith.evaluate.diagnose import Logged, diagnose, symptom

TOPICS = {
    "cook": ("Write a recipe with", "onions carrots butter flour lentils rice beans pepper".split()),
    "sort": ("Write a program that sorts", "numbers names dates records files tuples keys rows".split()),
    "letter": ("Draft a letter to", "landlord teacher bank neighbour doctor council cousin editor".split()),
}


def asked(topic: str, count: int, seed: int) -> list[str]:
    start, words = TOPICS[topic]
    drawn = random.Random(f"{topic} {seed}")
    return [f"{start} {' and '.join(drawn.sample(words, 3))} for {drawn.choice(words)}" for _ in range(count)]


def log_of(instructions: list[str], failed: bool = True) -> list[Logged]:
    return [Logged(f"log:{n}", text, "An answer.", failed=failed) for n, text in enumerate(instructions, 1)]


def test_a_log_of_the_same_kind_is_hardly_told_apart():
    trained = [text for topic in TOPICS for text in asked(topic, 100, 0)]
    found = diagnose(log_of([text for topic in TOPICS for text in asked(topic, 40, 1)]), trained)
    assert found.shift.low <= 0.55 and found.shift.auc < 0.65
    assert found.shift.foreign < 0.15


def test_a_log_of_another_kind_is_told_apart_and_its_rows_are_foreign():
    trained = asked("cook", 150, 0) + asked("sort", 150, 0)
    same, other = asked("cook", 60, 1), asked("letter", 30, 1)
    found = diagnose(log_of(same + other), trained)
    assert found.shift.auc > 0.65
    assert {near.instruction for near in found.shift.examples} <= set(other)
    assert found.shift.foreign == pytest.approx(1 / 3, abs=0.1)


def test_failures_are_clustered_named_and_counted():
    trained = asked("cook", 150, 0) + asked("sort", 150, 0)
    rows = log_of(asked("cook", 60, 1), failed=False) + log_of(asked("letter", 20, 1)) + log_of(asked("sort", 20, 1))
    found = diagnose(rows, trained)
    assert found.failures == 40
    named = {frozenset(cluster.words) & {"letter", "program"}: cluster for cluster in found.clusters}
    letters = next(cluster for words, cluster in named.items() if "letter" in words)
    assert sum(cluster.size for cluster in found.clusters) == 40
    assert letters.coverage == 0 and letters.rate == 1
    assert all("letter" in near.instruction for near in letters.examples)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("not following", Logged("a", "Name a fruit.", "  ")),
        ("not following", Logged("a", "Give me JSON with a name.", "name: Ann")),
        ("unclear", Logged("a", "Give me JSON with a name.", '```json\n{"name": "Ann"}\n```')),
        ("not following", Logged("a", "Give three ideas as a list.", "Sleep, read and walk.")),
        ("unclear", Logged("a", "Give three ideas as a list.", "- sleep\n- read\n- walk")),
        ("not following", Logged("a", "Answer in one word: the colour of snow?", "The colour of snow is white.")),
        ("not following", Logged("a", "Explain it in at most 5 words.", "It is a thing that people use to sit on.")),
        ("missing knowledge", Logged("a", "Who built it?", "I don't know who built it.")),
        ("missing knowledge", Logged("a", "How many?", "There are 12 of them.", "There are 15 of them.")),
        ("missing knowledge", Logged("a", "Who wrote it?", "John Miller", "Jane Austen")),
        ("not following", Logged("a", "Who wrote it?", "Well, " + "that is a long story. " * 9, "Jane Austen")),
        ("not following", Logged("a", "Help me.", "I'm sorry, but I can't help with that.")),
        ("unclear", Logged("a", "Who wrote it?", "Jane Austen", "Jane Austen")),
    ],
)
def test_what_a_failure_looks_like(kind, row):
    assert symptom(row)[0] == kind


def test_the_same_log_gives_the_same_diagnosis():
    trained, rows = asked("cook", 60, 0), log_of(asked("letter", 30, 1))
    assert diagnose(rows, trained) == diagnose(rows, trained)


def test_few_rows_are_enough():
    found = diagnose(log_of(["Sing.", "Dance."]), ["Cook a soup.", "Sort the list."])
    assert found.failures == 2 and len(found.clusters) == 1
    assert 0 <= found.shift.low <= found.shift.auc <= found.shift.high <= 1
    assert np.isfinite(found.shift.threshold)
