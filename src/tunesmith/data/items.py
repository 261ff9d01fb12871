"""The items of each cluster, and which of them are held out: a share of each cluster's, or one fold of all.

Items that must stay together (near-duplicates) are one unit, which is held out as a whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tunesmith.base.errors import UserError
from tunesmith.base.random import seed_of
from tunesmith.data.duplicates.groups import Groups
from tunesmith.data.rows import Labelled
from tunesmith.data.strata import WHOLE, Hashes, Indices, Lengths, folds_of, share_of

NAMED = 20  # clusters in a note

Key = str | bytes  # what an item is named by: its own name, or the hash of its prompt


@dataclass(frozen=True, slots=True)
class Pool:
    """The items of one cluster that may be held out, by units, which stay together.

    units: their numbers. starts: where the items of each begin in `items`, the items' numbers.
    lengths: of each unit, 0 where they don't count.
    """

    units: Indices
    starts: Indices
    items: Indices
    lengths: Lengths

    @classmethod
    def of(cls, units: Indices, items: Indices, lengths: Lengths) -> Pool:
        """units: of each item, in order. lengths: of every unit by its number."""
        found, starts = np.unique(units, return_index=True)
        return cls(found, starts, items, lengths[found])

    @property
    def sizes(self) -> Indices:
        return np.diff(self.starts, append=len(self.items))

    def without(self, held: Collection[int]) -> Pool:
        """The pool without the units that are `held`."""
        left = ~np.isin(self.units, np.fromiter(held, np.int64, len(held)))
        sizes = self.sizes
        ends = np.cumsum(sizes[left])
        return Pool(self.units[left], ends - sizes[left], self.items[np.repeat(left, sizes)], self.lengths[left])


@dataclass(frozen=True, slots=True)
class Items:
    """keys: the names of all items. item, unit: of each row, the number of its item and of what stays together.
    lengths: of each row, None where they don't count.
    """

    keys: list[Key]
    item: Indices
    unit: Indices
    lengths: Lengths | None

    @classmethod
    def of(cls, rows: Sequence[Labelled], alike: Indices | None, lengths: Lengths | None) -> Items:
        numbers: dict[Key, int] = {}
        found = (numbers.setdefault(row.item or row.prompt_key, len(numbers)) for row in rows)
        item = np.fromiter(found, np.int64, len(rows))
        groups = Groups(len(numbers))
        if alike is not None:
            _, first, group = np.unique(alike, return_index=True, return_inverse=True)
            others = np.flatnonzero(item[first[group]] != item)
            groups.join(zip(item[first[group[others]]].tolist(), item[others].tolist(), strict=True))
        return cls(list(numbers), item, groups.roots(item), lengths)

    def pools(self, chosen: Sequence[int], rows: Sequence[Labelled]) -> dict[str, Pool]:
        """The items of the `chosen` rows by cluster, that of a unit's first row."""
        some = np.array(chosen, np.int64)
        units, first = np.unique(self.unit[some], return_index=True)
        codes: dict[str, int] = {}
        of_unit = [codes.setdefault(rows[number].cluster, len(codes)) for number in some[first].tolist()]
        items, first = np.unique(self.item[some], return_index=True)
        unit = self.unit[some[first]]
        code = np.array(of_unit, np.int64)[np.searchsorted(units, unit)]
        order = np.lexsort((items, unit, code))
        bounds = np.searchsorted(code[order], np.arange(len(codes) + 1))
        mean = self._mean_lengths(some)
        parts = [order[start:end] for start, end in pairwise(bounds)]
        return {name: Pool.of(unit[part], items[part], mean) for name, part in zip(codes, parts, strict=True)}

    def _mean_lengths(self, chosen: Indices) -> Lengths:
        """Of each unit by its number."""
        if self.lengths is None:
            return np.zeros(len(self.keys))
        counts = np.bincount(self.unit[chosen], minlength=len(self.keys))
        sums = np.bincount(self.unit[chosen], weights=self.lengths[chosen], minlength=len(self.keys))
        mean: Lengths = sums / np.maximum(counts, 1)
        return mean


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses units of every cluster, and notes where it can't do what was asked."""

    seed: int
    strata: int
    keys: list[Key]
    notes: list[str]

    def share(self, pools: Mapping[str, Pool], fraction: float, what: str) -> set[int]:
        """What is held out of each cluster with two units or more; at least one is kept."""
        held: set[int] = set()
        few: list[str] = []
        crowded: list[str] = []
        items = 0
        for cluster, pool in pools.items() if fraction else ():
            sizes = pool.sizes
            count = int(sizes.sum())
            chance = seed_of(self.seed, what, cluster)
            hashes = self._hashes(pool, what, cluster)
            chosen = share_of(hashes, sizes, pool.lengths, fraction, strata=self.strata, chance=chance)
            held.update(pool.units[chosen].tolist())
            items += int(sizes[chosen].sum())
            if count and not chosen.any():
                (few if fraction * count < 1 or count < 2 else crowded).append(cluster)
        kind = "items" if what == "items" else f"items for {what}"
        self._note(few, f"fewer than {max(2, math.ceil(1 / fraction))} items each" if few else "", kind)
        self._note(crowded, "nearly all of their rows are near-duplicates (hold_out.near), and are trained", kind)
        if fraction:
            note_share(items, sum(int(pool.sizes.sum()) for pool in pools.values()), fraction, kind, self.notes)
        return held

    def fold(self, pools: Mapping[str, Pool], of: int, fold: int) -> set[int]:
        """The units of one fold."""
        items = sum(int(pool.sizes.sum()) for pool in pools.values())
        if items < of:
            raise UserError(
                f"data.hold_out.folds: {of} folds need {of} items or more, and there are {items}. Ask for fewer folds, "
                f"or add data."
            )
        held: set[int] = set()
        few, large = [], []
        for cluster, pool in pools.items():

            def offset(number: int, cluster: str = cluster) -> float:
                return seed_of(self.seed, "folds", cluster, number) / WHOLE

            sizes = pool.sizes
            hashes = self._hashes(pool, "folds", cluster)
            folds = folds_of(hashes, sizes, pool.lengths, of, strata=self.strata, offset=offset)
            held.update(pool.units[folds == fold].tolist())
            if sizes.sum() < of:
                few.append(cluster)
            elif sizes.max() > 2 * sizes.sum() / of:
                large.append(cluster)
        if few:
            self.notes.append(f"fewer than {of} items in {_listed(few)}: not every fold measures them")
        if large:
            self.notes.append(f"near-duplicates in {_listed(large)} fill more than a fold: those folds are uneven")
        return held

    def _hashes(self, pool: Pool, what: str, cluster: str) -> Hashes:
        """Of each unit, the lowest of its items': so it is the same whatever their order."""
        found = (seed_of(self.seed, what, cluster, self.keys[item]) for item in pool.items.tolist())
        hashes = np.fromiter(found, np.uint64, len(pool.items))
        return np.minimum.reduceat(hashes, pool.starts) if len(hashes) else hashes

    def _note(self, clusters: Sequence[str], why: str, kind: str) -> None:
        if clusters:
            self.notes.append(f"no {kind} are held out of {_listed(clusters)}: {why}")


def _listed(clusters: Iterable[str]) -> str:
    names = sorted(clusters)
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def note_share(held: int, of: int, fraction: float, what: str, notes: list[str]) -> None:
    """Note a share that is less than half of what was asked, or more than twice as much."""
    asked = fraction * of
    if not asked / 2 <= held <= asked * 2:
        notes.append(
            f"{held:,} of {of:,} {what} are held out, {held / of:.1%} where {fraction:.1%} was asked: "
            f"a group too small to give a whole one gives one by chance, and a group of one gives none"
        )
