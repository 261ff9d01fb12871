"""Curation: rows are cleaned, filtered, freed of evaluation items and of duplicates, each change and drop on record."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import DataError
from tunesmith.base.files import write_json
from tunesmith.base.parallel import cores, map_chunks
from tunesmith.base.progress import say
from tunesmith.data.curation.clean import Clean
from tunesmith.data.curation.filter import Filter
from tunesmith.data.curation.stage import Outcome, Stage
from tunesmith.data.duplicates.decontaminate import Decontaminator
from tunesmith.data.duplicates.dedup import Deduplicated, deduplicate, largest_groups, remove_known
from tunesmith.data.duplicates.items import read_items
from tunesmith.data.engine import Engine, Staged, StoredRows, Table, labels_of, run_stages, write_rows
from tunesmith.data.ledger import Drop, Ledger
from tunesmith.data.rows import RowLabel
from tunesmith.data.sources.read import read_source
from tunesmith.model.encoder import TextEmbedding
from tunesmith.recipe.curation import Decontaminate, Dedup
from tunesmith.recipe.data import Data

EMBEDDING = "data.dedup.embedding"
REPLAYED = "decontaminate, replay"
DUPLICATES = "duplicates.json"  # the largest groups, for the report
PHRASINGS_TOLD = 0.01  # part of the rows that near-duplicates in other phrasings may be without a warning
_TEXTS_AT_ONCE = 200


def is_wanted(data: Data) -> bool:
    """Whether the recipe asks for any stage of curation."""
    return any(stage is not None for stage in (data.clean, data.filter, data.decontaminate, data.dedup))


@contextmanager
def curated(
    rows: Sequence[Conversation], data: Data, folder: Path, ledger: Ledger
) -> Iterator[tuple[StoredRows, list[RowLabel]]]:
    """The rows that are left by the stages that the recipe asks for, in their order, and what a split knows of each.

    folder: for the tables of rows while they are worked on; it goes at the end.
    Raises DataError if a stage leaves none.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder.parent / DUPLICATES).unlink(missing_ok=True)
    try:
        table = _staged(rows, data, folder, ledger)
        with StoredRows(table, folder / "rows.arrow") as stored:
            kept = np.arange(len(table))
            if data.dedup:
                kept = _deduplicated(stored, table, data, data.dedup, ledger, folder.parent)
            left = set(kept.tolist())
            yield stored, [label for label in labels_of(table) if label.place in left]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _staged(rows: Sequence[Conversation], data: Data, folder: Path, ledger: Ledger) -> Table:
    """The rows that the stages which look at one row at a time let through."""
    engine = Engine(ray=data.engine.ray, processes=data.engine.processes)
    table = write_rows(folder / "read", rows)
    # Evaluation items are looked for before personal data is put out of sight: an item may hold some itself.
    wanted = {name: getattr(data, name) for name in ("clean", "decontaminate", "filter")}
    stages = {name: section.model_dump() for name, section in wanted.items() if section}
    if not stages:
        return table
    staged = run_stages(engine, table, partial(_stages, stages), list(stages), folder / "staged")
    _enter(staged, ledger)
    return staged.kept


def _stages(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Stage]:
    """The stages by name, made anew in each process. Plain text is not theirs: it has no response."""
    stages: dict[str, Stage] = {}
    for name, values in given.items():
        if name == "decontaminate":
            stages[name] = _decontaminator(**values)
        else:
            stages[name] = _OfConversations(Clean(**values) if name == "clean" else Filter(**values))
    return stages


def _decontaminator(against: Sequence[Mapping[str, Any]], near: float, answers: bool) -> Decontaminator:
    items = [item for file in against for item in read_items(file["name"], file["path"], file["map"])]
    return Decontaminator(items, near=near, answers=answers)


@dataclass(frozen=True, slots=True)
class _OfConversations:
    stage: Stage

    def __call__(self, row: Conversation) -> Outcome:
        return Outcome(row) if row.is_text else self.stage(row)


def _enter(staged: Staged, ledger: Ledger) -> None:
    dropped = pa.Table.from_batches(staged.dropped.batches(), staged.dropped.schema)
    ledger.remark(staged.changes, staged.flags)
    what, flags = staged.changes.read(["row", "stage", "what"]), staged.flags.read(["stage", "flag"])
    for name, (read, kept, _) in staged.steps.items():
        changed = what.filter(pc.equal(what["stage"], name))
        flagged = flags.filter(pc.equal(flags["stage"], name))
        rows = pc.count_distinct(changed["row"]).as_py()
        told = [f"{what} ({count:,})" for what, count in _counted(changed["what"])]
        told += [f"flagged {flag.replace('_', ' ')} ({count:,})" for flag, count in _counted(flagged["flag"])]
        _entered(ledger, name, read, kept, dropped.filter(pc.equal(dropped["stage"], name)), rows, told)


