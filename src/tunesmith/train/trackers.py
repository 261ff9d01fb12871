"""Where metrics go besides metrics.jsonl: TensorBoard, W&B, MLflow, Trackio, each an extra that is imported when used.

Addresses and keys come from each tracker's own environment variables (WANDB_MODE, MLFLOW_TRACKING_URI, ...).
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tunesmith.base.errors import UserError
from tunesmith.base.files import read_json, value_hash, write_json
from tunesmith.base.progress import say

PROJECT = "tunesmith"
IDENTITY = "tracked.json"
"""The file of a run's folder by which trackers know the run again."""
_SEND_EVERY = 10.0  # seconds between two requests to MLflow, which waits for each
_SECRET = re.compile(r"(KEY|TOKEN|PASSWORD|SECRET)$")


class Tracker(Protocol):
    """One place that metrics go to. Any method may raise; `Trackers` then goes on without it."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def samples(self, step: int, pairs: Sequence[tuple[str, str]]) -> None:
        """Show what the model answers, (prompt, answer) each."""
        ...

    def close(self) -> None: ...


class Trackers:
    """All trackers of a run. One that fails is named once and dropped: watching never ends a run."""

    def __init__(self, opened: Mapping[str, Tracker]) -> None:
        self._open = dict(opened)

    def see(self, line: Mapping[str, Any]) -> None:
        """Hand on a line of metrics.jsonl: numbers of a step or of an evaluation, or samples and their score."""
        step, samples = int(line["step"]), line.get("samples")
        if samples:
            pairs = [(str(each["prompt"]), str(each["answer"])) for each in samples]
            self._each(lambda tracker: tracker.samples(step, pairs))
        if values := values_of(line):
            self._each(lambda tracker: tracker.log(step, values))

    def close(self) -> None:
        """Send what is left."""
        self._each(lambda tracker: tracker.close())
        self._open = {}

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                act(tracker)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run is worth more
                del self._open[name]
                say(f"{name} failed and is left out from here on, metrics.jsonl has everything: {_told(error)}")


@contextmanager
def tracking(
    names: Sequence[str], folder: Path, run: str, *, step: int = 0, facts: Mapping[str, Any] | None = None
) -> Iterator[Trackers]:
    """The trackers of these names ("tensorboard", "wandb", "mlflow", "trackio"), closed at the end.

    folder: of the run, which keeps what they write on this machine. run: its name. step: those done before, if the run
    goes on; it goes on in the trackers too. facts: plain values about the run, shown beside it.
    Raises UserError if a package is missing, naming the extra, or if W&B has neither a key nor WANDB_MODE=offline.
    """
    opened: dict[str, Tracker] = {}
    for name in names:
        try:
            opened[name] = _OPENERS[name](folder, run, step, dict(facts or {}))
        except ModuleNotFoundError as error:
            raise UserError(
                f"track: {name} needs the package {error.name}, which is not installed. Install it by "
                f"`pip install 'tunesmith[{name}]'`, or take {name} out of train.track."
            ) from error
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - a server that is down must not keep a run from starting
            say(f"{name} could not be started and is left out, metrics.jsonl has everything: {_told(error)}")
    trackers = Trackers(opened)
    try:
        yield trackers
    finally:
        trackers.close()


def values_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a line, named "train/loss", "held_out/new_items/clusters/summary"."""
    flat = {} if "warning" in line or "skipped" in line else dict(_leaves(line.get("evaluation") or {}, "held_out"))
    if "samples" in line and "score" in line:
        flat["samples/score"] = line["score"]
    if "loss" in line:
        flat |= _leaves({key: value for key, value in line.items() if key not in ("step", "evaluation")}, "train")
    return {name: float(value) for name, value in flat.items() if math.isfinite(value)}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}/{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _told(error: Exception) -> str:
    """The first line of an error, without anything secret that it quotes."""
    text = str(error).strip().split("\n")[0][:300] or type(error).__name__
    for name, value in os.environ.items():
        if _SECRET.search(name.upper()) and len(value) > 3:
            text = text.replace(value, "…")
    return re.sub(r"//[^/@\s]+@", "//…@", text)


def _markdown(pairs: Sequence[tuple[str, str]]) -> str:
    def quoted(text: str) -> str:
        return "\n".join(f"    {line}" for line in text.splitlines())

    return "\n\n---\n\n".join(f"{quoted(prompt)}\n\n**answer**\n\n{quoted(answer)}" for prompt, answer in pairs)


class TensorBoard:
    """Event files in the run's folder: `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, run: str, step: int, facts: Mapping[str, Any]) -> None:
        import_module("tensorboard")  # torch says less clearly what is missing
        from torch.utils.tensorboard import SummaryWriter

        # What a run wrote of steps that it does again is not shown: of all, if it died before its first checkpoint.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else 0)
        if facts and not step:
            self._writer.add_text("run", _markdown([(run, repr(dict(facts)))]), 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def samples(self, step: int, pairs: Sequence[tuple[str, str]]) -> None:
        self._writer.add_text("samples", _markdown(pairs), step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, the same one when the run goes on; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, folder: Path, run: str, step: int, facts: Mapping[str, Any]) -> None:
        self._wandb = wandb = import_module("wandb")
        kept_here = os.environ.get("WANDB_MODE", "online") != "online"
        try:
            known = kept_here or wandb.login(prompt=False)  # a prompt would wait for someone who may not be there
        except wandb.UsageError:
            known = False
        if not known:
            raise UserError(
                "track: wandb has no key. Log in once with `wandb login`, set WANDB_API_KEY, keep the run on this "
                "machine with WANDB_MODE=offline, or take wandb out of train.track."
            )
        # Neither the console nor the code is sent: nobody asked for that.
        settings = wandb.Settings(silent=True, console="off", save_code=False, init_timeout=30)
        known_as = _known_as(folder, run, step)
        options = {"dir": str(folder), "name": run, "id": known_as, "resume": "allow", "config": dict(facts)}
        self._run = wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), settings=settings, **options)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def samples(self, step: int, pairs: Sequence[tuple[str, str]]) -> None:
        table = self._wandb.Table(columns=["prompt", "answer"], data=[list(pair) for pair in pairs])
        self._run.log({"samples": table}, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow, by default in a file of the run's folder: `mlflow ui --backend-store-uri sqlite:///...`."""

    def __init__(self, folder: Path, run: str, step: int, facts: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._mlflow = mlflow = import_module("mlflow")
        address = os.environ.get("MLFLOW_TRACKING_URI")
        if not address:
            for needed in ("sqlalchemy", "alembic"):
                import_module(needed)
        folder.mkdir(parents=True, exist_ok=True)
        self._client = mlflow.MlflowClient(address or f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        place = None if address else (folder.resolve() / "mlflow").as_uri()
        number = found.experiment_id if found else self._client.create_experiment(experiment, place)
        tags = {"tunesmith": _known_as(folder, run, step)}
        same = f"tags.tunesmith = '{tags['tunesmith']}'"
        before = self._client.search_runs([number], same, max_results=1) if step else []
        self._run = (before[0] if before else self._client.create_run(number, run_name=run, tags=tags)).info.run_id
        if not before:
            params = [mlflow.entities.Param(key, str(value)[:500]) for key, value in facts.items()]
            self._client.log_batch(self._run, params=params)
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        names = ((re.sub(r"[^\w\-. /]", "_", name)[:250], value) for name, value in values.items())
        self._waiting += [self._mlflow.entities.Metric(name, value, now, step) for name, value in names]
        if time.monotonic() - self._sent > _SEND_EVERY:
            self._send()

    def samples(self, step: int, pairs: Sequence[tuple[str, str]]) -> None:
        self._client.log_text(self._run, _markdown(pairs), f"samples/{step}.md")

    def close(self) -> None:
        self._send()
        self._client.set_terminated(self._run)

    def _send(self) -> None:
        for start in range(0, len(self._waiting), 1000):  # the most that a request may hold
            self._client.log_batch(self._run, metrics=self._waiting[start : start + 1000])
        self._waiting, self._sent = [], time.monotonic()


class Trackio:
    """A run of Trackio, kept on this machine where it keeps all of them: `trackio show`."""

    def __init__(self, folder: Path, run: str, step: int, facts: Mapping[str, Any]) -> None:
        self._trackio = import_module("trackio")
        resume, project = "allow" if step else "never", os.environ.get("TRACKIO_PROJECT", PROJECT)
        name = f"{run}-{_known_as(folder, run, step)[:6]}"  # it knows runs by their names, and goes on with the newest
        with _quiet():
            self._run = self._trackio.init(project=project, name=name, resume=resume, config=dict(facts))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def samples(self, step: int, pairs: Sequence[tuple[str, str]]) -> None:
        self._run.log({"samples": self._trackio.Markdown(_markdown(pairs))}, step=step)

    def close(self) -> None:
        with _quiet():
            self._run.finish()


def _known_as(folder: Path, run: str, step: int) -> str:
    """By what trackers know the run: anew if it starts anew, so that it does not go on in one that died early, or that
    another folder of the same name holds."""
    file = folder / IDENTITY
    if not step:
        write_json(file, {"id": secrets.token_hex(8)})
    if not file.is_file():  # a run of a version that kept none
        return value_hash([str(folder.resolve()), run])[:16]
    return str(read_json(file)["id"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what a tracker prints on stdout, which is for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


_OPENERS: dict[str, Callable[[Path, str, int, dict[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}
