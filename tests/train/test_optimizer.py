"""The schedule's golden values, and which parameters are decayed."""

import pytest

from tunesmith.base.errors import UserError
from tunesmith.train.optimizer import build_optimizer, learning_rate
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
