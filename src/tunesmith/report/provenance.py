"""What became of the data: rows through the stages, the mixture, the tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from tunesmith.report import charts
from tunesmith.report.charts import Mark
from tunesmith.report.comparison import Table, shortened
from tunesmith.report.load import Fields, RunFiles, at, count, fields_at, number
from tunesmith.report.words import percent, whole

EXAMPLES = 3
SAMPLES = 8
LINE_BREAKS = str.maketrans({"\n": "⏎\n", "\t": "→\t"})


@dataclass(frozen=True)
class Step:
    """One stage: every row read was kept, or dropped for a reason."""

    stage: str
    read: int
    kept: int
    dropped: int
    reasons: list[tuple[str, int]]
    changed: int
    note: str
    bar: Markup

    @property
    def adds_up(self) -> bool:
        return self.read == self.kept + self.dropped == self.kept + sum(n for _, n in self.reasons)


@dataclass(frozen=True)
class Dropped:
    """One reason for drops, with a few of the rows."""

    stage: str
    reason: str
    rows: int
    examples: list[Fields]


@dataclass(frozen=True)
class Group:
    """A cluster or source of the mixture: the share that was planned, and what an epoch drew."""

    name: str
    rows: int
    planned: float | None
    share: float | None
    drawn: int
    repeats: float | None
    capped: bool
    plot: Markup


@dataclass(frozen=True)
class Cluster:
    name: str
    rows: int
    tokens: int
    supervised: int
    bar: Markup


@dataclass(frozen=True)
class Sample:
    """A row as trained. runs: (style classes, text) of neighbouring tokens that are alike.

    prompts: its supervised turns, and same: whether the tokens before each are those that a server feeds the model.
    """

    row: str
    tokens: int
    prompts: int
    same: bool | None
    runs: list[tuple[str, str]]


def flow(steps: Sequence[Fields]) -> list[Step]:
    top = max([count(step, "read") for step in steps], default=0)
    return [_step(step, top) for step in steps]


def _step(step: Fields, top: int) -> Step:
    reasons = sorted(
        ((str(reason), count(n)) for reason, n in fields_at(step, "reasons").items()), key=lambda pair: -pair[1]
    )
    kept, dropped = count(step, "kept"), count(step, "dropped")
    return Step(
        stage=str(at(step, "stage")),
        read=count(step, "read"),
        kept=kept,
        dropped=dropped,
        reasons=reasons,
        changed=count(step, "changed"),
        note=str(at(step, "note") or ""),
        bar=charts.bar([("kept", kept), ("dropped", dropped)], top),
    )


def dropped(drops: Sequence[Fields]) -> Table[Dropped]:
    """Drops by stage and reason, most frequent first."""
    by: dict[tuple[str, str], list[Fields]] = defaultdict(list)
    for drop in drops:
        by[str(at(drop, "stage")), str(at(drop, "reason"))].append(drop)
    found = [Dropped(*key, len(rows), rows[:EXAMPLES]) for key, rows in by.items()]
    return shortened(sorted(found, key=lambda group: -group.rows))


def places(counts: dict[str, int]) -> list[tuple[str, int, Markup]]:
    """Where kept rows ended: (place, rows, bar)."""
    total = sum(counts.values())
    return [(place, n, charts.bar([("kept", n)], total)) for place, n in sorted(counts.items(), key=lambda p: -p[1])]


def mixture(found: Fields) -> tuple[Table[Group], list[float]]:
    """The groups, largest planned share first, and the ticks of their common scale."""
    groups = [(str(name), group) for name, group in fields_at(found, "groups").items() if isinstance(group, dict)]
    unit = "tokens" if at(found, "unit") == "tokens" else "rows"
    there = sum(count(group, unit) for _, group in groups)
    before = {name: count(group, unit) / there if there else 0.0 for name, group in groups}
    shares = [number(group, key) or 0.0 for _, group in groups for key in ("planned", "share")]
    ticks = charts.nice_ticks(0.0, max([*shares, *before.values()], default=0.0) or 1.0)
    made = [_group(name, group, before[name], ticks) for name, group in groups]
    return shortened(sorted(made, key=lambda group: -(group.planned or 0.0))), ticks


def _group(name: str, group: Fields, before: float, ticks: Sequence[float]) -> Group:
    planned, share = number(group, "planned"), number(group, "share")
    values = (("before", before), ("planned", planned), ("drawn", share))
    known = [(kind, value) for kind, value in values if value is not None]
    marks = [Mark(kind, value, title=f"{kind} {percent(value)}") for kind, value in known]
    return Group(
        name=name,
        rows=count(group, "rows"),
        planned=planned,
        share=share,
        drawn=count(group, "drawn"),
        repeats=number(group, "repeats"),
        capped=bool(at(group, "capped")),
        plot=charts.line_of_marks(marks, ticks[0], ticks[-1], ticks),
    )


def tokens_by(kind: str, tokens: Fields) -> Table[Cluster]:
    """Tokens by source or cluster, largest first; the bar shows which part of them is supervised."""
    found = [(str(name), row) for name, row in fields_at(tokens, f"{kind}s").items()]
    top = max([count(row, "tokens") for _, row in found], default=0)
    made = [_cluster(name, row, top) for name, row in found]
    return shortened(sorted(made, key=lambda cluster: -cluster.tokens))


def _cluster(name: str, row: Fields, top: int) -> Cluster:
    tokens, supervised = count(row, "tokens"), count(row, "supervised")
    bar = charts.bar([("supervised", supervised), ("context", tokens - supervised)], top)
    return Cluster(name, count(row, "rows"), tokens, supervised, bar)


def samples(rows: Sequence[Fields]) -> list[Sample]:
    """Rows as trained, token by token."""
    found = [row for row in rows if isinstance(at(row, "pieces"), list)]
    return [_sample(row) for row in found[:SAMPLES]]


def _sample(row: Fields) -> Sample:
    pieces = [piece for piece in row["pieces"] if isinstance(piece, dict)]
    shown = []
    for (supervised, special), alike in groupby(pieces, lambda p: (bool(at(p, "supervised")), bool(at(p, "special")))):
        text = "".join(str(at(piece, "text") or "") for piece in alike).translate(LINE_BREAKS)
        names = [name for name, is_so in (("supervised", supervised), ("special", special)) if is_so]
        shown.append((" ".join(names), text))
    turns = at(row, "turns")
    prompts = [at(turn, "served") for turn in turns if at(turn, "served")] if isinstance(turns, list) else []
    same = all(at(prompt, "same") is True for prompt in prompts) if prompts else None
    tokens = sum(len(ids) for piece in pieces if isinstance(ids := at(piece, "ids"), list))
    return Sample(str(at(row, "row")), tokens, len(prompts), same, shown)


def lengths(tokens: Fields) -> Markup | None:
    """The histogram of sequence lengths in tokens."""
    edges, counts = at(tokens, "lengths", "edges"), at(tokens, "lengths", "counts")
    if not isinstance(edges, list) or not isinstance(counts, list) or not 0 < len(counts) == len(edges) - 1:
        return None
    if not all(number(value) is not None for value in edges + counts):
        return None
    label = f"Sequence lengths, from {whole(edges[0])} to {whole(edges[-1])} tokens, {whole(sum(counts))} sequences."
    return charts.histogram(edges, counts, label)


def data_of(run: RunFiles) -> dict[str, Any]:
    """Everything the page's data section shows."""
    groups, ticks = mixture(run.mixture)
    return {
        "steps": flow(run.steps),
        "dropped": dropped(run.drops),
        "places": places(run.places),
        "mixture": groups,
        "mixture_ticks": [percent(tick, 0 if ticks[1] >= 0.01 else 1) for tick in ticks],
        "tokens_by": {kind: tokens_by(kind, run.tokens) for kind in ("source", "cluster")},
        "lengths": lengths(run.tokens),
        "samples": samples(run.samples),
    }
