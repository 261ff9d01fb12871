"""Curves of the training run, from metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tunesmith.report import charts
from tunesmith.report.load import Fields, at, number
from tunesmith.report.words import counted, decimal, whole

DOTS_SHOWN = 200


@dataclass(frozen=True)
class Curve:
    title: str
    note: str
    chart: Markup
    last: float | None = None


@dataclass(frozen=True)
class Training:
    """The loss curve, smaller ones for what drove it, and sums over the run."""

    loss: Curve
    others: list[Curve]
    steps: int
    loss_first: float
    loss_last: float
    not_finite: int
    dots: bool


def training(metrics: Sequence[Fields]) -> Training | None:
    """None when no step was taken."""
    steps = [line for line in metrics if "loss" in line and number(line, "step") is not None]
    losses = _series(steps, "loss")
    if not losses:
        return None
    evaluations = [dot for line in metrics for dot in _evaluation_dots(line)]
    dots = evaluations[:: max(1, len(evaluations) // DOTS_SHOWN)]
    window = max(1, len(losses) // 50)
    return Training(
        loss=_curve("Loss", "nats per supervised token", losses, dots),
        others=[_curve(title, note, series) for title, key, note in _OTHERS if len(series := _series(steps, key)) > 1],
        steps=len(steps),
        loss_first=sum(v for _, v in losses[:window]) / window,
        loss_last=sum(v for _, v in losses[-window:]) / window,
        not_finite=len(steps) - len(losses),
        dots=bool(dots),
    )


_OTHERS = (
    ("Learning rate", "learning_rate", "by step"),
    ("Gradient norm", "grad_norm", "before clipping, by step"),
    ("Speed", "tokens_per_second", "tokens a second, by step"),
)


def _series(steps: Sequence[Fields], key: str) -> list[tuple[float, float]]:
    """(step, value) where the value is a finite number."""
    pairs = ((number(line, "step"), number(line, key)) for line in steps)
    return [(step, value) for step, value in pairs if step is not None and value is not None]


def _curve(
    title: str, note: str, series: list[tuple[float, float]], dots: Sequence[tuple[float, float, str]] = ()
) -> Curve:
    steps, values = [step for step, _ in series], [value for _, value in series]
    label = (
        f"{title} over {counted(len(series), 'step')}: from {charts.compact(values[0])} "
        f"to {charts.compact(values[-1])}, lowest {charts.compact(min(values))}, highest {charts.compact(max(values))}."
    )
    return Curve(title, note, charts.curve(charts.downsample(steps, values), label, dots), values[-1])


def _evaluation_dots(line: Fields) -> Iterator[tuple[float, float, str]]:
    """Losses measured on held-out rows during training, under whatever names the evaluators gave them."""
    step = number(line, "step")
    for name, value in _leaves(at(line, "evaluation")):
        if step is not None and "loss" in name:
            yield step, value, f"{name} {decimal(value)} at step {whole(step)}"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name} {key}".strip())
    elif (found := number(value)) is not None:
        yield name, found
