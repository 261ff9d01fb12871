"""A plan in the terminal: what a run will take, what speaks against it, and what was assumed; in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.report.words import duration, percent, short, whole

GIB = 1 << 30
PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "loss": "logits and loss",
    "other": "in passing",
    "process": "process and libraries",
}


def print_plan(found: Mapping[str, Any]) -> None:
    """Print a plan (`pipeline.planning.foreseen`) on stdout."""
    console = Console(highlight=False)
    console.width = max(80, min(console.width, 100))
    table = Table(title="Plan", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in _facts(found):
        table.add_row(name, Text(value))
    console.print(table)
    if found["memory"]:
        console.print(_memory(found["memory"], found["device"]["name"]))
    for warning in found["warnings"]:
        console.print(Text.assemble(("Warning: ", "bold"), warning["what"], " ", warning["remedy"]))
    for sentence in found["assumed"]:
        console.print(Text(f"Assumed: {sentence}."))


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "base, method", f"{found['base']}, {found['method']}"
    if count := found["parameters"]:
        share = percent(count["trained"] / max(1, count["all"]), 2)
        yield "parameters", f"{whole(count['all'])}, of which {whole(count['trained'])} trained ({share})"
    step, data = found["step"], found["data"]
    rows = step["rows_per_process"]
    rows_each = f"{rows} packed row{'s' * (rows != 1)} of {whole(step['tokens_per_batch'])}"
    many = f" on each of {found['processes']} processes" if found["processes"] > 1 else ""
    yield "an optimizer step", f"{whole(step['tokens'])} tokens: {rows_each}{many}"
    if data:
        yield "steps", f"{whole(data['steps'])} in {found['epochs']:g} epochs"
        yield "tokens", f"{whole(data['tokens'])}, of which {whole(data['supervised'])} supervised"
        yield "packed rows", f"{percent(data['efficiency'])} full"
    if time := found["time"]:
        speed = f"{whole(time['tokens_per_second'])} tokens/s ({time['how']})"
        taken = duration(time["seconds"]) + ", " if time["seconds"] is not None else ""
        yield "time to train", f"{taken}{speed}"


def _memory(memory: Mapping[str, int], device: str) -> Table:
    title = f"Memory at the worst moment, on {device}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.min_width = 60
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for part, name in PARTS.items():
        if memory[part] >= 1024:
            table.add_row(name, size(memory[part]), end_section=part == "process")
    table.add_row("all", f"{size(memory['total'])} of {size(memory['available'])}")
    if memory.get("taken"):
        table.add_row("taken by the steps that were tried", size(memory["taken"]))
    return table


def size(count: float) -> str:
    """Bytes as people read them."""
    if count >= GIB:
        return f"{count / GIB:,.2f} GiB"
    return f"{count / (1 << 20):,.1f} MiB" if count >= 1 << 20 else f"{short(count)} B"
