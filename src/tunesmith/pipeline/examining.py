"""What each model makes of the suites of a recipe, and base against tuned model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.base.errors import UserError
from tunesmith.base.files import value_hash
from tunesmith.base.progress import say
from tunesmith.evaluate.answers import Answer, Decoding, Style, answer, readable
from tunesmith.evaluate.benchmarks import BenchmarkResult, run_benchmarks
from tunesmith.evaluate.bertscore import BertScore
from tunesmith.evaluate.choice import ChoiceItem, choose
from tunesmith.evaluate.instructions import InstructionItem, answer_instructions, instruction_rates
from tunesmith.evaluate.language import response_losses, text_bits
from tunesmith.evaluate.suites import Examined, compare_suite, write_suite
from tunesmith.evaluate.turns import Question, answer_turns
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.opening import SUITES, Opened
from tunesmith.recipe.models import Recipe


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
