"""Operations that look at all rows at once: sort, distinct, group, join. They are for keys and numbers, not for text.

Daft does them, and each is made so that its known faults (docs/engine.md) can't matter: nothing is projected away or
counted by Daft after a group-by, every result is sorted by its key before it leaves Daft, the rows that come out are
counted as they are written and held against those that went in, and large tables go through in ranges of their first
key, one after the other, since neither sorting nor grouping gives memory back to the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tunesmith.base.errors import TunesmithError
from tunesmith.base.files import written_aside
from tunesmith.data.engine.runner import import_daft
from tunesmith.data.engine.table import Table, TableWriter, moved

Kind = Literal["count", "min", "max", "sum", "list"]
How = Literal["inner", "left", "semi", "anti"]

RANGE_ROWS = 4_000_000  # rows that Daft sorts or groups at a time
NARROW_BYTES = 1024  # a row that is wider than this is no key
_SAMPLED = 50_000  # values of the first key that ranges are cut by
_COUNT, _FOUND = "_count", "_found"


def sort(table: Table, by: Sequence[str], into: Path, name: str, range_rows: int = RANGE_ROWS) -> Table:
    """All rows, sorted by these columns and, where they are equal, by the others in their order; nulls last."""
    rest = [field.name for field in table.schema if field.name not in by and not pa.types.is_nested(field.type)]

    def results() -> Iterator[pa.RecordBatch]:
        for inside in _ranges(table, by[0], range_rows):
            yield from _ordered(_frame(table, inside), [*by, *rest], table.schema)

    return _written(results(), table.schema, into, name, table, conserved=None)


def distinct(table: Table, columns: Sequence[str], into: Path, name: str, range_rows: int = RANGE_ROWS) -> Table:
    """The different values of these columns together, sorted by them."""
    return group(table, columns, {}, into, name, range_rows)


def group(
    table: Table,
    keys: Sequence[str],
    parts: Mapping[str, tuple[Kind, str]],
    into: Path,
    name: str,
    range_rows: int = RANGE_ROWS,
) -> Table:
    """One row for each value of the keys, sorted by them; null is a value.

    parts: further columns by name, each the count (of rows), min, max, sum or list of a column; nulls do not count in
    the others, and lists are sorted.
    """
    daft = import_daft()
    made = [_aggregate(daft, kind, column).alias(out) for out, (kind, column) in parts.items()]
    # Counted over a column that no row lacks, and kept to the end: what Daft drops after a group-by loses rows.
    made.append(daft.col(_FOUND).count(mode="all").alias(_COUNT))
    fields = [table.schema.field(key) for key in keys]
    fields += [pa.field(out, _type(kind, table.schema.field(column).type)) for out, (kind, column) in parts.items()]

    def results() -> Iterator[pa.RecordBatch]:
        for inside in _ranges(table, keys[0], range_rows):
            frame = _frame(table, inside).with_column(_FOUND, daft.lit(1))
            yield from _ordered(frame.groupby(*keys).agg(*made), keys, table.schema)

    return _written(results(), pa.schema(fields), into, name, table, conserved=_COUNT)


def join(
    left: Table, right: Table, on: Sequence[str], how: How, into: Path, name: str, range_rows: int = RANGE_ROWS
) -> Table:
    """Look the rows of `left` up in `right`, which has a key at most once; sorted by the key, then the other columns.

    how: "inner" keeps the rows that are found, with the columns of `right` added; "left" all (null where not found);
    "semi" and "anti" those that are and are not found, as they are. A null key is never found.
    Raises TunesmithError when a key of `left` is in `right` twice.
    """
    daft = import_daft()
    added = [] if how in ("semi", "anti") else [field for field in right.schema if field.name not in on]
    clash = {field.name for field in added} & set(left.schema.names)
    assert not clash, f"both sides have columns {clash}"
    rest = [field.name for field in left.schema if field.name not in on and not pa.types.is_nested(field.type)]
    wanted = {"inner": True, "semi": True, "anti": False, "left": None}[how]
    schema = pa.schema([*left.schema, *(field.with_nullable(True) for field in added)])

    def results() -> Iterator[pa.RecordBatch]:
        for inside in _ranges(left, on[0], range_rows):
            found = _frame(right, inside).select(*on, *(field.name for field in added)).with_column(_FOUND, daft.lit(1))
            yield from _ordered(_frame(left, inside).join(found, on=list(on), how="left"), [*on, *rest], left.schema)

    # All joins are left joins, so that rows that are not found are seen and counted too.
    return _written(results(), schema, into, name, left, conserved=None, wanted=wanted)


def _written(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    into: Path,
    name: str,
    table: Table,
    conserved: str | None,
    wanted: bool | None = None,
) -> Table:
    """Write a result, and hold its rows, or the sum of their counts, against those of the table it was made from."""
    seen = 0
    with written_aside(into) as aside:
        with TableWriter(aside, schema) as writer:
            for batch in batches:
                seen += pc.sum(batch.column(conserved)).as_py() if conserved else batch.num_rows
                if wanted is not None:
                    found = pc.is_valid(batch.column(_FOUND))
                    batch = batch.filter(found if wanted else pc.invert(found))
                writer.write(batch)
        if seen != len(table):
            raise TunesmithError(
                f"step {name}: {len(table):,} rows went in and {seen:,} are accounted for. If a key is twice in a "
                f"table that is looked up in, make it distinct; otherwise this is a bug of Tunesmith or Daft: please "
                f"report it."
            )
        written = writer.table
    return moved(written, into)


def _frame(table: Table, inside: Any) -> Any:
    daft = import_daft()
    if not table.files:
        return daft.from_arrow(table.schema.empty_table())
    _require_narrow(table)
    frame = daft.read_parquet([str(file.absolute()) for file in table.files])
    return frame if inside is None else frame.where(inside)


def _ordered(frame: Any, by: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    daft = import_daft()
    # Daft does not sort bytes; their hexadecimal digits have the same order.
    digits = [
        daft.col(name).encode("hex").cast(daft.DataType.string())
        if pa.types.is_binary(schema.field(name).type)
        else daft.col(name)
        for name in by
    ]
    yield from frame.sort(digits, nulls_first=False).to_arrow_iter()


def _ranges(table: Table, column: str, rows: int) -> Iterator[Any]:
    """Conditions that share out the rows by the first key, in its order; None for all at once."""
    bounds = _bounds(table, column, -(-len(table) // rows)) if len(table) > rows else []
    if not bounds:
        yield None
        return
    col = import_daft().col(column)
    for lower, upper in zip([None, *bounds], [*bounds, None], strict=True):
        inside = [] if lower is None else [col >= lower]
        inside += [] if upper is None else [col < upper]
        condition = reduce(lambda one, other: one & other, inside)
        yield reduce(or_, [condition, col.is_null()]) if upper is None else condition


def _bounds(table: Table, column: str, parts: int) -> list[Any]:
    """Values that cut the table into about equal parts, from a sample that is spread over its rows."""
    step = max(len(table) // _SAMPLED, 1)
    sample, place = [], 0
    for batch in table.batches([column], 1 << 16):
        sample.append(batch.column(0).take(pa.array(np.arange(-place % step, batch.num_rows, step))))
        place += batch.num_rows
    values = pa.chunked_array(sample).drop_null()
    values = values.take(pc.sort_indices(values))
    cuts = [values[len(values) * number // parts].as_py() for number in range(1, parts)] if len(values) else []
    return [value for value in dict.fromkeys(cuts) if value != values[0].as_py()]  # below the lowest there is nothing


def _require_narrow(table: Table) -> None:
    first = next(table.batches(), None)
    assert first is None or first.get_total_buffer_size() <= NARROW_BYTES * max(first.num_rows, 64), (
        "rows of keys are sorted, grouped and joined, and text is picked by place afterwards"
    )


def _aggregate(daft: Any, kind: Kind, column: str) -> Any:
    col = daft.col(column)
    made = {"min": col.min, "max": col.max, "sum": col.sum, "list": lambda: col.list_agg().list_sort()}
    return daft.col(_FOUND).count(mode="all") if kind == "count" else made[kind]()


def _type(kind: Kind, given: pa.DataType) -> pa.DataType:
    if kind == "count":
        return pa.int64()
    if kind == "sum":
        return pa.float64() if pa.types.is_floating(given) else pa.int64()
    return pa.list_(given) if kind == "list" else given
