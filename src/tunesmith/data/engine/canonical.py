"""Conversations as Parquet: the one form of rows that engines see, and that any tool can read.

A row of the table is a conversation, with its fields as columns:

    id, source, cluster, task, phrasing, item   string
    prompt_key     binary, 16 bytes: what a split knows of the prompt, see `Conversation`
    messages       list of struct: role, content: string; reasoning: string or null; tool_calls: a JSON list or null;
                   name, tool_call_id: string or null; train: bool or null
    tools, extra   JSON or null
    exact          binary, null but for a row with half of a surrogate pair in a text, which UTF-8 can't hold: the row
                   as JSON, such halves encoded as if they were characters; other columns have their escapes (\\ud800)
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.files import written_aside
from tunesmith.data.engine.table import BATCH_ROWS, PART_ROWS, Table, TableWriter, moved
from tunesmith.data.rows import PickedRows, RowLabel

LABELS = ("id", "source", "cluster", "task", "phrasing", "item")
_FIELDS = ("role", "content", "reasoning", "tool_calls", "name", "tool_call_id")
MESSAGE = pa.struct(
    [
        *(pa.field(name, pa.string(), nullable=name not in ("role", "content")) for name in _FIELDS),
        pa.field("train", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in LABELS),
        pa.field("prompt_key", pa.binary(), nullable=False),
        pa.field("messages", pa.list_(pa.field("element", MESSAGE, nullable=False)), nullable=False),
        pa.field("tools", pa.string()),
        pa.field("extra", pa.string()),
        pa.field("exact", pa.binary()),
    ]
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_STORED_ROWS = 64  # of a batch, which is what is read for one row


def to_batch(rows: Sequence[Conversation]) -> pa.RecordBatch:
    """Rows as a record batch of SCHEMA, which `from_batch` reads back to equal values."""
    try:
        return _to_batch(rows, [None] * len(rows), rows)
    except UnicodeEncodeError:  # half of a surrogate pair, in perhaps one row of a million
        lines = [row.to_json() for row in rows]
        exact = [line.encode("utf-8", "surrogatepass") for line in lines]
        halved = [bool(_SURROGATE.search(line)) for line in lines]
        plain = [_escaped(row) if half else row for row, half in zip(rows, halved, strict=True)]
        return _to_batch(plain, [line if half else None for line, half in zip(exact, halved, strict=True)], rows)


def from_batch(batch: pa.RecordBatch) -> list[Conversation]:
    """The rows of a record batch of SCHEMA."""
    lists = batch.column("messages")
    parts = lists.flatten()
    columns = [parts.field(index).to_pylist() for index in range(parts.type.num_fields)]
    messages = [
        Message(role, content, reasoning, tuple(json.loads(calls)) if calls else (), name, call_id, train)
        for role, content, reasoning, calls, name, call_id, train in zip(*columns, strict=True)
    ]
    ends = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False))]).tolist()
    labels = zip(*(batch.column(name).to_pylist() for name in LABELS), strict=True)
    exact, tools, extra = (batch.column(name).to_pylist() for name in ("exact", "tools", "extra"))
    rows = []
    for line, own, start, end, tool, more in zip(exact, labels, ends[:-1], ends[1:], tools, extra, strict=True):
        if line:
            rows.append(_from_exact(line))
            continue
        id, source, cluster, task, phrasing, item = own
        described = tuple(json.loads(tool)) if tool else ()
        further = json.loads(more) if more else {}
        body = tuple(messages[start:end])
        rows.append(Conversation(id, body, source, cluster, task, phrasing, item, described, further))
    return rows


class RowsWriter:
    """Writes conversations to the table `folder`, which is there once the context has ended without an error."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._aside = written_aside(folder)
        self._waiting: list[Conversation] = []

    def __enter__(self) -> RowsWriter:
        self._writer = TableWriter(self._aside.__enter__(), SCHEMA).__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.__exit__(kind, error, at)
        self._aside.__exit__(kind, error, at)

    def append(self, row: Conversation) -> None:
        self._waiting.append(row)
        if len(self._waiting) == BATCH_ROWS:
            self._flush()

    @property
    def table(self) -> Table:
        return moved(self._writer.table, self._folder)

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write(to_batch(self._waiting))
            self._waiting = []


def write_rows(folder: Path, rows: Iterable[Conversation]) -> Table:
    """A table of these rows."""
    with RowsWriter(folder) as writer:
        for row in rows:
            writer.append(row)
    return writer.table


def rows_of(table: Table) -> Iterator[Conversation]:
    """The rows of a table, in order."""
    for batch in table.batches():
        yield from from_batch(batch)


