"""The training run from metrics.jsonl: curves, warnings, and how answers to the same prompts changed.

Older runs lack some of the lines and numbers; whatever is absent is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from tunesmith.report import charts
from tunesmith.report.history import Sample, samples_of, scores_of
from tunesmith.report.load import Fields, at, fields_at, number
from tunesmith.report.words import clipped, counted, decimal, percent, short, spaced, whole

DOTS_SHOWN = 200
POINTS_SHOWN = 400
CLUSTERS_SHOWN = 24
WARNINGS_SHOWN = 30
TEXT_LENGTH = 2_000

Series = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """names: of its lines, where it has several, with the kind of each one's stroke."""

    title: str
    note: str
    chart: Markup
    last: float | None = None
    names: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Training:
    """The loss curve, held-out losses, smaller curves for what drove it, warnings, samples, sums over the run."""

    loss: Curve
    held_out: Curve | None
    clusters: list[Curve]
    clusters_omitted: int
    others: list[Curve]
    warnings: list[tuple[float, str]]
    warnings_omitted: int
    samples: list[Sample]
    sample_scores: Curve | None
    facts: list[tuple[str, str, str]]
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
    levels, clusters = held_out_losses(metrics)
    shown = [(name, series[:: max(1, len(series) // DOTS_SHOWN)]) for name, series in levels.items()]
    dots = [(s, v, f"{name} {decimal(v)} at step {whole(s)}") for name, series in shown for s, v in series]
    window = max(1, len(losses) // 50)
    kinds = {name: index for index, name in enumerate(levels)}
    said = warnings_of(metrics)
    sampled, prompts = scores_of(metrics)
    last = losses[-1][0]
    return Training(
        loss=_loss_curve(losses, dots, window),
        held_out=_held_out_curve("Held-out loss", shown, kinds, last)
        if any(len(s) > 1 for s in levels.values())
        else None,
        clusters=[_held_out_curve(n, list(c.items()), kinds, last) for n, c in list(clusters.items())[:CLUSTERS_SHOWN]],
        clusters_omitted=max(len(clusters) - CLUSTERS_SHOWN, 0),
        others=[_curve(title, note, series) for title, key, note in _OTHERS if len(series := _series(steps, key)) > 1],
        warnings=said[:WARNINGS_SHOWN],
        warnings_omitted=max(len(said) - WARNINGS_SHOWN, 0),
        samples=samples_of(metrics),
        sample_scores=_score_curve(sampled, prompts) if len(sampled) > 1 else None,
        facts=[*_facts(steps, levels), *_score_facts(sampled, prompts)],
        steps=len(steps),
        loss_first=sum(v for _, v in losses[:window]) / window,
        loss_last=sum(v for _, v in losses[-window:]) / window,
        not_finite=len(steps) - len(losses) + sum("skipped" in line for line in metrics),
        dots=bool(dots),
    )


_OTHERS = (
    ("Gradient norm", "grad_norm", "before clipping"),
    ("Learning rate", "learning_rate", "by step"),
    ("Speed", "tokens_per_second", "tokens a second"),
    ("Waiting for data", "waiting", "share of a step's time"),
    ("Utilisation", "mfu", "share of the device's peak FLOP/s"),
    ("Memory", "memory", "GiB, the most so far"),
)


def held_out_losses(metrics: Sequence[Fields]) -> tuple[dict[str, Series], dict[str, dict[str, Series]]]:
    """(step, loss) measured while training: by level, and by cluster and level."""
    levels: dict[str, Series] = {}
    clusters: dict[str, dict[str, Series]] = {}
    for line in metrics:
        step = number(line, "step")
        if step is None:
            continue
        for name, found in fields_at(line, "evaluation").items():
            level = spaced(name)
            if (loss := number(found, "loss")) is not None:
                levels.setdefault(level, []).append((step, loss))
            for cluster, part in fields_at(found, "clusters").items():
                value = number(part, "loss") if isinstance(part, dict) else number(part)
                if value is not None:
                    clusters.setdefault(str(cluster), {}).setdefault(level, []).append((step, value))
    return levels, dict(sorted(clusters.items()))


def warnings_of(metrics: Sequence[Fields]) -> list[tuple[float, str]]:
    """(step, text) of what the run was warned of."""
    lines = ((number(line, "step") or 0, at(line, "warning")) for line in metrics)
    return [(step, clipped(text, TEXT_LENGTH)) for step, text in lines if isinstance(text, str)]


def _facts(steps: Sequence[Fields], levels: dict[str, Series]) -> list[tuple[str, str, str]]:
    """(name, value, explanation) of what the run comes down to."""
    speeds, waits, shares, memory = (
        [value for _, value in _series(steps, key)] for key in ("tokens_per_second", "waiting", "mfu", "memory")
    )
    found = []
    if speeds:
        found.append(("Speed", short(sorted(speeds)[len(speeds) // 2]), "tokens a second, in the median step"))
    if shares:
        found.append(("Utilisation", percent(sorted(shares)[len(shares) // 2]), "of the device's peak FLOP/s"))
    if waits:
        found.append(("Waiting", percent(sum(waits) / len(waits)), "of a step's time, for data"))
    if memory:
        found.append(("Memory", f"{decimal(max(memory), 2)} GiB", "at most"))
    for level, series in list(levels.items())[:1]:
        step, loss = min(series, key=lambda pair: pair[1])
        found.append(("Best held-out loss", decimal(loss), f"on {level}, at step {whole(step)}"))
    return found


def _score_curve(sampled: Series, prompts: int) -> Curve:
    return _curve("Score of the samples", f"mean of {counted(prompts, 'answer')}, by step", sampled)


def _score_facts(sampled: Series, prompts: int) -> Iterator[tuple[str, str, str]]:
    """Of the answers while training: their mean score in the end."""
    if sampled:
        (first, before), (last, after) = sampled[0], sampled[-1]
        steps = f"at step {whole(last)}; {percent(before)} at step {whole(first)}"
        yield "Samples", percent(after), f"mean score of {counted(prompts, 'answer')} {steps}"


def _series(steps: Sequence[Fields], key: str) -> Series:
    """(step, value) where the value is a finite number; memory in GiB."""
    unit = 2**30 if key == "memory" else 1
    pairs = ((number(line, "step"), number(line, key)) for line in steps)
    return [(step, value / unit) for step, value in pairs if step is not None and value is not None]


def _loss_curve(losses: Series, dots: Sequence[tuple[float, float, str]], window: int) -> Curve:
    smooth = list(_smoothed(losses, window)) if window > 1 else []
    return _curve("Loss", "nats per supervised token", losses, dots, smooth[:: -(-len(smooth) // POINTS_SHOWN) or 1])


def _smoothed(series: Series, window: int) -> Iterator[tuple[float, float]]:
    """Means of up to `window` steps on either side: without the lag of a running average."""
    sums = [0.0, *accumulate(value for _, value in series)]
    for index, (step, _) in enumerate(series):
        reach = min(window, index, len(series) - 1 - index)
        yield step, (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)


def _curve(
    title: str,
    note: str,
    series: Series,
    dots: Sequence[tuple[float, float, str]] = (),
    smooth: Series | None = None,
) -> Curve:
    steps, values = [step for step, _ in series], [value for _, value in series]
    points = charts.downsample(steps, values, POINTS_SHOWN)
    chart = charts.curve(points, _label(title, values, "step"), dots, smooth or ())
    return Curve(title, note, chart, values[-1])


def _held_out_curve(title: str, series: Sequence[tuple[str, Series]], kinds: dict[str, int], last: float) -> Curve:
    values = [value for _, line in series for _, value in line]
    drawn = [(name, kinds.get(name, 0), line) for name, line in series]
    chart = charts.lines(drawn, _label(title, values, "measurement"), max(last, *(line[-1][0] for _, line in series)))
    return Curve(title, "nats per supervised token", chart, values[-1], tuple((name, kind) for name, kind, _ in drawn))


def _label(title: str, values: Sequence[float], unit: str) -> str:
    return (
        f"{title} over {counted(len(values), unit)}: from {charts.compact(values[0])} "
        f"to {charts.compact(values[-1])}, lowest {charts.compact(min(values))}, highest {charts.compact(max(values))}."
    )
