"""The road, straight through: which stage follows which, and what each hands to the next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

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
from tunesmith.report.terminal import print_comparison

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
        print_comparison(summary)
        for warning in summary["warnings"]:
            say(f"Warning: {warning}")
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


def _check_limits(summary: Mapping[str, Any]) -> None:
    forgetting = summary["forgetting"]
    if forgetting and not forgetting["held"]:
        raise LimitBroken(
            f"the tuned model forgot more than the recipe allows: bits per byte of plain text rose by "
            f"{forgetting['rise']:.1%}, and evaluate.forgetting.max_rise is {forgetting['limit']:.1%}. The model and "
            f"the report are there. Replay more plain text (data.replay.share), or lower train.learning_rate."
        )
