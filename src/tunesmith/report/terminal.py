"""Base against tuned model as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def print_comparison(summary: Mapping[str, Any]) -> None:
    """Print what `evaluation/summary.json` says, in at most 80 columns, on stdout."""
    title = "Base against tuned on the same held-out rows; [95% interval of the change]"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, title_style="bold")
    measure = "score" if (metric := summary["generation"]["metric"]) == "auto" else metric.replace("_", " ")
    for column in (measure, "rows", "base\nchat", "base\nplain", "tuned", "change"):
        table.add_column(column, justify="left" if column == measure else "right", no_wrap=True)
    for section in (_generation(summary["generation"]), _loss(summary["loss"]), _forgetting(summary["forgetting"])):
        for row in section:
            table.add_row(*row)
        table.add_section()
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
