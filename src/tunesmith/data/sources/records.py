"""From files to records: JSON, JSONL, CSV, Parquet and plain text, bare or compressed, one fault costing one record.

A record is whatever one row of a file holds, before anyone asks what it means. What can't be decoded comes out in its
place as a `Rejected`, so that no row is lost silently and none takes its neighbours with it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.base.errors import DataError
from tunesmith.data.sources.formats import recognise
from tunesmith.data.sources.messages import Rejected

KINDS = {
    **dict.fromkeys((".json",), "json"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".txt", ".md", ".text"), "text"),
}
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
PIECE = 2000  # characters of a piece, when a document of a text file is long
LONG = 2 * PIECE  # characters from which a document is cut into pieces

# Not behind a capital (initials, "U.S."); a capital may follow at once, as where a line break was lost.
_SENTENCE_END = re.compile(r"(?<![A-Z\s])[.!?…]+[)\]\"'”’]*(?=\s|[A-Z])|[。！？]")


class Record(NamedTuple):
    """One record: its number in the file (a line, or an element from 1), its part of that line (0: all), its value."""

    number: int
    part: int
    value: Any


def file_kind(path: Path) -> str | None:
    """The kind of data a file's name promises ("json", "jsonl", "csv", "parquet", "text"), or None."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return KINDS.get(suffixes[-1]) if suffixes else None


def read_records(path: Path) -> Iterator[Record]:
    """Every record of a file, streamed (a .json file is held in memory whole). Blank lines are no records.

    Raises DataError when the file itself can't be read: damaged, not UTF-8 text at all, of an unknown kind, a table
    with two columns of one name.
    """
    kind = file_kind(path) or _sniffed(path)
    try:
        if kind == "parquet":
            yield from _parquet(path)
            return
        with _opened(path) as text:
            readers: dict[str, Callable[[TextIO], Iterator[Record]]] = {
                "json": _json, "jsonl": _json_lines, "csv": partial(_csv, path), "text": _documents
            }  # fmt: skip
            yield from readers[kind](text)
    except (pa.ArrowException, csv.Error, OSError) as error:
        raise DataError(
            f"{path} can't be read to its end: {error}. None of it is used: it may be damaged, or not fetched "
            f"whole. Fetch it again, or take it out of the sources."
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """A file as text. Bytes that are not UTF-8 become lone surrogates, which later costs only the rows holding them."""
    # Arrow's decompressors notice a stream that was cut short; zstandard's own reader ends as if all were well.
    codec = COMPRESSED.get(path.suffix.lower())
    with path.open("rb") as raw, pa.CompressedInputStream(raw, codec) if codec else raw as source:
        stream = io.BufferedReader(source)
        if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path} is UTF-16, and Tunesmith reads UTF-8. Convert it: iconv -f UTF-16 -t UTF-8")
        # Lines end at \n alone: a bare \r or a U+2028 inside a JSON string must not end one.
        yield io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="\n")


def _sniffed(path: Path) -> str:
    with _opened(path) as text:
        start = text.read(4096).lstrip()
    if start.startswith("PAR1"):
        return "parquet"
    if start.startswith(("{", "[")):
        return "json"
    raise DataError(
        f"{path} is of no kind Tunesmith reads, so nothing of it is used. Its name should end in one of "
        f"{', '.join(KINDS)}, with {' or '.join(COMPRESSED)} behind it when compressed."
    )


def _json_lines(text: TextIO) -> Iterator[Record]:
    lines = enumerate(text, 1)
    for number, line in lines:
        if not (line := line.strip().lstrip("\ufeff")):
            continue
        value = _decoded(line, number)
        if number == 1 and isinstance(value, Rejected) and line.startswith("["):
            # An array over several lines under the name of JSONL.
            yield from _json(io.StringIO(line + "\n" + text.read()))
            return
        yield Record(number, 0, value)


