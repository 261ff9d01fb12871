"""Which rows an epoch draws of a mixture: fresh ones before any comes again.

Each group is one endless stream of shuffled passes over its rows, and an epoch takes up where the one before stopped.
Where an epoch ends one pass and begins the next, the next begins with rows that the epoch has not drawn yet: no row is
drawn more often in an epoch than its group on average, rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tunesmith.base.random import stream
from tunesmith.data.mix import MixPlan, Share

Indices = npt.NDArray[np.int64]


def draw(
    plan: MixPlan,
    groups: Mapping[str, Sequence[int] | Indices],
    *,
    seed: int,
    epoch: int,
    tokens: Indices | None = None,
) -> Indices:
    """The rows of an epoch, shuffled: `groups` gives the row indices of each group, in any fixed order.

    tokens: of every row, 1 or more; needed where the plan counts tokens. What is drawn of a group then differs from the
    plan by less than its longest row, and over epochs together by no more.
    A pure function of its arguments. Its time grows with the number of epochs since an epoch last ended with a pass.
    """
    assert plan.unit == "rows" or tokens is not None, "a plan of tokens needs those of the rows"
    parts = [np.zeros(0, np.int64)]
    for name, share in plan.groups.items():
        rows = np.asarray(groups.get(name, ()), dtype=np.int64)
        sizes = tokens[rows] if plan.unit == "tokens" and tokens is not None else np.ones(len(rows), np.int64)
        assert sizes.sum() == share.size, f"group {name} was planned with {share.size} and has {sizes.sum()}"
        if share.drawn:
            parts += [rows[part] for part in _drawn(share, sizes, seed, name, epoch)]
    drawn = np.concatenate(parts)
    return drawn[stream(seed, "mix", "epoch", epoch).permutation(len(drawn))]


def _drawn(share: Share, sizes: Indices, seed: int, name: str, epoch: int) -> Iterator[Indices]:
    """The rows of an epoch, pass by pass. All numbers are places in the stream: rows, or tokens."""
    drawn, whole = share.drawn, share.size
    # Passes follow from those before them, as far back as one that an epoch began with.
    begun = epoch - epoch % (whole // math.gcd(drawn, whole))
    start, end = epoch * drawn, (epoch + 1) * drawn
    first = np.zeros(0, np.int64)  # drawn from the pass in which the epoch began that goes on into the next pass
    for number in range(begun * drawn // whole, -(-end // whole)):
        at, after = number * whole, (number + 1) * whole
        order = stream(seed, "mix", "group", name, number).permutation(len(sizes))
        going_on = at // drawn  # the epoch at the beginning of this pass
        head = (going_on + 1) * drawn - at
        if len(first) and head < whole:
            order = _seen_last(order, first, sizes, head)
        places = at + np.cumsum(sizes[order]) - sizes[order]
        if end > at and start < after:
            low, high = np.searchsorted(places, [start, end])
            yield order[low:high]
        last = (after - 1) // drawn  # the epoch at the end of this pass
        if last * drawn >= at:
            first = order[np.searchsorted(places, last * drawn) :] if last * drawn > at else first[:0]


def _seen_last(order: Indices, seen: Indices, sizes: Indices, head: int) -> Indices:
    """The order of a pass that begins, for `head`, with rows that are not among the seen ones, while there are any."""
    is_seen = np.zeros(len(order), np.bool_)
    is_seen[seen] = True
    later = is_seen[order]
    unseen_first = np.concatenate((order[~later], order[later]))
    count = int(np.searchsorted(np.cumsum(sizes[unseen_first]) - sizes[unseen_first], head))
    ahead = np.zeros(len(order), np.bool_)
    ahead[unseen_first[:count]] = True
    return np.concatenate((unseen_first[:count], order[~ahead[order]]))
