"""The loop: what a step computes, what it writes, and that a run goes on bit by bit from wherever it stopped."""

import json
import math
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tunesmith.base.errors import CheckpointError, Interrupted, TunesmithError
from tunesmith.base.ranks import Ranks
from tunesmith.model.adapters import prepare_method
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded
from tunesmith.train import trainer
from tunesmith.train.feed import StepRows
from tunesmith.train.loop import Watching, train
from tunesmith.train.settings import TrainSettings
from tunesmith.train.step import clip, gradient_of

SETTINGS = TrainSettings(
    learning_rate=1e-2, tokens_per_step=128, tokens_per_batch=64, checkpoint_every=3, weight_decay=0.1
)


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_second", "waiting")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines]


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def gradient(model, batches):
    model.zero_grad()
    count = sum(batch.supervised_count for batch in batches)
    rows = StepRows(0, tuple(PackedRow.of(batch, "cpu") for batch in batches), np.arange(0), count, np.arange(0))
    loss = gradient_of(model, rows, replace(SETTINGS, clip=0.0), supervised_loss, Ranks(), 1.0).loss
    return loss, {name: p.grad.clone() for name, p in model.named_parameters()}


def test_however_a_step_is_cut_its_loss_and_gradient_are_those_of_plain_cross_entropy(build, store):
    model, stock = build(), build()
    stock.set_attn_implementation("eager")
    chosen, total, count = range(12), 0, 0
    for index in chosen:
        ids = torch.from_numpy(store[index].ids.astype(np.int64))[None]
        losses = F.cross_entropy(stock(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        supervised = torch.from_numpy(store[index].supervised[1:])
        total, count = total + losses[supervised].sum(), count + int(supervised.sum())
    (total / count).backward()
    expected = {name: p.grad for name, p in stock.named_parameters()}
    for cuts in ([12], [6, 12], [1, 3, 4, 11, 12], range(1, 13)):
        starts = [0, *cuts][:-1]
        loss, found = gradient(model, [make_batch(store, chosen[a:b]) for a, b in zip(starts, cuts, strict=True)])
        assert loss == pytest.approx(float(total.detach() / count), rel=1e-6)
        for name, value in found.items():
            assert (value - expected[name]).norm() <= 1e-5 * expected[name].norm(), (name, cuts)


def test_it_learns_and_logs_every_step(build, store, plan, tmp_path):
    planned = plan(SETTINGS, epochs=6)
    result = train(build(), store, planned, SETTINGS, tmp_path)
    lines = metrics(tmp_path)
    assert result.step == planned.steps == len(lines) and [line["step"] for line in lines] == list(
        range(1, planned.steps + 1)
    )
    assert result.loss_first == lines[0]["loss"] == pytest.approx(math.log(61), rel=0.1)
    assert result.loss_last == lines[-1]["loss"] < 0.6 * result.loss_first
    assert result.tokens == lines[-1]["tokens"] == planned.tokens == 6 * sum(map(len, store))
    assert result.supervised_tokens == 6 * sum(int(sequence.supervised.sum()) for sequence in store)
    assert lines[-1]["epoch"] == 6 and lines[-1]["learning_rate"] == pytest.approx(1e-3)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_run_that_dies_goes_on_to_the_same_bits(build, store, plan, tmp_path, monkeypatch, method, stop):
    def fresh():
        return prepare_method(build(), method, rank=4, dropout=0.1)

    planned = plan(SETTINGS)
    whole, whole_model = tmp_path / "whole", fresh()
    result = train(whole_model, store, planned, SETTINGS, whole)

    ready = trainer.Trainer.save_if_due

    def dying(self, now=False):
        if self.done.step == stop:
            raise KeyboardInterrupt
        ready(self, now)

    monkeypatch.setattr(trainer.Trainer, "save_if_due", dying)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), store, planned, SETTINGS, tmp_path / "cut")
    monkeypatch.undo()
    assert len(metrics(tmp_path / "cut")) == stop
    resumed_model = fresh()
    torch.manual_seed(99)
    resumed = train(resumed_model, store, planned, SETTINGS, tmp_path / "cut")
    assert metrics(tmp_path / "cut") == metrics(whole)
    assert_same(weights(resumed_model), weights(whole_model))
    assert replace(resumed, seconds=0) == replace(result, seconds=0)


def test_a_finished_run_trains_no_further(build, store, plan, tmp_path):
    model, again = build(), build()
    result = train(model, store, plan(SETTINGS), SETTINGS, tmp_path)
    assert train(again, store, plan(SETTINGS), SETTINGS, tmp_path) == result
    assert_same(weights(again), weights(model))


