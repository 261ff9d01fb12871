"""The ledger: at every step rows read = rows kept + rows dropped, and the fate of every row can be looked up.

It is kept in columns: of millions of rows, an object for each would take more memory than all stages together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tunesmith.base.errors import DataError, TunesmithError, UserError
from tunesmith.base.files import read_json, write_json, written_aside
from tunesmith.base.random import seed_of

DROPS, PLACES, DRAWS = "drops.parquet", "places.parquet", "draws.parquet"
CHANGES, FLAGS = "changes.parquet", "flags.parquet"
_AT_ONCE = 50_000  # drops that are objects at a time
_WORD = pa.dictionary(pa.int32(), pa.string())  # of few values, many times
_DROPS = pa.schema([("row", pa.string()), ("stage", _WORD), ("reason", _WORD), ("detail", pa.string())])
_PLACES = pa.schema([("row", pa.string()), ("place", _WORD)])


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that went no further: its id, the stage that dropped it, a short reason word, and the particulars."""

    row: str
    stage: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a row. changes: dicts of stage, what, before, after. flags: of stage, flag. drop: None if kept.

    place: where it ended up, None if it was dropped. times: how often it is trained on, None where nothing is planned.
    """

    changes: tuple[dict[str, str], ...] = ()
    flags: tuple[dict[str, str], ...] = ()
    drop: Drop | None = None
    place: str | None = None
    times: int | None = None

    @property
    def is_known(self) -> bool:
        return bool(self.changes or self.flags or self.drop or self.place)

    def told(self) -> list[str]:
        """As sentences."""
        told = [
            f"changed by stage {change['stage']}: {change['what']}: {change['before']!r} -> {change['after']!r}"
            for change in self.changes
        ]
        told += [f"flagged by stage {flag['stage']}: {flag['flag']}" for flag in self.flags]
        if drop := self.drop:
            told.append(f"dropped by stage {drop.stage}: {drop.reason}" + (f" ({drop.detail})" if drop.detail else ""))
        if self.place:
            told.append(f"kept, and used for {self.place}")
        if self.times is not None:
            often = "once" if self.times == 1 else f"{self.times} times"
            told.append(
                f"trained {often} in all epochs" if self.times else "never trained: the mixture did not draw it"
            )
        return told


class Batches(Protocol):
    """A table of which a part is in memory at a time."""

    @property
    def schema(self) -> pa.Schema: ...
    def batches(self) -> Iterator[pa.RecordBatch]: ...


class Ledger:
    """What became of every row of a run, kept in `folder`.

        steps.json        every step: rows read, kept, dropped by reason, changed
        drops.parquet     row, stage, reason, detail
        changes.parquet   row, stage, what, before, after; of rows that were dropped later too
        flags.parquet     row, stage, flag
        places.parquet    row, place: train, new_items, replay ...
        draws.parquet     row, times: how often it is trained on in all epochs

    Nothing of it is there before `save`, so that a run that dies leaves the ledger of the run before whole. Draws come
    later, with the plan of the training.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._steps: list[dict[str, Any]] = []
        self._drops = _DROPS.empty_table()
        self._places = _PLACES.empty_table()
        self._dropped, self._placed = _Ids.of(self._drops["row"]), _Ids.of(self._places["row"])
        self._remarks: dict[str, Path] = {}

    @classmethod
    def load(cls, folder: Path) -> Ledger:
        """Read a saved ledger. Raises TunesmithError when `folder` holds none."""
        ledger = cls(folder)
        try:
            ledger._steps = read_json(folder / "steps.json")
            ledger._drops = pq.read_table(folder / DROPS, columns=_DROPS.names).cast(_DROPS)
            ledger._places = pq.read_table(folder / PLACES, columns=_PLACES.names).cast(_PLACES)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise TunesmithError(
                f"no readable ledger in {folder} ({error}), so what became of its rows is unknown. "
                f"Name the folder of a run whose data stage has finished, or run that stage again."
            ) from error
        return ledger

    def step(
        self, stage: str, read: int, kept: int, drops: Iterable[Drop] | pa.Table, changed: int = 0, note: str = ""
    ) -> None:
        """Record one step. drops: objects, or a table of row, stage, reason, detail.

        Raises TunesmithError when a row is unaccounted for, or dropped twice.
        """
        fresh = drops.select(_DROPS.names).cast(_DROPS) if isinstance(drops, pa.Table) else _in_columns(drops)
        if read != kept + len(fresh):
            raise TunesmithError(
                f"stage {stage} read {read:,} rows, kept {kept:,} and dropped {len(fresh):,}: "
                f"{read - kept - len(fresh):,} are unaccounted for. This is a bug of Tunesmith; nothing was trained. "
                f"Please report it with the recipe."
            )
        rows = _Ids.of(fresh["row"])
        if (row := rows.twice() or rows.first_in(self._dropped) or rows.first_in(self._placed)) is not None:
            raise TunesmithError(
                f"stage {stage} drops row {row}, which was dropped or placed before: the counts can't be right. "
                f"If two sources share a name, give each its own; otherwise this is a bug of Tunesmith."
            )
        self._drops, self._dropped = pa.concat_tables([self._drops, fresh]), self._dropped + rows
        self._steps.append(
            {"stage": stage, "read": read, "kept": kept, "dropped": len(fresh)}
            | {"reasons": dict(_counted(fresh["reason"])), "changed": changed, "note": note}
        )

    def remark(self, changes: Batches, flags: Batches) -> None:
        """Record what stages changed (row, stage, what, before, after) and flagged (row, stage, flag).

        There may be more of it than fits in memory: it is written at once, and is the ledger's from `save` on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, table in ((CHANGES, changes), (FLAGS, flags)):
            self._remarks[name] = self.folder / f".{name}.unsaved"
            with (
                written_aside(self._remarks[name]) as aside,
                pq.ParquetWriter(aside, table.schema, compression="zstd") as file,
            ):
                for batch in table.batches():
                    file.write_batch(batch)

    def place(self, rows: Iterable[str], where: str) -> None:
        """Record where kept rows ended up: "train", "new_items", "replay"... Raises if one has a fate already."""
        assert not isinstance(rows, str), "a string is a sequence of strings, but not of ids"
        fresh = _Ids.of(pa.chunked_array([_strings(rows)]))
        if (row := fresh.twice()) is not None:
            raise DataError(_two_rows(row))
        if (row := fresh.first_in(self._placed)) is not None:
            self._refuse(row, where, f"in {self._column(self._places, row, 'place')}")
        if (row := fresh.first_in(self._dropped)) is not None:
            self._refuse(row, where, f"dropped by stage {self._column(self._drops, row, 'stage')}")
        places = pa.DictionaryArray.from_arrays(np.zeros(len(fresh.rows), np.int32), [where])
        self._places = pa.concat_tables([self._places, pa.table([fresh.rows, places], schema=_PLACES)])
        self._placed += fresh

    def summary(self) -> list[dict[str, Any]]:
        """The steps in order: stage, read, kept, dropped, reasons (reason -> count), changed, note."""
        return [dict(step) for step in self._steps]

    def places(self) -> pa.Table:
        """row, place of every row that was kept."""
        return self._places

    def fate(self, row: str) -> Fate:
        """What became of a row; all is empty when the ledger doesn't know it."""
        row = _escaped(row)
        dropped = self._drops.filter(pc.equal(self._drops["row"], row)).to_pylist()
        drawn = self._written(DRAWS, row)
        return Fate(
            tuple(self._written(CHANGES, row)),
            tuple(self._written(FLAGS, row)),
            Drop(**dropped[0]) if dropped else None,
            self._column(self._places, row, "place"),
            drawn[0]["times"] if drawn else None,
        )

    def story(self, row: str) -> list[str]:
        """What became of a row, as sentences; empty when the ledger doesn't know it."""
        return self.fate(row).told()

    def examples(self, reason: str, count: int) -> list[Drop]:
        """Rows that were dropped for a reason, drawn at random, the same ones every time.

        Raises UserError, naming the reasons there are, if no row was dropped for it.
        """
        found = self._drops.filter(pc.equal(self._drops["reason"], reason))
        if not len(found):
            known = ", ".join(f"{name} ({number:,})" for name, number in _counted(self._drops["reason"]))
            raise UserError(
                f"no row was dropped for the reason {reason!r}. Reasons in this run: "
                f"{known or 'none: nothing was dropped'}."
            )
        order = np.array([seed_of(0, "examples", row) for row in found["row"].to_pylist()], np.uint64).argsort()
        return [Drop(**drop) for drop in found.take(pa.array(order[:count])).to_pylist()]

    def _written(self, name: str, row: str) -> list[dict[str, Any]]:
        path = self._remarks.get(name, self.folder / name)
        return list(pq.read_table(path, filters=[("row", "==", row)]).to_pylist()) if path.is_file() else []

    def _column(self, table: pa.Table, row: str, name: str) -> str | None:
        found: list[str] = table.filter(pc.equal(table["row"], row))[name].to_pylist()
        return found[0] if found else None

    def _refuse(self, row: str, where: str, already: str) -> None:
        raise TunesmithError(
            f"row {row} was to go to {where}, but it is already {already}; a row has one fate. "
            f"If two sources share a name, give each its own; otherwise this is a bug of Tunesmith."
        )

    def save(self) -> None:
        """Write the files, each whole or not at all; the steps come last, so that they never lead."""
        for name in (CHANGES, FLAGS):
            if name in self._remarks:
                self._remarks.pop(name).replace(self.folder / name)
            else:
                (self.folder / name).unlink(missing_ok=True)
        for name, table in ((DROPS, self._drops), (PLACES, self._places)):
            with written_aside(self.folder / name) as aside:
                plain = pa.schema([pa.field(field.name, pa.string()) for field in table.schema])
                with pq.ParquetWriter(aside, plain, compression="zstd") as file:
                    for batch in table.to_batches(_AT_ONCE):
                        file.write_table(pa.Table.from_batches([batch]).cast(plain))
        write_json(self.folder / "steps.json", self._steps)


