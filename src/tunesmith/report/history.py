"""How the answers to some prompts, always the same, changed while the model trained, from metrics.jsonl."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal

from markupsafe import escape

from tunesmith.report.load import Fields, at, number
from tunesmith.report.words import clipped, printable

ANSWERS_SHOWN = 40
BYTES_SHOWN = 600_000  # of all answers together: the page has other parts
TEXT_LENGTH = 2_000
WORDS_COMPARED = 250  # of longer answers no words are compared: a page should not take seconds to write

Kind = Literal["same", "new", "gone"]
Span = tuple[float, float, str, float | None]  # of one answer: the first and last step, its text, its score


@dataclass(frozen=True)
class Given:
    """An answer that was given from one measurement to another. words: it, with what it has new or no longer has,
    against the answer before. score: by the metric that fits the task, where it was scored."""

    first: float
    last: float
    words: list[tuple[str, Kind]]
    score: float | None


@dataclass(frozen=True)
class Sample:
    """A prompt, the expected response, and the answers in their order; `omitted` of them are not shown."""

    prompt: str
    expected: str
    cluster: str
    metric: str
    answers: list[Given]
    omitted: int


def samples_of(metrics: Sequence[Fields]) -> list[Sample]:
    """What was answered to each prompt over the run, what is too much left out evenly, never the first or last."""
    found: dict[tuple[str, str], list[tuple[float, Fields]]] = {}
    for line in metrics:
        step, samples = number(line, "step"), at(line, "samples")
        for sample in samples if isinstance(samples, list) and step is not None else []:
            prompt = at(sample, "prompt")
            if isinstance(prompt, str) and isinstance(at(sample, "answer"), str):
                found.setdefault((str(at(sample, "row")), prompt), []).append((step or 0.0, sample))
    return [_sample(given, BYTES_SHOWN // len(found)) for given in found.values()]


def scores_of(metrics: Sequence[Fields]) -> tuple[list[tuple[float, float]], int]:
    """(step, mean score) of the prompts at each measurement, and how many prompts they are."""
    lines = [line for line in metrics if isinstance(at(line, "samples"), list)]
    pairs = [(number(line, "step"), number(line, "score")) for line in lines]
    series = [(step, score) for step, score in pairs if step is not None and score is not None]
    return series, len(lines[-1]["samples"]) if lines else 0


def changed_words(before: str, after: str) -> list[tuple[str, Kind]]:
    """`after` in runs of words, with those that `before` lacks "new" and those that only `before` has "gone".

    The runs that are not gone make up `after`, those that are not new make up `before`, blanks at the seams aside.
    """
    old, new = (re.findall(r"\s*\S+|\s+$", text) for text in (before, after))
    if max(len(old), len(new)) > WORDS_COMPARED:
        return [(after, "same" if before == after else "new")]
    runs: list[tuple[str, Kind]] = []
    for operation, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if operation == "equal":
            runs.append(("".join(new[c:d]), "same"))
            continue
        changes: tuple[tuple[str, Kind], ...] = (("".join(old[a:b]), "gone"), ("".join(new[c:d]), "new"))
        runs += [(text, kind) for text, kind in changes if text]
    return runs


def _sample(given: Sequence[tuple[float, Fields]], room: int) -> Sample:
    """Of one prompt; answers that stay the same are one."""
    spans: list[Span] = []
    for step, sample in given:
        answer, score = _text(at(sample, "answer")), number(sample, "score")
        if spans and spans[-1][2:] == (answer, score):
            spans[-1] = (spans[-1][0], step, answer, score)
        else:
            spans.append((step, step, answer, score))
    # An answer is shown with the words that it replaced: about twice.
    size = max(1, 2 * sum(len(escape(answer).encode("utf-8", "replace")) for *_, answer, _ in spans))
    shown = _thinned(spans, min(ANSWERS_SHOWN, len(spans) * room // size))
    texts = [shown[0][2], *(answer for *_, answer, _ in shown)]
    words = [changed_words(before, after) for before, after in pairwise(texts)]
    answers = [Given(first, last, runs, score) for (first, last, _, score), runs in zip(shown, words, strict=True)]
    last = given[-1][1]
    return Sample(
        _text(at(last, "prompt")),
        _text(at(last, "expected")),
        clipped(str(at(last, "cluster") or ""), 200),
        clipped(str(at(last, "metric") or ""), 200),
        answers,
        len(spans) - len(shown),
    )


def _thinned(values: Sequence[Span], most: int) -> list[Span]:
    """At most `most` (2 if that is less) of the values, evenly, the first and the last among them."""
    most = max(2, most)
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def _text(value: object) -> str:
    return clipped(printable(value), TEXT_LENGTH) if isinstance(value, str) else ""
