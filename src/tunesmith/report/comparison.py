"""Base against tuned model, from evaluation/summary.json: rows with intervals, and what each one says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from markupsafe import Markup

from tunesmith.report import charts
from tunesmith.report.charts import Mark
from tunesmith.report.load import Fields, count, fields_at, number
from tunesmith.report.words import change, decimal, percent, points

Judgement = Literal["better", "worse", "unclear"]
T = TypeVar("T")

# Nearest to training first: the title, what its rows are called after a number, and what it shows.
LEVELS = {
    "new_items": ("New items", "new items", "Items never seen, of tasks and phrasings that were trained."),
    "new_phrasings": ("New phrasings", "items in new phrasings", "Trained tasks, asked in words that were never seen."),
    "new_clusters": ("New task clusters", "items of new task clusters", "Kinds of task of which nothing was trained."),
}
STYLES = {"chat": "base, chat template", "plain": "base, plain prompt"}
METRICS = {
    "auto": "each task's own metric",
    "exact_match": "exact match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "number": "the number matches",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_1_stemmed": "ROUGE-1, stemmed",
    "rouge_2_stemmed": "ROUGE-2, stemmed",
    "rouge_l_stemmed": "ROUGE-L, stemmed",
    "accuracy": "the label is right",
    "macro_f1": "macro F1",
    "bleu": "BLEU",
    "chrf": "chrF",
    "bertscore": "BERTScore",
}
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW_ITEMS = 30
ROWS_SHOWN = 40


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval; the bounds are None where none was computed."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One level, cluster or task: scores in 0..1, or nats per response token for response loss."""

    name: str
    n: int
    base: dict[str, Estimate]
    tuned: Estimate | None
    difference: Estimate | None
    judgement: Judgement | None
    plot: Markup
    tokens: int = 0
    lower_is_better: bool = False

    @property
    def gain(self) -> float:
        """The difference, positive when the tuned model is better."""
        mean = self.difference.mean if self.difference else 0.0
        return -mean if self.lower_is_better else mean

    @property
    def best_style(self) -> str | None:
        """The prompt style in which the base model does better; differences are taken against it."""
        return max(self.base, key=lambda style: self.base[style].mean, default=None)

    @property
    def best_base(self) -> Estimate | None:
        return self.base[self.best_style] if self.best_style else None

    @property
    def said(self) -> str:
        """The difference: points of a score, or nats."""
        return self._in_its_unit(self.difference.mean if self.difference else None)

    @property
    def interval(self) -> str:
        if self.difference is None or self.difference.low is None:
            return ""
        return f"{self._in_its_unit(self.difference.low)} to {self._in_its_unit(self.difference.high)}"

    def _in_its_unit(self, value: float | None) -> str:
        return change(value) if self.lower_is_better else points(value)

    def renamed(self, name: str) -> Row:
        return replace(self, name=name)

    @property
    def few(self) -> bool:
        return self.n < FEW_ITEMS


@dataclass(frozen=True)
class Table(Generic[T]):
    """The rows that are shown, and how many were left out to keep the page small."""

    rows: list[T]
    omitted: int = 0

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(frozen=True)
class Level:
    key: str
    title: str
    noun: str
    explanation: str
    overall: Row
    clusters: Table[Row]
    tasks: Table[Row]


def levels(evaluation: Fields) -> list[Level]:
    """The generation scores of every level that was measured, nearest to training first."""
    return _levels(fields_at(evaluation, "generation", "levels"), score_row)


def loss_levels(evaluation: Fields) -> tuple[list[Level], list[float]]:
    """Response loss before and after, and the ticks of the scale that all rows share."""
    measured = fields_at(evaluation, "loss")
    rows = [
        row
        for level in measured.values()
        for row in [fields_at(level, "overall"), *fields_at(level, "clusters").values()]
    ]
    top = max([number(row, key) or 0.0 for row in rows for key in ("base", "tuned")], default=1.0)
    ticks = charts.nice_ticks(0, top)
    return _levels(measured, lambda name, row: loss_row(name, row, ticks)), ticks


def score_row(name: str, row: Fields) -> Row:
    base = {style: e for style in STYLES if (e := estimate(row, "base", style))}
    tuned, difference = estimate(row, "tuned"), estimate(row, "difference")
    marks = [_mark(style, e, STYLES[style]) for style, e in base.items()]
    marks += [_mark("tuned", tuned, "tuned")] if tuned else []
    plot = charts.line_of_marks(marks, 0, 1, QUARTERS)
    return Row(name, count(row, "n"), base, tuned, difference, judge(difference), plot)


def loss_row(name: str, row: Fields, ticks: Sequence[float]) -> Row:
    base, tuned, difference = number(row, "base"), number(row, "tuned"), estimate(row, "difference")
    known = [(kind, value) for kind, value in (("chat", base), ("tuned", tuned)) if value is not None]
    marks = [Mark(kind, v, title=f"{'base' if kind == 'chat' else kind} {decimal(v)}") for kind, v in known]
    return Row(
        name,
        count(row, "n"),
        {} if base is None else {"chat": Estimate(base)},
        None if tuned is None else Estimate(tuned),
        difference,
        judge(difference, lower_is_better=True),
        charts.line_of_marks(marks, ticks[0], ticks[-1], ticks),
        count(row, "tokens"),
        lower_is_better=True,
    )


def judge(difference: Estimate | None, *, lower_is_better: bool = False) -> Judgement | None:
    """Better or worse only if the whole interval is on that side of no change; one item alone has no interval."""
    if difference is None:
        return None
    low, high = difference.low, difference.high
    if low is None or high is None or low == high or low <= 0 <= high:
        return "unclear"
    return "better" if (high < 0) == lower_is_better else "worse"


def estimate(row: object, *path: str) -> Estimate | None:
    mean = number(row, *path, "mean")
    return None if mean is None else Estimate(mean, number(row, *path, "low"), number(row, *path, "high"))


def shortened(rows: Iterable[T], most: int = ROWS_SHOWN) -> Table[T]:
    """The first and last of many rows: with rows sorted, the extremes are what a reader looks for."""
    everything = list(rows)
    half = most // 2
    if len(everything) <= most:
        return Table(everything)
    return Table(everything[:half] + everything[-half:], len(everything) - most)


def _levels(measured: Fields, make_row: Callable[[str, Fields], Row]) -> list[Level]:
    found = []
    for key, (title, noun, explanation) in LEVELS.items():
        level = fields_at(measured, key)
        overall = make_row(title, fields_at(level, "overall"))
        if overall.n:
            clusters, tasks = (_worst_first(fields_at(level, part), make_row) for part in ("clusters", "tasks"))
            found.append(Level(key, title, noun, explanation, overall, shortened(clusters), shortened(tasks)))
    return found


def _worst_first(rows: Fields, make_row: Callable[[str, Fields], Row]) -> list[Row]:
    made = [make_row(str(name), row) for name, row in rows.items() if isinstance(row, dict)]
    return sorted(made, key=lambda row: (row.gain, row.name))


def _mark(kind: str, value: Estimate, name: str) -> Mark:
    interval = f" ({percent(value.low)} to {percent(value.high)})" if value.low is not None else ""
    return Mark(kind, value.mean, value.low, value.high, f"{name} {percent(value.mean)}{interval}")
