"""The verdict in words: better, worse or unclear, by how much, and at what price in forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.report.comparison import METRICS, Estimate, Judgement, Level, Row, judge
from tunesmith.report.load import Fields, at, count, fields_at, number
from tunesmith.report.words import change, decimal, listed, percent, points, relative, sentence, spaced, whole


@dataclass(frozen=True)
class Forgetting:
    """Bits per byte on plain text, base and tuned; `rise` is relative to the base."""

    documents: int
    bytes: int
    base: float | None
    tuned: float | None
    rise: Estimate
    limit: float | None
    held: bool

    @property
    def judgement(self) -> Judgement:
        return judge(self.rise, lower_is_better=True) or "unclear"

    @property
    def sentence(self) -> str:
        if not self.held:
            return f"It forgot too much: {self._amount}, over the limit of {percent(self.limit)}."
        within = f", within the limit of {percent(self.limit)}" if self.limit is not None else ""
        if self.judgement == "worse":
            return f"The price in forgetting: {self._amount}{within}."
        return f"No forgetting shows: {self._amount}{within}."

    @property
    def _amount(self) -> str:
        low, high = self.rise.low, self.rise.high
        interval = (
            f" (95% interval {relative(low)} to {relative(high)})" if low is not None and high is not None else ""
        )
        return f"{relative(self.rise.mean)} bits per byte on plain text{interval}"


@dataclass(frozen=True)
class Verdict:
    """word: "Better", "Worse", "Mixed", "Unclear" or "Not measured"; kind: its class in style.css."""

    word: str
    kind: str
    rest: str
    sentences: list[str]
    cautions: list[str]


def forgetting(evaluation: Fields) -> Forgetting | None:
    return forgetting_of(fields_at(evaluation, "forgetting"))


def forgetting_of(found: Fields) -> Forgetting | None:
    rise = number(found, "rise")
    if rise is None:
        return None
    return Forgetting(
        documents=count(found, "documents"),
        bytes=count(found, "bytes"),
        base=number(found, "base"),
        tuned=number(found, "tuned"),
        rise=Estimate(rise, number(found, "low"), number(found, "high")),
        limit=number(found, "limit"),
        held=at(found, "held") is not False,
    )


def verdict(scores: Sequence[Level], losses: Sequence[Level], lost: Forgetting | None, evaluation: Fields) -> Verdict:
    """Answers decide; response loss does where no answer was generated. All inputs as `comparison` returns them."""
    decisive = [level for level in scores or losses if level.overall.judgement]
    if not decisive:
        why = "This run has no comparison of base and tuned model: it was only prepared, or stopped before evaluation."
        return Verdict("Not measured", "unmeasured", "", [why], _warnings(evaluation))
    by = {j: [level.title.lower() for level in decisive if level.overall.judgement == j] for j in _ORDER}
    said = [j for j in _ORDER if by[j]]
    word = "Mixed" if by["better"] and by["worse"] else said[0].capitalize()
    first = "" if word != "Mixed" else "better "
    parts = [f"{first if j == said[0] else j + ' '}on {listed(by[j])}" for j in said]
    rest = ", ".join(parts) + ("" if lost is None or lost.held else ", but it forgot too much")
    amount = _score_sentence if scores else _loss_sentence
    sentences = [amount(decisive[0], evaluation)]
    sentences.append(lost.sentence if lost else "What the model forgot was not measured.")
    cautions = _cautions(decisive) + _warnings(evaluation)
    return Verdict(word, word.lower(), rest + ".", sentences, cautions)


_ORDER: tuple[Judgement, ...] = ("better", "worse", "unclear")


def _score_sentence(level: Level, evaluation: Fields) -> str:
    row, metric = level.overall, str(at(evaluation, "generation", "metric") or "auto")
    base, tuned, gain = row.best_base, row.tuned, row.difference
    assert gain
    prompt = {"plain": "with a plain prompt", "chat": "with the chat template"}.get(row.best_style or "", "")
    return (
        f"On {whole(row.n)} {level.noun} the tuned model scores "
        f"{percent(_mean(tuned))} ({METRICS.get(metric, spaced(metric))}) and its base at best "
        f"{percent(_mean(base))}, {prompt}: {_points(gain)}."
    )


def _loss_sentence(level: Level, evaluation: Fields) -> str:
    row = level.overall
    base, tuned, gain = row.best_base, row.tuned, row.difference
    assert gain
    return (
        f"No answers were generated, so response loss decides: on {level.title.lower()} it went from "
        f"{decimal(_mean(base))} to {decimal(_mean(tuned))} nats per token, {change(gain.mean)} "
        f"(95% interval {change(gain.low)} to {change(gain.high)})."
    )


def _cautions(decisive: Sequence[Level]) -> list[str]:
    """What a glance at the overall numbers would hide. Few items are told by the comparison's own warnings."""
    said = []
    for level in decisive:
        hurt = [f"{row.name} ({_gain(row)})" for row in level.clusters.rows if row.judgement == "worse"]
        if hurt:
            said.append(f"Worse than the base on {level.title.lower()}: {listed(hurt[:5])}.")
    tasks = [(row, level) for level in decisive for row in level.tasks.rows if row.judgement == "worse"]
    if tasks:
        row, level = min(tasks, key=lambda pair: pair[0].gain)
        said.append(f"The worst-hit task is {row.name}, on {level.title.lower()}: {_gain(row)}.")
    return said


def _gain(row: Row) -> str:
    return f"{row.said} {'nats' if row.lower_is_better else 'points'}"


def _points(gain: Estimate) -> str:
    size = (
        "no difference"
        if round(gain.mean, 3) == 0
        else f"{points(abs(gain.mean))[1:]} points {'more' if gain.mean > 0 else 'less'}"
    )
    interval = f" (95% interval {points(gain.low)} to {points(gain.high)})" if gain.low is not None else ""
    return size + interval


def _mean(value: Estimate | None) -> float | None:
    return value.mean if value else None


def _warnings(evaluation: Fields) -> list[str]:
    found = at(evaluation, "warnings")
    return [sentence(str(warning)) for warning in found] if isinstance(found, list) else []
