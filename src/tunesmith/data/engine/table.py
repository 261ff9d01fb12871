"""Tables: rows in Parquet files, in a defined order, of which only a batch at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.base.errors import DataError, TunesmithError
from tunesmith.base.files import written_aside

BATCH_ROWS = 1024  # rows in memory at a time, and in a row group: what is read to get at one row
PART_ROWS = 8192  # rows of a part file, which is the unit of work of a process
PART_BYTES = 32 << 20  # of a part in memory; long documents make parts of fewer rows


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in Parquet files. Their order is that of the files, and within a file that of its rows.

    The place of a row is its number in that order, from 0. counts: the rows of each file.
    """

    files: tuple[Path, ...]
    counts: tuple[int, ...]
    schema: pa.Schema

    @classmethod
    def scan(cls, files: Sequence[Path]) -> Table:
        """The table in these files, in the order given. Raises DataError for what isn't Parquet, or of two schemas."""
        counts, schema = [], None
        for file in files:
            try:
                metadata = pq.read_metadata(file)
            except (OSError, pa.ArrowException) as error:
                raise DataError(
                    f"{file} can't be read as Parquet ({error}). Write it again, or leave it out."
                ) from error
            counts.append(metadata.num_rows)
            found = metadata.schema.to_arrow_schema().remove_metadata()
            schema = schema or found
            if found != schema:
                raise DataError(
                    f"{file} has other columns than {files[0]}: {_difference(found, schema)}. The files of one table "
                    f"have the same columns; make two sources of them."
                )
        if schema is None:
            raise DataError("no files were given to read a table from. Name at least one Parquet file.")
        return cls(tuple(files), tuple(counts), schema)

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def starts(self) -> tuple[int, ...]:
        """The place of the first row of each file."""
        return tuple(accumulate(self.counts, initial=0))[:-1]

    def batches(self, columns: Sequence[str] | None = None, size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """All rows in order, `size` at a time and fewer at the end of a file."""
        for file, count in zip(self.files, self.counts, strict=True):
            seen = 0
            for batch in read_batches(file, columns, size):
                seen += batch.num_rows
                yield batch
            if seen != count:
                raise TunesmithError(
                    f"{file} had {count:,} rows and now has {seen:,}: it changed while it was read. Run again when "
                    f"nothing writes to it."
                )

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in memory: for columns of keys, not of text."""
        schema = self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])
        return pa.Table.from_batches(self.batches(columns, PART_ROWS), schema)

    def write(self, path: Path) -> None:
        """One Parquet file of all rows, in order, whole or not at all."""
        with written_aside(path) as aside, pq.ParquetWriter(aside, self.schema, compression="zstd") as file:
            for batch in self.batches():
                file.write_batch(batch, row_group_size=BATCH_ROWS)


def read_batches(file: Path, columns: Sequence[str] | None = None, size: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """The rows of one file. Other programs may have written it, so a batch is cut to `size` whatever its row groups."""
    # Read ahead, a whole file would be in memory.
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 16) as parquet:
        for batch in parquet.iter_batches(size, columns=columns, use_threads=False):
            yield batch.cast(batch.schema.remove_metadata()) if batch.schema.metadata else batch


@dataclass
class TableWriter:
    """Writes batches to numbered part files in `folder`; `table` is what was written, once the context has ended.

    The folder is made; whoever needs it whole or not at all gives one that is renamed afterwards.
    """

    folder: Path
    schema: pa.Schema
    part_rows: int = PART_ROWS
    part_bytes: int = PART_BYTES
    _counts: list[int] = field(default_factory=list)
    _file: pq.ParquetWriter | None = None
    _bytes: int = 0

    def __enter__(self) -> TableWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows. Columns are cast to the schema, since engines have their own widths of strings and lists."""
        while batch.num_rows:
            if self._file is None:
                path = part_path(self.folder, len(self._counts))
                self._file = pq.ParquetWriter(path, self.schema, compression="zstd")
                self._counts.append(0)
                self._bytes = 0
            now = batch.slice(0, min(BATCH_ROWS, self.part_rows - self._counts[-1]))
            self._file.write_table(pa.Table.from_batches([now]).select(self.schema.names).cast(self.schema))
            self._counts[-1] += now.num_rows
            self._bytes += now.get_total_buffer_size() if now.num_rows == batch.num_rows else now.nbytes
            batch = batch.slice(now.num_rows)
            if self._counts[-1] >= self.part_rows or self._bytes >= self.part_bytes:
                self._close()

    @property
    def table(self) -> Table:
        assert self._file is None, "the table is known when all is written"
        files = tuple(part_path(self.folder, number) for number in range(len(self._counts)))
        return Table(files, tuple(self._counts), self.schema)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.parquet"


def moved(table: Table, folder: Path) -> Table:
    """The same table after its files were moved to `folder`."""
    return Table(tuple(folder / file.name for file in table.files), table.counts, table.schema)


def write_table(
    folder: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, part_rows: int = PART_ROWS
) -> Table:
    """A table of these batches in `folder`, which is there whole or not at all."""
    with written_aside(folder) as aside:
        with TableWriter(aside, schema, part_rows) as writer:
            for batch in batches:
                writer.write(batch)
        table = writer.table
    return moved(table, folder)


def _difference(one: pa.Schema, other: pa.Schema) -> str:
    found = [f"{field.name}: {field.type}" for field in one if field not in other]
    wanted = [f"{field.name}: {field.type}" for field in other if field not in one]
    return f"{', '.join(found) or 'nothing'} where {', '.join(wanted) or 'nothing'} is expected (or another order)"
