"""Intervals against simulation and against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.base.random import stream
from tunesmith.evaluate.intervals import (
    paired_bootstrap,
    paired_interval,
    ratio,
    ratio_interval,
    score_interval,
    sums_interval,
)


def test_coverage_is_about_95_percent() -> None:
    draw, runs = stream(0, "coverage"), 400
    covered = {"score": 0, "difference": 0}
    for run in range(runs):
        base = draw.random(120) < 0.4
        tuned = np.where(draw.random(120) < 0.5, base, draw.random(120) < 0.8)  # correlated; truly 0.2 better
        alone = score_interval(base, samples=500, seed=run)
        paired = paired_bootstrap(base, tuned, samples=500, seed=run)
        covered["score"] += alone.low <= 0.4 <= alone.high
        covered["difference"] += paired.low <= 0.2 <= paired.high
    for count in covered.values():
        assert 0.92 <= count / runs <= 0.975


def test_rows_of_one_item_count_once() -> None:
    scores = (stream(1, "items").random(100) < 0.5).astype(float)
    items = [str(index) for index in range(100)]
    once = score_interval(scores, items)
    repeated = score_interval(np.tile(scores, 9), items * 9)
    unaware = score_interval(np.tile(scores, 9))
    assert repeated == pytest.approx(once)
    assert unaware.high - unaware.low == pytest.approx((once.high - once.low) / 3, rel=0.1)


def test_pairing_narrows_the_interval() -> None:
    base = (stream(2, "base").random(200) < 0.5).astype(float)
    tuned = base.copy()
    tuned[:10] = 1 - tuned[:10]
    paired = paired_bootstrap(base, tuned)
    assert paired.mean == pytest.approx(tuned.mean() - base.mean())
    assert paired.high - paired.low < 0.08 < score_interval(tuned).high - score_interval(tuned).low


def test_ratio_weighs_by_the_denominator_and_is_reproducible() -> None:
    nats, tokens = [3.0, 10.0, 1.0], [1, 9, 2]
    interval = ratio_interval(nats, tokens, seed=3)
    assert interval.mean == pytest.approx(14 / 12)
    assert interval == ratio_interval(nats, tokens, seed=3)
    assert interval.low < 14 / 12 < interval.high


def test_unanimous_items_still_leave_doubt() -> None:
    none, all_ = score_interval([0.0] * 150), score_interval([1.0] * 150)
    assert (none.low, all_.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 150)) and all_.low == pytest.approx(1 - none.high)
    same = paired_bootstrap([1.0, 0.0] * 20, [1.0, 0.0] * 20)
    assert same.low < 0 < same.high and same.mean == 0


def clustered(draw: np.random.Generator, items: int) -> tuple[np.ndarray, list[str]]:
    """Rows of 60 items, one to five each, that succeed and fail together; in the mean 0.7 succeed."""
    rows = draw.integers(1, 6, items)
    chance = np.repeat(draw.beta(0.7, 0.3, items), rows)
    return (draw.random(len(chance)) < chance).astype(float), [str(item) for item in np.repeat(range(items), rows)]


@pytest.mark.slow
@pytest.mark.parametrize("items", [40, 100])
def test_coverage_of_clustered_rows_over_1000_runs(items: int) -> None:
    runs, covered = 1000, np.zeros(3)
    for run in range(runs):
        draw = stream(run, "clustered", items)
        base, groups = clustered(draw, items)
        tuned = np.where(draw.random(len(base)) < 0.05, 1 - base, base)  # few rows change: truly 0.02 worse
        other = np.where(draw.random(len(base)) < 0.4, 1.0, base)  # many do: truly 0.12 better
        found = [
            (score_interval(base, groups, samples=1000, seed=run), 0.7),
            (paired_bootstrap(base, tuned, groups, samples=1000, seed=run), -0.02),
            (paired_bootstrap(base, other, groups, samples=1000, seed=run), 0.12),
        ]
        covered += [interval.low <= truth <= interval.high for interval, truth in found]
    assert ((covered >= 0.93 * runs) & (covered <= 0.97 * runs)).all(), covered


def test_three_changed_rows_of_thirty_prove_nothing() -> None:
    base = np.array([1.0] * 27 + [0.0] * 3)
    better = paired_bootstrap(base, np.ones(30))
    assert better.mean == pytest.approx(0.1) and better.low <= 0


def test_corpus_scores_are_resampled_by_their_sums() -> None:
    draw = stream(4, "sums")
    counts = draw.integers(0, 9, size=(50, 2)).astype(float) + np.array([0, 20])
    items = [str(place // 2) for place in range(50)]
    found = sums_interval(counts, lambda sums: (sums[..., 0] / sums[..., 1]) ** 2, items)
    assert found.mean == pytest.approx((counts[:, 0].sum() / counts[:, 1].sum()) ** 2)
    # A monotone function of a ratio: percentiles of draws are mapped, whatever the function.
    plain = sums_interval(counts, ratio, items)
    assert found.low == pytest.approx(plain.low**2, rel=0.02) and found.high == pytest.approx(plain.high**2, rel=0.02)
    same = paired_interval(counts, counts, ratio, items)
    assert same.mean == 0 and same.low < 0 < same.high
