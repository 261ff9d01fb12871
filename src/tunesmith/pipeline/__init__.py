"""The road, straight through: which stage follows which, and what each hands to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import try_to_load_from_cache

from tunesmith.base.errors import LimitBroken
from tunesmith.base.files import file_hash, value_hash
from tunesmith.base.progress import say, track
from tunesmith.base.ranks import Ranks, joined
from tunesmith.base.stopping import terminations_interrupt
from tunesmith.evaluate.suites import Examined
from tunesmith.model.load import base_path, load_base, load_tokenizer, load_trained
from tunesmith.pipeline.context import check_context
from tunesmith.pipeline.covering import judge, say_coverage
from tunesmith.pipeline.examining import compared, examined
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.inspecting import inspect
from tunesmith.pipeline.measuring import TUNED, Measured, measured, write_comparison
from tunesmith.pipeline.opening import open_suites
from tunesmith.pipeline.planning import explaining_memory
from tunesmith.pipeline.preparing import Prepared, open_prepared, prepare, tokenizer_of
from tunesmith.pipeline.training import check_processes, train_model
from tunesmith.recipe import LoadedRecipe
from tunesmith.report.page import write_report
from tunesmith.report.terminal import print_comparison, print_data, print_training

__all__ = ["inspect", "report", "run"]

Until = Literal["prepare", "train", "evaluate", "report"]
OK = 0
WEIGHTS = ("*config.json", "*.safetensors", "*.bin", "*.py")  # the files that say what a base computes
FEW_STEPS = 20  # a model is hardly another after fewer


def run(loaded: LoadedRecipe, path: Path, until: Until = "report", export: Path | None = None) -> int:
    """Run a recipe in the folder `path` up to a stage, going on where it stopped. Returns the exit code.

    export: a folder in which the prepared rows are written for other programs.
    Raises LimitBroken, with the report written, when the recipe sets a limit and the tuned model breaks it.
    """
    with terminations_interrupt(), joined() as ranks:
        check_processes(loaded.recipe, ranks)
        return _run(loaded, path, until, ranks, export) if ranks.is_main else _help(loaded, path, until, ranks)


def _run(loaded: LoadedRecipe, path: Path, until: Until, ranks: Ranks, export: Path | None) -> int:
    """What one process does: everything, the others helping to train."""
    folder = RunFolder.open(path, loaded)
    summary = None
    with folder.running():
        tokenizer = tokenizer_of(loaded.recipe, load_tokenizer)
        prepared = prepare(folder, tokenizer, export)
        check_context(loaded.recipe, prepared.store.lengths)
        short = judge(folder)
        if until != "prepare":
            summary = _train_and_measure(folder, prepared, tokenizer, until, ranks)
    ranks.meet("end")
    page = write_report(path) if until in ("prepare", "report") else None  # now that run.json says how it ended
    if summary and page:
        print_training(path)
        print_comparison(summary)
    elif page:
        print_data(path)
    say_coverage(folder)
    for warning in (*_warnings(prepared, summary), *(f"{each.what} {each.remedy}" for each in short)):
        say(f"Warning: {warning}")
    if page:
        say(f"Report: {page}" + (f"\nChat:   tunesmith chat {path}" if summary else ""))
    if summary:
        _check_limits(summary)
    return OK


def _help(loaded: LoadedRecipe, path: Path, until: Until, ranks: Ranks) -> int:
    """What every further process does: train, once rank 0 has prepared the data."""
    if until != "prepare":
        ranks.meet("prepared")
        folder = RunFolder.open(path, loaded)
        tokenizer = tokenizer_of(loaded.recipe, load_tokenizer)
        prepared = open_prepared(folder, tokenizer)
        with explaining_memory(folder.recipe, prepared, ranks.size):
            train_model(folder, prepared, tokenizer, _base_key(folder, tokenizer), ranks)
    ranks.meet("end")
    return OK


def report(path: Path) -> Path:
    """Write the report of a run's folder again from its files, and return the page's path."""
    return write_report(path)


def _train_and_measure(
    folder: RunFolder, prepared: Prepared, tokenizer: Any, until: Until, ranks: Ranks
) -> Mapping[str, Any] | None:
    """Measure the base, train, measure the result, compare. Without the measuring when only training is asked for."""
    recipe = folder.recipe
    of_base = _base_key(folder, tokenizer)

    def base() -> tuple[Any, Any]:
        return load_base(recipe.base, trust_remote_code=recipe.trust_remote_code).model, tokenizer

    def tuned() -> tuple[Any, Any]:
        loaded = load_trained(folder.path / "model", base=recipe.base, trust_remote_code=recipe.trust_remote_code)
        return loaded.model, loaded.tokenizer

    def measure(who: str, of: str, load: Callable[[], tuple[Any, Any]]) -> tuple[Measured, list[Examined]]:
        once = cache(load)  # read when the first is measured, and gone after the last
        return measured(folder, prepared, who, of, once), [examined(folder, one, who, of, once) for one in suites]

    # The base comes first: what it can do is known before anything is spent on training.
    suites = open_suites(folder, tokenizer) if until != "train" else []
    before = measure("base", of_base, base) if until != "train" else None
    ranks.meet("prepared")
    with explaining_memory(recipe, prepared, ranks.size):
        of_tuned = train_model(folder, prepared, tokenizer, of_base, ranks)
    if before is None:
        say(f"Model: {folder.path / 'model'}")
        return None
    after = measure(TUNED, of_tuned, tuned)
    pairs = zip(suites, before[1], after[1], strict=True)
    examinations = {suite.suite.name: compared(folder, suite, *pair) for suite, *pair in pairs}
    return write_comparison(folder, prepared, before[0], after[0], examinations)


def _base_key(folder: RunFolder, tokenizer: Any) -> str:
    """What changes when the base, its chat template or the teacher does."""
    distill = folder.recipe.train.distill
    teacher = [_content(distill.teacher)] if distill else []
    return value_hash([_content(folder.recipe.base), tokenizer.chat_template, *teacher])


def _content(base: str) -> str:
    """What changes when a base model does: a hash of its configuration and weights, or the commit of a Hub id."""
    path = base_path(base)
    if isinstance(path, Path):
        files = sorted({file for pattern in WEIGHTS for file in path.glob(pattern)})
        return value_hash([[file.name, file_hash(file)] for file in track(files, "Reading the base", len(files))])
    # The tokenizer, loaded before, has put at least one of these into the cache, in a folder named by the commit.
    cached = (try_to_load_from_cache(path, name) for name in ("tokenizer_config.json", "config.json"))
    commit = next((Path(file).parent.name for file in cached if isinstance(file, str)), "")
    return f"{path}@{commit}" if commit else path


def _warnings(prepared: Prepared, summary: Mapping[str, Any] | None) -> Iterator[str]:
    """What keeps a run from showing that its model is better, though nothing failed."""
    steps = prepared.plan.steps
    if steps < FEW_STEPS:
        count = "1 optimizer step" if steps == 1 else f"{steps} optimizer steps"
        yield f"only {count}; lower train.tokens_per_step or raise train.epochs."
    if summary:
        yield from summary["warnings"]
        if not summary["generation"]["levels"] and not summary["loss"]:
            yield (
                "nothing was held out and compared, so this run does not show whether the tuned model is better; "
                "raise data.hold_out.items, or evaluate.items and evaluate.losses if they are 0."
            )


def _check_limits(summary: Mapping[str, Any]) -> None:
    """Raises LimitBroken, naming every limit that is."""
    forgetting, broken = summary["forgetting"], []
    if forgetting and not forgetting["held"]:
        broken.append(
            f"bits per byte of plain text rose by {forgetting['rise']:.1%}, and evaluate.forgetting.max_rise is "
            f"{forgetting['limit']:.1%}"
        )
    for name, suite in summary["suites"].items():
        if not suite["held"]:
            broken.append(f"{name} got worse by {suite['worse']:.1%}, and its guard is {suite['guard']:.1%}")
    if broken:
        raise LimitBroken(
            f"the tuned model forgot more than the recipe allows: {'; '.join(broken)}. The model and the report are "
            f"there. Replay more plain text (data.replay.share), or lower train.learning_rate."
        )
