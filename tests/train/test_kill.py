"""Runs that are killed for good, at moments nobody chose, and go on as if nothing had happened.

Every run trains in a process of its own, forked from one that has imported everything, so that a start is quick.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_llama

from tunesmith.base.errors import Interrupted
from tunesmith.tokens.batches import plan_epochs
from tunesmith.tokens.encoded import Encoded
from tunesmith.train import checkpoint
from tunesmith.train.checkpoint import OPTIMIZER, STATE, WEIGHTS
from tunesmith.train.loop import Watching, train
from tunesmith.train.settings import TrainSettings

SETTINGS = TrainSettings(
    learning_rate=1e-2, tokens_per_step=128, tokens_per_batch=64, checkpoint_every=1, weight_decay=0.1
)
UNSAVED = replace(SETTINGS, checkpoint_every=0, evaluate_every=4)
EPOCHS = 5
PATIENCE = 120  # seconds until a process is taken to hang
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["tunesmith.train.loop", "tiny"])


def task():
    """A model, sequences that count upwards, and the plan to train the one on the others."""
    rng = np.random.default_rng(0)
    store = []
    for length in rng.integers(6, 30, size=60):
        ids = (rng.integers(61) + np.arange(length)) % 61
        store.append(Encoded(ids.astype(np.int32), np.arange(length) >= length // 2))
    plan = plan_epochs(
        lambda epoch: np.random.default_rng(epoch).permutation(len(store)),
        np.array([len(sequence) for sequence in store]),
        tokens_per_batch=SETTINGS.tokens_per_batch,
        batches_per_step=SETTINGS.batches_per_step,
        epochs=EPOCHS,
        seed=0,
    )
    return tiny_llama(61, tie_word_embeddings=True), store, plan


def work(folder, settings, evaluators=None, held_up=False):
    """What a process does: train, or go on with it, and write the weights; it ends as the command line does.

    held_up: once there is a file "hold", checkpoints are not written before there is a file "enough".
    """
    if held_up:
        checkpoint.write_tensors = partial(write_once_allowed, folder, checkpoint.write_tensors)
    sys.stderr = (folder / "said").open("a", buffering=1)  # the command line says things on standard error
    model, store, plan = task()
    (folder / "begun").touch()
    try:
        train(model, store, plan, settings, folder, watching=Watching(evaluators or {}))
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_code)
    save_file(dict(model.named_parameters()), folder / "final.safetensors")


def write_once_allowed(folder, write, *given):
    if (folder / "hold").exists():
        (folder / "held").touch()
        wait_for((folder / "enough").exists)
    return write(*given)


def begin(folder, settings=SETTINGS, evaluators=None, held_up=False):
    """Start such a process, and wait until it has a model and is about to train."""
    folder.mkdir(exist_ok=True)
    (folder / "begun").unlink(missing_ok=True)
    process = FORKING.Process(target=work, args=(folder, settings, evaluators, held_up))
    process.start()
    wait_for((folder / "begun").exists, process)
    return process


def wait_for(condition, process=None):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert not process or process.is_alive() or condition(), f"the process ended with {process.exitcode}"
        assert time.monotonic() < deadline, "the process hangs"
        time.sleep(0.002)


def ended(process, within=PATIENCE):
    """The exit code of a process that is about to end."""
    process.join(within)
    assert process.exitcode is not None, f"still running after {within} seconds"
    return process.exitcode


def finish(folder, settings=SETTINGS):
    assert ended(begin(folder, settings)) == 0
    return outcome(folder)


def outcome(folder):
    """The final weights, and all of the log but times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = "step", "epoch", "loss", "learning_rate", "grad_norm", "tokens"
    return load_file(folder / "final.safetensors"), [
        {key: line[key] for key in kept} for line in lines if "loss" in line
    ]


def assert_same(one, other):
    (weights, log), (weights_, log_) = one, other
    assert log == log_
    assert weights.keys() == weights_.keys() and all(torch.equal(weights[name], weights_[name]) for name in weights)