def _counted(values: pa.ChunkedArray) -> list[tuple[str, int]]:
    counts = [(entry["values"], entry["counts"]) for entry in pc.value_counts(values).to_pylist()]
    return sorted(counts, key=lambda pair: -pair[1])


def free_of_items(texts: Sequence[Conversation], asked: Decontaminate, ledger: Ledger) -> list[Conversation]:
    """The replayed texts that hold no evaluation item. None may be left: a run can do without replay."""
    find = _decontaminator(**asked.model_dump())
    chunks = map_chunks(lambda some: [find(text) for text in some], texts, _TEXTS_AT_ONCE, cores())
    pairs = list(zip(texts, (outcome for chunk in chunks for outcome in chunk), strict=True))
    drops = [Drop(text.id, REPLAYED, out.reason, out.detail) for text, out in pairs if out.row is None]
    kept = [text for text, outcome in pairs if outcome.row is not None]
    ledger.step(REPLAYED, len(texts), len(kept), drops, note="plain text that is replayed")
    if drops:
        say(f"Replay: {len(kept):,} texts, {len(drops):,} left out that hold evaluation items.")
    return kept


def _deduplicated(
    stored: StoredRows, table: Table, data: Data, dedup: Dedup, ledger: Ledger, folder: Path
) -> NDArray[np.int64]:
    options: dict[str, Any] = dedup.model_dump(include={"exact", "near", "ngram", "semantic", "over"})
    if dedup.embedding:
        options["embed"] = TextEmbedding(dedup.embedding, EMBEDDING)
    names = [source.name for source in data.sources]
    found = deduplicate(stored, **options, keep=dedup.keep, score=dedup.score, sources=names, workers=cores())
    write_json(folder / DUPLICATES, largest_groups(stored, found))
    kept = _left(found, np.arange(len(stored)), "dedup", ledger)
    if (count := _in_other_words(found, table)) >= PHRASINGS_TOLD * len(stored):
        say(
            f"Warning: {count:,} of the near-duplicates ask in another phrasing than the row that was kept for them: "
            f"over a long text, phrasings of one task are alike. To train on all of them, leave near-duplicates in "
            f"(data.dedup.near: null), or set the threshold higher, as 0.95."
        )
    for number, path in enumerate(dedup.reference, 1):
        reference = read_source(f"reference {number}", path)
        found = remove_known(stored.picked(kept), reference.rows, **options, workers=cores())
        if reference.rejected:
            found.notes.append(f"{len(reference.rejected):,} rows of it can't be read and were compared with none")
        kept = _left(found, kept, f"dedup, {Path(path).name}", ledger)
    return kept


def _in_other_words(found: Deduplicated, table: Table) -> int:
    """How many near-duplicates name another phrasing than the row that was kept for them does."""
    near = np.array([drop.reason == "near_duplicate" for drop in found.drops], np.bool_)
    if not near.any():
        return 0
    places = np.setdiff1d(np.arange(len(table)), found.kept)[near]
    labels = table.read(["task", "phrasing"])
    dropped, kept = labels.take(pa.array(places)), labels.take(pa.array(found.instead[near]))
    both_named = pc.and_(pc.not_equal(dropped["phrasing"], ""), pc.not_equal(kept["phrasing"], ""))
    unlike = pc.or_(*(pc.not_equal(dropped[name], kept[name]) for name in ("task", "phrasing")))
    return pc.sum(pc.and_(both_named, unlike)).as_py() or 0


def _left(found: Deduplicated, kept: NDArray[np.int64], stage: str, ledger: Ledger) -> NDArray[np.int64]:
    groups = [
        f"{sum(sizes.values()):,} groups of {reason.replace('_', ' ')}s, the largest of {max(sizes):,} rows"
        for reason, sizes in found.groups.items()
        if sizes
    ]
    _entered(ledger, stage, len(kept), len(found.kept), found.drops, 0, [*groups, *found.notes])
    left: NDArray[np.int64] = kept[found.kept]
    return left


def _entered(
    ledger: Ledger, stage: str, read: int, kept: int, drops: list[Drop] | pa.Table, changed: int, notes: Sequence[str]
) -> None:
    note = "; ".join(notes)
    ledger.step(stage, read, kept, drops, changed, note)
    reasons = ledger.summary()[-1]["reasons"]
    listed = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in reasons.items())
    what = [f"{kept:,} rows", *([f"{len(drops):,} left out ({listed})"] if drops else [])]
    what += [f"{changed:,} changed"] if changed else []
    say(f"{stage.capitalize()}: {', '.join(what)}." + (f" {note}." if note else ""))
    if not kept:
        raise DataError(
            f"data.{stage.partition(',')[0]} leaves none of {read:,} rows, so there is nothing to train on. Why: "
            f"{listed}. Loosen that stage, or look at examples with the stage left out."
        )
