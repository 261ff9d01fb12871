"""The schedule's golden values, and which parameters are decayed."""

import numpy as np
import pytest
import torch

from tunesmith.base.errors import UserError
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.optimizer import build_optimizer, learning_rate, set_learning_rate, update
from tunesmith.train.settings import TrainSettings


def rates(steps=11, **settings):
    chosen = TrainSettings(learning_rate=1.0, **settings)
    return [learning_rate(step, steps, chosen) for step in range(steps)]


def test_cosine_falls_from_the_peak_to_a_tenth():
    found = rates(warmup=0.0)
    assert found[0] == 1 and found[5] == pytest.approx(0.55) and found[10] == pytest.approx(0.1)
    assert found == sorted(found, reverse=True)


def test_linear_falls_by_equal_steps():
    assert rates(5, warmup=0.0, schedule="linear", floor=0.2) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


def test_warmup_rises_by_equal_steps_to_the_peak_and_the_decay_starts_after_it():
    assert rates(20, warmup=0.2, schedule="constant")[:6] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert rates(20, warmup=0.2)[3:5] == [1, 1] and rates(20, warmup=0.2)[-1] == pytest.approx(0.1)


def test_a_run_of_one_step_learns_at_the_peak():
    assert rates(1, warmup=0.03) == [1]


def test_norms_are_not_decayed(build):
    model = build()
    decayed, kept = build_optimizer(model, TrainSettings(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0)
    norms = {id(p) for name, p in model.named_parameters() if "norm" in name}
    assert {id(p) for p in kept["params"]} == norms
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_all_faults_of_settings_are_told_together_with_the_remedy():
    with pytest.raises(UserError) as caught:
        TrainSettings(learning_rate=0.0, tokens_per_step=10_000, tokens_per_batch=4096, warmup=1.5)
    message = str(caught.value)
    assert "learning_rate 0.0" in message and "8192 or 12288" in message and "warmup 1.5" in message


def test_a_step_is_some_packed_rows():
    assert TrainSettings(tokens_per_step=32768, tokens_per_batch=4096).batches_per_step == 8


def test_wsd_stays_at_the_peak_and_falls_at_the_end():
    found = rates(20, warmup=0.1, schedule="wsd", decay=0.25, floor=0.0)
    assert found[:2] == [0.5, 1] and found[2:16] == [1] * 14
    assert found[15:] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert rates(3, warmup=0.0, schedule="wsd", decay=1.0, floor=0.0) == pytest.approx([1, 0.5, 0])


def test_warmup_in_steps():
    assert rates(20, warmup_steps=4, schedule="constant")[:5] == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    assert rates(2, warmup_steps=100, schedule="constant") == [1, 1]  # never all of the steps


def by_phases(schedule, steps, warming, decaying, floor):
    """The rates of all steps, phase after phase."""
    warm, stable = np.linspace(0, 1, warming + 1)[1:], np.ones(steps - warming - decaying)
    done = np.linspace(0, 1, decaying) if decaying > 1 else np.full(decaying, float(steps > 1))
    fall = {"cosine": (1 + np.cos(np.pi * done)) / 2, "constant": np.ones(decaying)}.get(schedule, 1 - done)
    return np.concatenate([warm, stable, floor + (1 - floor) * fall])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
def test_every_run_warms_up_and_ends_at_the_floor(schedule):
    rng = np.random.default_rng(0)
    for steps in (*range(1, 30), *rng.integers(30, 3000, 20).tolist()):
        for _ in range(10):
            warming = int(rng.integers(0, steps + 2)) if rng.random() < 0.7 else max(0, steps - 1)
            decay, floor = float(rng.choice([1e-4, 0.05, 0.2, 0.5, 1.0])), float(rng.choice([0.0, 0.1, 0.7]))
            found = rates(steps, schedule=schedule, warmup_steps=warming, decay=decay, floor=floor)
            warmed = min(warming, steps - 1)
            decaying = steps - warmed
            if schedule == "wsd":
                decaying = min(decaying, max(1, round(decay * steps)))
            np.testing.assert_allclose(
                found, by_phases(schedule, steps, warmed, decaying, floor), rtol=1e-12, atol=1e-15
            )
            assert max(found) == 1 and (steps == 1 or schedule == "constant" or found[-1] == pytest.approx(floor))


def test_a_setting_that_is_as_by_default_is_not_what_a_run_is_known_by():
    assert TrainSettings().identity() == {} == TrainSettings(checkpoint_every=7, low_memory=True).identity()
    changed = TrainSettings(clip=0.5, evaluate_every=4)
    assert changed.identity() == {"clip": 0.5}
    assert TrainSettings(patience=2, evaluate_every=4).identity() == {"patience": 2, "evaluate_every": 4}


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "adafactor"])
def test_every_optimizer_learns_and_its_state_comes_back_to_the_bit(build, tmp_path, name):
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    settings = TrainSettings(optimizer=name, weight_decay=0.1)
    ids = torch.arange(24).repeat(4, 1)

    def update(model, optimizer):
        loss = model(ids, labels=ids).loss
        loss.backward()
        set_learning_rate(optimizer, 1e-2 if name != "adafactor" else 0.3)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    model = build()
    optimizer = build_optimizer(model, settings)
    losses = [update(model, optimizer) for _ in range(6)]
    assert losses[-1] < 0.7 * losses[0]
    Checkpoints(tmp_path, model, optimizer, owner="me").save({"step": 6})
    again = build()
    restored = build_optimizer(again, settings)
    assert Checkpoints(tmp_path, again, restored, owner="me").load_newest() == {"step": 6}
    assert update(again, restored) == update(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("in_place", [False, True])
def test_without_use_for_it_a_parameter_moves_on_by_momentum_and_one_never_used_stays(in_place):
    model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2, bias=False) for name in ("once", "never")})
    optimizer = build_optimizer(model, TrainSettings(learning_rate=0.1, weight_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    once, never = (model[name].weight for name in ("once", "never"))
    exact = torch.optim.AdamW([once.detach().clone()], lr=0.1, weight_decay=0.5)
    (same,), before = exact.param_groups[0]["params"], never.detach().clone()
    once.grad, same.grad = torch.ones(2, 2), torch.ones(2, 2)
    for _ in range(3):
        update(optimizer)
        exact.step()
        optimizer.zero_grad(set_to_none=not in_place)
        same.grad = torch.zeros(2, 2)
    torch.testing.assert_close(once, same)
    assert torch.equal(never, before) and never not in optimizer.state
