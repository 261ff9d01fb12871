"""The folder of a run: which recipe it belongs to, what has been done in it, and what it was done with."""

from __future__ import annotations

import difflib
import errno
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from tunesmith import __version__
from tunesmith.base.errors import UserError
from tunesmith.base.files import read_json, remove_unfinished, write_json, write_text
from tunesmith.base.runs import LOCK, is_run
from tunesmith.base.stopping import Terminated
from tunesmith.recipe import LoadedRecipe, Recipe
from tunesmith.recipe.document import Document, read_document
from tunesmith.recipe.training import Train
from tunesmith.train.settings import WATCHING

try:
    import fcntl
except ImportError:  # Windows: there nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]

RUNNING, STOPPED, DONE = "running", "stopped", "finished"


class RunFolder:
    """A folder in which one recipe is run: recipe.yaml and run.json, and a sub-folder for each stage.

    `keys` in run.json say what each stage was done with; a stage whose key still holds is not done again.
    """

    def __init__(self, path: Path, loaded: LoadedRecipe) -> None:
        self.path = path
        self.recipe: Recipe = loaded.recipe
        self.facts = _facts(path)
        self._loaded = loaded

    @classmethod
    def open(cls, path: Path, loaded: LoadedRecipe) -> RunFolder:
        """Open the run of this recipe, new or begun before; nothing is written yet.

        A changed recipe goes on in the same folder, as the stages' keys tell what has to be done again; but not where
        something was trained that the change would make untrue. Raises UserError then, or if the folder is no run's.
        """
        in_the_way = next((part for part in (path, *path.parents) if part.exists() and not part.is_dir()), None)
        if in_the_way:
            raise UserError(f"{in_the_way} is a file, so {path} can't be the folder of a run. Choose another --output.")
        if not is_run(path) and path.is_dir() and any(file.name != LOCK for file in path.iterdir()):
            raise UserError(
                f"{path} holds files that are no run of Tunesmith; nothing was written there. "
                f"Choose an empty or a new folder with --output."
            )
        recipe_file = path / "recipe.yaml"
        if recipe_file.is_file() and any((path / part).exists() for part in ("model", "checkpoints")):
            loaded = _going_on(path, recipe_file.read_text(encoding="utf-8"), loaded)
        return cls(path, loaded)

    @property
    def recipe_text(self) -> str:
        """The recipe with every value that is used, as YAML."""
        return self._loaded.complete()

    def save(self, **facts: Any) -> None:
        """Keep further facts in run.json."""
        self.facts |= facts
        write_json(self.path / "run.json", self.facts)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within, the run counts as running; after it as finished, or as stopped with the error that stopped it.

        Raises UserError if another process is at work in the folder.
        """
        with _alone(self.path):
            remove_unfinished(self.path)
            self.facts = _facts(self.path)  # another process may have been at work since
            self.save(
                name=self.path.absolute().name,
                recipe=self._loaded.name,
                tunesmith=__version__,
                base=self.recipe.base,
                method=self.recipe.train.method,
                seed=self.recipe.seed,
                command="tunesmith " + " ".join(sys.argv[1:]),
                machine=_machine(),
                started=self.facts.get("started") or _now(),
                finished=None,
                status=RUNNING,
                error=None,
            )
            write_text(self.path / "recipe.yaml", self._loaded.complete())
            try:
                yield
            except BaseException as error:
                self.save(status=STOPPED, error=_told(error))
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
        self.save()  # a process that is killed in the middle must not leave the key of what it was replacing
        try:
            yield
            self.facts["keys"][name] = key
        finally:
            seconds: dict[str, float] = self.facts["seconds"]
            seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - started, 2)
            self.save()


def _told(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return f"stopped by {'SIGTERM' if isinstance(error, Terminated) else 'Ctrl-C'}"
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(path / "run.json") if is_run(path) else {}
    return {"keys": {}, "seconds": {}} | facts


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Within, no other process is at work in the folder. The lock ends with the process, however that ends."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("w") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another tunesmith is working in {path}. Wait until it has finished, or choose another --output."
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without locks
                raise
        yield


def _going_on(path: Path, kept: str, loaded: LoadedRecipe) -> LoadedRecipe:
    """The recipe to go on with where something has been trained. Raises UserError if it would train something else."""
    finished = "train" in _facts(path)["keys"] and (path / "model").is_dir()
    free = WATCHING if finished else frozenset()
    if _decisive(kept, free) != _decisive(loaded.complete(), free):
        _refuse_other_recipe(path, kept, loaded.complete())
    # What only watches a training is without effect on one that has finished: its record stays as it was.
    watched = {name: read_document(kept).get(("train", name)) for name in free}
    train = loaded.recipe.train.model_copy(update=watched)
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"train": train}))


def _decisive(text: str, free: Set[str]) -> list[Any]:
    """The values of a recipe that decide the data, the base or the training, without those in `free`."""
    recipe = _filled(text)
    keys = [(name,) for name in Recipe.model_fields if name not in ("data", "train", "evaluate")]
    trained = [("train", name) for name in Train.model_fields if name not in free]
    return [_deciding(recipe.get(("data",))), *map(recipe.get, (*keys, *trained, ("evaluate", "forgetting")))]


def _deciding(data: Any) -> Any:
    """The section `data` without what only tells of rows: their licences, and what they should cover."""
    if not isinstance(data, Mapping):
        return data

    def unlicensed(place: Any) -> Any:
        return {key: value for key, value in place.items() if key != "licence"} if isinstance(place, Mapping) else place

    told = {"coverage": None, "replay": unlicensed(data.get("replay"))}
    return {**data, **told, "sources": [unlicensed(source) for source in data.get("sources") or ()]}


def _filled(text: str) -> Document:
    """The recipe with the defaults of keys that it does not name: a newer version may have more of them."""
    document = read_document(text)
    try:
        return Document(Recipe.model_validate(document.values).model_dump(mode="json"))
    except ValueError:  # pydantic's too: a recipe of a version that had other keys is compared as it stands
        return document


def _refuse_other_recipe(path: Path, kept: str, wanted: str) -> NoReturn:
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
