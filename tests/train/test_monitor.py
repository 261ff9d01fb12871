"""Synthetic curves: each kind of trouble is named, and healthy curves, however noisy, give no warning."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_llama

from tunesmith.model.flops import training_flops
from tunesmith.train.monitor import COOL_DOWN, Meter, Monitor
from tunesmith.train.watches import held_out_loss

GIB = 2.0**30


def walk(rng: np.random.Generator, steps: int, size: float, memory: float) -> np.ndarray:
    """(steps,) a random walk that is drawn back to 0: its standard deviation is `size`."""
    noise = rng.normal(0, size * math.sqrt(1 - memory**2), steps)
    found = np.empty(steps)
    state = rng.normal(0, size)
    for step in range(steps):
        found[step] = state = memory * state + noise[step]
    return found


def healthy(seed: int, steps: int = 600, evaluate_every: int = 25) -> list[dict[str, Any]]:
    """The metrics of a sound run: warm-up and cosine, a loss that falls amid noise, norms with a heavy tail, memory
    that finds its peak by and by, held-out losses with a noise of their own."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, steps + 1) / steps
    warm, floor, fall = rng.uniform(0.01, 0.1), rng.uniform(0.3, 2.0), rng.uniform(0.5, 2.5)
    speed = rng.uniform(4, 20)
    trend = floor + fall * np.exp(-speed * np.maximum(share - warm / 2, 0))
    loss = trend * (1 + walk(rng, steps, rng.uniform(0.01, 0.06), rng.choice([0.0, 0.9])))
    held_out = trend * 1.05 * (1 + walk(rng, steps, rng.uniform(0.0, 0.01), 0.9))
    norm = (0.3 + np.exp(-speed * share)) * np.exp(walk(rng, steps, rng.uniform(0.1, 0.5), 0.5)) * rng.uniform(0.1, 10)
    rate = 2e-5 * np.minimum(share / warm, 0.1 + 0.45 * (1 + np.cos(np.pi * share)))
    memory = GIB * (2 + np.maximum.accumulate(rng.lognormal(-3, 0.8, steps)))
    taken = rng.lognormal(-1, 0.1, steps)
    waiting = np.minimum(rng.exponential(rng.uniform(0.001, 0.06), steps), 0.9)
    seconds = np.cumsum(taken)
    lines: list[dict[str, Any]] = []
    for i in range(steps):
        facts = zip(
            ("loss", "grad_norm", "learning_rate", "memory", "waiting", "seconds"),
            (loss, norm, rate, memory, waiting, seconds),
            strict=True,
        )
        lines.append({"step": i + 1} | {name: float(values[i]) for name, values in facts})
        if (i + 1) % evaluate_every == 0:
            lines.append({"step": i + 1, "evaluation": {"new_items": {"loss": float(held_out[i]), "tokens": 900}}})
    return lines


def causes(lines: list[dict[str, Any]]) -> set[str]:
    monitor = Monitor()
    for line in lines:
        monitor.see(line)
    return {warning.cause for warning in monitor.warnings}


