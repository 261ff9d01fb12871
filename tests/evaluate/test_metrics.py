"""Scores against hand-worked values, and which metric fits which task."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tunesmith.base.errors import UserError
from tunesmith.evaluate.metrics import (
    METRICS,
    answer_number,
    exact_match,
    metric_for,
    misfit,
    number,
    scores,
    task_metrics,
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


def test_metric_for_suits_the_task() -> None:
    assert metric_for(["yes", "no", "the blue one"]) == "exact_match"
    assert metric_for(["2 + 2 = 4 #### 4"] * 3 + ["no idea"]) == "number"
    assert metric_for([" ".join(["word"] * 40)] * 3) == "rouge_l"


def test_every_metric_is_one_for_the_expected_response() -> None:
    models = {"bertscore": lambda expected, responses: [1.0] * len(expected)}
    for metric in METRICS:
        same = ["The sum is 12.", "She counts all 12 of them."]
        found = scores(metric, [("", text, text) for text in same], models)
        assert found == pytest.approx([1, 1]), metric


def test_accuracy_finds_the_label_in_a_sentence() -> None:
    wanted = ["positive", "negative", "Positive.", "negative", "yes and no"]
    said = ["The answer is: Positive!", "positive or negative", "positive", "unsure", "Yes and no"]
    tasks = ["mood"] * 4 + ["other"]
    assert scores("accuracy", list(zip(tasks, wanted, said, strict=True))) == [1, 0, 1, 0, 1]


EXPECTED = {
    ("mood", ""): ["good", "bad"] * 20,
    ("sums", "add"): ["2 + 2 = 4 #### 4"] * 4,
    ("sums", "word"): ["four", "five", "six"],
    ("news", "summary"): [" ".join(f"w{k * j}" for k in range(40)) for j in range(9)],
}


def test_metrics_by_task_and_cluster() -> None:
    auto = {("mood", ""): "exact_match", ("sums", "add"): "number", ("sums", "word"): "exact_match"}
    auto[("news", "summary")] = "rouge_l"
    assert task_metrics(EXPECTED) == auto
    named = {"mood": "macro_f1", "sums": "exact_match", "add": "number", "default": "token_f1"}
    assert list(task_metrics(EXPECTED, named).values()) == ["macro_f1", "number", "exact_match", "token_f1"]
    assert task_metrics(EXPECTED, {"summary": "chrf"}) == auto | {("news", "summary"): "chrf"}


def test_metrics_that_do_not_fit_are_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"names 'moood'.*Did you mean 'mood'"):
        task_metrics(EXPECTED, {"moood": "macro_f1"})
    with pytest.raises(
        UserError, match=r"(?s)number on mood \(rows: 40\): no expected.*number on word.*{default: auto"
    ):
        task_metrics(EXPECTED, "number")


@pytest.mark.parametrize(
    ("metric", "expected", "reason"),
    [
        ("macro_f1", [f"a long story about {k}" for k in range(50)], "free text"),
        ("accuracy", ["word " * 13] * 50, "free text"),
        ("number", ["one", "two"], "no expected response holds a number"),
        ("rouge_2", ["yes", "no", "no"], "one word"),
        ("bleu", ["yes it is", "no"], "fewer than four words"),
        ("bleu", ["今日は天気がいいから散歩しましょう"] * 3, "no space between words"),
        ("rouge_l_stemmed", ["большой дом стоит"] * 3, "it is for English"),
        ("chrf", ["今日は天気がいい"], ""),
        ("macro_f1", ["yes", "no"] * 3, ""),
        ("number", ["the sum is 3", "none"], ""),
        ("bleu", ["a sentence of five words"], ""),
    ],
)
def test_misfit(metric: str, expected: list[str], reason: str) -> None:
    found = misfit(metric, expected)
    assert reason in found and bool(reason) == bool(found)
