"""What is done around a step: scaling, skipping, measuring, stopping early, and writing checkpoints beside it."""

import json
import math
import threading
import time
from dataclasses import replace

import pytest
import torch

from tunesmith.base.errors import TunesmithError
from tunesmith.model.losses import supervised_loss
from tunesmith.train import checkpoint
from tunesmith.train.loop import Watching, train
from tunesmith.train.settings import TrainSettings
from tunesmith.train.state import TrainResult

SETTINGS = TrainSettings(learning_rate=1e-2, tokens_per_step=128, tokens_per_batch=64, weight_decay=0.1)


def lines(folder, key="loss"):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if key in line]


def newest_state(folder):
    return json.loads(max((folder / "checkpoints").glob("*/state.json")).read_text())


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def poisoned(steps):
    """An objective whose gradient is not finite in the given steps (of two packed rows each)."""
    calls = []

    def objective(model, row):
        calls.append(row)
        loss = supervised_loss(model, row)
        return loss * math.inf if (len(calls) - 1) // 2 in steps else loss

    return objective


def test_steps_that_are_not_finite_are_left_out_as_often_as_allowed(build, store, plan, tmp_path):
    settings = replace(SETTINGS, skip_non_finite=2)
    result = train(build(), store, plan(settings), settings, tmp_path, objective=poisoned({2, 4}))
    assert result.skipped == 2 and math.isfinite(result.loss_last) and result.step == plan(settings).steps
    skipped = lines(tmp_path, "skipped")
    assert [line["step"] for line in skipped] == [3, 5] and {3, 5}.isdisjoint(line["step"] for line in lines(tmp_path))
    expected = [str(index) for row in plan(settings).step(2) for index in row]
    assert skipped[0]["skipped"]["rows"] == expected
    with pytest.raises(TunesmithError, match=r"step 6: .*2 steps before it were left out"):
        train(build(), store, plan(settings), settings, tmp_path / "more", objective=poisoned({2, 4, 5}))


def test_the_first_loss_is_that_of_the_first_step_that_counts(build, store, plan, tmp_path):
    settings = replace(SETTINGS, skip_non_finite=1)
    result = train(build(), store, plan(settings), settings, tmp_path, objective=poisoned({0}))
    assert result.loss_first == lines(tmp_path)[0]["loss"] and lines(tmp_path)[0]["step"] == 2


def test_fp16_halves_its_scale_where_it_overflows_and_loses_no_step(build, store, plan, tmp_path):
    def steep(model, row):
        return supervised_loss(model, row) * 3e5  # overflows with the scale that fp16 begins with

    settings = replace(SETTINGS, precision="fp16", checkpoint_every=2)
    steep_result = train(build(), store, plan(settings), settings, tmp_path / "steep", objective=steep)
    assert steep_result.loss_scale < 2**16 and steep_result.skipped == 0
    exact = train(build(), store, plan(SETTINGS), SETTINGS, tmp_path / "fp32")
    rough = train(build(), store, plan(settings), settings, tmp_path / "fp16")
    assert rough.loss_last == pytest.approx(exact.loss_last, rel=0.02) and rough.loss_scale > 1
    assert newest_state(tmp_path / "fp16")["state"]["loss_scale"] == rough.loss_scale


def test_a_step_that_no_scale_helps_leaves_the_scale_as_it_was(build, store, plan, tmp_path):
    def poisoned(model, row):
        loss = supervised_loss(model, row)
        return loss * math.inf if row.ids[0, 0] == first else loss

    first = store[int(plan(SETTINGS).step(2)[0][0])].ids[0]
    settings = replace(SETTINGS, precision="fp16", skip_non_finite=100)
    result = train(build(), store, plan(settings), settings, tmp_path, objective=poisoned)
    assert result.skipped and result.loss_scale > 1


def test_a_held_out_loss_that_is_no_number_is_never_the_best():
    state = TrainResult(step=1).measured(math.nan)
    assert (state.best_step, state.worse) == (None, 1)
    assert TrainResult(step=2).measured(2.0).measured(math.nan).best_loss == 2.0


def held_out(losses):
    """An evaluator that finds these losses, one after the other."""
    remaining = list(losses)
    return {"new items": lambda model: {"loss": remaining.pop(0), "tokens": 10}}


def test_training_stops_when_the_held_out_loss_rises_and_keeps_the_best(build, store, plan, tmp_path):
    settings = replace(SETTINGS, evaluate_every=1, patience=3, checkpoint_every=2, keep_checkpoints=1)
    model, planned = build(), plan(settings)
    losses = [0.5, 3.0, 2.0, 1.5, 1.7, 1.6, 1.9, 1.0]  # the first is that of the base, which is no step to keep
    result = train(model, store, planned, settings, tmp_path, watching=Watching(held_out(losses)))
    assert (result.step, result.best_step, result.best_loss, result.worse) == (6, 3, 1.5, 3) and planned.steps > 6
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000003", "step-00000006"]  # the newest, and the best
    best = build()
    short = replace(settings, patience=0)
    state = {}

    def stop_at_three(model, row):
        state.setdefault("calls", []).append(0)
        if len(state["calls"]) == 7:
            raise KeyboardInterrupt
        return supervised_loss(model, row)

    with pytest.raises(KeyboardInterrupt):
        train(best, store, planned, short, tmp_path / "three", objective=stop_at_three)
    assert same(best, model)
    again = build()  # a run that has stopped early has nothing left to do, and the same model
    assert train(again, store, planned, settings, tmp_path, watching=Watching(held_out([]))) == result and same(
        again, model
    )


def test_the_loss_that_counts_is_that_of_all_held_out_tokens(build, store, plan, tmp_path):
    evaluators = {"a": lambda model: {"loss": 1.0, "tokens": 30}, "b": lambda model: {"loss": 2.0, "tokens": 10}}
    result = train(build(), store, plan(SETTINGS), SETTINGS, tmp_path, watching=Watching(evaluators))
    assert result.best_loss == pytest.approx(1.25) and result.best_step == result.step


def test_checkpoints_written_beside_the_training_are_those_of_their_step(build, store, plan, tmp_path, monkeypatch):
    settings = replace(SETTINGS, checkpoint_every=2, keep_checkpoints=100)
    beside = replace(settings, background_checkpoints=True)
    write, threads = checkpoint.write_tensors, []

    def slow(*given):
        threads.append(threading.current_thread())
        time.sleep(0.05)
        return write(*given)

    train(build(), store, plan(settings), settings, tmp_path / "plain")
    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    model = build()
    train(model, store, plan(settings), beside, tmp_path / "beside")
    assert threads and threading.main_thread() not in threads
    plain, other = (sorted((tmp_path / name / "checkpoints").rglob("*.safetensors")) for name in ("plain", "beside"))
    assert len(plain) == len(other) > 4
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(plain, other, strict=True))


def test_a_failure_of_writing_beside_the_training_is_told(build, store, plan, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    settings = replace(SETTINGS, checkpoint_every=2, background_checkpoints=True)
    with pytest.raises(TunesmithError, match="No space left"):
        train(build(), store, plan(settings), settings, tmp_path)


def test_checkpoints_say_what_they_are_of(build, store, plan, tmp_path):
    settings = replace(SETTINGS, checkpoint_every=5)
    train(build(), store, plan(settings), settings, tmp_path, about={"recipe": "base: pocket"})
    state = newest_state(tmp_path)
    assert state["about"] == {"recipe": "base: pocket"} and state["state"]["tokens"] > 0
