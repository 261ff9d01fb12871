"""Seeded splits: a validation side to choose by, and three levels of generalisation to report.

The test of a run is what is held out at three levels: new items, new phrasings, new clusters. Validation is another
part of the items; early stopping and the best checkpoint are chosen by it, so that what is reported was not chosen by.

What is held out is chosen by a hash of its own name and the seed, so that the choice does not depend on the order of
the rows, and rows that are added leave the others where they were, but for few (see `items` and `strata`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from tunesmith.base.errors import UserError
from tunesmith.base.random import seed_of
from tunesmith.data.items import Chooser, Items, note_share
from tunesmith.data.ledger import Drop
from tunesmith.data.relatives import Relatives, flan_pairs, relatives_of
from tunesmith.data.rows import Labelled
from tunesmith.data.sources.formats import nearest
from tunesmith.data.strata import Indices, Lengths, share_of

STAGE = "split"
STRATA = 4

Row = TypeVar("Row", bound=Labelled)


@dataclass(frozen=True, slots=True)
class Split(Generic[Row]):
    """The rows of each side, those that may be on none, and what a person should know of it."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    new_items: tuple[Row, ...]
    new_phrasings: tuple[Row, ...]
    new_clusters: tuple[Row, ...]
    drops: tuple[Drop, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def places(self) -> dict[str, tuple[Row, ...]]:
        """The sides by name, as the ledger calls them."""
        names = ("train", "validation", "new_items", "new_phrasings", "new_clusters")
        return {name: getattr(self, name) for name in names}


def split(
    rows: Sequence[Row],
    *,
    clusters: Sequence[str] = (),
    relatives: Relatives | None = None,
    phrasings: float = 0.0,
    items: float = 0.0,
    folds: tuple[int, int] | None = None,
    validation: float = 0.0,
    alike: Indices | None = None,
    lengths: Lengths | None = None,
    strata: int = STRATA,
    seed: int,
) -> Split[Row]:
    """Hold out whole `clusters`, a fraction of the phrasings of each task, and a fraction of the items of each cluster.

    relatives: clusters that are not trained either, as they give a held-out one away, see `relatives_of`.
    folds: instead of `items`, (how many, which): the items are cut into that many folds, and this one is held out.
    alike: of each row a number; rows with the same one (near-duplicates) stay on one side, as those of one item do.
    lengths: of each row; held-out items of a cluster have about the lengths of all, over `strata` parts.

    Rows of one item (`Conversation.item`, or the prompt where it is "") stay on one side. A held-out phrasing or
    cluster can share its item, and any held-out row its prompt, with a row that is trained: such rows are dropped,
    since they would measure memory. A task with one phrasing and a cluster with one item keep all of it in train;
    of a few, too few for a whole one, one is held out or none, by chance, so that the fraction holds over many.

    Raises UserError for a cluster that does not exist, a fraction outside [0, 1), a fold that there is not, fewer items
    than folds, and when nothing is left to train.
    """
    _check(rows, clusters, {"phrasings": phrasings, "items": items, "validation": validation}, folds)
    notes: list[str] = []
    related = _related(rows, clusters, relatives, notes)
    apart = {*clusters, *related}
    ordinary = [number for number, row in enumerate(rows) if row.cluster not in apart]
    held_phrasings = _held_phrasings([rows[number] for number in ordinary], phrasings, seed, notes)
    ordinary = [number for number in ordinary if _phrasing(rows[number]) not in held_phrasings]

    found = Items.of(rows, alike, lengths if strata > 1 else None)
    pools = found.pools(ordinary, rows)
    chooser = Chooser(seed, strata, found.keys, notes)
    held = chooser.fold(pools, *folds) if folds else chooser.share(pools, items, "items")
    left = {cluster: pool.without(held) for cluster, pool in pools.items()}
    validated = chooser.share(left, validation, "validation")

    def side_of(row: Row, unit: int) -> str:
        if row.cluster in clusters:
            return "new_clusters"
        if _phrasing(row) in held_phrasings:
            return "new_phrasings"
        return "new_items" if unit in held else "validation" if unit in validated else "train"

    sides, units, drops = _placed(rows, found.unit.tolist(), side_of, related)
    if not sides["train"]:
        raise UserError("all rows are held out, so none is left to train on. Hold out fewer clusters, or add data.")
    drops += _drop_trained(sides, units, notes)
    return Split(**{name: tuple(sides[name]) for name in ("train", *_REASONS)}, drops=tuple(drops), notes=tuple(notes))


def _placed(
    rows: Sequence[Row], units: Sequence[int], side_of: Callable[[Row, int], str], related: Mapping[str, str]
) -> tuple[dict[str, list[Row]], dict[str, list[int]], list[Drop]]:
    """The rows of each side, the unit of each of these, and the rows that give a held-out cluster away.

    units: of each row, the number of what stays together. related: such a cluster -> the one it gives away.
    """
    sides: dict[str, list[Row]] = defaultdict(list)
    placed: dict[str, list[int]] = defaultdict(list)
    drops = []
    for row, unit in zip(rows, units, strict=True):
        if row.cluster in related:
            why = f"{row.cluster} gives away {related[row.cluster]}, which is held out"
            drops.append(Drop(row.id, STAGE, "related_to_a_held_out_cluster", why))
        else:
            side = side_of(row, unit)
            sides[side].append(row)
            placed[side].append(unit)
    return sides, placed, drops


def _check(
    rows: Sequence[Labelled], clusters: Sequence[str], fractions: Mapping[str, float], folds: tuple[int, int] | None
) -> None:
    known = {row.cluster for row in rows}
    for cluster in clusters:
        if cluster not in known:
            raise UserError(
                f"data.hold_out.clusters names {cluster!r}, and no row belongs to it, so it would measure nothing. "
                f"{nearest(cluster, known)}"
            )
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise UserError(
                f"hold-out of {name}: {fraction} is no fraction. Give one from 0 (none) to below 1, as 0.05."
            )
    if folds and not 0 <= folds[1] < folds[0]:
        raise UserError(f"fold {folds[1]} of {folds[0]} folds does not exist: they are 0 to {folds[0] - 1}.")


def _related(
    rows: Iterable[Labelled], clusters: Sequence[str], relatives: Relatives | None, notes: list[str]
) -> dict[str, str]:
    """Clusters that are neither trained nor measured; a note of those that FLAN would not train, if nothing is said."""
    if not clusters and not relatives:
        return {}
    known = {row.cluster for row in rows}
    if relatives is not None:
        return relatives_of(clusters, known, relatives)
    for cluster, other in flan_pairs(clusters, known):
        if other not in clusters:
            notes.append(f"{other} is trained while {cluster} is held out; FLAN leaves it out (hold_out.relatives)")
    return {}


def _phrasing(row: Labelled) -> tuple[str, str, str]:
    return row.cluster, row.task, row.phrasing


def _held_phrasings(
    rows: Iterable[Labelled], fraction: float, seed: int, notes: list[str]
) -> Collection[tuple[str, str, str]]:
    """What is held out of each task with two phrasings or more; at least one phrasing is kept."""
    if not fraction:
        return ()
    tasks: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.phrasing:
            tasks[row.cluster, row.task].add(row.phrasing)
    held: set[tuple[str, str, str]] = set()
    for (cluster, task), found in tasks.items():
        names = sorted(found)
        group = ("phrasings", cluster, task)
        hashes = np.array([seed_of(seed, *group, name) for name in names], np.uint64)
        one = np.ones(len(names), np.int64)
        drawn = share_of(hashes, one, one.astype("f8"), fraction, strata=1, chance=seed_of(seed, *group))
        held.update((cluster, task, names[number]) for number in np.flatnonzero(drawn))
    single = sum(len(names) == 1 for names in tasks.values())
    if not tasks:
        notes.append("no row names its phrasing, so no phrasing is held out")
    elif single:
        notes.append(f"{single} of {len(tasks)} tasks have a single phrasing, which is trained and not held out")
    note_share(len(held), sum(map(len, tasks.values())), fraction, "phrasings", notes)
    return held


_REASONS = {
    "validation": "validation_row_with_a_training_prompt",
    "new_items": "held_out_item_with_a_training_prompt",
    "new_phrasings": "held_out_phrasing_of_a_training_item",
    "new_clusters": "held_out_cluster_row_of_a_training_item",
}


def _drop_trained(sides: dict[str, list[Row]], units: Mapping[str, list[int]], notes: list[str]) -> list[Drop]:
    """Take out of the held-out sides every row whose item, near-duplicate or prompt is trained."""
    trained: dict[Any, str] = {}
    for row, unit in zip(sides["train"], units["train"], strict=True):
        trained.setdefault(unit, row.id)
        trained.setdefault(row.prompt_key, row.id)
    drops = []
    for side, reason in _REASONS.items():
        kept = []
        for row, unit in zip(sides[side], units[side], strict=True):
            twin = trained.get(unit) or trained.get(row.prompt_key)
            if twin:
                drops.append(Drop(row.id, STAGE, reason, f"{twin} is trained"))
            else:
                kept.append(row)
        if sides[side] and not kept:
            notes.append(f"every row of {side} shares its item with a training row: {side} measures nothing")
        sides[side] = kept
    return drops
