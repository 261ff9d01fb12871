"""The engine that data stages run on: this machine's cores by default, or a Ray cluster, with the same results.

    engine = Engine()                       # or Engine(ray="10.0.0.5:6379")
    rows = engine.scan([file])
    kept, dropped = engine.filter(rows, partial(longer_than, 3), folder, name="filter")

Every operation goes through a whole table and leaves another behind, in a folder that is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tunesmith.base.errors import UserError
from tunesmith.base.parallel import cores
from tunesmith.data.engine import relations
from tunesmith.data.engine.parts import BatchFunction, Step, map_parts
from tunesmith.data.engine.relations import How, Kind
from tunesmith.data.engine.runner import start
from tunesmith.data.engine.table import Table

HERE_ROWS = 20_000  # rows from which on processes save more time than starting them takes
Predicate = Callable[[pa.RecordBatch], pa.Array]
KEPT_OR_DROPPED = ("kept", "dropped")


class Engine:
    """ray: the address of a Ray cluster, None for this machine. processes: how many work, None for one a core.

    here_rows: smaller tables are worked on in this process. Raises UserError when the cluster can't be used.
    """

    def __init__(self, ray: str | None = None, processes: int | None = None, here_rows: int = HERE_ROWS) -> None:
        if processes is not None and processes < 1:
            raise UserError(f"data.engine.processes is {processes}; at least one process has to do the work.")
        self._ray, self._here_rows = ray, here_rows
        self._processes = processes
        if ray:  # a cluster that does not answer is told of before any work
            self._processes = processes or start(ray)

    def scan(self, files: Sequence[Path]) -> Table:
        """The rows of Parquet files, in the order given."""
        return Table.scan(files)

    def map_batches(
        self,
        table: Table,
        make: Callable[[], BatchFunction],
        into: Path,
        outputs: Mapping[str, pa.Schema],
        *,
        name: str,
        conserved: tuple[str, ...] = KEPT_OR_DROPPED,
        places: NDArray[np.integer] | None = None,
    ) -> dict[str, Table]:
        """Each batch through the function that `make` gives once per process; rows of each output in the table's order.

        make is picklable: a function of a module, or a `partial` of one. conserved: the outputs that have each row once
        between them, or () if the function multiplies rows; TunesmithError is raised if that doesn't hold.
        places: look at these rows only, which are in ascending order and different.
        """
        present = tuple(output for output in conserved if output in outputs)
        picked = None if places is None else _bits(places, len(table))
        return map_parts(table, Step(name, make, outputs, present, into), into, self._workers(table), picked)

    def filter(self, table: Table, make: Callable[[], Predicate], into: Path, *, name: str) -> tuple[Table, Table]:
        """The rows for which the predicate is true, and the others; both in order, with all columns."""
        outputs = dict.fromkeys(KEPT_OR_DROPPED, table.schema)
        found = self.map_batches(table, partial(_filtering, make), into, outputs, name=name)
        return found["kept"], found["dropped"]

    def pick(self, table: Table, places: NDArray[np.integer], into: Path, *, name: str) -> Table:
        """The rows at these places, which are in ascending order and different."""
        kept = self.map_batches(table, _keeping, into, {"kept": table.schema}, name=name, places=places)["kept"]
        assert len(kept) == len(places)
        return kept

    def explode(self, table: Table, column: str, into: Path, *, name: str) -> Table:
        """A row for each element of a list, in order; for an empty list or null, one with null."""
        index = table.schema.get_field_index(column)
        field = table.schema.field(index)
        schema = table.schema.set(index, pa.field(column, field.type.value_type))
        make = partial(_exploding, column, schema)
        return self.map_batches(table, make, into, {"kept": schema}, name=name, conserved=())["kept"]

    def sort(self, table: Table, by: Sequence[str], into: Path, *, name: str) -> Table:
        """See `relations.sort`."""
        start(self._ray)
        return relations.sort(table, by, into, name)

    def distinct(self, table: Table, columns: Sequence[str], into: Path, *, name: str) -> Table:
        """See `relations.distinct`."""
        start(self._ray)
        return relations.distinct(table, columns, into, name)

    def group(
        self, table: Table, keys: Sequence[str], parts: Mapping[str, tuple[Kind, str]], into: Path, *, name: str
    ) -> Table:
        """See `relations.group`."""
        start(self._ray)
        return relations.group(table, keys, parts, into, name)

    def join(self, left: Table, right: Table, on: Sequence[str], how: How, into: Path, *, name: str) -> Table:
        """See `relations.join`."""
        start(self._ray)
        return relations.join(left, right, on, how, into, name)

    def write(self, table: Table, path: Path) -> None:
        """One Parquet file of all rows, in order."""
        table.write(path)

    def _workers(self, table: Table) -> int:
        """Processes for a table: one, this one, if there is little to do."""
        wanted = self._processes or cores()
        if len(table) < self._here_rows or len(table.files) < 2 or (wanted == 1 and not self._ray):
            return 1
        start(self._ray)
        return min(wanted, len(table.files))


def _bits(places: NDArray[np.integer], rows: int) -> NDArray[np.bool_]:
    assert (np.diff(places) > 0).all() and (not len(places) or 0 <= places[0] <= places[-1] < rows)
    bits = np.zeros(rows, bool)
    bits[places] = True
    return bits


def _keeping() -> BatchFunction:
    return lambda batch, place: {"kept": batch}


def _filtering(make: Callable[[], Predicate]) -> BatchFunction:
    predicate = make()

    def split(batch: pa.RecordBatch, place: int) -> dict[str, pa.RecordBatch]:
        keep = np.asarray(predicate(batch), bool)
        return {"kept": batch.filter(pa.array(keep)), "dropped": batch.filter(pa.array(~keep))}

    return split


def _exploding(column: str, schema: pa.Schema) -> BatchFunction:
    def explode(batch: pa.RecordBatch, place: int) -> dict[str, pa.RecordBatch]:
        lists = batch.column(column)
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        rows = np.repeat(np.arange(batch.num_rows), np.maximum(lengths, 1))
        at = np.full(len(rows), -1)
        at[lengths[rows] > 0] = np.arange(lengths.sum())
        values = lists.flatten().take(pa.array(at, mask=at < 0))
        taken = batch.take(pa.array(rows))
        columns = [values if name == column else taken.column(name) for name in schema.names]
        return {"kept": pa.RecordBatch.from_arrays(columns, schema=schema)}

    return explode