def _decoded(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return Rejected("bad_json", f"line {number}: {_reason(error)}")


def _json(text: TextIO) -> Iterator[Record]:
    """A JSON array, an object with one array in it, one row alone, or objects one after the other."""
    body = text.read().lstrip("\ufeff")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        yield from (Record(n, 0, value) for n, value in enumerate(_elements(body), 1))
        return
    if isinstance(value, dict):
        arrays = [v for v in value.values() if isinstance(v, list) and v and all(isinstance(e, dict) for e in v)]
        value = arrays[0] if len(arrays) == 1 and recognise(value) is None else [value]
    yield from (Record(n, 0, element) for n, element in enumerate(value if isinstance(value, list) else [value], 1))


def _elements(body: str) -> Iterator[Any]:
    """The values of broken JSON one by one; after a fault, on from the next line that starts as the first value did."""
    decoder = json.JSONDecoder()
    opening = re.compile(r"\s*\[?\s*").match(body)
    position = opening.end() if opening else 0
    is_array = body.lstrip().startswith("[")
    start_of_line = body.rfind("\n", 0, position) + 1
    indent = body[start_of_line:position] if body[start_of_line:position].isspace() else ""
    separator = re.compile(r"[\s,]*")
    while position < len(body):
        if is_array and body[position] == "]" and not body[position + 1 :].strip():
            return
        try:
            value, position = decoder.raw_decode(body, position)
        except (ValueError, RecursionError) as error:
            line = body.count("\n", 0, position) + 1
            value = Rejected("bad_json", f"line {line}: {_reason(error)}")
            found = body.find(f"\n{indent}{{", position)
            position = len(body) if found < 0 else found + 1
            is_array = is_array and found >= 0
        yield value
        after = separator.match(body, position)
        position = after.end() if after else position
    if is_array:
        yield Rejected("bad_json", "the file ends before its array does: rows behind the last one are lost")


def _csv(path: Path, text: TextIO) -> Iterator[Record]:
    """A table with a header. A record's number is the line it starts on; quoted fields may run over lines."""
    csv.field_size_limit(2**31 - 1)
    header = text.readline()
    rows = csv.reader(chain([header], text), delimiter=max(",\t;", key=header.count), strict=True)
    names = next(rows, [])
    # Columns without a name may be several: spreadsheets write empty ones, and no shape and no `map` reads them.
    twice = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    if twice:
        raise DataError(
            f"{path} has several columns called {' and '.join(map(repr, twice))}, and a row holds one value for a "
            f"name, so the others would be lost. Rename them in its first line."
        )
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(line, 0, Rejected("bad_csv", f"lines {line} to {rows.line_num}: {error}"))
            continue
        if len(row) == len(names):
            yield Record(line, 0, dict(zip(names, row, strict=True)))
        elif row:
            yield Record(line, 0, Rejected("bad_csv", f"line {line}: {len(row)} fields under {len(names)} columns"))


def _parquet(path: Path) -> Iterator[Record]:
    with pq.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                number += 1
                yield Record(number, 0, {key: _without_nulls(value) for key, value in row.items()})


def _without_nulls(value: Any) -> Any:
    """Parquet gives every struct the fields of all of them, null where a row has none: those were never there."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _documents(text: TextIO) -> Iterator[Record]:
    """The documents of a text file: blocks between blank lines or, in a file without a blank line, its lines.

    A document of more than 4,000 characters comes in parts of about 2,000, cut behind sentences.
    """
    lines = text.read().lstrip("\ufeff").splitlines()
    has_blocks = any(not line.strip() for line in _without_blank_ends(lines))
    block: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            block.append(line)
        if block and (not has_blocks or not line.strip()):
            first = number - len(block) + (1 if line.strip() else 0)
            pieces = cut("\n".join(block).strip())
            yield from (Record(first, k if len(pieces) > 1 else 0, {"text": p}) for k, p in enumerate(pieces, 1))
            block = []


def _without_blank_ends(lines: list[str]) -> list[str]:
    filled = [number for number, line in enumerate(lines) if line.strip()]
    return lines[filled[0] : filled[-1] + 1] if filled else []


def cut(document: str) -> list[str]:
    """A long document in pieces of about 2,000 characters, ending with a sentence where one ends within 1,000 more.

    Otherwise a piece ends at white space, or in the middle of a word when there is none. Nothing but white space at
    the cuts is left out.
    """
    pieces = []
    while len(document) > LONG:
        window = document[: PIECE + PIECE // 2]
        sentence = _SENTENCE_END.search(window, PIECE)
        space = window.find(" ", PIECE)
        end = sentence.end() if sentence else space if space > 0 else len(window)
        pieces.append(document[:end].rstrip())
        document = document[end:].lstrip()
    return [*pieces, document]


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
