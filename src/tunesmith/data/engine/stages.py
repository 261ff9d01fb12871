"""Stages of curation over a table of rows: what goes on, and the records of what was dropped, changed and flagged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import TunesmithError
from tunesmith.data.curation.stage import Outcome, Stage
from tunesmith.data.engine.canonical import SCHEMA, from_batch, to_batch
from tunesmith.data.engine.engine import Engine
from tunesmith.data.engine.parts import BatchFunction
from tunesmith.data.engine.table import Table


def _strings(*names: str) -> pa.Schema:
    return pa.schema([pa.field(name, pa.string(), nullable=False) for name in names])


DROPPED = _strings("row", "stage", "reason", "detail")
CHANGES = _strings("row", "stage", "what", "before", "after")
FLAGS = _strings("row", "stage", "flag")
_OUTPUTS = {"kept": SCHEMA, "dropped": DROPPED, "changes": CHANGES, "flags": FLAGS}

MakeStages = Callable[[], Mapping[str, Stage]]
"""Called once in each process, picklable: the stages by name, in the order in which rows go through them."""


@dataclass(frozen=True, slots=True)
class Staged:
    """kept: the rows that went on, in order. dropped (row, stage, reason, detail), changes (row, stage, what, before,
    after), flags (row, stage, flag): in order of the rows. steps: rows read, kept and dropped of each stage.
    """

    kept: Table
    dropped: Table
    changes: Table
    flags: Table
    steps: dict[str, tuple[int, int, int]]


def run_stages(
    engine: Engine,
    rows: Table,
    make: MakeStages,
    names: Sequence[str],
    into: Path,
    *,
    name: str = "stages",
    places: NDArray[np.integer] | None = None,
) -> Staged:
    """All rows through some stages, one after the other, in one pass. names: those of the stages that `make` gives.

    places: only these rows go through, see `Engine.map_batches`; the others are left out and are not told of here.
    Raises TunesmithError when a row is unaccounted for, and for a stage that fails, with its name and the row's.
    """
    found = engine.map_batches(rows, partial(_staging, make, tuple(names)), into, _OUTPUTS, name=name, places=places)
    counted: dict[str, int] = {}
    for batch in found["dropped"].batches(["stage"]):
        for entry in pc.value_counts(batch.column("stage")).to_pylist():
            counted[entry["values"]] = counted.get(entry["values"], 0) + entry["counts"]
    steps, read = {}, len(rows) if places is None else len(places)
    for stage in names:
        dropped = counted.get(stage, 0)
        steps[stage] = (read, read - dropped, dropped)
        read -= dropped
    assert read == len(found["kept"]), "what the stages dropped is what is missing"
    return Staged(steps=steps, **found)


def _staging(make: MakeStages, names: tuple[str, ...]) -> BatchFunction:
    stages = make()
    assert tuple(stages) == names, f"stages {tuple(stages)} where {names} were announced"

    def work(batch: pa.RecordBatch, place: int) -> dict[str, pa.RecordBatch]:
        before = from_batch(batch)
        after: list[Conversation | None] = []
        records: dict[str, list[tuple[str, ...]]] = {"dropped": [], "changes": [], "flags": []}
        for row in before:
            after.append(_through(row, stages, records))
        kept = {"kept": _kept(batch, before, after)}
        return kept | {name: _records(of, _OUTPUTS[name]) for name, of in records.items()}

    return work


def _kept(
    batch: pa.RecordBatch, before: Sequence[Conversation], after: Sequence[Conversation | None]
) -> pa.RecordBatch:
    """The rows that go on. Those that no stage changed, most by far, are copied as they lie in the batch."""
    changed: list[Conversation] = []
    places = []
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if new is old:
            places.append(place)
        elif new is not None:
            places.append(len(before) + len(changed))
            changed.append(new)
    both = pa.Table.from_batches([batch, *([to_batch(changed)] if changed else [])], SCHEMA)
    taken = both.take(pa.array(places, pa.int64())).combine_chunks()
    return taken.to_batches()[0] if places else pa.RecordBatch.from_pylist([], SCHEMA)


def _through(
    row: Conversation, stages: Mapping[str, Stage], records: dict[str, list[tuple[str, ...]]]
) -> Conversation | None:
    id = row.id
    for name, stage in stages.items():
        outcome = _outcome(row, name, stage)
        records["changes"] += [(id, name, change.what, change.before, change.after) for change in outcome.changes]
        records["flags"] += [(id, name, flag) for flag in outcome.flags]
        if outcome.row is None:
            records["dropped"].append((id, name, outcome.reason, outcome.detail))
            return None
        row = outcome.row
    return row


def _outcome(row: Conversation, name: str, stage: Stage) -> Outcome:
    try:
        outcome = stage(row)
    except TunesmithError:
        raise
    except Exception as error:
        raise TunesmithError(
            f"stage {name} failed on row {row.id}: {type(error).__name__}: {error}. This is a bug of Tunesmith; please "
            f"report it with the row. Leaving the row out of its source lets the run go on."
        ) from error
    if outcome.row is not None and outcome.row.id != row.id:
        raise TunesmithError(f"stage {name} made row {outcome.row.id} of row {row.id}: rows keep their ids.")
    if outcome.row is None and not outcome.reason:
        raise TunesmithError(f"stage {name} dropped row {row.id} without a reason: the ledger needs one.")
    return outcome


def _records(records: list[tuple[str, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*records, strict=True) if records else [()] * len(schema)
    # A detail may quote broken input; what UTF-8 can't hold is written as its escape.
    safe = [[value.encode("utf-8", "backslashreplace").decode() for value in column] for column in columns]
    return pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in safe], schema=schema)
