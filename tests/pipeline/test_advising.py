"""Warnings of a plan: each where it is due, with its numbers and a remedy, and nowhere else."""

from dataclasses import replace

import pytest

from tunesmith.pipeline.advising import DataFacts, on_data, on_epochs, on_memory, on_rate, rate_range

SOUND = DataFacts(
    steps=500,
    tokens=16_000_000,
    supervised=4_000_000,
    rows=50_000,
    clusters=8,
    efficiency=0.98,
    several_turns=0.3,
)


def said(data):
    return [str(each) for each in on_data(data, tokens_per_step=32_768, tokens_per_batch=2048, max_length=2048)]


def test_sound_data_draws_no_warning():
    assert said(SOUND) == []
    assert said(replace(SOUND, several_turns=None, too_long=100)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 20, "tokens": 640_000}, ("Only 20 optimizer steps", "Lower tokens_per_step to 6,144")),
        ({"steps": 200_000, "tokens": 6_553_600_000, "supervised": 10**9}, ("200,000", "Raise tokens_per_step")),
        ({"supervised": 50_000}, ("100 supervised tokens", "Raise tokens_per_step to 196,608")),
        ({"clusters": 1}, ("one task cluster", "data.replay")),
        ({"several_turns": 0.02}, ("2.0% of the rows have several turns", "Add conversations")),
        ({"too_long": 5000, "longest_99": 3100}, ("5,000 rows (9.1%)", "Max_length 3,100 would keep 99%")),
        ({"efficiency": 0.6}, ("only 60% full", "Raise tokens_per_batch")),
    ],
)
def test_each_fault_is_told_with_its_remedy(change, words):
    (warning,) = said(replace(SOUND, **change))
    for part in words:
        assert part in warning


def test_learning_rates():
    assert not list(on_rate("full", 2e-5, 7_000_000_000))
    assert not list(on_rate("lora", 2e-4, 7_000_000_000))
    assert not list(on_rate("full", 9e-4, 3_148_224))  # what the pocket model is shipped with
    (high,) = on_rate("full", 2e-4, 7_000_000_000)
    assert "above the usual 1e-5 to 5e-5 of full" in high.what and "5e-5" in high.remedy
    (low,) = on_rate("lora", 2e-5, 7_000_000_000)
    assert "below" in low.what and "1e-4" in low.remedy
    assert rate_range("lora", 1000) == rate_range("lora", 10**12)


def test_epochs():
    assert not list(on_epochs(3))
    assert "epochs is 5" in next(on_epochs(5)).what


def test_memory_takes_the_smallest_change_that_fits():
    others = {"a smaller batch": 30 << 30, "checkpointing": 20 << 30, "lora": 10 << 30}
    assert not list(on_memory(20 << 30, 24 << 30, "L4", others))
    (advice,) = on_memory(40 << 30, 24 << 30, "RTX 4090", others)
    assert "40.0 GiB does not fit in the 24.0 GiB of RTX 4090" in advice.what
    assert advice.remedy == "Fits with: checkpointing (20.0 GiB); lora (10.0 GiB)."
    (advice,) = on_memory(40 << 30, 8 << 30, "a small GPU", others)
    assert advice.remedy.startswith("Less is needed with: lora (10.0 GiB)")
    (advice,) = on_memory(40 << 30, 8 << 30, "a small GPU", {})
    assert "smaller base model" in advice.remedy
