"""Reading a source: files to conversations, every row kept or rejected with its line and a reason."""

from __future__ import annotations

import gc
import glob as globbing
import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import DataError, TunesmithError
from tunesmith.base.random import seed_of
from tunesmith.data.ledger import Drop
from tunesmith.data.sources import hub
from tunesmith.data.sources.formats import Draft, Shape, extra, labels, mapped, nearest, recognise, shape_named
from tunesmith.data.sources.messages import Rejected, check_values
from tunesmith.data.sources.phrasings import Phrasings
from tunesmith.data.sources.records import COMPRESSED, KINDS, Record, file_kind, read_records

Kind = Literal["instructions", "text"]
STAGE = "read"
PEEK = 1000  # rows whose columns are looked at before any is put into words by a prompt template
# Files of a folder that describe its data and are none.
_ABOUT = ("readme", "license", "dataset_infos", "dataset_dict", "state", "dataset_info")


@dataclass(frozen=True, slots=True)
class SourceRows:
    """What a source held.

    format: the sentence that says how its rows were understood. read: rows seen, `kept` and `rejected`.
    rows: the kept ones, unless they were handed on one by one.
    changed: kept rows that were mended, and note: what was mended and what else a person should know.
    """

    name: str
    format: str
    files: tuple[Path, ...]
    read: int
    kept: int
    rows: list[Conversation]
    rejected: list[Drop]
    changed: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        if self.read != self.kept + len(self.rejected):
            raise TunesmithError(
                f"source {self.name}: {self.read:,} rows were read, but {self.kept:,} kept and "
                f"{len(self.rejected):,} rejected. This is a bug of Tunesmith; nothing was trained. Please report it."
            )


def read_source(
    name: str,
    path: Path | str,
    *,
    map: Mapping[str, str] | None = None,
    format: str | None = None,
    cluster: str = "",
    task: str = "",
    kind: Kind = "instructions",
    phrasings: Phrasings | None = None,
    sample: int | None = None,
    seed: int = 0,
    unanswered: bool = False,
    into: Callable[[Conversation], object] | None = None,
) -> SourceRows:
    """Read a file, a folder, a glob or "hub:owner/name" into conversations.

    map: our name -> column, for columns of other names. format: refuse rows of any other shape than this.
    cluster, task: labels for rows whose own columns have none; cluster defaults to the source's name.
    kind: "text" takes plain text only. sample: keep this many readable rows, drawn by `seed` from all of them.
    phrasings: puts the rows into words by prompt templates, whatever their shape; `map` then names labels only, and
    `sample` counts rows of the table, each taken with all that was drawn for it.
    unanswered: keep rows whose last message is an assistant's that says nothing; they can't be trained, but counted.
    into: takes the kept rows one by one, so that they are never in memory all at once.

    Row ids are NAME:LINE in JSONL, CSV and text files, NAME:NUMBER in JSON and Parquet, with the file between when
    there are several, and .K behind when a line yields several rows, each of which counts as read.
    Raises DataError when the source can't be used at all: missing, empty, damaged, or a `map` that fits no column.
    """
    if sample is not None and sample < 1:
        raise DataError(
            f"source {name}: a sample of {sample} rows leaves nothing to read. Give 1 or more, or leave it out."
        )
    files = source_files(path)
    shape = shape_named(format) if format else None
    reader = _Reader(name, dict(map or {}), shape, cluster, task, kind, phrasings, unanswered)
    lines = reader.by_line(files)
    # What a sample draws: a row by itself, but of a table all that was made of one of its rows.
    drawn: Iterable[list[Conversation]] = lines if phrasings else ([row] for line in lines for row in line)
    rows: list[Conversation] = []
    keep, kept, changed = into or rows.append, 0, 0
    counts: Counter[str] = Counter()
    with _few_collections():
        if sample is not None:
            drawn = _sampled(drawn, sample, seed, reader.rejected)
        for row in chain.from_iterable(drawn):
            keep(row)
            kept += 1
            reader.phrased[row.phrasing] += 1
            if changes := reader.changes.pop(row.id, None):
                changed += 1
                counts.update(changes)
    reader.refuse_nothing_read(path)
    notes = [reader.drawn()] if phrasings else []
    notes += [f"{change} ({count:,} rows)" for change, count in counts.items()]
    if isinstance(drawn, list) and sample is not None:
        notes += _said_of_sample(sample, len(drawn), table=phrasings is not None)
    note = "; ".join(notes + _said_of_files(path, files))
    return SourceRows(name, reader.sentence(), files, reader.read, kept, rows, reader.rejected, changed, note)


