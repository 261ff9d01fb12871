"""The suites of a recipe: their items, what each model makes of them, and base against tuned model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError, SupervisionError, UserError
from tunesmith.base.files import file_hash, value_hash
from tunesmith.base.progress import say
from tunesmith.data.sources.read import read_source, source_files
from tunesmith.evaluate.answers import Answer, Decoding, Style, answer, metrics_of, readable, sample
from tunesmith.evaluate.benchmarks import BenchmarkResult, run_benchmarks, task_files
from tunesmith.evaluate.bertscore import BertScore
from tunesmith.evaluate.builtin_instructions import builtin_instructions
from tunesmith.evaluate.choice import ChoiceItem, choose, read_choices
from tunesmith.evaluate.instructions import (
    InstructionItem,
    answer_instructions,
    instruction_rates,
    read_instructions,
)
from tunesmith.evaluate.language import response_losses, text_bits
from tunesmith.evaluate.suites import Examined, compare_suite, write_suite
from tunesmith.evaluate.turns import Question, answer_turns, read_questions
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
    items, prompts, left_out = _READ[suite.kind](suite, recipe, tokenizer)
    paths = source_files(suite.path) if suite.path else task_files(suite.task) if suite.task else []
    trained = _trained(prompts, run.path / TRAINED)
    if trained and not suite.allow_trained:
        raise UserError(
            f"evaluate.suites {suite.name}: {trained:,} of its {len(items):,} items ask what the model is trained on, "
            f"so it would be measured on what it has seen. Name the file under data.decontaminate.against, which "
            f"drops such rows from training; or set `allow_trained: true` for this suite."
        )
    said = f", {trained:,} of them trained on" if trained else ""
    counted = f"{len(items):,} items{said}" if suite.kind != "benchmark" else f"the items of {suite.task}"
    say(f"Suite {suite.name}: {counted}." + (f" {left_out}" if left_out else ""))
    asked = {"decoding", "max_new_tokens", "base_styles"} | ({"bertscore"} if suite.metric == "bertscore" else set())
    settings = suite.model_dump(mode="json", exclude={"guard", "path"})
    how = recipe.evaluate.model_dump(mode="json", include=asked)
    key = value_hash([settings, [file_hash(path) for path in paths], how, recipe.seed])
    return Opened(suite, items, prompts, key, trained, left_out)


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
        rows, left = _first(found.rows, suite, recipe), 0
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
    questions = _first(read_questions(suite.name, suite.path), suite, recipe)
    return questions, [question.first for question in questions], ""


def _instructions(suite: Suite, recipe: Recipe, tokenizer: Any) -> tuple[Sequence[Any], Sequence[Conversation], str]:
    """Prompts with instructions in them; the built-in ones where no path is given."""
    found = read_instructions(suite.name, suite.path) if suite.path else builtin_instructions()
    items = _first(found, suite, recipe)
    return items, [item.row for item in items], ""


def _choices(suite: Suite, recipe: Recipe, tokenizer: Any) -> Read:
    assert suite.path
    items = _first(read_choices(suite.name, suite.path), suite, recipe)
    return items, [Conversation(item.id, (*item.prompt, Message("assistant", ""))) for item in items], ""


def _benchmark(suite: Suite, recipe: Recipe, tokenizer: Any) -> Read:
    """The items are the harness's own."""
    return [], [], ""


def _first(items: Sequence[Any], suite: Suite, recipe: Recipe) -> list[Any]:
    """As many items as the suite asks for, drawn at random; in their order."""
    if suite.items is None or suite.items >= len(items):
        return list(items)
    chosen = np.random.default_rng(recipe.seed).permutation(len(items))[: suite.items]
    return [items[place] for place in sorted(chosen.tolist())]


_READ: Mapping[str, Callable[[Suite, Recipe, Any], Read]] = {
    "answers": _rows,
    "loss": _supervised,
    "text": _rows,
    "questions": _questions,
    "instructions": _instructions,
    "choice": _choices,
    "benchmark": _benchmark,
}


# Examining


def examined(run: RunFolder, opened: Opened, who: str, of: str, load: Callable[[], tuple[Any, Any]]) -> Examined:
    """What the model that `load` gives makes of a suite, or what was examined before.

    who: "base" or "tuned"; the base is asked in every style of the recipe. of: a key of the model.
    """
    suite = opened.suite
    path = run.path / SUITES / suite.name / f"{who}.json"
    stage, key = f"evaluate {who}, {suite.name}", value_hash([opened.key, of])
    if not (run.is_done(stage, key) and path.is_file()):
        with run.stage(stage, key):
            model, tokenizer = load()
            styles = run.recipe.evaluate.base_styles if who == "base" else ("chat",)
            names: dict[str, Style] = {f"base_{style}" if who == "base" else who: style for style in styles}
            _EXAMINE[suite.kind](model, tokenizer, opened, run.recipe, names).write(path)
    return Examined.read(path)


def compared(run: RunFolder, opened: Opened, base: Examined, tuned: Examined) -> dict[str, Any]:
    """Base against tuned model on one suite, written to its folder and returned."""
    suite = opened.suite
    summary = compare_suite(
        base, tuned, kind=suite.kind, guard=suite.guard, rows=opened.prompts, seed=run.recipe.seed
    ) | {"trained": opened.trained, "left_out": opened.left_out}
    if suite.kind == "instructions":
        summary |= instruction_rates(opened.items, base.answers | tuned.answers, run.recipe.seed)
    for warning in summary["warnings"]:
        say(f"Warning: suite {suite.name}: {warning}")
    write_suite(run.path / SUITES / suite.name, summary, base, tuned)
    return summary


