"""Writing files so that a crash or a full disk never leaves half of one, and hashing what is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.base.errors import TunesmithError

_ASIDE = re.compile(r"\.(?P<name>.+)\.\d+\.(?P<kind>part|old)")


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to (a file or a folder); on success flush it and rename it into place.

    If anything fails, `path` is as it was before. Raises TunesmithError with the remedy when the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with refusals_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(aside)
            yield aside
            for file in [aside] if aside.is_file() else sorted(p for p in aside.rglob("*") if p.is_file()):
                _flush(file)
            if path.is_dir():
                old = path.with_name(f".{path.name}.{os.getpid()}.old")
                path.rename(old)
                try:
                    aside.rename(path)
                except OSError:
                    old.rename(path)
                    raise
                _remove(old)
            else:
                aside.replace(path)
            _flush(path.parent)
    finally:
        _remove(aside)


@contextmanager
def refusals_told(path: Path) -> Iterator[None]:
    """Within, `path` is written such that nothing before is lost.

    Raises TunesmithError with the remedy where the system refuses: a full disk, a disk that fails, permissions.
    """
    try:
        yield
    except TunesmithError:
        raise
    except Exception as error:
        # Libraries wrap the system's error in one of their own; the words stay.
        if not isinstance(error, OSError) and os.strerror(errno.ENOSPC) not in str(error):
            raise
        try:
            free = f" ({shutil.disk_usage(path.parent).free / 1e6:,.0f} MB free there)"
        except OSError:  # the device is gone altogether
            free = ""
        full = getattr(error, "errno", None) in (None, errno.ENOSPC, errno.EDQUOT)
        raise TunesmithError(
            f"could not write {path}: {getattr(error, 'strerror', None) or error}{free}. "
            f"Nothing that was there before is lost. {'Free some space' if full else 'Look at that disk'} or choose "
            f"another --output, and run again."
        ) from error


def remove_unfinished(folder: Path) -> None:
    """Undo what `written_aside` left in a folder when its process was killed; nobody else may be writing there.

    Killed between its two renames, it has put the old folder aside and the new one is not there yet: the old one comes
    back.
    """
    for left in sorted(folder.glob(".*")):
        if not (match := _ASIDE.fullmatch(left.name)):
            continue
        path = folder / match["name"]
        if match["kind"] == "old" and not path.exists():
            left.rename(path)
        else:
            _remove(left)


def write_text(path: Path, text: str) -> None:
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
