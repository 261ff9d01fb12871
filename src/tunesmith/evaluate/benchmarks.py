"""Any task of lm-evaluation-harness, by name or from a local file, on a model that is loaded here."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.base.errors import DataError, UserError
from tunesmith.base.random import some_of, stream
from tunesmith.data.duplicates.decontaminate import TELLING
from tunesmith.data.duplicates.items import Item, Kind, strings_of
from tunesmith.model.generate import CACHE_TOKENS

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class BenchmarkItem:
    """One item of a task: its number in the task, what was asked and expected, what the model gave, its scores.

    response: the answer, or log-likelihoods of the options (nats) as lm-eval shows them. scores: by metric; only those
    that are one number for an item.
    """

    number: int
    prompt: str
    expected: str
    response: str
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """What one task measured. metrics: as lm-eval aggregates them, under its names ("acc", "exact_match, flexible")."""

    task: str
    version: str
    shots: int
    metrics: Mapping[str, float]
    items: tuple[BenchmarkItem, ...]


def run_benchmarks(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str | Path],
    *,
    chat: bool = False,
    shots: int | None = None,
    limit: int | None = None,
    batch_tokens: int = CACHE_TOKENS,
    seed: int = 0,
) -> list[BenchmarkResult]:
    """The results of tasks, or of all tasks of a group, in lm-eval's order.

    tasks: names that lm-eval knows, or task files (.yaml), which need no network if their data is local.
    chat: ask through the chat template, with examples as turns. shots: examples before each question; None: the task's
    own number. limit: at most so many items of each task, drawn at random.

    Raises UserError if lm-eval is not installed, a task is unknown, or asks for what can't be done here; DataError if a
    task's data can't be read.
    """
    manager, loaded = _load(tasks)
    from lm_eval import simple_evaluate

    from tunesmith.evaluate.harness import Harness

    found = simple_evaluate(
        model=Harness(model, tokenizer, chat=chat, batch_tokens=batch_tokens, seed=seed),
        tasks=list(loaded.values()),
        num_fewshot=shots,
        # Given all numbers, lm-eval would look each item's up in a list.
        samples=limit and {name: _drawn(task, len(task.eval_docs), limit, seed) for name, task in loaded.items()},
        bootstrap_iters=0,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        task_manager=manager,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    return [_result(name, found) for name in found["samples"]]


def benchmark_items(tasks: Sequence[str | Path], *, limit: int | None = None, seed: int = 0) -> list[Item]:
    """What the items ask that `run_benchmarks` measures, to be looked for in training data. Raises as it does.

    Of an item that is its texts whose words are in the prompt: what a task puts around them is not the item's own.
    Where none tells the item from others (the prompt is made by code, or is the text that is measured), it is every
    text of the item.
    """
    found = []
    for name, task in _load(tasks)[1].items():
        documents = task.eval_docs  # made anew whenever it is asked for
        numbers = _drawn(task, len(documents), limit, seed)
        found += [Item(f"{name}:{number}", _texts(task, documents[number])) for number in numbers]
    return found


def _texts(task: Any, doc: Any) -> tuple[tuple[Kind, str], ...]:
    texts, prompt = list(dict.fromkeys(strings_of(doc))), task.doc_to_text(doc)
    within = _spoken(prompt) if isinstance(prompt, str) else ""
    asked = [text for text in texts if _spoken(text).strip() and _spoken(text) in within]
    longest = max(asked, key=len, default="")
    if len(longest.split()) < TELLING:  # a label, or the name of a subject
        return tuple(("text", text) for text in texts)
    return tuple(("question" if text == longest else "text", text) for text in asked)


def _spoken(text: str) -> str:
    """The words of a text, with a space around each."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _drawn(task: Any, count: int, limit: int | None, seed: int) -> list[int]:
    """The numbers of the items that are measured, of `count`, in order."""
    return some_of(count, limit, stream(seed, "benchmark", task.task_name))


def _load(tasks: Sequence[str | Path]) -> tuple[Any, dict[str, Any]]:
    """lm-eval's manager of tasks, and the tasks by name, with their data."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "benchmarks are run by lm-evaluation-harness, which is not installed: pip install 'tunesmith[lm-eval]'"
        )
    from lm_eval.tasks import TaskManager  # imported here: an extra, and it takes seconds

    files = [Path(task) for task in tasks if str(task).endswith((".yaml", ".yml"))]
    for file in files:
        if not file.is_file():
            raise UserError(f"task {file}: there is no such file. Give a task file, or a name that lm-eval knows.")
    manager = TaskManager(include_path=[str(folder) for folder in dict.fromkeys(file.parent for file in files)])
    names = [_name(Path(task)) if Path(task) in files else str(task) for task in tasks]
    unknown = [name for name in names if not manager.match_tasks([name])]
    if unknown:
        raise UserError(f"task {unknown[0]} is none that lm-eval knows. `lm-eval ls tasks` lists them.")
    try:
        return manager, manager.load(manager.match_tasks(names))["tasks"]
    except (OSError, ConnectionError) as error:
        raise DataError(
            f"the data of {', '.join(names)} can't be read: {error}. Without network a task needs a file of its own, "
            f"with dataset_path: json and data_files that exist (relative to the working directory)."
        ) from error


def task_files(task: str | Path) -> list[Path]:
    """A task file and the files that it names, such as its data; none for a task by name."""
    file = Path(task)
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        return []
    words = dict.fromkeys(re.split(r"""[\s"',\[\]{}]+""", file.read_text(encoding="utf-8")))
    named = [place / word for word in words if word for place in (Path(), file.parent)]
    return [file, *dict.fromkeys(path for path in named if path.is_file())]


def _name(file: Path) -> str:
    """The name in a task file, read without what else is in it: `!function` and `include` are lm-eval's matter."""
    for line in file.read_text(encoding="utf-8").splitlines():
        key, colon, value = line.partition(":")
        if colon and key in ("task", "group") and value.strip():
            return value.split("#")[0].strip().strip("\"'")
    raise UserError(f"task {file} names no task: a line like `task: my_task` is missing.")


def _result(name: str, found: Mapping[str, Any]) -> BenchmarkResult:
    metrics = {}
    for key, value in found["results"][name].items():
        metric, _, filtered = key.partition(",")
        if filtered and not metric.endswith("_stderr") and isinstance(value, int | float):
            metrics[metric if filtered == "none" else f"{metric}, {filtered}"] = float(value)
    samples = sorted(found["samples"][name], key=lambda sample: (sample["doc_id"], sample.get("filter", "")))
    return BenchmarkResult(
        task=name,
        version=str(found["versions"].get(name, "")),
        shots=int(found["n-shot"].get(name, 0)),
        metrics=metrics,
        items=tuple(map(_item, samples)),
    )


def _item(sample: Mapping[str, Any]) -> BenchmarkItem:
    arguments = sample["arguments"]
    first = next(iter(arguments.values())) if isinstance(arguments, Mapping) else arguments[0]
    prompt = next(iter(first.values())) if isinstance(first, Mapping) else first[0]
    scores = {name: sample[name] for name in sample.get("metrics", ()) if isinstance(sample.get(name), int | float)}
    return BenchmarkItem(
        number=int(sample["doc_id"]),
        prompt=str(prompt),
        expected=str(sample["target"]),
        response=str(sample["filtered_resps"][0] if len(sample["filtered_resps"]) == 1 else sample["filtered_resps"]),
        scores={name: float(value) for name, value in scores.items()},
    )