def test_another_run_does_not_go_on_from_here(build, store, plan, tmp_path):
    train(build(), store, plan(SETTINGS), SETTINGS, tmp_path)
    other = replace(SETTINGS, learning_rate=2e-2)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train(build(), store, plan(other), other, tmp_path)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train(build(), store, plan(SETTINGS), SETTINGS, tmp_path, owner="another base")
    assert train(build(), store, plan(SETTINGS), replace(SETTINGS, checkpoint_every=5, threads=1), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_saves_first(build, store, plan, tmp_path, monkeypatch, number):
    model, settings = build(), replace(SETTINGS, checkpoint_every=0)
    expected = train(build(), store, plan(settings), settings, tmp_path / "whole")
    ready = trainer.Trainer.step_done

    def asked(self, *facts):
        if len(metrics(tmp_path / "run")) == 3:
            os.kill(os.getpid(), number)
        ready(self, *facts)

    handler = signal.getsignal(number)
    monkeypatch.setattr(trainer.Trainer, "step_done", asked)
    with pytest.raises(Interrupted, match="after step 4") as caught:
        train(model, store, plan(settings), settings, tmp_path / "run")
    assert caught.value.exit_code == 130 and signal.getsignal(number) is handler
    monkeypatch.undo()
    result = train(build(), store, plan(settings), settings, tmp_path / "run")
    assert result.loss_last == expected.loss_last


def test_a_loss_that_is_not_finite_changes_no_weight_and_names_the_rows(build, store, plan, tmp_path):
    model, planned = build(), plan(SETTINGS)
    first = [int(index) for row in planned.step(0) for index in row]
    with torch.no_grad():
        model.model.norm.weight[3] = math.inf
    before = weights(model)
    with pytest.raises(TunesmithError, match=r"step 1: loss nan") as caught:
        train(model, store, planned, SETTINGS, tmp_path)
    assert_same(weights(model), before)
    assert f"the rows {first[0]}, {first[1]}" in str(caught.value)
    line, warning = metrics(tmp_path)
    assert (
        warning["cause"]
        and line["skipped"]["rows"] == [str(index) for index in first]
        and not (tmp_path / "checkpoints").exists()
    )


def test_evaluators_run_when_due_and_leave_training_as_it_was(build, store, plan, tmp_path):
    settings = replace(SETTINGS, evaluate_every=4)
    plain, watched = build(), build()
    train(plain, store, plan(settings), settings, tmp_path / "plain")

    def evaluator(model):
        assert not model.training and not torch.is_grad_enabled()
        torch.rand(3)
        return {"loss": 1.5}

    train(watched, store, plan(settings), settings, tmp_path / "watched", watching=Watching({"held out": evaluator}))
    assert_same(weights(plain), weights(watched))
    found = [line for line in metrics(tmp_path / "watched") if "evaluation" in line]
    steps = plan(settings).steps
    assert [line["step"] for line in found] == sorted({*range(0, steps + 1, 4), steps})
    assert found[0]["evaluation"] == {"held out": {"loss": 1.5}}


def test_lora_trains_the_adapter_alone(build, store, plan, tmp_path):
    model = prepare_method(build(), "lora", rank=4)
    before = weights(model)
    train(model, store, plan(SETTINGS), SETTINGS, tmp_path)
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]) != ("lora" in name), name


def test_bf16_follows_fp32(build, store, plan, tmp_path):
    exact = train(build(), store, plan(SETTINGS), SETTINGS, tmp_path / "fp32")
    settings = replace(SETTINGS, precision="bf16")
    rough = train(build(), store, plan(settings), settings, tmp_path / "bf16")
    assert rough.loss_last == pytest.approx(exact.loss_last, rel=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_compiled_training_follows_plain_training(build, store, plan, tmp_path):
    exact = train(build(), store, plan(SETTINGS), SETTINGS, tmp_path / "plain")
    settings = replace(SETTINGS, compile=True)
    compiled = train(build(), store, plan(settings), settings, tmp_path / "compiled")
    assert compiled.loss_last == pytest.approx(exact.loss_last, rel=1e-3)


def test_gradients_are_clipped_to_the_norm_asked_for(build, store):
    model = build()
    gradient(model, [make_batch(store, range(8))])
    norm = clip(model, 0.25)
    clipped = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert norm > 0.25 and float(clipped) == pytest.approx(0.25, rel=1e-4)
    assert clip(model, 0.0) == pytest.approx(0.25, rel=1e-4)


def test_a_sequence_that_supervises_nothing_is_harmless_beside_others(build, store):
    silent = Encoded(np.arange(9, dtype=np.int32), np.zeros(9, dtype=bool))
    model = build()
    alone, _ = gradient(model, [make_batch(store, [0, 1])])
    beside, _ = gradient(model, [make_batch([*store, silent], [0, 60, 1]), make_batch([silent], [0])])
    assert beside == pytest.approx(alone, rel=1e-6)
