"""The folder of a run: which recipe it belongs to, what has been done in it, and what it was done with."""

from __future__ import annotations

import difflib
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunesmith import __version__
from tunesmith.base.errors import UserError
from tunesmith.base.files import read_json, write_json, write_text
from tunesmith.recipe import LoadedRecipe, Recipe

RUNNING, STOPPED, DONE = "running", "stopped", "finished"


class RunFolder:
    """A folder in which one recipe is run: recipe.yaml and run.json, and a sub-folder for each stage.

    `keys` in run.json say what each stage was done with; a stage whose key still holds is not done again.
    """

    def __init__(self, path: Path, recipe: Recipe, facts: dict[str, Any]) -> None:
        self.path = path
        self.recipe = recipe
        self.facts = facts

    @classmethod
    def open(cls, path: Path, loaded: LoadedRecipe) -> RunFolder:
        """Open the run of this recipe, new or begun before. Raises UserError if the folder belongs to another."""
        complete = loaded.complete()
        recipe_file = path / "recipe.yaml"
        if recipe_file.is_file():
            _refuse_other_recipe(path, recipe_file.read_text(encoding="utf-8"), complete)
        elif path.is_dir() and any(path.iterdir()):
            raise UserError(
                f"{path} holds files that are no run of Tunesmith; nothing was written there. "
                f"Choose an empty or a new folder with --output."
            )
        facts = read_json(path / "run.json") if (path / "run.json").is_file() else {"keys": {}, "seconds": {}}
        facts |= {
            "name": path.absolute().name,
            "recipe": loaded.name,
            "tunesmith": __version__,
            "base": loaded.recipe.base,
            "method": loaded.recipe.train.method,
            "seed": loaded.recipe.seed,
            "command": "tunesmith " + " ".join(sys.argv[1:]),
            "machine": _machine(),
        }
        if not recipe_file.is_file():
            write_text(recipe_file, complete)
        return cls(path, loaded.recipe, facts)

    def save(self, **facts: Any) -> None:
        """Keep further facts in run.json."""
        self.facts |= facts
        write_json(self.path / "run.json", self.facts)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, the run counts as running; after it as finished, or as stopped with the error that stopped it."""
        self.save(started=self.facts.get("started") or _now(), finished=None, status=RUNNING, error=None)
        try:
            yield
        except BaseException as error:
            self.save(status=STOPPED, error=f"{type(error).__name__}: {error}".split("\n")[0])
            raise
        self.save(finished=_now(), status=DONE)

    def is_done(self, stage: str, key: str) -> bool:
        """Whether the stage was finished with exactly these inputs."""
        return bool(self.facts["keys"].get(stage) == key)

    @contextmanager
    def stage(self, name: str, key: str) -> Iterator[None]:
        """Do a stage: its time is added up, and its key kept once it has finished."""
        started = time.monotonic()
        self.facts["keys"].pop(name, None)
        try:
            yield
            self.facts["keys"][name] = key
        finally:
            seconds: dict[str, float] = self.facts["seconds"]
            seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - started, 2)
            self.save()


def _refuse_other_recipe(path: Path, kept: str, wanted: str) -> None:
    if kept == wanted:
        return
    lines = difflib.unified_diff(kept.splitlines(), wanted.splitlines(), "there", "now", lineterm="", n=0)
    changes = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    shown = "\n".join(f"  {line}" for line in changes[:8]) + ("\n  ..." if len(changes) > 8 else "")
    raise UserError(
        f"{path} holds the run of a different recipe; it was left as it is. What differs (- there, + now):\n{shown}\n"
        f"Choose another folder with --output, or delete that one if you no longer need it."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _machine() -> Mapping[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def _cpu() -> str:
    """The processor's name where the system tells it (Linux), else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
