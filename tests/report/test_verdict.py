from __future__ import annotations

from typing import Any

import pytest

from tunesmith.report import comparison, verdict
from tunesmith.report.verdict import Verdict

LEVELS = ("new_items", "new_phrasings", "new_clusters")


def row(low: float, high: float, n: int = 200) -> dict[str, Any]:
    mean = (low + high) / 2
    base = {"chat": {"mean": 0.2, "low": 0.15, "high": 0.25}, "plain": {"mean": 0.3, "low": 0.25, "high": 0.35}}
    tuned = {"mean": 0.3 + mean, "low": 0.2, "high": 0.9}
    return {"n": n, "base": base, "tuned": tuned, "difference": {"mean": mean, "low": low, "high": high}}


def judged(*differences: tuple[float, float], clusters: dict[str, Any] | None = None, **more: Any) -> Verdict:
    levels = {
        key: {"overall": row(*d), "clusters": clusters or {}, "tasks": clusters or {}}
        for key, d in zip(LEVELS, differences, strict=False)
    }
    return of({"generation": {"metric": "exact_match", "levels": levels}, **more})


def of(evaluation: dict[str, Any]) -> Verdict:
    losses, _ = comparison.loss_levels(evaluation)
    return verdict.verdict(comparison.levels(evaluation), losses, verdict.forgetting(evaluation), evaluation)


BETTER, WORSE, UNCLEAR = (0.1, 0.3), (-0.3, -0.1), (-0.1, 0.1)


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([BETTER, BETTER, BETTER], "Better on new items, new phrasings and new task clusters."),
        ([BETTER], "Better on new items."),
        ([BETTER, BETTER, UNCLEAR], "Better on new items and new phrasings, unclear on new task clusters."),
        ([BETTER, UNCLEAR, WORSE], "Mixed better on new items, worse on new task clusters, unclear on new phrasings."),
        ([WORSE, UNCLEAR], "Worse on new items, unclear on new phrasings."),
        ([UNCLEAR, UNCLEAR], "Unclear on new items and new phrasings."),
    ],
)
def test_the_headline(differences: list[tuple[float, float]], said: str) -> None:
    found = judged(*differences)
    assert f"{found.word} {found.rest}" == said


def test_an_interval_that_touches_no_change_is_unclear() -> None:
    assert judged((0.0, 0.2)).word == "Unclear"
    assert judged((1e-9, 0.2)).word == "Better"
    assert comparison.judge(comparison.Estimate(0.5)) == "unclear"


def test_the_amount_is_against_the_better_base() -> None:
    found = judged(BETTER)
    assert found.sentences[0] == (
        "On 200 new items the tuned model scores 50.0% (exact match) and its base at best 30.0%, with a plain prompt: "
        "20.0 points more (95% interval +10.0 to +30.0)."
    )
    assert "20.0 points less (95% interval −30.0 to −10.0)" in judged(WORSE).sentences[0]


def test_the_price_in_forgetting() -> None:
    lost = {
        "documents": 9,
        "bytes": 900,
        "base": 1.0,
        "tuned": 1.05,
        "rise": 0.05,
        "low": 0.04,
        "high": 0.06,
        "limit": 0.02,
    }
    broken = judged(BETTER, forgetting={**lost, "held": False})
    assert broken.rest == "on new items, but it forgot too much."
    assert "+5.0% bits per byte" in broken.sentences[1] and "over the limit of 2.0%" in broken.sentences[1]
    assert "within the limit of 10.0%" in judged(BETTER, forgetting={**lost, "limit": 0.1, "held": True}).sentences[1]
    none = judged(BETTER, forgetting={**lost, "rise": 0.0, "low": -0.01, "high": 0.01, "limit": None, "held": True})
    assert none.sentences[1].startswith("No forgetting shows: +0.0%")
    assert "not measured" in judged(BETTER).sentences[1]


def test_what_the_average_hides_is_said() -> None:
    found = judged(BETTER, clusters={"sums": row(-0.2, -0.1), "names": row(*BETTER)}, warnings=["a warning"])
    assert found.cautions == [
        "Worse than the base on new items: sums (−15.0 points).",
        "The worst-hit task is sums, on new items: −15.0 points.",
        "A warning.",
    ]


def test_few_items_are_told_once() -> None:
    warning = "an interval of fewer than 30 items is rough: new items (29 items). Hold out more (data.hold_out)."
    levels = {"new_items": {"overall": row(*BETTER, n=29)}}
    assert of({"generation": {"levels": levels}, "warnings": [warning]}).cautions == ["A" + warning[1:]]
    fell = {"n": 29, "base": 2.0, "tuned": 1.5, "difference": {"mean": -0.5, "low": -0.6, "high": -0.4}}
    losses = {"new_items": {"overall": fell}}
    assert of({"loss": losses, "warnings": [warning]}).cautions == ["A" + warning[1:]]


def test_response_loss_decides_where_nothing_was_generated() -> None:
    fell = {
        "n": 100,
        "tokens": 2000,
        "base": 2.0,
        "tuned": 1.5,
        "difference": {"mean": -0.5, "low": -0.6, "high": -0.4},
    }
    found = of({"loss": {"new_items": {"overall": fell, "clusters": {}}}})
    assert found.word == "Better" and "from 2.000 to 1.500 nats per token, −0.500" in found.sentences[0]
    assert of({}).word == "Not measured"


def test_rows_come_worst_first_and_long_tables_keep_both_ends() -> None:
    clusters = {f"c{i:03}": row(i / 500 - 0.1, i / 500) for i in range(100)}
    table = comparison.levels(
        {"generation": {"levels": {"new_items": {"overall": row(*BETTER), "clusters": clusters}}}}
    )[0].clusters
    names = [r.name for r in table.rows]
    assert names[0] == "c000" and names[-1] == "c099" and names == sorted(names)
    assert len(names) + table.omitted == 100
    losses = {
        name: {"n": 5, "base": 2.0, "tuned": 2.0 + d, "difference": {"mean": d, "low": d - 0.1, "high": d + 0.1}}
        for name, d in (("fell", -1.0), ("rose", 0.5))
    }
    levels, ticks = comparison.loss_levels({"loss": {"new_items": {"overall": losses["fell"], "clusters": losses}}})
    assert [r.name for r in levels[0].clusters.rows] == ["rose", "fell"]
    assert [r.judgement for r in levels[0].clusters.rows] == ["worse", "better"]
    assert ticks[-1] >= 2.5
