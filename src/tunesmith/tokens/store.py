"""The token store: the sequences of a run in a folder of flat arrays, memory-mapped.

    ids.bin         token ids, uint16 where the vocabulary allows it, int32 otherwise
    supervised.bin  one byte a token, 1 trains
    turns.bin       int32 triples (message, start, end), the supervised spans of all sequences
    rows.parquet    a line a sequence: row id, cluster, length, supervised tokens, number of spans
    meta.json       type of the ids, counts, size and SHA-256 of each file, and what the caller states (a content key)

The bytes depend on the sequences and their order alone. Opening reads rows.parquet and maps the rest; `verify` reads
everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tunesmith.base.errors import TunesmithError
from tunesmith.base.files import file_hash, read_json, write_json, written_aside
from tunesmith.tokens.encoded import Encoded

FILES = ("ids.bin", "supervised.bin", "turns.bin", "rows.parquet")
SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("cluster", pa.dictionary(pa.int32(), pa.string())),
        ("length", pa.int32()),
        ("supervised", pa.int32()),
        ("turns", pa.int32()),
    ]
)
Entry = tuple[Encoded, str, str]  # a sequence, its row's id, its group
ROWS_AT_ONCE = 20_000
_UINT16_VOCABULARY = 1 << 16


class TokenStore:
    """Sequences by index: `store[i]` is an `Encoded`, read from the mapped files when asked for.

    rows: the table of rows.parquet. lengths, supervised_counts: int64, (sequences,). meta: what the writer stated.
    """

    def __init__(self, folder: Path, meta: Mapping[str, Any], rows: pa.Table) -> None:
        self.folder = folder
        self.meta: Mapping[str, Any] = meta["stated"]
        self.lengths: NDArray[np.int64] = _column(rows, "length")
        self.supervised_counts: NDArray[np.int64] = _column(rows, "supervised")
        self.rows = rows
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._turn_starts = np.concatenate([[0], np.cumsum(_column(rows, "turns"))])
        self._ids = _mapped(folder / "ids.bin", meta["ids"])
        self._supervised = _mapped(folder / "supervised.bin", "bool")
        self._turns = _mapped(folder / "turns.bin", "int32").reshape(-1, 3)

    @classmethod
    def write(
        cls,
        folder: Path,
        sequences: Iterable[Entry],
        meta: Mapping[str, Any],
        *,
        vocabulary: int | None = None,
    ) -> TokenStore:
        """Write (sequence, row id, cluster) triples as they come, and open the result.

        meta: JSON-able values kept with the store. vocabulary: the number of token ids, if known; up to 65,536 take
        two bytes each. A folder that was there before is replaced only once the new one is complete.
        """
        kind = "uint16" if vocabulary is not None and vocabulary <= _UINT16_VOCABULARY else "int32"
        with written_aside(folder) as aside:
            aside.mkdir()
            _write_arrays(aside, sequences, kind)
            sizes = {name: (aside / name).stat().st_size for name in FILES}
            hashes = {name: file_hash(aside / name) for name in FILES}
            write_json(aside / "meta.json", {"ids": kind, "sizes": sizes, "sha256": hashes, "stated": dict(meta)})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Raises TunesmithError if the folder holds no store, or if a file has lost or gained bytes since."""
        try:
            meta = read_json(folder / "meta.json")
            sizes = {name: (folder / name).stat().st_size for name in FILES}
        except FileNotFoundError as error:
            raise TunesmithError(f"{folder} is no token store: {error.filename} is missing. {_REMEDY}") from error
        for name, size in sizes.items():
            if size != meta["sizes"][name]:
                raise TunesmithError(f"{folder / name} has {size} bytes, {meta['sizes'][name]} were written. {_REMEDY}")
        # Training holds what is imported: `read_table` and `to_numpy` bring in pandas where it is installed, 25 MB.
        with pq.ParquetFile(folder / "rows.parquet") as file:
            return cls(folder, meta, file.read())

    def verify(self) -> None:
        """Read every byte; raises TunesmithError naming the first file that is not what was written."""
        for name, expected in read_json(self.folder / "meta.json")["sha256"].items():
            if file_hash(self.folder / name) != expected:
                raise TunesmithError(f"{self.folder / name} is damaged: its checksum is not the one written. {_REMEDY}")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Encoded:
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of a token store of {len(self)}")
        span = slice(self._starts[index], self._starts[index + 1])
        turns = self._turns[self._turn_starts[index] : self._turn_starts[index + 1]]
        return Encoded(
            ids=self._ids[span].astype(np.int32),
            supervised=self._supervised[span],
            turns=tuple(map(tuple, turns.tolist())),
        )

    def __iter__(self) -> Iterator[Encoded]:
        return (self[index] for index in range(len(self)))

    @property
    def row_ids(self) -> list[str]:
        """The row each sequence came from."""
        ids: list[str] = self.rows["row"].to_pylist()
        return ids

    @property
    def clusters(self) -> list[str]:
        """The task cluster of each sequence."""
        clusters: list[str] = self.rows["cluster"].to_pylist()
        return clusters

    @property
    def tokens(self) -> int:
        return int(self.lengths.sum())


_REMEDY = "Delete the folder and prepare the data again (`tunesmith prepare`)."


def _write_arrays(folder: Path, sequences: Iterable[Entry], kind: str) -> None:
    limit = np.iinfo(kind).max
    with ExitStack() as stack:
        ids, supervised, turns = (stack.enter_context((folder / name).open("wb", 1 << 20)) for name in FILES[:3])
        table = stack.enter_context(pq.ParquetWriter(folder / "rows.parquet", SCHEMA))
        lines: list[tuple[str, str, int, int, int]] = []
        for sequence, row, cluster in sequences:
            assert len(sequence) and int(sequence.ids.max()) <= limit, f"{row}: no tokens, or an id above {limit}"
            ids.write(sequence.ids.astype(kind).data)
            supervised.write(sequence.supervised.data)
            turns.write(np.asarray(sequence.turns, dtype=np.int32).data)
            lines.append((row, cluster, len(sequence), int(sequence.supervised.sum()), len(sequence.turns)))
            if len(lines) == ROWS_AT_ONCE:
                table.write_table(_table(lines))
                lines.clear()
        table.write_table(_table(lines))


def _table(lines: list[tuple[str, str, int, int, int]]) -> pa.Table:
    columns = zip(*lines, strict=True) if lines else [()] * len(SCHEMA)
    return pa.table([pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


def _column(rows: pa.Table, name: str) -> NDArray[np.int64]:
    return np.from_dlpack(rows[name].combine_chunks()).astype(np.int64)


def _mapped(path: Path, kind: str) -> NDArray[Any]:
    """An empty file can't be mapped."""
    return np.memmap(path, dtype=kind, mode="r") if path.stat().st_size else np.empty(0, dtype=kind)
