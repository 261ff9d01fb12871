"""Where a row came from: the file and the line, and what stands there."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.read import labels_of_files
from tunesmith.data.sources.records import file_kind, read_records

SHOWN = 300  # characters of a row
_PLACE = re.compile(r"(?:(?P<label>.+):)?(?P<number>\d+)(?:\.(?P<part>\d+))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Origin:
    """A line of a text file, or an element of a JSON or Parquet file, from 1. part: which row that it yields, or 0."""

    file: Path
    number: int
    part: int

    @property
    def said(self) -> str:
        what = "line" if file_kind(self.file) in ("jsonl", "csv", "text") else "element"
        return f"{self.file}, {what} {self.number}" + (f", row {self.part} of it" if self.part else "")


def origin_of(row: str, source: str, files: Sequence[Path]) -> Origin | None:
    """Where the row of this id is in the files of its source; None if it is none of that source's ids."""
    found = _PLACE.fullmatch(row.removeprefix(f"{source}:")) if row.startswith(f"{source}:") else None
    if not found:
        return None
    by_label = {label.removesuffix(":"): file for label, file in zip(labels_of_files(files), files, strict=True)}
    file = by_label.get(found["label"] or "")
    return Origin(file, int(found["number"]), int(found["part"] or 0)) if file else None


def excerpts(file: Path, origins: Collection[Origin]) -> dict[Origin, str]:
    """What stands in the file where these rows came from, cut short. The file is read once, up to the last of them."""
    wanted: dict[int, list[Origin]] = {}
    for origin in origins:
        wanted.setdefault(origin.number, []).append(origin)
    found: dict[Origin, str] = {}
    for record in read_records(file):
        for origin in wanted.get(record.number, ()):
            if record.part in (0, origin.part):
                found.setdefault(origin, _cut(_text(file, record.number, record.value)))
        if len(found) == len(set(origins)):
            break
    return found


def _text(file: Path, number: int, value: object) -> str:
    if not isinstance(value, Rejected):
        return json.dumps(value, ensure_ascii=False, default=str)
    if file_kind(file) != "jsonl" or file.suffix != ".jsonl":
        return f"({value.detail})"
    with file.open("rb") as lines:  # as it stands, since it can't be decoded
        return (
            next(line for at, line in enumerate(lines, 1) if at == number).decode("utf-8", "backslashreplace").strip()
        )


def _cut(text: str) -> str:
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= SHOWN else f"{plain[:SHOWN]}… ({len(plain) - SHOWN:,} more characters)"
