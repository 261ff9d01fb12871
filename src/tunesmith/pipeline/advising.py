"""What speaks against a plan, in words, each with its remedy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tunesmith.pipeline.gpus import GIB

FEW_STEPS = 50
"""Optimizer steps: fewer hardly change a model, and most of them would be warm-up."""
MANY_STEPS = 100_000
FEW_SUPERVISED = 256
"""Supervised tokens of a step: the gradient of fewer is mostly noise."""
MANY_EPOCHS = 3.0
FEW_TURNS = 0.1
"""Part of the rows with several turns, for a model that is to hold conversations."""
LOW_EFFICIENCY = 0.85
"""Part of packed rows that holds tokens."""
DROPPED = 0.01
"""Part of the rows that may be too long without a warning."""
LARGE_PART = 0.95
"""Part of a device's memory above which a training may fail."""
# Usual learning rates for a model of a billion parameters or more. full and LoRA: what the authors of open recipes use
# (Alpaca, Tulu, QLoRA: 2305.14314). The others: Houlsby (1902.00751), Lester (2104.08691), P-tuning (2103.10385; v2:
# 2110.07602).
RATES = {
    "full": (1e-5, 5e-5),
    "lora": (1e-4, 3e-4),
    "qlora": (1e-4, 3e-4),
    "bottleneck": (1e-4, 1e-3),
    "prompt": (1e-3, 3e-1),
    "p_tuning": (1e-4, 1e-2),
    "prefix": (1e-3, 3e-2),
}
BILLION = 1e9
MARGIN = 1.1  # a rate so many times beyond its range is none to warn of


@dataclass(frozen=True, slots=True)
class Advice:
    """what: is at fault, with numbers. remedy: what to change."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}"


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What is known of the prepared data. tokens, supervised: of all steps. rows: kept ones that are trained on.

    clusters: task clusters. several_turns: part of the rows; None where it is not known, or of no matter.
    too_long: rows dropped; longest_99: tokens that 99 of 100 rows would have fitted in, were none dropped.
    """

    steps: int
    tokens: int
    supervised: int
    rows: int
    clusters: int
    efficiency: float
    several_turns: float | None = None
    too_long: int = 0
    longest_99: int | None = None


def rate_range(method: str, parameters: int) -> tuple[float, float]:
    """Usual learning rates of a method. Models under a billion parameters take more, about as 1 / sqrt(size): the
    pocket model (3 million) learns best at 9e-4 where a billion takes 5e-5."""
    low, high = RATES[method]
    return low, high * math.sqrt(max(1.0, BILLION / max(1, parameters))) if method == "full" else high


def on_rate(method: str, rate: float, parameters: int) -> Iterator[Advice]:
    low, high = rate_range(method, parameters)
    if not low / MARGIN <= rate <= high * MARGIN:
        where, change = ("below", "learns little") if rate < low else ("above", "may diverge or forget much")
        yield Advice(
            f"learning_rate {rate:g} is {where} the usual {_rate(low)} to {_rate(high)} of {method} for a model of "
            f"this size: it {change}.",
            f"Try {_rate(low if rate < low else high)}.",
        )


def _rate(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")


def on_epochs(epochs: float) -> Iterator[Advice]:
    if epochs > MANY_EPOCHS:
        yield Advice(
            f"epochs is {epochs:g}: more than {MANY_EPOCHS:g} mostly teach the rows by heart.",
            "Set 2 or 3, or evaluate_every with patience, which stops in time.",
        )


def on_data(data: DataFacts, *, tokens_per_step: int, tokens_per_batch: int, max_length: int) -> Iterator[Advice]:
    yield from _on_steps(data, tokens_per_step, tokens_per_batch)
    if data.clusters == 1:
        yield Advice(
            "All rows are of one task cluster: the model learns that task and may lose others.",
            "Add other instruction data, or replay (data.replay); or name clusters, if there are several.",
        )
    if data.several_turns is not None and data.several_turns < FEW_TURNS:
        yield Advice(
            f"{data.several_turns:.1%} of the rows have several turns: a chat model hardly learns to go on.",
            "Add conversations until a tenth has, if it is to chat.",
        )
    if data.too_long > DROPPED * (data.rows + data.too_long):
        share = data.too_long / (data.rows + data.too_long)
        keep = f"max_length {data.longest_99:,} would keep 99%" if data.longest_99 else "raise max_length"
        yield Advice(
            f"{data.too_long:,} rows ({share:.1%}) are longer than max_length = {max_length:,} and were dropped.",
            f"{keep[0].upper()}{keep[1:]}; or too_long: oldest_turns shortens conversations.",
        )
    if data.efficiency < LOW_EFFICIENCY:
        yield Advice(
            f"Packed rows are only {data.efficiency:.0%} full; the rest is room that no sequence fits.",
            f"Raise tokens_per_batch (now {tokens_per_batch:,}) to 2 to 4 times max_length.",
        )


def _on_steps(data: DataFacts, tokens_per_step: int, tokens_per_batch: int) -> Iterator[Advice]:
    each = data.supervised / max(1, data.steps)
    if data.steps < FEW_STEPS:
        wanted = data.tokens / data.efficiency / (2 * FEW_STEPS) if data.efficiency else 0
        smaller = max(1, int(wanted // tokens_per_batch)) * tokens_per_batch
        lower = f"Lower tokens_per_step to {smaller:,}" if smaller < tokens_per_step else "Lower tokens_per_batch"
        count = "1 optimizer step" if data.steps == 1 else f"{data.steps} optimizer steps"
        yield Advice(
            f"Only {count}: a batch of {tokens_per_step:,} tokens is large for {data.tokens:,}.",
            f"{lower}, or train on more rows.",
        )
    if data.steps > MANY_STEPS:
        larger = -(-data.tokens // (20_000 * tokens_per_batch)) * tokens_per_batch
        yield Advice(
            f"{data.steps:,} optimizer steps: a batch of {tokens_per_step:,} tokens is small for {data.tokens:,}.",
            f"Raise tokens_per_step to about {larger:,}: smoother gradients, fewer updates.",
        )
    if data.steps and each < FEW_SUPERVISED:
        factor = math.ceil(2 * FEW_SUPERVISED / max(1.0, each))
        yield Advice(
            f"A step has {each:,.0f} supervised tokens on average: its gradient is mostly noise.",
            f"Raise tokens_per_step to {factor * tokens_per_step:,}.",
        )


def on_memory(needed: int, available: int, where: str, alternatives: Mapping[str, int]) -> Iterator[Advice]:
    """alternatives: bytes needed instead, by the change of the recipe that brings it."""
    if not available or needed <= LARGE_PART * available:
        return
    verdict = "does not fit" if needed > available else "may not fit"
    yield Advice(
        f"{needed / GIB:,.1f} GiB {verdict} in the {available / GIB:,.1f} GiB of {where}.",
        remedy_of(needed, available, alternatives),
    )


def remedy_of(needed: int, available: int, alternatives: Mapping[str, int]) -> str:
    """What to change, the smallest change that fits first, then those that help most."""
    less = {change: size for change, size in alternatives.items() if size < 0.98 * needed}
    fitting = [change for change, size in less.items() if size <= LARGE_PART * available]
    shown = fitting[:3] or sorted(less, key=less.__getitem__)[:3]
    if not shown:
        return "Take a smaller base model, or a device with more memory."
    listed = "; ".join(f"{change} ({less[change] / GIB:,.1f} GiB)" for change in shown)
    return f"{'Fits with' if fitting else 'Less is needed with'}: {listed}."