def steps_of(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (line for line in lines if "loss" in line)


@pytest.mark.parametrize("steps", [60, 300, 1200])
def test_healthy_curves_give_no_warning(steps: int) -> None:
    seeds = 60 if steps > 1000 else 150
    found = {seed: said for seed in range(seeds) if (said := causes(healthy(seed, steps, max(steps // 24, 2))))}
    assert found == {}


def explodes(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for line in steps_of(lines):
        if line["step"] > 300:
            line["loss"] = line["loss"] * 1.5 ** (line["step"] - 300) if line["step"] < 307 else 11.0


def gradient_explodes(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for line in steps_of(lines):
        line["grad_norm"] *= 200.0 if line["step"] > 300 else 1.0


def gradient_vanishes(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for line in steps_of(lines):
        line["grad_norm"] *= math.exp(-line["step"] / 30)


def gradient_is_zero(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for line in steps_of(lines):
        line["grad_norm"] = 0.0


def loss_is_level(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for line in steps_of(lines):
        line["loss"] = 2.3 * (1 + rng.normal(0, 0.03))


def learns_by_heart(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for line in lines:
        late = max(line["step"] - 250, 0)
        if "evaluation" in line:
            line["evaluation"]["new_items"]["loss"] += late / 500
        else:
            line["loss"] *= math.exp(-late / 400)


def memory_leaks(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for line in steps_of(lines):
        line["memory"] += 0.001 * GIB * line["step"]


def waits(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for line in steps_of(lines):
        line["waiting"] = rng.uniform(0.2, 0.5)


def skips(lines: list[dict[str, Any]], rng: np.random.Generator) -> None:
    for index, line in enumerate(lines):
        if line["step"] in (40, 41):
            lines[index] = {"step": line["step"], "skipped": {"loss": "nan", "grad_norm": "nan", "rows": ["a:1"]}}


LIKEWISE = {"loss explodes": {"loss does not fall"}}  # what follows from a trouble


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (explodes, "loss explodes"),
        (gradient_explodes, "gradient explodes"),
        (gradient_vanishes, "gradient vanishes"),
        (gradient_is_zero, "gradient vanishes"),
        (loss_is_level, "loss does not fall"),
        (learns_by_heart, "held-out loss rises"),
        (memory_leaks, "memory grows"),
        (waits, "device idles"),
        (skips, "steps skipped"),
    ],
)
def test_trouble_is_named_and_nothing_else_is(trouble: Callable[..., None], cause: str) -> None:
    for seed in range(20):
        lines = healthy(seed)
        trouble(lines, np.random.default_rng(seed))
        assert cause in (found := causes(lines)), seed
        assert found - {cause} <= LIKEWISE.get(cause, set()), seed


def test_an_explosion_is_named_within_three_steps() -> None:
    monitor, lines = Monitor(), list(steps_of(healthy(0)))
    for line in lines:
        line["loss"] = 9.0 if line["step"] > 300 else line["loss"]
        monitor.see(line)
    assert monitor.warnings[0].step == 303 and "9" in monitor.warnings[0].text


def test_one_hard_step_is_no_explosion() -> None:
    lines = healthy(1)
    for line in steps_of(lines):
        if line["step"] % 50 == 0:
            line["loss"], line["grad_norm"] = 15.0, 400.0
    assert causes(lines) == set()


def test_a_cause_is_named_again_only_after_a_cool_down_that_doubles() -> None:
    monitor = Monitor()
    for step in range(1, 1600):
        monitor.see({"step": step, "skipped": {}})
    assert [warning.step for warning in monitor.warnings] == [1, 1 + COOL_DOWN, 1 + 3 * COOL_DOWN, 1 + 7 * COOL_DOWN]


def test_a_run_that_goes_on_is_watched_as_if_it_had_not_stopped() -> None:
    lines = healthy(3)
    memory_leaks(lines, np.random.default_rng(0))
    skips(lines, np.random.default_rng(0))
    whole, written = Monitor(), []
    for line in lines:
        written += [json.dumps(line), *(json.dumps(warning.line) for warning in whole.see(line))]
    for cut in (10, 45, 400, len(written)):
        resumed = Monitor(json.loads(line) for line in written[:cut])
        for line in written[cut:]:
            resumed.see(json.loads(line))
        assert resumed.warnings == whole.warnings


@pytest.mark.parametrize("line", [{}, {"loss": math.nan, "grad_norm": math.inf}, {"evaluation": {}}, {"loss": 1}])
def test_lines_of_older_runs_and_of_other_kinds_are_read(line: dict[str, Any]) -> None:
    monitor = Monitor()
    for step in range(300):
        monitor.see({"step": step, **line})
    assert {warning.cause for warning in monitor.warnings} <= {"loss does not fall"}


def test_the_held_out_loss_is_that_of_all_tokens_together() -> None:
    levels = {"new_items": {"loss": 1.0, "tokens": 300}, "new_clusters": {"loss": 3.0, "tokens": 100}}
    assert held_out_loss(levels | {"text": {"bits_per_byte": 9.0}}) == pytest.approx((300 * 1.0 + 100 * 3.0) / 400)
    assert held_out_loss({"text": {"bits_per_byte": 9.0}}) is None


def test_utilisation_is_the_share_of_the_peak() -> None:
    flops = training_flops(tiny_llama(61))
    meter = Meter(flops, peak=1e9, device=torch.device("cpu"))
    measured = meter.of([30, 20], 10, seconds=0.5)
    assert measured["mfu"] == pytest.approx(flops.of([30, 20], 10) / 0.5 / 1e9, abs=1e-4)
    assert measured["memory"] > 50e6
    assert "mfu" not in Meter(None, peak=1e9, device=torch.device("cpu")).of([30, 20], 10, seconds=0.5)