def decoding_of(recipe: Recipe) -> Decoding:
    """How the recipe generates answers."""
    return Decoding(**recipe.evaluate.decoding.model_dump(), seed=recipe.seed)


Styles = Mapping[str, Style]


def _answers(model: Any, tokenizer: Any, opened: Opened, recipe: Recipe, styles: Styles) -> Examined:
    suite = opened.suite
    given = recipe.evaluate.bertscore if suite.metric == "bertscore" else None
    models = {"bertscore": BertScore(**given.model_dump())} if given else None
    return Examined(
        answers={
            who: answer(
                model,
                tokenizer,
                {suite.name: opened.items},
                style=style,
                max_new_tokens=suite.max_new_tokens or recipe.evaluate.max_new_tokens,
                metric=suite.metric,
                models=models,
                decoding=decoding_of(recipe),
                title=f"{suite.name}: {who.replace('_', ', ')}",
            )
            for who, style in styles.items()
        }
    )


def _turns(model: Any, tokenizer: Any, opened: Opened, recipe: Recipe, styles: Styles) -> Examined:
    suite, questions = opened.suite, list[Question](opened.items)
    tokens = suite.max_new_tokens or recipe.evaluate.max_new_tokens
    return Examined(
        turns={
            who: answer_turns(
                model,
                tokenizer,
                questions,
                style=style,
                title=f"{suite.name}: {who.replace('_', ', ')}",
                max_new_tokens=tokens,
                decoding=decoding_of(recipe),
            )
            for who, style in styles.items()
        }
    )


def _followed(model: Any, tokenizer: Any, opened: Opened, recipe: Recipe, styles: Styles) -> Examined:
    suite, items = opened.suite, list[InstructionItem](opened.items)
    return Examined(
        answers={
            who: answer_instructions(
                model,
                tokenizer,
                items,
                suite=suite.name,
                style=style,
                decoding=decoding_of(recipe),
                max_new_tokens=suite.max_new_tokens or recipe.evaluate.max_new_tokens,
                title=f"{suite.name}: {who.replace('_', ', ')}",
            )
            for who, style in styles.items()
        }
    )


def _chosen(model: Any, tokenizer: Any, opened: Opened, recipe: Recipe, styles: Styles) -> Examined:
    suite, items = opened.suite, list[ChoiceItem](opened.items)
    alone = suite.normalise == "unconditional"
    answers = {}
    for who, style in styles.items():
        title = f"{suite.name}: {who.replace('_', ', ')}"
        found = choose(model, tokenizer, items, style=style, unconditional=alone, title=title)
        answers[who] = [
            Answer(
                row=one.item.id,
                item=one.item.id,
                level=suite.name,
                cluster=one.item.cluster or suite.name,
                task=one.item.task,
                metric="accuracy",
                prompt=readable(one.item.prompt),
                expected=one.item.options[one.item.answer],
                response=one.item.options[one.chosen[suite.normalise]],
                score=float(one.correct[suite.normalise]),
                stopped=True,
                tokens=0,
            )
            for one in found
        ]
    return Examined(answers=answers)


FIRST_METRICS = ("acc_norm", "acc", "exact_match", "f1")  # of a benchmark's metrics, the one that is compared


def _benchmarked(model: Any, tokenizer: Any, opened: Opened, recipe: Recipe, styles: Styles) -> Examined:
    suite = opened.suite
    assert suite.task
    answers = {}
    for who, style in styles.items():
        results = run_benchmarks(
            model, tokenizer, [suite.task], chat=style == "chat", limit=suite.items, seed=recipe.seed
        )
        answers[who] = [one for result in results for one in _benchmark_answers(result, suite.name)]
    return Examined(answers=answers)


def _benchmark_answers(result: BenchmarkResult, suite: str) -> list[Answer]:
    """One answer for each item of a task; of several filters of one response, the first."""
    names = {name for item in result.items for name in item.scores}
    metric = next((name for name in (*FIRST_METRICS, *sorted(names)) if name in names), None)
    if metric is None or any(not 0 <= item.scores.get(metric, 0.0) <= 1 for item in result.items):
        raise UserError(
            f"evaluate.suites {suite}: {result.task} has no score from 0 to 1 for each item (it has "
            f"{', '.join(result.metrics) or 'none'}), so base and tuned model can't be compared item by item. "
            f"For plain text use `kind: text`."
        )
    first = {item.number: item for item in reversed(result.items)}
    return [
        Answer(
            row=f"{result.task}:{item.number}",
            item=f"{result.task}:{item.number}",
            level=suite,
            cluster=result.task,
            task=result.task,
            metric=metric,
            prompt=item.prompt,
            expected=item.expected,
            response=item.response,
            score=item.scores.get(metric, 0.0),
            stopped=True,
            tokens=0,
        )
        for item in sorted(first.values(), key=lambda item: item.number)
    ]


def _losses(model: Any, tokenizer: Any, opened: Opened, recipe: Recipe, styles: Styles) -> Examined:
    return Examined(losses=response_losses(model, opened.items, batch_tokens=recipe.train.tokens_per_batch))


def _text(model: Any, tokenizer: Any, opened: Opened, recipe: Recipe, styles: Styles) -> Examined:
    texts, train = [row.response for row in opened.items], recipe.train
    return Examined(
        text=text_bits(model, tokenizer, texts, max_length=train.max_length, batch_tokens=train.tokens_per_batch)
    )


_EXAMINE: Mapping[str, Callable[[Any, Any, Opened, Recipe, Styles], Examined]] = {
    "answers": _answers,
    "loss": _losses,
    "text": _text,
    "questions": _turns,
    "instructions": _followed,
    "choice": _chosen,
    "benchmark": _benchmarked,
}
