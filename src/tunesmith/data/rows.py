"""The rows that a run has read: a few in memory, the many in a file, and of each what a split has to know of it."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from tunesmith.base.conversation import Conversation

IN_MEMORY = 100_000  # rows; those beyond are written to the file


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


@dataclass(frozen=True, slots=True)
class RowLabel:
    """A row without its messages, see `Conversation`. place: its index in `Rows`."""

    id: str
    source: str
    cluster: str
    task: str
    phrasing: str
    item: str
    prompt_key: bytes
    is_text: bool
    place: int


class Rows(Sequence[Conversation]):
    """Conversations by index. Those beyond IN_MEMORY are in the file `path`, which goes when the context ends.

    The file is read by position, so forked processes may read it at the same time.
    """

    def __init__(self, path: Path, in_memory: int = IN_MEMORY) -> None:
        self._path = path
        self._in_memory = in_memory
        self._first: list[Conversation] = []
        self._ends = array("q", [0])

    def __enter__(self) -> Rows:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w+b", buffering=1 << 20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def append(self, row: Conversation) -> RowLabel:
        """Add a row; its label has the place by which it is found again."""
        label = RowLabel(
            row.id, row.source, row.cluster, row.task, row.phrasing, row.item, row.prompt_key, row.is_text, len(self)
        )
        if len(self._first) < self._in_memory:
            self._first.append(row)
        else:
            line = row.to_json().encode("utf-8", "surrogatepass")
            self._file.write(line)
            self._ends.append(self._ends[-1] + len(line))
        return label

    def __len__(self) -> int:
        return len(self._first) + len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        if index < len(self._first):
            return self._first[index]
        start, end = self._ends[index - len(self._first) : index - len(self._first) + 2]
        self._file.flush()
        line = os.pread(self._file.fileno(), end - start, start)
        return Conversation.from_json(line.decode("utf-8", "surrogatepass"))

    def picked(self, places: Iterable[int]) -> Sequence[Conversation]:
        """The rows at these places, in that order, each read when it is asked for."""
        return PickedRows(self, array("q", places))


class PickedRows(Sequence[Conversation]):
    """Some rows of others, each read when it is asked for."""

    def __init__(self, rows: Sequence[Conversation], places: array[int]) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._rows[place] for place in self._places[index]]
        return self._rows[self._places[index]]
