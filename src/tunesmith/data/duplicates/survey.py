"""What duplicates are settled by, for every row and in a few bytes each: its id, its exact text, and how good it is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import DataError
from tunesmith.base.parallel import map_chunks
from tunesmith.data.duplicates.ngrams import Hashes, Indices, normalised
from tunesmith.data.duplicates.parts import Over, parts_of

Keep = Literal["longest", "first", "best"]

_ROWS_AT_ONCE = 1_000
_ID = re.compile(r"(.*):(0|[1-9]\d{0,17})(?:\.(0|[1-9]\d{0,8}))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Survey:
    """Arrays over the rows by place.

    texts (rows, 2): a hash of what is compared, with NFKC, case and white space evened out. blank: nothing is there.
    values: the length or score by which rows are preferred. files: of `names`, (source, id without its number).
    lines, parts: the numbers of the id, -1 where there is none.
    """

    texts: Hashes
    blank: NDArray[np.bool_]
    values: NDArray[np.float64]
    names: list[tuple[str, str]]
    files: NDArray[np.int32]
    lines: Indices
    parts: NDArray[np.int32]

    def id(self, place: int) -> str:
        name, line, part = self.names[self.files[place]][1], int(self.lines[place]), int(self.parts[place])
        return name if line < 0 else f"{name}:{line}" if part < 0 else f"{name}:{line}.{part}"

    def best_first(self, sources: Sequence[str]) -> Indices:
        """All places, those with the highest values first; then in the order of sources, files and lines.

        sources: names in their order; others follow by name. Nothing depends on the order of the rows.
        """
        rank = {name: number for number, name in enumerate(sources)}
        ordered = sorted(set(self.names), key=lambda name: (rank.get(name[0], len(rank)), *name))
        by_name = {name: number for number, name in enumerate(ordered)}
        files = np.fromiter((by_name[name] for name in self.names), np.int64, len(self.names))
        return np.lexsort((self.parts, self.lines, files[self.files], -self.values))


def survey(rows: Sequence[Conversation], *, over: Over, keep: Keep, score: str = "", workers: int = 1) -> Survey:
    """Go through all rows once.

    keep: "longest" prefers the row with more text in all its messages (white space is none), "first" the one that
    comes first, "best" the one whose column `score` has the higher number (rows without one come last).
    Raises DataError when no row has a number in that column.
    """
    if len(rows):
        rows[len(rows) - 1]  # what is not yet written to the rows' file is, before processes are forked
    places: Any = range(len(rows))
    chunks = map_chunks(lambda part: _surveyed(rows, part, over, keep, score), places, _ROWS_AT_ONCE, workers)
    count, done = len(rows), 0
    found = Survey(
        np.zeros((count, 2), np.uint64),
        np.zeros(count, np.bool_),
        np.zeros(count),
        [],
        np.zeros(count, np.int32),
        np.zeros(count, np.int64),
        np.zeros(count, np.int32),
    )
    known: dict[tuple[str, str], int] = {}
    for digests, blank, values, names, numbers in chunks:
        part = slice(done, done := done + len(blank))
        found.texts[part] = np.frombuffer(digests, "<u8").reshape(-1, 2)
        found.blank[part], found.values[part] = blank, values
        found.files[part] = [known.setdefault(name, len(known)) for name in names]
        found.lines[part], found.parts[part] = numbers
    found.names.extend(known)
    if keep == "best" and count and not np.isfinite(found.values).any():
        raise DataError(
            f"duplicates are to be kept by the best {score!r}, and no row has a number in such a column. Name a column "
            f"of numbers that a source has, or keep the longest."
        )
    return found


def _surveyed(rows: Sequence[Conversation], places: Sequence[int], over: Over, keep: Keep, score: str) -> Any:
    digests, blank, values, names, numbers = bytearray(), [], [], [], []
    for row in (rows[place] for place in places):
        parts = parts_of(row, over, system=True)
        text = "\x1f".join(" ".join(normalised(part).split()) for part in parts)
        digests += blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        blank.append(not text.strip("\x1f"))
        values.append(_value(row, keep, score))
        match = _ID.fullmatch(row.id)
        name, line, part = match.groups() if match else (row.id, None, None)
        names.append((row.source, name))
        numbers.append((-1 if line is None else int(line), -1 if part is None else int(part)))
    return bytes(digests), blank, values, names, list(zip(*numbers, strict=True))


def _value(row: Conversation, keep: Keep, score: str) -> float:
    if keep == "first":
        return 0.0
    if keep == "longest":
        return float(sum(len("".join(message.content.split())) for message in row.messages))
    try:
        value = float(row.extra.get(score, "nan"))
    except (TypeError, ValueError):
        return -math.inf
    return value if math.isfinite(value) else -math.inf
