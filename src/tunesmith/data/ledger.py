"""The ledger: at every step rows read = rows kept + rows dropped, and the fate of every row can be looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tunesmith.base.errors import TunesmithError, UserError
from tunesmith.base.files import read_json, write_json, written_aside
from tunesmith.base.random import seed_of

DRAWS, CHANGES, FLAGS = "draws.parquet", "changes.parquet", "flags.parquet"


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that went no further: its id, the stage that dropped it, a short reason word, and the particulars."""

    row: str
    stage: str
    reason: str
    detail: str = ""


class Ledger:
    """What became of every row of a run, kept in `folder`.

        steps.json        every step: rows read, kept, dropped by reason, changed
        drops.parquet     row, stage, reason, detail
        changes.parquet   row, stage, what, before, after; of rows that were dropped later too
        flags.parquet     row, stage, flag
        places.parquet    row, place: train, new_items, replay ...
        draws.parquet     row, times: how often it is trained on in all epochs

    Nothing is written before `save`, so that a run that dies leaves the ledger of the run before whole. Draws come
    later, with the plan of the training.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._steps: list[dict[str, Any]] = []
        self._drops: dict[str, Drop] = {}
        self._places: dict[str, str] = {}
        self._draws: dict[str, int] = {}
        self._remarks: dict[str, pa.Table] = {}

    @classmethod
    def load(cls, folder: Path) -> Ledger:
        """Read a saved ledger. Raises TunesmithError when `folder` holds none."""
        ledger = cls(folder)
        try:
            ledger._steps = read_json(folder / "steps.json")
            drops = pq.read_table(folder / "drops.parquet").to_pydict()
            places = pq.read_table(folder / "places.parquet").to_pydict()
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise TunesmithError(
                f"no readable ledger in {folder} ({error}), so what became of its rows is unknown. "
                f"Name the folder of a run whose data stage has finished, or run that stage again."
            ) from error
        rows = zip(*(drops[field.name] for field in fields(Drop)), strict=True)
        ledger._drops = {row[0]: Drop(*row) for row in rows}
        ledger._places = dict(zip(places["row"], places["place"], strict=True))
        if (folder / DRAWS).exists():
            draws = pq.read_table(folder / DRAWS).to_pydict()
            ledger._draws = dict(zip(draws["row"], draws["times"], strict=True))
        return ledger

    def step(self, stage: str, read: int, kept: int, drops: Iterable[Drop], changed: int = 0, note: str = "") -> None:
        """Record one step. Raises TunesmithError when a row is unaccounted for, or dropped twice."""
        drops = list(drops)
        if read != kept + len(drops):
            raise TunesmithError(
                f"stage {stage} read {read:,} rows, kept {kept:,} and dropped {len(drops):,}: "
                f"{read - kept - len(drops):,} are unaccounted for. This is a bug of Tunesmith; nothing was trained. "
                f"Please report it with the recipe."
            )
        fresh = {drop.row: drop for drop in drops}
        twice = next((drop.row for drop in drops if drop.row in self._drops or drop.row in self._places), None)
        if len(fresh) != len(drops) or twice:
            row = twice or next(row for row, count in Counter(drop.row for drop in drops).items() if count > 1)
            raise TunesmithError(
                f"stage {stage} drops row {row}, which was dropped or placed before: the counts can't be right. "
                f"If two sources share a name, give each its own; otherwise this is a bug of Tunesmith."
            )
        self._drops |= fresh
        reasons = dict(Counter(drop.reason for drop in drops).most_common())
        self._steps.append(
            {"stage": stage, "read": read, "kept": kept, "dropped": len(drops)}
            | {"reasons": reasons, "changed": changed, "note": note}
        )

    def remark(self, changes: pa.Table, flags: pa.Table) -> None:
        """Record what stages changed (row, stage, what, before, after) and flagged (row, stage, flag)."""
        self._remarks = {CHANGES: changes, FLAGS: flags}

    def place(self, row: str, where: str) -> None:
        """Record where a kept row ended up: "train", "new_items", "replay"... Raises if it is already elsewhere."""
        before = self._places.setdefault(row, where)
        if before != where or row in self._drops:
            other = f"in {before}" if before != where else f"dropped by stage {self._drops[row].stage}"
            raise TunesmithError(
                f"row {row} was to go to {where}, but it is already {other}; a row has one fate. "
                f"If two sources share a name, give each its own; otherwise this is a bug of Tunesmith."
            )

    def summary(self) -> list[dict[str, Any]]:
        """The steps in order: stage, read, kept, dropped, reasons (reason -> count), changed, note."""
        return [dict(step) for step in self._steps]

    def story(self, row: str) -> list[str]:
        """What became of a row, as sentences; empty when the ledger doesn't know it."""
        told = [
            f"changed by stage {change['stage']}: {change['what']}: {change['before']!r} -> {change['after']!r}"
            for change in self._remarks_on(CHANGES, row)
        ]
        told += [f"flagged by stage {flag['stage']}: {flag['flag']}" for flag in self._remarks_on(FLAGS, row)]
        if drop := self._drops.get(row):
            told.append(f"dropped by stage {drop.stage}: {drop.reason}" + (f" ({drop.detail})" if drop.detail else ""))
        if place := self._places.get(row):
            told.append(f"kept, and used for {place}")
        if (times := self._draws.get(row)) is not None:
            often = "once" if times == 1 else f"{times} times"
            told.append(f"trained {often} in all epochs" if times else "never trained: the mixture did not draw it")
        return told

    def examples(self, reason: str, count: int) -> list[Drop]:
        """Rows that were dropped for a reason, drawn at random, the same ones every time.

        Raises UserError, naming the reasons there are, if no row was dropped for it.
        """
        found = [drop for drop in self._drops.values() if drop.reason == reason]
        if not found:
            reasons = Counter(drop.reason for drop in self._drops.values()).most_common()
            known = ", ".join(f"{name} ({number:,})" for name, number in reasons) or "none: nothing was dropped"
            raise UserError(f"no row was dropped for the reason {reason!r}. Reasons in this run: {known}.")
        return sorted(found, key=lambda drop: seed_of(0, "examples", drop.row))[:count]

    def _remarks_on(self, name: str, row: str) -> list[dict[str, str]]:
        if name in self._remarks:
            table = self._remarks[name]
            return list(table.filter(pc.equal(table["row"], row)).to_pylist())
        path = self.folder / name
        return list(pq.read_table(path, filters=[("row", "==", row)]).to_pylist()) if path.is_file() else []

    def save(self) -> None:
        """Write the files, each whole or not at all; the steps come last, so that they never lead."""
        for name in (CHANGES, FLAGS):
            (self.folder / name).unlink(missing_ok=True)
        for name, table in self._remarks.items():
            with written_aside(self.folder / name) as aside:
                pq.write_table(table, aside, compression="zstd")
        drops = zip(*map(astuple, self._drops.values()), strict=True) if self._drops else [()] * len(fields(Drop))
        _write_strings(self.folder / "drops.parquet", dict(zip([f.name for f in fields(Drop)], drops, strict=True)))
        _write_strings(
            self.folder / "places.parquet", {"row": tuple(self._places), "place": tuple(self._places.values())}
        )
        write_json(self.folder / "steps.json", self._steps)


def save_draws(folder: Path, rows: pa.Array, times: NDArray[np.integer]) -> None:
    """Add to the ledger in `folder` how often each row is trained on in all epochs together."""
    with written_aside(folder / DRAWS) as aside:
        pq.write_table(pa.table({"row": rows, "times": times.astype(np.int32)}), aside, compression="zstd")


def _write_strings(path: Path, columns: dict[str, tuple[str, ...]]) -> None:
    # A detail may quote broken input; what UTF-8 can't hold is written as its escape.
    safe = {name: [v.encode("utf-8", "backslashreplace").decode() for v in values] for name, values in columns.items()}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in safe.items()})
    with written_aside(path) as aside:
        pq.write_table(table, aside, compression="zstd")