def saved_steps(folder):
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The outcome of a run that nobody kills."""
    return finish(tmp_path_factory.mktemp("kill") / "undisturbed")


def kill_often(folder, settings, kills, seed, expected):
    """Train, be killed and go on, in as many runs as it takes for `kills` processes to die.

    Returns the number of runs, and of the kills that fell into the writing of a checkpoint.
    """
    moments = random.Random(seed)
    process, started = begin(folder / "whole", settings), time.monotonic()
    assert ended(process) == 0
    assert_same(outcome(folder / "whole"), expected)
    window = (time.monotonic() - started) / 3  # so that a run dies several times before it gets through
    died = runs = while_saving = 0
    while died < kills:
        runs += 1
        run = folder / f"run-{runs}"
        while True:
            process = begin(run, settings)
            process.join(moments.uniform(0, window) if died < kills else PATIENCE)
            process.kill()
            if ended(process) != -signal.SIGKILL:
                break
            died += 1
            while_saving += bool(list(run.glob("checkpoints/.step-*")))
        assert process.exitcode == 0, f"after {died} kills: {(run / 'said').read_text()[-2000:]}"
        assert_same(outcome(run), expected)
    return runs, while_saving


@pytest.mark.parametrize("background", [False, True])
def test_killed_at_any_moment_a_run_goes_on_to_the_same_bits(undisturbed, tmp_path, background):
    settings = replace(SETTINGS, background_checkpoints=background)
    kill_often(tmp_path, settings, kills=3, seed=int(background), expected=undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_fifty_kills(undisturbed, tmp_path, background):
    settings = replace(SETTINGS, background_checkpoints=background)
    runs, while_saving = kill_often(tmp_path, settings, kills=50, seed=10 + background, expected=undisturbed)
    print(f"50 kills, {while_saving} of them while a checkpoint was written; {runs} runs ended with the same bits")
    assert while_saving, "no kill fell into the writing of a checkpoint, so that was not tested"


@dataclass(frozen=True)
class Measuring:
    """A measurement that says when it has begun, and ends only once it is told to. second: the first ends by itself."""

    folder: Path
    second: bool = False

    def __call__(self, model):
        if self.second and not (self.folder / "before").exists():
            (self.folder / "before").touch()
            return {}
        (self.folder / "measuring").touch()
        while not (self.folder / "enough").exists():
            time.sleep(0.01)
        return {}


def measuring(run):
    """A process that has done four steps and is held up by a measurement, with no checkpoint so far."""
    process = begin(run, UNSAVED, {"held out": Measuring(run, second=True)})  # the first comes before any step
    wait_for((run / "measuring").exists, process)
    assert not saved_steps(run)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_ends_with_130(undisturbed, tmp_path, number):
    run = tmp_path / "run"
    process = measuring(run)
    os.kill(process.pid, number)
    wait_for(lambda: "once more stops at once" in (run / "said").read_text(), process)
    (run / "enough").touch()
    assert ended(process) == 130
    assert saved_steps(run) == [4]
    assert_same(finish(run, UNSAVED), undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_twice_it_ends_at_once(tmp_path, number):
    run = tmp_path / "run"
    process = measuring(run)
    os.kill(process.pid, number)
    wait_for(lambda: "once more stops at once" in (run / "said").read_text(), process)
    if number == signal.SIGTERM:  # one request is often made twice within moments, by torchrun or systemd
        os.kill(process.pid, number)
        time.sleep(2.1)
        assert process.is_alive()
    os.kill(process.pid, number)
    assert ended(process, within=30) == 130
    assert not saved_steps(run)  # it neither waited for the measurement nor went on to the end of the step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_in_the_last_step_it_does_not_go_on_to_what_follows(undisturbed, tmp_path, number):
    run, settings = tmp_path / "run", replace(UNSAVED, evaluate_every=0)
    process = begin(run, settings, {"held out": Measuring(run)})  # only the last step measures
    wait_for((run / "measuring").exists, process)
    os.kill(process.pid, number)
    wait_for(lambda: "once more stops at once" in (run / "said").read_text(), process)
    (run / "enough").touch()
    assert ended(process) == 130 and not (run / "final.safetensors").exists()
    assert saved_steps(run) == [task()[2].steps]
    assert_same(finish(run, settings), undisturbed)


def test_asked_twice_it_waits_for_no_checkpoint_that_is_being_written(undisturbed, tmp_path):
    run, settings = tmp_path / "run", replace(SETTINGS, background_checkpoints=True)
    process = begin(run, settings, held_up=True)
    wait_for(lambda: saved_steps(run), process)
    (run / "hold").touch()
    wait_for((run / "held").exists, process)
    before = saved_steps(run)
    os.kill(process.pid, signal.SIGINT)
    wait_for(lambda: "once more stops at once" in (run / "said").read_text(), process)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process, within=10) == 130
    assert saved_steps(run) == before  # what was being written is no checkpoint
    assert_same(finish(run, settings), undisturbed)


@pytest.mark.parametrize(
    ("file", "damage"), [(WEIGHTS, "flipped"), (OPTIMIZER, "cut"), (STATE, "cut"), (STATE, "flipped")]
)
def test_a_broken_newest_checkpoint_is_said_and_the_one_before_is_used(undisturbed, tmp_path, file, damage):
    run = tmp_path / "run"
    finish(run)
    before, newest = saved_steps(run)
    path = run / "checkpoints" / f"step-{newest:08d}" / file
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "cut":
        del content[middle:]
    else:
        content[middle] ^= 0x40
    path.write_bytes(content)
    (run / "said").unlink()
    assert_same(finish(run), undisturbed)
    said = " ".join((run / "said").read_text().split())
    assert f"step-{newest:08d} is broken" in said and f"going on after step {before}" in said
