"""95% intervals by the bootstrap, paired and clustered by item.

Rows made from one item (the same question in several phrasings) succeed and fail together, so whole items are drawn,
not rows. A difference is taken row by row before anything is drawn, which is what makes the comparison paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunesmith.base.random import stream

SAMPLES = 2000
_CELLS = 4_000_000  # draws held at a time


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def score_interval(
    scores: ArrayLike, groups: Sequence[str] | None = None, *, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """The mean of scores in 0..1, clustered by `groups`."""
    scores = np.asarray(scores, dtype=np.float64)
    interval = ratio_interval(scores, np.ones_like(scores), groups, samples=samples, seed=seed)
    return _open(interval, _count(scores, groups), 0.0, 1.0)


def paired_bootstrap(
    base: ArrayLike, tuned: ArrayLike, groups: Sequence[str] | None = None, *, samples: int = SAMPLES, seed: int = 0
) -> Interval:
    """The mean difference tuned minus base of scores in 0..1 on the same rows, clustered by `groups`."""
    difference = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    interval = ratio_interval(difference, np.ones_like(difference), groups, samples=samples, seed=seed)
    return _open(interval, _count(difference, groups), -1.0, 1.0)


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    groups: Sequence[str] | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Interval:
    """sum(numerators) / sum(denominators) with its percentile interval: nats per token, bits per byte, a mean.

    numerators, denominators: (rows,), at least one row, denominators positive.
    groups: (rows,) labels drawn as wholes; without them each row is drawn by itself.
    """
    top: NDArray[np.float64] = np.asarray(numerators, dtype=np.float64)
    bottom: NDArray[np.float64] = np.asarray(denominators, dtype=np.float64)
    assert top.shape == bottom.shape and top.ndim == 1 and len(top) > 0, "one numerator and denominator a row"
    mean = float(top.sum() / bottom.sum())
    if groups is not None:
        _, members = np.unique(np.asarray(groups), return_inverse=True)
        top, bottom = (np.bincount(members, values).astype(np.float64) for values in (top, bottom))
    random, count, ratios = stream(seed, "bootstrap"), len(top), []
    for start in range(0, samples, max(1, _CELLS // count)):
        draws = random.integers(count, size=(min(max(1, _CELLS // count), samples - start), count))
        ratios.append(top[draws].sum(1) / bottom[draws].sum(1))
    low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def _count(values: NDArray[np.float64], groups: Sequence[str] | None) -> int:
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
