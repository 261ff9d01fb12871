"""The road, straight through: which stage follows which, and what each hands to the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from tunesmith.base.errors import LimitBroken
from tunesmith.base.files import value_hash
from tunesmith.base.progress import say
from tunesmith.model.load import load_base, load_tokenizer, load_trained
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.inspecting import inspect
from tunesmith.pipeline.measuring import TUNED, measured, write_comparison
from tunesmith.pipeline.preparing import Prepared, prepare, tokenizer_of
from tunesmith.pipeline.training import train_model
from tunesmith.recipe import LoadedRecipe
from tunesmith.report.page import write_report

__all__ = ["inspect", "report", "run"]

Until = Literal["prepare", "train", "evaluate", "report"]
OK = 0


def run(loaded: LoadedRecipe, path: Path, until: Until = "report") -> int:
    """Run a recipe in the folder `path` up to a stage, going on where it stopped. Returns the exit code.

    Raises LimitBroken, with the report written, when the recipe sets a limit and the tuned model breaks it.
    """
    folder = RunFolder.open(path, loaded)
    with folder.running():
        tokenizer = tokenizer_of(loaded.recipe, load_tokenizer)
        prepared = prepare(folder, tokenizer)
        if until == "prepare":
            say(f"Report: {write_report(path)}")
            return OK
        summary = _train_and_measure(folder, prepared, tokenizer, until)
    if summary is None:
        return OK
    if until == "report":
        page = write_report(path)
        _print(summary)
        say(f"Report: {page}\nChat:   tunesmith chat {path}")
    _check_limits(summary)
    return OK


def report(path: Path) -> Path:
    """Write the report of a run's folder again from its files, and return the page's path."""
    return write_report(path)


def _train_and_measure(folder: RunFolder, prepared: Prepared, tokenizer: Any, until: Until) -> Mapping[str, Any] | None:
    """Measure the base, train, measure the result, compare. Without the measuring when only training is asked for."""
    recipe = folder.recipe
    of_base = value_hash([recipe.base, tokenizer.chat_template])

    def base() -> tuple[Any, Any]:
        return load_base(recipe.base, trust_remote_code=recipe.trust_remote_code).model, tokenizer

    def tuned() -> tuple[Any, Any]:
        loaded = load_trained(folder.path / "model", trust_remote_code=recipe.trust_remote_code)
        return loaded.model, loaded.tokenizer

    # The base comes first: what it can do is known before anything is spent on training.
    before = measured(folder, prepared, "base", of_base, base) if until != "train" else None
    of_tuned = train_model(folder, prepared, tokenizer, of_base)
    if before is None:
        say(f"Model: {folder.path / 'model'}")
        return None
    after = measured(folder, prepared, TUNED, of_tuned, tuned)
    return write_comparison(folder, prepared, before, after)


def _print(summary: Mapping[str, Any]) -> None:
    """The table of base against tuned model, on stdout."""
    table = Table(title="Base against tuned, on the same held-out rows", title_justify="left")
    for column in ("", "rows", "base (chat)", "base (plain)", "tuned", "difference, 95% interval"):
        table.add_column(column, justify="left" if not column else "right")
    for level, results in summary["generation"]["levels"].items():
        row = results["overall"]
        low, mean, high = (100 * row["difference"][part] for part in ("low", "mean", "high"))
        styles = [
            f"{100 * row['base'][style]['mean']:.1f}%" if style in row["base"] else "" for style in ("chat", "plain")
        ]
        table.add_row(
            level.replace("_", " "),
            str(row["n"]),
            *styles,
            f"{100 * row['tuned']['mean']:.1f}%",
            f"{mean:+.1f} ({low:+.1f} to {high:+.1f})",
        )
    for level, results in summary["loss"].items():
        row = results["overall"]
        low, mean, high = (row["difference"][part] for part in ("low", "mean", "high"))
        name = f"loss, {level.replace('_', ' ')}"
        table.add_row(
            name,
            str(row["n"]),
            f"{row['base']:.3f}",
            "",
            f"{row['tuned']:.3f}",
            f"{mean:+.3f} ({low:+.3f} to {high:+.3f})",
        )
    if forgetting := summary["forgetting"]:
        change = "{rise:+.1%} ({low:+.1%} to {high:+.1%})".format(**forgetting)
        table.add_row(
            "bits per byte of plain text",
            str(forgetting["documents"]),
            "",
            f"{forgetting['base']:.3f}",
            f"{forgetting['tuned']:.3f}",
            change,
        )
    Console(width=None).print(table)
    for warning in summary["warnings"]:
        say(f"Warning: {warning}")


def _check_limits(summary: Mapping[str, Any]) -> None:
    forgetting = summary["forgetting"]
    if forgetting and not forgetting["held"]:
        raise LimitBroken(
            f"the tuned model forgot more than the recipe allows: bits per byte of plain text rose by "
            f"{forgetting['rise']:.1%}, and evaluate.forgetting.max_rise is {forgetting['limit']:.1%}. The model and "
            f"the report are there. Replay more plain text (data.replay.share), or lower train.learning_rate."
        )
