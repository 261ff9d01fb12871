"""The suites of a recipe with their items, read and held against what is trained before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError, SupervisionError, UserError
from tunesmith.base.files import file_hash, read_json, value_hash, write_json
from tunesmith.base.progress import say, track
from tunesmith.base.random import some_of
from tunesmith.data.duplicates.decontaminate import Decontaminator
from tunesmith.data.ledger import Ledger
from tunesmith.data.sources.read import read_source, source_files
from tunesmith.evaluate.answers import metrics_of, sample
from tunesmith.evaluate.benchmarks import benchmark_items, task_files
from tunesmith.evaluate.builtin_instructions import builtin_instructions
from tunesmith.evaluate.choice import read_choices
from tunesmith.evaluate.instructions import read_instructions
from tunesmith.evaluate.turns import read_questions
from tunesmith.pipeline.exporting import placed_rows
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.supervising import rules_of
from tunesmith.recipe.evaluation import Suite
from tunesmith.recipe.models import Recipe
from tunesmith.tokens.supervise import encode_conversation

SUITES = Path("evaluation") / "suites"
TRAINED = Path("data") / "trained_prompts.npy"


@dataclass(frozen=True, slots=True)
class Opened:
    """A suite with its items. prompts: of each item, what it asks, to be compared with what was trained.

    trained: items whose prompts were. left_out: items that can't be measured, and why, for people.
    key: what changes when the items or the suite's settings do.
    """

    suite: Suite
    items: Sequence[Any]
    prompts: Sequence[Conversation]
    key: str
    trained: int = 0
    left_out: str = ""


def open_suites(run: RunFolder, tokenizer: Any) -> list[Opened]:
    """The items of every suite of the recipe. They are read before anything is spent.

    Raises DataError for a file in an unknown shape or without references, UserError for items that were trained and
    for a metric that does not fit.
    """
    return [_open(suite, run, tokenizer) for suite in run.recipe.evaluate.suites]


def _open(suite: Suite, run: RunFolder, tokenizer: Any) -> Opened:
    recipe = run.recipe
    paths = source_files(suite.path) if suite.path else task_files(suite.task) if suite.task else []
    asked = {"decoding", "max_new_tokens", "base_styles"} | ({"bertscore"} if suite.metric == "bertscore" else set())
    settings = suite.model_dump(mode="json", exclude={"allow_trained", "guard", "path"})
    how = recipe.evaluate.model_dump(mode="json", include=asked)
    key = value_hash([settings, [file_hash(path) for path in paths], how, recipe.seed])
    if suite.kind == "benchmark":
        found = _of_benchmark(suite, run, key)
        opened, count, seen = Opened(suite, [], [], key, found["trained"]), found["items"], found["seen"]
    else:
        items, prompts, left_out = _READ[suite.kind](suite, recipe, tokenizer)
        trained = _trained(prompts, run.path / TRAINED)
        opened, count, seen = Opened(suite, items, prompts, key, trained, left_out), len(items), ""
    least = "at least " if seen else ""
    if opened.trained and not suite.allow_trained:
        raise UserError(
            f"evaluate.suites {suite.name}: {least}{opened.trained:,} of its {count:,} items ask what the model is "
            f"trained on, so it would be measured on what it has seen{seen and f' ({seen})'}. Name its data under "
            f"data.decontaminate.against, which drops such rows from training; or set `allow_trained: true` for this "
            f"suite."
        )
    said = f", {least}{opened.trained:,} of them trained on" if opened.trained else ""
    say(f"Suite {suite.name}: {count:,} items{said}." + (f" {opened.left_out}" if opened.left_out else ""))
    return opened


def _of_benchmark(suite: Suite, run: RunFolder, key: str) -> dict[str, Any]:
    """How many items a benchmark has, and how many of them are in rows that are trained, by the rules of decontaminate;
    of several in one row it finds one.

    Its prompts are not compared as those of other suites are: the harness puts words of its own around each.
    """
    assert suite.task
    path = run.path / SUITES / suite.name / "trained.json"
    stage, key = f"compare {suite.name} with training", value_hash([key, run.facts["keys"]["prepare"]])
    if not (run.is_done(stage, key) and path.is_file()):
        with run.stage(stage, key):
            items = benchmark_items([suite.task], limit=suite.items, seed=run.recipe.seed)
            rules = run.recipe.data.decontaminate
            asked = rules.model_dump(include={"near", "answers"}) if rules else {}
            find = Decontaminator(items, **asked).find
            seen: dict[str, str] = {}
            rows = (row for split, row in placed_rows(run, Ledger.load(run.path / "ledger")) if split == "train")
            for row in track(rows, f"Looking for items of {suite.name}"):
                if hit := find(row):
                    seen.setdefault(hit.item, f"{hit.item} in row {row.id}, {hit.how}: {hit.span!r}")
            write_json(path, {"items": len(items), "trained": len(seen), "seen": next(iter(seen.values()), "")})
    found: dict[str, Any] = read_json(path)
    return found


def trained_prompts(rows: Sequence[Any]) -> NDArray[np.void]:
    """What is asked in the rows that are trained: their `prompt_key`s, sorted."""
    return np.sort(np.array([row.prompt_key for row in rows], dtype="V16"))


def _trained(prompts: Sequence[Conversation], path: Path) -> int:
    """How many of these prompts are trained."""
    if not len(prompts) or not path.is_file():
        return 0
    keys = np.array([row.prompt_key for row in prompts], dtype="V16")
    return int(np.isin(keys, np.load(path)).sum())


# Reading


Read = tuple[Sequence[Any], Sequence[Conversation], str]


def _rows(suite: Suite, recipe: Recipe, tokenizer: Any) -> Read:
    """Rows with a response, or texts."""
    assert suite.path
    columns = {str(ours): column for ours, column in suite.map.items()} if suite.map else None
    found = read_source(suite.name, suite.path, map=columns, kind="text" if suite.kind == "text" else "instructions")
    whole = len(found.rows)
    if suite.kind == "answers":
        rows = sample(found.rows, suite.items or whole, seed=recipe.seed)
        left = 0 if suite.items else whole - len(rows)
    else:
        rows, left = _some(found.rows, suite, recipe), 0
    left += len(found.rejected)
    if not rows:
        why = f" {found.rejected[0].reason}: {found.rejected[0].detail}." if found.rejected else ""
        raise DataError(
            f"evaluate.suites {suite.name}: none of the {found.read:,} items of {suite.path} can be measured.{why} "
            f"`kind: {suite.kind}` needs {'plain text' if suite.kind == 'text' else 'a reference response'} for each; "
            f"name the columns with `map`."
        )
    if suite.kind == "answers":
        metrics_of(rows, suite.metric)  # one that does not fit is told before anything is spent
    return rows, rows, f"{left:,} have nothing to measure and are left out." if left else ""


def _supervised(suite: Suite, recipe: Recipe, tokenizer: Any) -> Read:
    """Rows with a response, as supervised sequences; those that can't be supervised exactly are left out."""
    rows, _, left_out = _rows(suite, recipe, tokenizer)
    sequences, kept, faults = [], [], []
    for row in rows:
        try:
            sequences.append(encode_conversation(row, tokenizer, rules_of(recipe)))
            kept.append(row)
        except SupervisionError as error:
            faults.append(f"{row.id} ({error.reason}): {error}")
    if not kept:
        raise DataError(
            f"evaluate.suites {suite.name}: no item can be measured as it would be trained; the first, {faults[0]}"
        )
    told = f"Left out as impossible to measure: {len(faults):,}; the first, {faults[0]}" if faults else ""
    return sequences, kept, " ".join(part for part in (left_out, told) if part)


