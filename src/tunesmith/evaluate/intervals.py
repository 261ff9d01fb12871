"""95% intervals by the bootstrap, paired and clustered by item.

Rows made from one item (the same question in several phrasings) succeed and fail together, so whole items are drawn,
not rows. Whatever is scored is a function of sums over rows (a mean: of scores and of ones; BLEU: of counts of
n-grams), so a draw costs one sum. A comparison is paired: each draw takes the same items of both sides.

Plain percentiles of few items are too narrow, so they are widened as Student's t widens the normal's (Hesterberg 2015,
section 4.3). A score near the end of its scale is skewed: its percentiles are bias-corrected and accelerated (BCa,
Efron 1987), with the acceleration from leaving out one item at a time. A difference may hang on few items that changed
at all, where BCa is sure too early: on each side the wider of the percentile and of Student's t on the bootstrap's
standard error is taken. docs/metrics.md has the coverage of these and of what was tried beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from tunesmith.base.random import stream

SAMPLES = 2000
_CELLS = 4_000_000  # draws held at a time

Numbers = NDArray[np.float64]
Score = Callable[[Numbers], Numbers]
"""Sums of rows, (..., k), to scores, (...)."""


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def ratio(sums: Numbers) -> Numbers:
    """The first sum over the second: the score of means and of nats per token."""
    quotient: Numbers = sums[..., 0] / sums[..., 1]
    return quotient


def score_interval(
    scores: ArrayLike, groups: Sequence[str] | None = None, *, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """The mean of scores in 0..1, clustered by `groups`."""
    return sums_interval(_with_ones(scores), ratio, groups, samples=samples, seed=seed)


def paired_bootstrap(
    base: ArrayLike, tuned: ArrayLike, groups: Sequence[str] | None = None, *, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """The mean difference tuned minus base of scores in 0..1 on the same rows, clustered by `groups`."""
    return paired_interval(_with_ones(base), _with_ones(tuned), ratio, groups, samples=samples, seed=seed)


def sums_interval(
    counts: Numbers, score: Score, groups: Sequence[str] | None = None, *, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """A score in 0..1 of the sums of `counts` (rows, k)."""
    return _open(_bootstrap(counts, score, groups, samples, seed, change=False), _count(counts, groups), 0.0, 1.0)


def paired_interval(
    base: Numbers,
    tuned: Numbers,
    score: Score,
    groups: Sequence[str] | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Interval:
    """The difference tuned minus base of scores in 0..1, each of the sums of counts (rows, k) on the same rows."""
    width = base.shape[1]

    def difference(sums: Numbers) -> Numbers:
        return score(sums[..., width:]) - score(sums[..., :width])

    both = np.concatenate([base, tuned], axis=1)
    found = _bootstrap(both, difference, groups, samples, seed, change=True)
    return _within(_open(found, _count(both, groups), -1.0, 1.0), -1.0, 1.0)


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Interval:
    """sum(numerators) / sum(denominators) with its interval: nats per token, bits per byte, a mean.

    numerators, denominators: (rows,), at least one row, denominators positive.
    groups: (rows,) labels drawn as wholes; without them each row is drawn by itself.
    """
    top: Numbers = np.asarray(numerators, dtype=np.float64)
    bottom: Numbers = np.asarray(denominators, dtype=np.float64)
    assert top.shape == bottom.shape and top.ndim == 1, "one numerator and denominator a row"
    return _bootstrap(np.stack([top, bottom], axis=1), ratio, groups, samples, seed, change=True)


def _bootstrap(
    counts: Numbers, score: Score, groups: Sequence[str] | None, samples: int, seed: int, *, change: bool
) -> Interval:
    assert counts.ndim == 2 and len(counts) > 0, "at least one row"
    items = counts if groups is None else _summed(counts, groups)
    total = items.sum(0)
    estimate = float(score(total))
    if len(items) == 1:
        return Interval(estimate, estimate, estimate)
    drawn = np.sort(_draws(items, score, samples, seed))
    low, high = (
        _bounds_of_change(estimate, drawn, len(items)) if change else _bounds(estimate, drawn, score(total - items))
    )
    # Both come from draws; the estimate itself must not lie outside.
    return Interval(estimate, min(low, estimate), max(high, estimate))


def _summed(counts: Numbers, groups: Sequence[str]) -> Numbers:
    """The counts of each group, (groups, k)."""
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((members.max() + 1, counts.shape[1]))
    np.add.at(sums, members, counts)
    return sums


def _draws(items: Numbers, score: Score, samples: int, seed: int) -> Numbers:
    """Scores of `samples` draws of as many items as there are, with repetition."""
    random, count, found = stream(seed, "bootstrap"), len(items), []
    size = max(1, _CELLS // count)
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        draws = random.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count)
        found.append(score(times @ items))
    return np.concatenate(found)


def _bounds(estimate: float, drawn: Numbers, left_out: Numbers) -> tuple[float, float]:
    """BCa bounds at widened percentiles. left_out: the score without each item."""
    below = (np.count_nonzero(drawn < estimate) + np.count_nonzero(drawn <= estimate)) / (2 * len(drawn))
    bias = float(ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    influence = left_out.mean() - left_out
    spread = float((influence**2).sum()) ** 1.5
    skew = float((influence**3).sum()) / (6 * spread) if spread > 0 else 0.0

    def bound(z: float) -> float:
        share = ndtr(bias + (bias + z) / max(1 - skew * (bias + z), 1e-9))
        return float(np.quantile(drawn, share))

    wide = _widening(len(left_out)) * float(stdtrit(len(left_out) - 1, 0.975))
    return bound(-wide), bound(wide)


def _bounds_of_change(estimate: float, drawn: Numbers, count: int) -> tuple[float, float]:
    """On each side the wider of the widened percentile and of Student's t on the standard error of the draws."""
    t = float(stdtrit(count - 1, 0.975))
    tail = float(ndtr(-_widening(count) * t))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    error = _widening(count) * float(drawn.std(ddof=1))
    return min(float(low), estimate - t * error), max(float(high), estimate + t * error)


def _widening(count: int) -> float:
    """Draws of `count` items spread less than samples do, by this factor."""
    return math.sqrt(count / (count - 1))


def _with_ones(scores: ArrayLike) -> Numbers:
    values: Numbers = np.asarray(scores, dtype=np.float64)
    return np.stack([values, np.ones_like(values)], axis=1)


def _count(values: Numbers, groups: Sequence[str] | None) -> int:
    return len(values) if groups is None else len(set(groups))


def _open(interval: Interval, count: int, least: float, most: float) -> Interval:
    """Where all items agree, drawing from them shows no doubt at all, though a few items prove little.

    Then each bound moves out by the share of unlike items that would stay unseen among `count` with probability 2.5%.
    """
    if interval.high - interval.low > 1e-12:
        return interval
    doubt = 1 - 0.025 ** (1 / count)
    mean = interval.mean
    return Interval(mean, mean - doubt * (mean - least), mean + doubt * (most - mean))


def _within(interval: Interval, least: float, most: float) -> Interval:
    return Interval(interval.mean, max(interval.low, least), min(interval.high, most))