def refuse_same_ids(ids: Iterable[str]) -> None:
    """Raises DataError, naming one, if two rows have one id: what became of one could not be told from the other."""
    if (row := _Ids.of(pa.chunked_array([_strings(ids)])).twice()) is not None:
        raise DataError(_two_rows(row))


def save_draws(folder: Path, rows: pa.Array, times: NDArray[np.integer]) -> None:
    """Add to the ledger in `folder` how often each row is trained on in all epochs together."""
    with written_aside(folder / DRAWS) as aside:
        pq.write_table(pa.table({"row": rows, "times": times.astype(np.int32)}), aside, compression="zstd")


def _two_rows(row: str) -> str:
    return (
        f"two rows have the id {row}, so what becomes of one could not be told from the other; nothing was kept. Ids "
        f"are SOURCE:LINE, or SOURCE:FILE:LINE: give one of the two sources a `name` of its own."
    )


def _in_columns(drops: Iterable[Drop]) -> pa.Table:
    waiting, tables = iter(drops), [_DROPS.empty_table()]
    while some := list(islice(waiting, _AT_ONCE)):
        columns = [_strings(column) for column in zip(*map(astuple, some), strict=True)]
        tables.append(pa.table(columns, names=[field.name for field in fields(Drop)]).cast(_DROPS))
    return pa.concat_tables(tables)


