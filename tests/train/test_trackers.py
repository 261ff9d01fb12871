"""Each tracker for real, on this machine, where its package is installed; what was written is read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.base.errors import UserError
from tunesmith.train import trackers
from tunesmith.train.trackers import Trackers, tracking, values_of

STEP = {"step": 3, "loss": 1.25, "grad_norm": 0.5, "learning_rate": 1e-3, "tokens": 96}
EVALUATION = {
    "step": 3,
    "evaluation": {"new_items": {"loss": 1.5, "tokens": 40, "clusters": {"summary, long": {"loss": 1.75}}}},
}
SAMPLES = {"step": 3, "samples": [{"prompt": "Who owns the bakery?", "answer": "Mara Ilsen"}], "score": 0.25}
WARNING = {"step": 3, "warning": "the loss explodes", "cause": "loss explodes"}
LINES = (STEP, EVALUATION, SAMPLES, WARNING)
EXPECTED = {
    "train/loss": 1.25,
    "train/grad_norm": 0.5,
    "train/learning_rate": 1e-3,
    "train/tokens": 96.0,
    "samples/score": 0.25,
    "held_out/new_items/loss": 1.5,
    "held_out/new_items/tokens": 40.0,
    "held_out/new_items/clusters/summary, long/loss": 1.75,
}


def track(name: str, folder: Path) -> None:
    """Two lines of a run that dies before its first checkpoint, starts anew, is stopped and goes on."""
    with tracking([name], folder, "mine", facts={"method": "lora"}) as opened:
        for step in (1, 2, 3, 4, 5):
            opened.see({"step": step, "loss": 7.0})
    with tracking([name], folder, "mine", facts={"method": "lora"}) as opened:
        for line in LINES:
            opened.see(line)
    with tracking([name], folder, "mine", step=3, facts={"method": "lora"}) as opened:
        opened.see({"step": 4, "loss": 1.0})


def identity(folder: Path) -> str:
    return str(json.loads((folder / trackers.IDENTITY).read_text())["id"])


def test_names_of_what_is_tracked() -> None:
    assert values_of(STEP) | values_of(EVALUATION) | values_of(SAMPLES) == EXPECTED
    assert values_of(WARNING) == values_of({"step": 4, "skipped": {"loss": "nan"}}) == {}
    assert values_of({"step": 4, "loss": float("nan"), "grad_norm": 2.0}) == {"train/grad_norm": 2.0}


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert scalars.pop("train/loss") == [(3, 1.25), (4, 1.0)]
    assert {tag: value for tag, [(_, value)] in scalars.items()} == pytest.approx(
        {name: value for name, value in EXPECTED.items() if name != "train/loss"}
    )
    [samples] = found.Tensors("samples/text_summary")
    assert b"Mara Ilsen" in samples.tensor_proto.string_val[0]


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    _in_a_process_of_its_own("wandb", tmp_path)
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    written = b"".join(path.read_bytes() for path in files)
    known = [path.stem.removeprefix("run-") for path in files]
    assert len(known) == 3 and len(set(known)) == 2 and known.count(identity(tmp_path)) == 2
    assert b"train/loss" in written and b"clusters" in written
    assert any(
        "Mara Ilsen" in path.read_text() for path in (tmp_path / "wandb").glob("offline-run-*/files/media/**/*.json")
    )


@pytest.mark.slow
def test_wandb_without_a_key_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a key would be kept
    with pytest.raises(UserError, match="WANDB_MODE=offline"), tracking(["wandb"], tmp_path, "mine"):
        pass


@pytest.mark.slow
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _in_a_process_of_its_own("mlflow", tmp_path)
    read = (
        "import mlflow, sys; client = mlflow.MlflowClient('sqlite:///' + sys.argv[1] + '/mlflow.db');"
        "found = client.search_runs([client.get_experiment_by_name('tunesmith').experiment_id]);"
        "[run] = [run for run in found if run.data.tags['tunesmith'] == sys.argv[2]];"
        "number = run.info.run_id;"
        "print([(m.step, m.value) for m in client.get_metric_history(number, 'train/loss')]);"
        "print(run.data.metrics['held_out/new_items/clusters/summary_ long/loss'], run.data.params, run.info.status)"
    )
    found = subprocess.run(
        [sys.executable, "-c", read, str(tmp_path), identity(tmp_path)], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == ["[(3, 1.25), (4, 1.0)]", "1.75 {'method': 'lora'} FINISHED"]
    [samples] = (tmp_path / "mlflow").rglob("samples/3.md")
    assert "Mara Ilsen" in samples.read_text()


@pytest.mark.slow
def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    _in_a_process_of_its_own("trackio", tmp_path)
    read = (
        "import sys; from trackio.sqlite_storage import SQLiteStorage;"
        "rows = SQLiteStorage.get_logs('tunesmith', 'mine-' + sys.argv[1][:6]);"
        "print([(row['step'], row['train/loss']) for row in rows if 'train/loss' in row]);"
        "print(any('Mara Ilsen' in str(row) for row in rows))"
    )
    command = [sys.executable, "-c", read, identity(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[(3, 1.25), (4, 1.0)]", "True"]


def _in_a_process_of_its_own(name: str, folder: Path) -> None:
    """`track`, where what these packages import and start can't disturb other tests."""
    code = "import sys, pathlib, test_trackers; test_trackers.track(sys.argv[1], pathlib.Path(sys.argv[2]))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", code, name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_package_names_its_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(UserError, match=rf"tunesmith\[{name}\]"), tracking([name], tmp_path, "mine"):
        pass


class Broken:
    """Fails at the second line."""

    def __init__(self, *_: Any) -> None:
        self.steps: list[int] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)
        if len(self.steps) > 1:
            raise ConnectionError("503 from https://me:hunter22@host/api with key abcd-1234-efgh\nbody")

    def samples(self, step: int, pairs: Sequence[tuple[str, str]]) -> None:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError("closed although it was dropped")


def test_a_tracker_that_fails_is_named_once_and_dropped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(trackers, "say", said.append)
    monkeypatch.setenv("SOME_API_KEY", "abcd-1234-efgh")
    broken, sound = Broken(), Broken()
    sound.log = lambda step, values: sound.steps.append(step)  # type: ignore[method-assign]
    sound.close = lambda: sound.steps.append(-1)  # type: ignore[method-assign]
    opened = Trackers({"broken": broken, "sound": sound})
    for step in (1, 2, 3, 4):
        opened.see({"step": step, "loss": 1.0})
    opened.close()
    assert broken.steps == [1, 2] and sound.steps == [1, 2, 3, 4, -1]
    assert len(said) == 1 and said[0].startswith("broken failed") and "503" in said[0]
    assert "abcd-1234-efgh" not in said[0] and "hunter22" not in said[0] and "body" not in said[0]


def test_a_tracker_that_can_not_start_does_not_keep_a_run_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> Any:
        raise ConnectionError("no route to host")

    said: list[str] = []
    monkeypatch.setattr(trackers, "say", said.append)
    monkeypatch.setitem(trackers._OPENERS, "mlflow", down)
    with tracking(["mlflow"], tmp_path, "mine") as opened:
        opened.see(STEP)
    assert len(said) == 1 and "no route to host" in said[0]
