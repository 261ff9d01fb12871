"""Which of a group's items are held out: a share of them, or a fold, spread evenly over their lengths.

Items are cut into strata of equal size by length, and within a stratum the hash of an item's name decides. So held-out
items are as long as the others are, and an item that is added moves others only near the borders of strata.

Items that must stay together (near-duplicates) are one unit. A unit with more items than are to be held out is trained,
so that a chain of near-duplicates never takes a whole group with it.

Shapes: all arrays are over the units of one group. hashes: of their names, uint64. sizes: items of each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]
Lengths = NDArray[np.float64]
Chosen = NDArray[np.bool_]

WHOLE = 2.0**64  # one more than the largest hash


def share_of(hashes: Hashes, sizes: Indices, lengths: Lengths, fraction: float, *, strata: int, chance: int) -> Chosen:
    """The units that are held out: `fraction` of all items, but not all of them.

    chance: a hash of the group's name. A group too small to give a whole item gives one by chance, as often as keeps
    the share over many such groups: 5% of pairs is one of every tenth pair. So does a group of large units only.
    """
    held = np.zeros(len(sizes), np.bool_)
    items = int(sizes.sum())
    if len(sizes) < 2:
        return held
    share = fraction * items
    count = min(round(share), items - 1) if share >= 1 else 0
    quota = 0
    for part, upto in _strata(hashes, sizes, lengths, min(strata, count)) if count else ():
        quota = round(count * upto / items) - int(sizes[held].sum())
        held[_fitting(part, sizes, quota)] = True
    first = int(np.argmin(hashes))
    if not held.any() and 2 * sizes[first] <= items:
        held[first] = chance < share / sizes[first] * WHOLE
    return held


def folds_of(
    hashes: Hashes, sizes: Indices, lengths: Lengths, of: int, *, strata: int, offset: Callable[[int], float]
) -> Indices:
    """The fold, 0 to of - 1, in which each unit is held out; folds differ by one item a stratum, or by a unit's size.

    offset: of each stratum by its number, 0 <= offset < 1, so that the few items of small groups fall on all folds.
    """
    folds = np.zeros(len(sizes), np.int64)
    items = int(sizes.sum())
    for number, (part, _) in enumerate(_strata(hashes, sizes, lengths, max(1, min(strata, items // of)))):
        starts = np.cumsum(sizes[part]) - sizes[part]
        folds[part] = np.minimum((starts + offset(number)) * of / sizes[part].sum(), of - 1).astype(np.int64)
    return folds


def _strata(hashes: Hashes, sizes: Indices, lengths: Lengths, count: int) -> list[tuple[Indices, int]]:
    """The units of each stratum in the order of their hashes, shortest first, and how many items there are up to it."""
    by_length = np.lexsort((hashes, lengths)) if count > 1 else np.argsort(hashes, kind="stable")
    ends = np.cumsum(sizes[by_length])
    middles = ends - (sizes[by_length] + 1) / 2  # of one item: its rank
    number = (middles * count / ends[-1]).astype(np.int64)
    found = []
    for stratum in range(count):
        part = by_length[number == stratum]
        if len(part):
            upto = int(ends[number <= stratum][-1])
            found.append((part[np.argsort(hashes[part], kind="stable")], upto))
    return found


def _fitting(units: Indices, sizes: Indices, quota: int) -> list[int]:
    """Units in their order, as far as they fit."""
    taken: list[int] = []
    for unit in units.tolist():
        if quota < 1:
            break
        if sizes[unit] <= quota:
            taken.append(unit)
            quota -= int(sizes[unit])
    return taken