def labels_of(table: Table) -> Iterator[RowLabel]:
    """What a split has to know of each row, in order; no text is read but the role of a lone message."""
    place = 0
    for batch in table.batches([*LABELS, "prompt_key", "messages.list.element.role", "exact"]):
        lists = batch.column("messages")
        lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
        roles = lists.flatten().field(0).to_pylist()
        starts = np.cumsum(lengths) - lengths
        columns = [batch.column(name).to_pylist() for name in [*LABELS, "prompt_key", "exact"]]
        for number, (id, source, cluster, task, phrasing, item, key, line) in enumerate(zip(*columns, strict=True)):
            is_text = bool(lengths[number] == 1 and roles[starts[number]] == "text")
            label = RowLabel(id, source, cluster, task, phrasing, item, key, is_text, place)
            yield _exactly(label, _from_exact(line)) if line else label
            place += 1


class StoredRows(Sequence[Conversation]):
    """The conversations of a table by place: read fast one by one, which Parquet is not made for.

    They lie in the file `path`, as Arrow's own format in small batches, which goes when the context ends. Forked
    processes may read it at the same time.
    """

    def __init__(self, table: Table, path: Path) -> None:
        self._table, self._path = table, path
        self._opened: tuple[int, pa.ipc.RecordBatchFileReader] | None = None
        self._last: tuple[int, pa.RecordBatch, list[Conversation]] | None = None

    def __enter__(self) -> StoredRows:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with pa.OSFile(str(self._path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as file:
            for part in _evenly(self._table.batches(size=PART_ROWS), _STORED_ROWS):
                file.write_batch(part)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened = None
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number, place = divmod(index, _STORED_ROWS)
        if self._last is None or self._last[0] != number:
            self._last = number, self._reader().get_batch(number), []
            return from_batch(self._last[1].slice(place, 1))[0]
        if not self._last[2]:  # a second row of it is wanted, so there will be more
            self._last[2].extend(from_batch(self._last[1]))
        return self._last[2][place]

    def picked(self, places: Iterable[int]) -> Sequence[Conversation]:
        """The rows at these places, in that order."""
        return PickedRows(self, array("q", places))

    def _reader(self) -> pa.ipc.RecordBatchFileReader:
        if self._opened is None or self._opened[0] != os.getpid():  # a file of its own for each forked process
            options = pa.ipc.IpcReadOptions(use_threads=False)
            self._opened = os.getpid(), pa.ipc.open_file(pa.OSFile(str(self._path)), options=options)
        return self._opened[1]


def _evenly(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `size`, but for the last."""
    left = pa.RecordBatch.from_pylist([], SCHEMA)
    for batch in batches:
        both = pa.Table.from_batches([left, batch], SCHEMA).combine_chunks()
        merged = both.to_batches()[0] if len(both) else left
        whole = merged.num_rows // size * size
        yield from (merged.slice(start, size) for start in range(0, whole, size))
        left = merged.slice(whole)
    if left.num_rows:
        yield left


def _to_batch(rows: Sequence[Conversation], exact: list[bytes | None], given: Sequence[Conversation]) -> pa.RecordBatch:
    messages = [message for row in rows for message in row.messages]
    lists = [[getattr(message, name) for message in messages] for name in ("role", "content", "reasoning")]
    calls = [_json(message.tool_calls) if message.tool_calls else None for message in messages]
    names = [[getattr(message, name) for message in messages] for name in ("name", "tool_call_id")]
    train = pa.array([message.train for message in messages], pa.bool_())
    parts = pa.StructArray.from_arrays(
        [*(pa.array(values, pa.string()) for values in (*lists, calls, *names)), train], fields=list(MESSAGE)
    )
    ends = np.cumsum([0, *(len(row.messages) for row in rows)], dtype=np.int32)
    columns = [pa.array([getattr(row, name) for row in rows], pa.string()) for name in LABELS]
    columns += [
        pa.array([row.prompt_key for row in given], pa.binary()),
        pa.ListArray.from_arrays(pa.array(ends), parts, type=SCHEMA.field("messages").type),
        pa.array([_json(row.tools) if row.tools else None for row in rows], pa.string()),
        pa.array([_json(row.extra) if row.extra else None for row in rows], pa.string()),
        pa.array(exact, pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=list)


def _escaped(row: Conversation) -> Conversation:
    """The row with every half of a surrogate pair as the six characters of its escape."""
    line = row.to_json()
    return Conversation.from_json("".join(f"\\\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in line))


def _from_exact(line: bytes) -> Conversation:
    return Conversation.from_json(line.decode("utf-8", "surrogatepass"))


def _exactly(label: RowLabel, row: Conversation) -> RowLabel:
    """The label with the names as they are, which UTF-8 may not hold."""
    return replace(
        label,
        id=row.id,
        source=row.source,
        cluster=row.cluster,
        task=row.task,
        phrasing=row.phrasing,
        item=row.item,
    )