def _strings(values: Iterable[str]) -> pa.Array:
    values = list(values)
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # a detail may quote broken input; what UTF-8 can't hold is written as its escape
        return pa.array([_escaped(value) for value in values], pa.string())


def _escaped(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class _Ids:
    """Ids of rows, and their hashes in order: Arrow's own sets of strings take twenty times the memory of these.

    What the hashes say is the same is compared as it is.
    """

    rows: pa.ChunkedArray
    hashes: NDArray[np.int64]

    @classmethod
    def of(cls, rows: pa.ChunkedArray) -> _Ids:
        return cls(rows, np.sort(_hashes(rows)))

    def __add__(self, other: _Ids) -> _Ids:
        both = np.concatenate([self.hashes, other.hashes])
        both.sort(kind="stable")  # which merges what is in order
        return _Ids(pa.chunked_array([*self.rows.chunks, *other.rows.chunks], pa.string()), both)

    def twice(self) -> str | None:
        """A row that is there more than once."""
        again = self.hashes[1:][self.hashes[1:] == self.hashes[:-1]]
        counts = pc.value_counts(self._with(again)).to_pylist() if len(again) else []
        return next((str(entry["values"]) for entry in counts if entry["counts"] > 1), None)

    def first_in(self, known: _Ids) -> str | None:
        """A row that is among those known."""
        if not len(known.hashes):
            return None
        at = np.searchsorted(known.hashes, self.hashes).clip(max=len(known.hashes) - 1)
        both = self.hashes[known.hashes[at] == self.hashes]
        if not len(both):
            return None
        candidates = self._with(both)
        found = candidates.filter(pc.is_in(candidates, value_set=known._with(both)))
        return str(found[0]) if len(found) else None

    def _with(self, hashes: NDArray[np.int64]) -> pa.ChunkedArray:
        return self.rows.filter(pa.array(np.isin(_hashes(self.rows), hashes)))


def _hashes(rows: pa.ChunkedArray) -> NDArray[np.int64]:
    """Python's own, which hold for this process."""
    found = (hash(row) for batch in pa.table({"row": rows}).to_batches(_AT_ONCE) for row in batch["row"].to_pylist())
    return np.fromiter(found, np.int64, len(rows))


def _counted(values: pa.ChunkedArray) -> list[tuple[str, int]]:
    """How often each value is there, the most frequent first."""
    counts = [(entry["values"], entry["counts"]) for entry in pc.value_counts(values.cast(pa.string())).to_pylist()]
    return sorted(counts, key=lambda pair: -pair[1])