def _said_of_files(path: Path | str, files: Sequence[Path]) -> list[str]:
    """Which were read, where the path itself does not say."""
    if len(files) == 1 and not str(path).startswith(hub.PREFIX):
        return []
    return [f"read from {', '.join(file.name for file in files[:5])}{', …' if len(files) > 5 else ''}"]


def _said_of_sample(asked: int, taken: int, *, table: bool) -> list[str]:
    """What to tell of a sample: that there was less than was asked, or what its rows are."""
    of = " of the table" if table else ""
    if taken < asked:
        return [f"a sample of {asked:,} was asked and there are {taken:,} rows{of}: all were taken"]
    return [f"a sample of {asked:,} rows{of} was taken"] if table else []


@contextmanager
def _few_collections() -> Iterator[None]:
    """Rows are no cycles; looking for some among more and more of them takes a fifth of the time of reading."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def source_files(path: Path | str) -> tuple[Path, ...]:
    """The data files behind a path, a folder, a glob or a Hub address, sorted. Raises DataError when there are none.

    A Hub data set without a glob gives the files of its training split, if the file names tell which they are.
    """
    address = str(path)
    if address.startswith(hub.PREFIX):
        patterns = [f"**{suffix}{behind}" for suffix in KINDS for behind in ("", *COMPRESSED)]
        folder, pattern = hub.fetch(address, patterns)
        files = _matches(folder, pattern) if pattern else _data_files(folder)
        if not pattern:
            files = [file for file in files if "train" in str(file.relative_to(folder)).lower()] or files
    elif Path(path).is_dir():
        files = _data_files(Path(path))
    elif Path(path).exists():
        files = [Path(path)]
    elif globbing.has_magic(address):
        files = [Path(found) for found in sorted(globbing.glob(address, recursive=True)) if Path(found).is_file()]  # noqa: PTH207 (absolute patterns)
    else:
        raise DataError(f"there is no file {address}, so nothing can be read from it. {_neighbours(Path(path))}")
    if not files:
        raise DataError(
            f"{address} holds no data files, so nothing can be read from it. Tunesmith reads {', '.join(KINDS)}, "
            f"each also with {' or '.join(COMPRESSED)} behind it."
        )
    return tuple(files)


@dataclass
class _Reader:
    """Turns records into conversations and keeps count of all that it meets."""

    name: str
    map: dict[str, str]
    wanted: Shape | None
    cluster: str
    task: str
    kind: Kind
    phrasings: Phrasings | None = None
    unanswered: bool = False
    lines: int = 0
    read: int = 0
    rejected: list[Drop] = field(default_factory=list)
    changes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shapes: Counter[str] = field(default_factory=Counter)
    columns: dict[str, dict[str, None]] = field(default_factory=dict)
    phrased: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.mapped = mapped(self.map)
        self.taken = dict(self.map)
        if self.phrasings:
            self.cluster = self.cluster or self.phrasings.file.cluster
            self.task = self.task or self.phrasings.file.task
            self.taken |= {name: name for name in self.phrasings.used}

    def by_line(self, files: tuple[Path, ...]) -> Iterator[list[Conversation]]:
        """The readable rows of all files, those of one record together; the others go to `rejected`."""
        for file, label in zip(files, labels_of_files(files), strict=True):
            records = read_records(file)
            for record in self._peeked(records, file) if self.phrasings else records:
                if rows := list(self._rows(record, f"{self.name}:{label}{record.number}")):
                    yield rows

    def _peeked(self, records: Iterator[Record], file: Path) -> Iterator[Record]:
        """The records, once their first ones show that they have the columns which the prompt templates name."""
        assert self.phrasings
        first = list(islice(records, PEEK))
        there = {column for record in first if isinstance(record.value, dict) for column in record.value}
        if there:
            which = f"the table {file}" if len(first) < PEEK else f"each of the first {PEEK:,} rows of {file}"
            self.phrasings.check_columns(there, which)
        return chain(first, records)

    def _rows(self, record: Record, line: str) -> Iterator[Conversation]:
        self.lines += 1
        try:
            drafts = self._by_templates(record.value, line) if self.phrasings else self._drafts(record.value)
        except Rejected as fault:
            drafts = [fault]
        for number, draft in enumerate(drafts, 1):
            self.read += 1
            part = record.part or (number if len(drafts) > 1 else 0)
            id = f"{line}.{part}" if part else line
            if isinstance(draft, Rejected) and self.unanswered and draft.messages:
                draft = Draft(draft.messages)
            if isinstance(draft, Rejected):
                self.rejected.append(Drop(id, STAGE, draft.reason, draft.detail))
                continue
            if draft.changes:
                self.changes[id] = draft.changes
            item = self.phrasings.item(record.value) if self.phrasings else line if part else ""
            yield self._conversation(record.value, draft, id, item)

    def _by_templates(self, value: Any, line: str) -> list[Draft | Rejected]:
        """What the prompt templates make of a row of a table."""
        assert self.phrasings
        if isinstance(value, Rejected):
            raise value
        if not isinstance(value, dict):
            raise Rejected("not_an_object", f"the row is {type(value).__name__}, not an object with columns")
        self._count(self.phrasings.title, value)
        check_values(value)
        return self.phrasings.render(value, line)

    def _drafts(self, value: Any) -> list[Draft | Rejected]:
        if isinstance(value, Rejected):
            raise value
        if not isinstance(value, dict):
            # A bare list is what JSONL of nothing but messages looks like.
            if not (isinstance(value, list) and value and all(isinstance(one, dict) for one in value)):
                raise Rejected("not_an_object", f"the row is {type(value).__name__}, not an object with columns")
            value = {"messages": value}
        shape = self.mapped or (self.wanted if self.wanted and self.wanted.fits(value) else recognise(value))
        self._count(shape.title if shape else "no known shape", value)
        if shape is None:
            raise Rejected("unknown_shape", f"its columns are {', '.join(value) or 'none'}; name them with `map`")
        if self.wanted and self.wanted is not shape and not self.mapped:
            raise Rejected("not_in_format", f"the row is {shape.title}, and format: {self.wanted.name} was asked")
        check_values(value)
        if not self.mapped:
            value = value | {key: value.get(self.map[key]) for key in ("system", "tools") if key in self.map}
        drafts = list(shape.read(value))
        if self.kind == "text" and shape.name != "text" and "text" not in self.map:
            raise Rejected("not_plain_text", f"the row is {shape.title}; name the column of the text with `map`")
        return drafts

    def _conversation(self, value: Any, draft: Draft, id: str, item: str) -> Conversation:
        columns = value if isinstance(value, dict) else {}
        own, given = labels(columns, self.map), draft.labels
        # What a recipe says of a whole source beats a column that merely has the usual name, and what a prompt template
        # says of its own rows beats both.
        cluster = (own["cluster"] if "cluster" in self.map else "") or self.cluster or own["cluster"] or self.name
        task = (own["task"] if "task" in self.map else "") or self.task or own["task"]
        if "variant" in given:
            task = f"{task}_{given['variant']}"
        return Conversation(
            id=id,
            messages=draft.messages,
            source=self.name,
            cluster=given.get("cluster") or cluster,
            task=given.get("task") or task,
            phrasing=given.get("phrasing") or own["phrasing"],
            item=own["item"] or item,  # rows from one line are made from one thing
            tools=draft.tools,
            extra=extra(columns, self.taken),
        )

    def _count(self, title: str, value: dict[str, Any]) -> None:
        self.shapes[title] += 1
        self.columns.setdefault(title, {}).update(dict.fromkeys(value))

    def sentence(self) -> str:
        """How the rows were understood, over the whole source."""
        parts = []
        for title, count in self.shapes.most_common():
            names = list(self.columns[title])
            keys = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
            parts.append(f"{title} ({count:,} row{'s' * (count != 1)}, keys {keys})")
        return "; ".join(parts) or "nothing that could be decoded"

    def drawn(self) -> str:
        """How many rows a table gave, and which prompt templates put how many of them into words."""
        assert self.phrasings
        said = f"{self.lines:,} rows of the table gave {self.read:,}"
        counts = {template.name: self.phrased[template.name] for template in self.phrasings.file.templates}
        if any(counts.values()):
            ranked = sorted(counts, key=lambda name: -counts[name])
            said += f", by template: {', '.join(f'{name} {counts[name]:,}' for name in ranked)}"
        return said

    def refuse_nothing_read(self, path: Path | str) -> None:
        """Raise DataError for an empty source, and for a `map` with a column that no row has."""
        if not self.read:
            raise DataError(
                f"{path} is empty: it holds no rows. Give source {self.name} a file with data, or remove it."
            )
        seen = {column for columns in self.columns.values() for column in columns}
        for key, column in self.map.items():
            if seen and column not in seen:
                raise DataError(
                    f"source {self.name}: `map` takes {key} from column {column!r}, and no row of {path} has it. "
                    f"{nearest(column, seen)}"
                )


def _sampled(
    drawn: Iterable[list[Conversation]], size: int, seed: int, rejected: list[Drop]
) -> list[list[Conversation]]:
    """The `size` groups of rows whose keyed hash is smallest, in their order; the others are rejected as not sampled.

    So a sample is drawn from the whole source while only `size` groups are held, and one that is added or removed
    moves at most one other.
    """
    heap: list[tuple[int, int, list[Conversation]]] = []
    for order, rows in enumerate(drawn):
        heapq.heappush(heap, (-seed_of(seed, "sample", rows[0].id), -order, rows))
        if len(heap) > size:
            out = heapq.heappop(heap)[2]
            rejected += [Drop(row.id, STAGE, "not_sampled", f"{size:,} rows were asked") for row in out]
    return [rows for _, _, rows in sorted(heap, key=lambda entry: -entry[1])]


def labels_of_files(files: Sequence[Path]) -> list[str]:
    """What a row's id says of its file: nothing for a lone file, otherwise the path below what all have in common."""
    if len(files) == 1:
        return [""]
    shared = os.path.commonpath([file.parent for file in files])
    return [f"{file.relative_to(shared).as_posix()}:" for file in files]


def records_of(path: Path | str) -> Iterator[tuple[Path, str, Record]]:
    """Every record of a file, folder or glob, with its file and what `labels_of_files` says of that."""
    files = source_files(path)
    for file, label in zip(files, labels_of_files(files), strict=True):
        for record in read_records(file):
            yield file, label, record


def _data_files(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if file.is_file() and file_kind(file))
    own = (file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    return sorted(file for file in own if file.name.split(".")[0].lower() not in _ABOUT)


def _matches(folder: Path, pattern: str) -> list[Path]:
    return sorted(file for file in folder.glob(pattern) if file.is_file())


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either; relative paths count from {Path.cwd()}."
    names = sorted(other.name for other in path.parent.iterdir())
    close = get_close_matches(path.name, names, n=3, cutoff=0.4)
    return f"Near it there {'are' if len(close) > 1 else 'is'} {', '.join(close)}." if close else "Check the path."
