"""How good responses are against the expected ones. Every score lies in 0..1, 1 is best.

Most metrics score a row by itself, and a mean is taken; BLEU, chrF and macro F1 are scores of many rows together
(`overlap.CORPUS_SCORES`), whose rows still have a score each, to look at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from statistics import median

from tunesmith.base.errors import UserError
from tunesmith.data.sources.formats import nearest
from tunesmith.evaluate.overlap import CORPUS_SCORES, Case, label_of, plain, task_labels
from tunesmith.evaluate.rouge import rouge_l, rouge_n, stemmed_words

SHORT = 12  # words; tasks whose median expected response is longer are scored by overlap, not exact match
FEW_LABELS = 20  # distinct responses that may be labels, however few rows there are
_NAMED = 5  # faults that are told of at once

Task = tuple[str, str]
"""A task's cluster (or source) and name; rows without a task are one task of their cluster."""
ModelScores = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""A metric that a model computes: expected responses and responses to a score each."""

_number = re.compile(r"(?:(?<!\w)[-−])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")
_word = re.compile(r"\w+")
_letter = re.compile(r"[^\W\d_]")
_unspaced = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def exact_match(expected: str, response: str) -> float:
    """1 if both are equal but for case, surrounding and repeated white space, and one full stop at the end."""
    return float(plain(expected) == plain(response))


def token_f1(expected: str, response: str) -> float:
    """Harmonic mean of precision and recall of words, as in SQuAD: case and punctuation don't count.

    Articles do count (SQuAD drops the English ones), so that the metric is the same for every language.
    """
    wanted, got = (Counter(_word.findall(text.casefold())) for text in (expected, response))
    both = wanted.total() + got.total()
    return 2 * (wanted & got).total() / both if both else 1.0  # two texts without a word agree


def number(expected: str, response: str) -> float:
    """1 if the answers are the same number: the one after `####` (GSM8K) where there is one, else the last of the text.

    `1,200`, `1200.0` and `$1200` are the same. If the expected response holds no number, exact match decides.
    """
    wanted = answer_number(expected)
    return exact_match(expected, response) if wanted is None else float(wanted == answer_number(response))


def answer_number(text: str) -> Decimal | None:
    """The number after the last `####`, or the last number of the text; None if there is none."""
    _, mark, after = text.rpartition("####")
    found = (_number.findall(after)[:1] if mark else []) or _number.findall(text)[-1:]
    return Decimal(found[0].replace(",", "").replace("−", "-")) if found else None


ROW_SCORES: Mapping[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "number": number,
    "rouge_1": partial(rouge_n, n=1),
    "rouge_2": partial(rouge_n, n=2),
    "rouge_l": rouge_l,
    "rouge_1_stemmed": partial(rouge_n, n=1, words=stemmed_words),
    "rouge_2_stemmed": partial(rouge_n, n=2, words=stemmed_words),
    "rouge_l_stemmed": partial(rouge_l, words=stemmed_words),
}
METRICS = (*ROW_SCORES, "accuracy", *CORPUS_SCORES, "bertscore")


def scores(metric: str, cases: Sequence[Case], models: Mapping[str, ModelScores] | None = None) -> list[float]:
    """The score of each case by a metric of `METRICS`. The labels of a task are those its cases expect.

    models: what computes the metrics that a model computes ("bertscore").
    """
    if metric in CORPUS_SCORES:
        corpus = CORPUS_SCORES[metric]
        found: list[float] = corpus.row(corpus.counts(cases)).tolist()
        return found
    if metric == "accuracy":
        labels = task_labels(cases)
        return [float(label_of(got, labels[task]) == plain(wanted)) for task, wanted, got in cases]
    if models and metric in models:
        return list(models[metric]([wanted for _, wanted, _ in cases], [got for _, _, got in cases]))
    return [ROW_SCORES[metric](wanted, got) for _, wanted, got in cases]


def metric_for(expected: Iterable[str]) -> str:
    """The metric that suits a task, by its expected responses.

    `number` where most end in `#### x`, `exact_match` where the median has at most `SHORT` words, else `rouge_l`.
    """
    responses = list(expected)
    if 2 * sum("####" in response for response in responses) > len(responses):
        return "number"
    return "exact_match" if _length(responses) <= SHORT else "rouge_l"


def task_metrics(expected: Mapping[Task, Sequence[str]], metric: str | Mapping[str, str] = "auto") -> dict[Task, str]:
    """The metric of each task, by its expected responses.

    metric: a metric or "auto" for all tasks, or metrics by the names of tasks and clusters, a task's before its
    cluster's, with "default" for the rest ("auto" if there is none).

    Raises UserError for a name that no task and no cluster has, and for metrics that do not fit their tasks.
    """
    named = {"default": metric} if isinstance(metric, str) else dict(metric)
    known = {name for task in expected for name in task if name}
    if unknown := [name for name in named if name != "default" and name not in known]:
        raise UserError(
            f"evaluate.metric names {unknown[0]!r}, but no held-out row is of such a cluster or task, so its metric "
            f"would measure nothing. {nearest(unknown[0], known)}"
        )
    chosen, faults = {}, []
    for task, responses in expected.items():
        cluster, name = task
        wanted = named.get(name) or named.get(cluster) or named.get("default", "auto")
        chosen[task] = metric_for(responses) if wanted == "auto" else wanted
        if reason := misfit(chosen[task], responses):
            faults.append(f"{chosen[task]} on {name or cluster!s} (rows: {len(responses):,}): {reason}")
    if faults:
        more = f"\n  and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise UserError(
            "a `metric` of `evaluate`, or of a suite, does not fit its rows, so its scores would mean nothing:\n  "
            + "\n  ".join(faults[:_NAMED])
            + more
            + "\nGive `auto` for what suits each task; or, in `evaluate`, metrics by cluster or task, as "
            "{default: auto, CLUSTER: rouge_l}."
        )
    return chosen


def misfit(metric: str, expected: Sequence[str]) -> str:
    """Why a metric says nothing about responses that should be like these; "" if it may say something."""
    length = _length(expected)
    if metric == "number" and not any(answer_number(text) is not None for text in expected):
        return "no expected response holds a number"
    if metric in ("accuracy", "macro_f1"):
        labels = len({plain(text) for text in expected})
        if length > SHORT or labels > max(FEW_LABELS, len(expected) // 2):
            return f"the responses are free text, no labels: {labels:,} distinct ones, {length:.0f} words in the median"
    if metric.startswith("rouge_2") and length < 2:
        return "most expected responses are one word, which has no bigram"
    if metric == "bleu" and length < 4:
        return "most expected responses have fewer than four words, and BLEU compares four in a row; chrf fits"
    if metric == "bleu" and _share(_unspaced, expected) > 0.3:
        return "their script puts no space between words, so they can't be told apart; chrf fits"
    if metric.endswith("_stemmed") and _share(re.compile("[a-zA-Z]"), expected) < 0.5:
        return "its words are made of a to z only, and most letters here are others; it is for English"
    return ""


def _length(texts: Sequence[str]) -> float:
    """The median number of words; a letter of a script without spaces counts as half a word."""
    return median(max(len(text.split()), len(_unspaced.findall(text)) / 2) for text in texts)


def _share(kind: re.Pattern[str], texts: Sequence[str]) -> float:
    letters = sum(len(_letter.findall(text)) for text in texts)
    return sum(len(kind.findall(text)) for text in texts) / letters if letters else 1.0
