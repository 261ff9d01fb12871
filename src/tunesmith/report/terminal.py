"""What a person sees in the terminal: what became of the data, and base against tuned model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.base.progress import say
from tunesmith.report.compare import Outcome, compare_runs
from tunesmith.report.load import at, fields_at, load_run
from tunesmith.report.provenance import dropped
from tunesmith.report.suites import suite_rows
from tunesmith.report.training import training
from tunesmith.report.words import MINUS, clipped, duration, percent, relative, short

_UNITS = {"loss": "loss", "text": "bits per byte"}
BAR = 30  # characters of the longest bar
EXAMPLE = 160  # characters of a dropped row that are shown


def print_data(run: Path) -> None:
    """Print what became of the data of a prepared run: tokens by source, lengths, and the rows that were dropped."""
    found = load_run(run)
    table = _table("Tokens, replayed and held-out rows included", "source", "rows", "tokens", "supervised", "")
    rows = list(fields_at(found.tokens, "sources").items())
    total = {key: sum(row[key] for _, row in rows) for key in ("rows", "tokens", "supervised")}
    for name, row in [*rows, ("all", total)] if len(rows) > 1 else rows:
        share = percent(row["supervised"] / max(row["tokens"], 1))
        numbers = (f"{row[key]:,}" for key in ("rows", "tokens", "supervised"))
        table.add_row(Text(name), *numbers, share, end_section=name == rows[-1][0])
    _print(table)
    lengths, packing = found.tokens["lengths"], found.tokens["packing"]
    table = _table("Sequences by length in tokens", "from", "to", "sequences", "")
    most = max(lengths["counts"])
    for low, high, count in zip(lengths["edges"], lengths["edges"][1:], lengths["counts"], strict=False):
        table.add_row(f"{low:,}", f"{high - 1:,}", f"{count:,}", "█" * round(BAR * count / most))
    table.columns[-1].justify = "left"
    _print(table)
    if dropped_rows := dropped(found.drops).rows:
        table = _table("Rows dropped, with an example of each reason", "stage", "reason", "rows", "example")
        for group in dropped_rows:
            example = f"{at(group.examples[0], 'row')} {at(group.examples[0], 'detail') or ''}"
            table.add_row(Text(group.stage), Text(group.reason), f"{group.rows:,}", Text(clipped(example, EXAMPLE)))
        for column in (1, 3):
            table.columns[column].justify, table.columns[column].no_wrap = "left", False
        _print(table)
    efficiency = percent(packing["efficiency"])
    say(f"Packing: {packing['rows']:,} packed rows of {packing['budget']:,} tokens, {efficiency} full.")


def print_training(run: Path) -> None:
    """Print what training came to and what it was warned of, in at most 80 columns where words allow; nothing if no
    step was taken."""
    found = training(load_run(run).metrics)
    if not found:
        return
    title = f"Training: {found.steps:,} steps, loss {found.loss_first:.3f} -> {found.loss_last:.3f}"
    table = _table(title, "", "", "")
    table.show_header = False
    table.columns[2].justify, table.columns[2].no_wrap = "left", False
    for name, value, explanation in found.facts:
        table.add_row(name, value, Text(explanation))
    _print(table)
    for step, text in found.warnings:
        say(f"Warning at step {step:,.0f}: {text}")


def print_comparison(summary: Mapping[str, Any]) -> None:
    """Print what `evaluation/summary.json` says, in at most 80 columns, on stdout."""
    title = "Base against tuned on the same held-out rows; [95% interval of the change]"
    measure = "score" if (metric := summary["generation"]["metric"]) == "auto" else metric.replace("_", " ")
    table = _table(title, measure, "rows", "base\nchat", "base\nplain", "tuned", "change")
    for section in (_generation(summary["generation"]), _loss(summary["loss"]), _forgetting(summary["forgetting"])):
        for row in section:
            table.add_row(*row)
        table.add_section()
    for suite in suite_rows(summary):
        change = f"{suite.said} [{suite.interval.replace(' to ', ', ')}]" if suite.said else ""
        name = suite.name if suite.kind not in ("loss", "text") else f"{_UNITS[suite.kind]}, {suite.name}"
        table.add_row(Text(name), str(suite.n), "", suite.base, suite.tuned, change.replace(MINUS, "-"))
    _print(table)


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, title_style="bold")
    table.add_column(first, overflow="fold")  # a long name takes lines, not the room of the numbers
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print(table: Table) -> None:
    console = Console()
    console.width = max(80, console.width)
    console.print(table)


def _generation(generation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for level, results in generation["levels"].items():
        row = results["overall"]
        base = (
            f"{100 * row['base'][style]['mean']:.1f}%" if style in row["base"] else "" for style in ("chat", "plain")
        )
        change = _change({part: 100 * value for part, value in row["difference"].items()}, ".1f")
        yield level.replace("_", " "), str(row["n"]), *base, f"{100 * row['tuned']['mean']:.1f}%", change


def _loss(loss: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for level, results in loss.items():
        row = results["overall"]
        values = f"{row['base']:.3f}", "", f"{row['tuned']:.3f}", _change(row["difference"], ".3f")
        yield f"loss, {level.replace('_', ' ')}", str(row["n"]), *values


def _forgetting(forgetting: Mapping[str, Any] | None) -> Iterator[tuple[str, ...]]:
    if forgetting:
        change = _change({"mean": forgetting["rise"], **forgetting}, ".1%")
        values = "", f"{forgetting['base']:.3f}", f"{forgetting['tuned']:.3f}", change
        yield "bits per byte, text", str(forgetting["documents"]), *values


def _change(interval: Mapping[str, float], form: str) -> str:
    return "{mean:+{form}} [{low:+{form}}, {high:+{form}}]".format(**interval, form=form)


def print_runs(folders: Sequence[Path]) -> None:
    """Print several runs side by side: scores of the tuned models by level, what was forgotten, and the costs."""
    found = compare_runs(folders)
    levels = [title.replace(" ", "\n", 1) for title in found.levels]
    table = _table("Tuned models, [95% interval]", "run", *levels, "bits/\nbyte", "trained", "memory", "time")
    for column in table.columns:
        column.no_wrap = False  # a name or interval that is cut says nothing
    for place, cost in enumerate(found.costs):
        cells = [_score(outcomes, found.names[place]) for outcomes in found.levels.values()]
        rise = relative(cost.forgetting.rise.mean if cost.forgetting else None)
        memory = f"{cost.memory / 2**30:.2f}\nGiB" if cost.memory is not None else short(None)
        table.add_row(Text(cost.run), *cells, rise, short(cost.trainable), memory, duration(cost.seconds))
    _print(table)


def _score(outcomes: Sequence[Outcome], run: str) -> str:
    tuned = next((outcome.row.tuned for outcome in outcomes if outcome.run == run), None)
    if tuned is None:
        return ""
    if tuned.low is None or tuned.high is None:
        return percent(tuned.mean)
    return f"{percent(tuned.mean)}\n[{100 * tuned.low:.1f}, {100 * tuned.high:.1f}]"
