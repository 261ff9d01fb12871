"""Seeded splits at three levels of generalisation: new items, new phrasings, new clusters.

What is held out is chosen by a hash of its own name and the seed, so that the choice does not depend on the order of
the rows, and rows that are added leave the others where they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tunesmith.base.errors import UserError
from tunesmith.base.random import seed_of
from tunesmith.data.formats import nearest
from tunesmith.data.ledger import Drop

STAGE = "split"

Key = str | bytes  # what an item is named by: its own name, or the hash of its prompt
Name = TypeVar("Name", str, Key)


class Labelled(Protocol):
    """What a split has to know of a row: a `Conversation`, or a `RowLabel` that stands for one."""

    @property
    def id(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def phrasing(self) -> str: ...
    @property
    def item(self) -> str: ...
    @property
    def prompt_key(self) -> bytes: ...


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
    phrasings: float = 0.0,
    items: float = 0.0,
    validation: float = 0.0,
    seed: int,
) -> Split[Row]:
    """Hold out whole `clusters`, a fraction of the phrasings of each task, and a fraction of the items of each cluster.

    Rows of one item (`Conversation.item`, or the prompt where it is "") stay on one side. A held-out phrasing or
    cluster can share its item, and any held-out row its prompt, with a row that is trained: such rows are dropped,
    since they would measure memory. A task with one phrasing and a cluster with one item keep all of it in train;
    of a few, too few for a whole one, one is held out or none, by chance, so that the fraction holds over many.

    Raises UserError for a cluster that does not exist, a fraction outside [0, 1), and when nothing is left to train.
    """
    _check(rows, clusters, {"phrasings": phrasings, "items": items, "validation": validation})
    notes: list[str] = []
    ordinary = [row for row in rows if row.cluster not in clusters]
    held_phrasings = _held_phrasings(ordinary, phrasings, seed, notes)
    ordinary = [row for row in ordinary if _phrasing(row) not in held_phrasings]

    prompts = {row.id: row.prompt_key for row in rows}
    keys: dict[str, Key] = {row.id: row.item or prompts[row.id] for row in rows}
    cluster_of: dict[Key, str] = {}
    for row in ordinary:
        cluster_of.setdefault(keys[row.id], row.cluster)
    held_items = _held_items(cluster_of, items, seed, "items", notes)
    left = {key: cluster for key, cluster in cluster_of.items() if key not in held_items}
    validated = _held_items(left, validation, seed, "validation", notes)

    sides: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.cluster in clusters:
            sides["new_clusters"].append(row)
        elif _phrasing(row) in held_phrasings:
            sides["new_phrasings"].append(row)
        elif keys[row.id] in held_items:
            sides["new_items"].append(row)
        else:
            sides["validation" if keys[row.id] in validated else "train"].append(row)
    if not sides["train"]:
        raise UserError("all rows are held out, so none is left to train on. Hold out fewer clusters, or add data.")

    drops = _drop_trained(sides, keys, prompts, notes)
    return Split(**{name: tuple(sides[name]) for name in ("train", *_REASONS)}, drops=tuple(drops), notes=tuple(notes))


def _check(rows: Sequence[Labelled], clusters: Sequence[str], fractions: Mapping[str, float]) -> None:
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
    for (cluster, task), names in tasks.items():
        drawn = _drawn(names, fraction, seed, "phrasings", cluster, task)
        held.update((cluster, task, name) for name in drawn)
    single = sum(len(names) == 1 for names in tasks.values())
    if not tasks:
        notes.append("no row names its phrasing, so no phrasing is held out")
    elif single:
        notes.append(f"{single} of {len(tasks)} tasks have a single phrasing, which is trained and not held out")
    _note_share(len(held), sum(map(len, tasks.values())), fraction, "phrasings", notes)
    return held


def _held_items(
    cluster_of: Mapping[Key, str], fraction: float, seed: int, what: str, notes: list[str]
) -> Collection[Key]:
    """What is held out of each cluster with two items or more; at least one item is kept."""
    if not fraction:
        return ()
    clusters: dict[str, list[Key]] = defaultdict(list)
    for key, cluster in cluster_of.items():
        clusters[cluster].append(key)
    single = sorted(cluster for cluster, keys in clusters.items() if len(keys) == 1)
    if single:
        names = ", ".join(single[:20]) + (", …" if len(single) > 20 else "")
        notes.append(f"a single item in {names}: it is trained and nothing held out for {what}")
    held = {key for cluster, keys in clusters.items() for key in _drawn(keys, fraction, seed, what, cluster)}
    _note_share(len(held), len(cluster_of), fraction, "items" if what == "items" else f"items for {what}", notes)
    return held


def _drawn(names: Collection[Name], fraction: float, seed: int, *group: str) -> list[Name]:
    """The names of a group that are held out. A group too small to give a whole one gives one by chance, as often as
    keeps the share over many such groups: 5% of pairs is one of every tenth pair."""
    if len(names) < 2:
        return []
    share = fraction * len(names)
    count = min(round(share), len(names) - 1) if share >= 1 else int(seed_of(seed, *group) < share * 2**64)
    return sorted(names, key=lambda name: seed_of(seed, *group, name))[:count]


def _note_share(held: int, of: int, fraction: float, what: str, notes: list[str]) -> None:
    asked = fraction * of
    if not asked / 2 <= held <= asked * 2:
        notes.append(
            f"{held:,} of {of:,} {what} are held out, {held / of:.1%} where {fraction:.1%} was asked: "
            f"a group too small to give a whole one gives one by chance, and a group of one gives none"
        )


_REASONS = {
    "validation": "validation_row_with_a_training_prompt",
    "new_items": "held_out_item_with_a_training_prompt",
    "new_phrasings": "held_out_phrasing_of_a_training_item",
    "new_clusters": "held_out_cluster_row_of_a_training_item",
}


def _drop_trained(
    sides: dict[str, list[Row]], keys: Mapping[str, Key], prompts: Mapping[str, bytes], notes: list[str]
) -> list[Drop]:
    """Take out of the held-out sides every row whose item or prompt is trained."""
    trained = {key: row.id for row in reversed(sides["train"]) for key in (keys[row.id], prompts[row.id])}
    drops = []
    for side, reason in _REASONS.items():
        kept = []
        for row in sides[side]:
            twin = trained.get(keys[row.id]) or trained.get(prompts[row.id])
            if twin:
                drops.append(Drop(row.id, STAGE, reason, f"{twin} is trained"))
            else:
                kept.append(row)
        if sides[side] and not kept:
            notes.append(f"every row of {side} shares its item with a training row: {side} measures nothing")
        sides[side] = kept
    return drops
