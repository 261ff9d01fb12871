"""Scores against hand-worked values and a textbook longest common subsequence."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tunesmith.base.random import python_stream
from tunesmith.evaluate.metrics import (
    METRICS,
    answer_number,
    common_subsequence,
    exact_match,
    metric_for,
    number,
    rouge_l,
    token_f1,
)


@pytest.mark.parametrize(
    ("expected", "response", "score"),
    [
        ("Paris", " paris.\n", 1),
        ("in the  park", "In the\npark", 1),
        ("yes", "no", 0),
        ("yes", "yes, it is", 0),
        ("3.5", "35", 0),
        ("", "", 1),
        ("STRASSE", "straße", 1),
    ],
)
def test_exact_match(expected: str, response: str, score: float) -> None:
    assert exact_match(expected, response) == score


def test_token_f1_counts_repeated_words() -> None:
    assert token_f1("the cat sat", "The cat, the cat") == pytest.approx(2 * 2 / 7)
    assert token_f1("red", "blue") == 0
    assert token_f1("Ärger", "ärger!") == 1
    assert token_f1("", "") == 1 and token_f1("a", "") == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("it costs $1,234.50.", "1234.50"),
        ("2 and 3 make 5", "5"),
        ("3 + 4 = 7\n#### 7", "7"),
        ("#### 42\nThat took 3 steps", "42"),
        ("so the answer is -3", "-3"),
        ("5-3", "3"),
        ("1,2,3", "3"),
        (".5", "0.5"),
        ("no numbers ####", None),
        ("7 ####", "7"),
    ],
)
def test_answer_number(text: str, value: str | None) -> None:
    assert answer_number(text) == (None if value is None else Decimal(value))


def test_number_compares_values_and_falls_back_to_the_text() -> None:
    assert number("worked\n#### 1,200", "I get 1200.0") == 1
    assert number("#### 3", "three") == 0
    assert number("none of them", "None of them.") == 1


def test_rouge_l_known_value() -> None:
    # The example of the rouge-score package: 5 common words of 9 and 8.
    target, prediction = "The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."
    assert rouge_l(target, prediction) == pytest.approx(2 * 5 / 17)
    assert rouge_l("", "") == 1 and rouge_l("a", "") == 0


def test_common_subsequence_equals_the_textbook_algorithm() -> None:
    draw = python_stream(0, "subsequences")
    for _ in range(300):
        a, b = ([draw.choice("abcde") for _ in range(draw.randint(0, 80))] for _ in range(2))
        assert common_subsequence(a, b) == textbook_subsequence(a, b)


def textbook_subsequence(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for j, y in enumerate(b):
            row[j + 1] = before[j] + 1 if x == y else max(before[j + 1], row[j])
    return row[-1]


def test_metric_for_suits_the_task() -> None:
    assert metric_for(["yes", "no", "the blue one"]) == "exact_match"
    assert metric_for(["2 + 2 = 4 #### 4"] * 3 + ["no idea"]) == "number"
    assert metric_for([" ".join(["word"] * 40)] * 3) == "rouge_l"


def test_every_metric_is_one_for_the_expected_response() -> None:
    for score in METRICS.values():
        assert score("The sum is 12.", "The sum is 12.") == 1
