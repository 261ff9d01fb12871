"""Several processes: the same training as one, whatever they share; lost ranks and requests to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import worker
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("worker.py")


def launch(folder, processes, **options):
    given = [f"{key}={json.dumps(value)}" for key, value in options.items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*launcher, str(WORKER), str(folder), *given],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder, processes, **options):
    folder.mkdir(exist_ok=True)
    process = launch(folder, processes, **options)
    _, said = process.communicate(timeout=150)
    assert process.returncode == 0, said[-3000:]
    return load_file(folder / "weights.safetensors"), metrics(folder)


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def assert_close(found, expected, relative):
    weights, lines = found
    others, other_lines = expected
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert (weight - others[name]).norm() <= relative * others[name].norm(), name
    torch.testing.assert_close(torch.tensor(lines), torch.tensor(other_lines), rtol=relative, atol=0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return lambda **options: (worker.train(folder / str(options), **options)[1], metrics(folder / str(options)))


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_train_as_one(alone, tmp_path, sharding):
    assert_close(run(tmp_path / "two", 2, sharding=sharding), alone(), 1e-5)


def test_a_sharded_model_is_measured_as_a_whole_one_is_from_before_the_first_step(tmp_path):
    def measurements(folder):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: line["evaluation"]["rows"]["loss"] for line in lines if "evaluation" in line}

    options = {"evaluate_every": 3}
    run(tmp_path / "two", 2, sharding="fsdp", **options)
    worker.train(tmp_path / "one", **options)
    found = measurements(tmp_path / "two")
    assert 0 in found and len(found) > 2 and found == pytest.approx(measurements(tmp_path / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_any_number_of_processes_trains_as_one(alone, tmp_path, sharding, method, processes):
    options = {"method": method, "tokens_per_step": 64 * 3}  # three rows a step: some ranks have nothing to compute
    assert_close(run(tmp_path / "many", processes, sharding=sharding, **options), alone(**options), 1e-5)


@pytest.mark.parametrize("background", [False, True])
def test_a_disk_that_fails_one_rank_of_a_sharded_run_is_told(alone, tmp_path, background):
    options = {"checkpoint_every": 2, "sharding": "fsdp", "background_checkpoints": background}
    process = launch(tmp_path, 2, die=[1, 3, "disk"], **options)
    _, said = process.communicate(timeout=150)
    assert process.returncode and "OSError" not in said, said
    assert "Input/output error" in (tmp_path / "error-1.txt").read_text()
    assert "rank 1 is gone" in (tmp_path / "error-0.txt").read_text()
    assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == ["step-00000002"]
    assert_close(run(tmp_path, 2, **options), alone(), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(2, 4), (4, 2), (2, 1), (1, 2)])
def test_sharded_checkpoints_load_on_another_number_of_processes(alone, tmp_path, numbers):
    first, then = numbers
    options = {"checkpoint_every": 2, "sharding": "fsdp"}
    process = launch(tmp_path, first, die=[first - 1, 5, "ask"], **options)
    _, said = process.communicate(timeout=150)
    assert process.returncode, said
    (newest, *_) = sorted((tmp_path / "checkpoints").glob("step-*"), reverse=True)
    assert newest.name == "step-00000005"  # asked of one rank, agreed by all
    assert len(list(newest.glob("weights*.safetensors"))) == first
    assert_close(run(tmp_path, then, **options), alone(), 1e-5)


def test_a_killed_rank_ends_the_run_with_its_name_and_a_checkpoint(alone, tmp_path):
    started = time.monotonic()
    process = launch(tmp_path, 2, die=[1, 4, "kill"])
    _, said = process.communicate(timeout=100)
    assert process.returncode and time.monotonic() - started < 60
    told = (tmp_path / "error-0.txt").read_text()
    assert "rank 1 is gone" in told and "step 4" in told, told
    assert (tmp_path / "checkpoints" / "step-00000004").is_dir(), said
    assert_close(run(tmp_path, 2), alone(), 1e-5)


def test_what_one_rank_alone_computes_wrongly_is_not_taken_for_lost_contact(tmp_path):
    started = time.monotonic()
    process = launch(tmp_path, 2, die=[1, 1, "err"])
    _, said = process.communicate(timeout=100)
    assert process.returncode and time.monotonic() - started < 60
    assert "RuntimeError: shapes 3 and 4 do not match" in said and not (tmp_path / "error-1.txt").exists()
    told = (tmp_path / "error-0.txt").read_text()
    assert "rank 1 is gone" in told and "the newest checkpoint is that of step 1" in told, told
    assert (tmp_path / "checkpoints" / "step-00000001").is_dir(), said


def test_a_rank_that_was_stopped_is_not_looked_for(tmp_path):
    process = launch(tmp_path, 2, die=[1, 1, "stopped"])
    process.communicate(timeout=100)
    told = (tmp_path / "error-0.txt").read_text()
    assert "rank 1 was asked to stop, and the newest checkpoint is that of step 1" in told, told


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_a_rank_that_dies_before_any_checkpoint_says_so(tmp_path, sharding):
    process = launch(tmp_path, 2, die=[1, 1, "kill"], sharding=sharding, checkpoint_every=0)
    process.communicate(timeout=100)
    told = (tmp_path / "error-0.txt").read_text()
    there = (tmp_path / "checkpoints" / "step-00000001").is_dir()
    assert "rank 1 is gone" in told and there == (sharding == "none")
    assert ("there is no checkpoint yet" in told) == (sharding == "fsdp"), told


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run_with_its_name(tmp_path):
    started = time.monotonic()
    process = launch(tmp_path, 2, die=[1, 4, "stop"])
    while not (tmp_path / "error-0.txt").exists() and time.monotonic() - started < 80:
        time.sleep(0.5)
    taken = time.monotonic() - started
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)  # one that was stopped hears nothing else
    process.communicate(timeout=60)
    assert "rank 1 is gone" in (tmp_path / "error-0.txt").read_text() and taken < 75
    assert (tmp_path / "checkpoints" / "step-00000004").is_dir()
