"""The files that a run's data are made from: which bytes were there, and that these are the bytes that were read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.base.errors import DataError
from tunesmith.base.files import file_hash, read_json, write_json
from tunesmith.base.progress import track

FILES = "files.json"  # in the ledger


@dataclass(frozen=True, slots=True)
class Input:
    """A file as it was before anything was read from it. state: what the system says of it, see `_state`."""

    path: Path
    sha256: str
    state: tuple[int, ...]


def inputs_of(files: Sequence[Path]) -> list[Input]:
    """The files with a hash of their bytes."""
    # The state comes first: a file that changes while it is hashed is then seen to have changed.
    found = ((file, _state(file)) for file in track(files, "Reading files", len(files)))
    return [Input(file, file_hash(file), state) for file, state in found]


def refuse_changed(inputs: Sequence[Input]) -> None:
    """Raises DataError, naming it, if a file is not what it was: what was read is then not what the run's key says.

    One that was touched and holds the same bytes has not changed.
    """
    for given in inputs:
        if not given.path.is_file():
            raise DataError(f"{given.path} went away while it was read. {_AGAIN}")
        if _state(given.path) != given.state and file_hash(given.path) != given.sha256:
            raise DataError(f"{given.path} changed while it was read. {_AGAIN}")


_AGAIN = "Nothing that was read was kept; run again when nothing writes to it."


def _state(file: Path) -> tuple[int, ...]:
    """Device, inode, size, and the times of the last change of content and of anything, which no program can set."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def write_inputs(ledger: Path, inputs: Sequence[Input]) -> None:
    """Keep beside the ledger what the files were: path, bytes, sha256."""
    known: list[dict[str, Any]] = [
        {"path": str(given.path.absolute()), "bytes": given.state[2], "sha256": given.sha256} for given in inputs
    ]
    write_json(ledger / FILES, known)


def changed_since(ledger: Path, file: Path) -> str | None:
    """Why a file can't be shown as it was read, in words; None if it is what it was."""
    try:
        known = {entry["path"]: entry["sha256"] for entry in read_json(ledger / FILES)}
    except FileNotFoundError:
        return f"an earlier version of Tunesmith read {file} and did not keep what it held"
    if not file.is_file():
        return f"{file} is not there any more"
    if known.get(str(file.absolute())) != file_hash(file):
        return f"{file} has changed since it was read"
    return None
