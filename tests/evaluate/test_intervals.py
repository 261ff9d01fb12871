"""Intervals against simulation and against what is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.base.random import stream
from tunesmith.evaluate.intervals import paired_bootstrap, ratio_interval, score_interval


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