def _questions(suite: Suite, recipe: Recipe, tokenizer: Any) -> Read:
    assert suite.path
    questions = _some(read_questions(suite.name, suite.path), suite, recipe)
    return questions, [question.first for question in questions], ""


def _instructions(suite: Suite, recipe: Recipe, tokenizer: Any) -> Read:
    """Prompts with instructions in them; the built-in ones where no path is given."""
    found = read_instructions(suite.name, suite.path) if suite.path else builtin_instructions()
    items = _some(found, suite, recipe)
    return items, [item.row for item in items], ""


def _choices(suite: Suite, recipe: Recipe, tokenizer: Any) -> Read:
    assert suite.path
    items = _some(read_choices(suite.name, suite.path), suite, recipe)
    return items, [Conversation(item.id, (*item.prompt, Message("assistant", ""))) for item in items], ""


def _some(items: Sequence[Any], suite: Suite, recipe: Recipe) -> list[Any]:
    """As many items as the suite asks for, drawn at random; in their order."""
    return [items[place] for place in some_of(len(items), suite.items, np.random.default_rng(recipe.seed))]


_READ: Mapping[str, Callable[[Suite, Recipe, Any], Read]] = {
    "answers": _rows,
    "loss": _supervised,
    "text": _rows,
    "questions": _questions,
    "instructions": _instructions,
    "choice": _choices,
}
