"""The suites that base and tuned model were examined with, from evaluation/summary.json, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.report.comparison import STYLES, Judgement, Row, judge, loss_row, score_row
from tunesmith.report.load import Fields, at, count, fields_at, number
from tunesmith.report.verdict import Forgetting, forgetting_of
from tunesmith.report.words import clipped, decimal, percent, relative, sentence, spaced

EXPLAINED = {
    "answers": "Answers compared with references",
    "choice": "Choices among options",
    "instructions": "Instructions verified by program",
    "questions": "Questions over turns, kept for a judge",
    "loss": "Nats per response token",
    "text": "Bits per byte of plain text",
    "benchmark": "A benchmark of the lm-evaluation-harness",
}
# Of verified instructions: the first is the suite's own score; an item may have several instructions.
RATES = {
    "prompt_strict": "strict, by prompt",
    "prompt_loose": "loose, by prompt",
    "instruction_strict": "strict, by instruction",
    "instruction_loose": "loose, by instruction",
}
FEW_KINDS = 8  # of instructions: as many are shown at once
NOTE_LENGTH = 400


@dataclass(frozen=True)
class SuiteRow:
    """One suite. row: scores or losses; text: bits per byte; neither for questions, which are only kept.

    rates: of verified instructions, how often they are followed besides the suite's own score, which `rate` names.
    kinds: of each kind of instruction, how often it is strictly followed, without intervals; worst first.
    guard: how much worse it may get; held: whether it is no worse. notes: what to know of its items, in sentences.
    """

    name: str
    kind: str
    n: int
    metric: str
    rate: str
    rates: list[Row]
    kinds: list[Row]
    row: Row | None
    text: Forgetting | None
    guard: float | None
    held: bool
    notes: list[str]

    @property
    def explanation(self) -> str:
        return EXPLAINED.get(self.kind, self.kind)

    @property
    def are_kinds_few(self) -> bool:
        return len(self.kinds) <= FEW_KINDS

    @property
    def base(self) -> str:
        """The better of the base's prompt styles."""
        best = self.row.best_base if self.row else None
        return self._value(self.text.base if self.text else best.mean if best else None)

    @property
    def tuned(self) -> str:
        tuned = self.row.tuned if self.row else None
        return self._value(self.text.tuned if self.text else tuned.mean if tuned else None)

    @property
    def judgement(self) -> Judgement | None:
        return judge(self.text.rise, lower_is_better=True) if self.text else self.row.judgement if self.row else None

    @property
    def said(self) -> str:
        return relative(self.text.rise.mean) if self.text else self.row.said if self.row else ""

    @property
    def interval(self) -> str:
        if not self.text:
            return self.row.interval if self.row else ""
        rise = self.text.rise
        return "" if rise.low is None else f"{relative(rise.low)} to {relative(rise.high)}"

    def _value(self, value: float | None) -> str:
        return decimal(value) if self.kind in ("loss", "text") else percent(value)


def suite_rows(evaluation: Fields) -> list[SuiteRow]:
    """The suites in the recipe's order."""
    return [_suite_row(str(name), fields_at(evaluation, "suites", name)) for name in fields_at(evaluation, "suites")]


def _suite_row(name: str, found: Fields) -> SuiteRow:
    kind = str(at(found, "kind") or "answers")
    row = text = None
    if kind == "text":
        text = forgetting_of(found)
    elif kind == "loss":
        top = max(number(found, "base") or 1.0, number(found, "tuned") or 1.0)
        row = loss_row(name, found, [0.0, top])
    elif kind != "questions":
        row = score_row(name, found)
    trained = count(found, "trained")
    notes = [f"{trained:,} of the items were trained on."] if trained else []
    notes += [str(at(found, "left_out"))] if at(found, "left_out") else []
    warnings = at(found, "warnings")
    notes += [sentence(str(warning)) for warning in warnings] if isinstance(warnings, list) else []
    notes = [clipped(note, NOTE_LENGTH) for note in notes]
    held = at(found, "held") is not False
    metric = str(at(found, "metric") or "").replace("_", " ")
    measured = fields_at(found, "rates")
    rate, *others = RATES if fields_at(measured, next(iter(RATES))) else [""]
    rates = [score_row(RATES[key], fields_at(measured, key)) for key in others]
    by_kind = fields_at(found, "instructions")
    kinds = [_kind_row(str(kind), fields_at(by_kind, kind)) for kind in by_kind]
    kinds.sort(key=lambda row: (row.gain, row.name))
    n, guard = count(found, "n"), number(found, "guard")
    return SuiteRow(name, kind, n, metric, RATES.get(rate, ""), rates, kinds, row, text, guard, held, notes)


def _kind_row(name: str, found: Fields) -> Row:
    """A kind of instruction, of whose rates only the means were written."""
    base = {style: mean for style in STYLES if (mean := number(found, f"base_{style}")) is not None}
    means: dict[str, Any] = {"n": count(found, "n"), "base": {style: {"mean": mean} for style, mean in base.items()}}
    if base and (tuned := number(found, "tuned")) is not None:
        means |= {"tuned": {"mean": tuned}, "difference": {"mean": tuned - max(base.values())}}
    return score_row(spaced(name).replace(":", ": "), means)
