"""Finding the folder of a run."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from tunesmith.base.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: there nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]

RUNS = Path("runs")
LOCK = ".lock"
"""The file of a run's folder that the process at work there holds locked. The lock ends with it, however that ends."""


def is_run(folder: Path) -> bool:
    """Whether this is the folder of a run."""
    return (folder / "run.json").is_file()


def is_left(folder: Path) -> bool:
    """Whether no process is at work in the folder of a run, as far as that can be told: then "running" in run.json was
    left by one that was killed."""
    try:
        with (folder / LOCK).open("r") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return bool(fcntl)
    except FileNotFoundError:
        return True  # whoever works there makes it first
    except OSError:  # locked, or a file system without locks
        return False


def find_run(name: str | None = None) -> Path:
    """The folder of a run: by its path, by its name in `runs/`, or (None) the newest there.

    Raises UserError naming the runs that there are.
    """
    runs = sorted(RUNS.glob("*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    names = [path.parent.name for path in runs]
    if name is None:
        if not runs:
            raise UserError("there is no run in runs/ here. Give a run's folder, or make one: tunesmith run quickstart")
        return runs[0].parent
    path = Path(name).expanduser()
    for folder in (path, RUNS / path):
        if is_run(folder):
            return folder
    known = f"Runs here, newest first: {', '.join(names[:10])}." if names else "There are no runs in runs/ here."
    near = get_close_matches(name, names, n=1)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    raise UserError(f"{name} is not the folder of a run: it has no run.json. {hint}{known}")
