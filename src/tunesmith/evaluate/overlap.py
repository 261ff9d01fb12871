"""Scores of a whole corpus of answers: BLEU, chrF and macro F1, from sums of counts that each row adds to.

A corpus score is no mean of row scores, but it is a function of sums over rows. So every row gives a vector of counts,
and a score of any part of the rows, or of a bootstrap sample of them, costs one sum.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]
Case = tuple[str, str, str]
"""The task whose labels count, the expected response, and the response."""

BLEU_ORDER = 4
CHRF_ORDER, CHRF_BETA = 6, 2
_KEPT = 20_000  # pairs of texts whose counts are kept: a row counts in its level, its cluster and its task


@dataclass(frozen=True, slots=True)
class CorpusScore:
    """counts: of each case, float64 (cases, k). score: sums of them, (..., k) to scores in 0..1, (...).

    row: the same for the counts of one row, where the corpus score says little of it.
    """

    counts: Callable[[Sequence[Case]], Counts]
    score: Callable[[Counts], Counts]
    row: Callable[[Counts], Counts]


def bleu_counts(cases: Sequence[Case]) -> Counts:
    """(cases, 10): words of the response and of the expected one, matching 1- to 4-grams, and all of the response.

    Words are those of sacrebleu's tokenizer `13a`.
    """
    return np.array([_bleu_counts(expected, response) for _, expected, response in cases], dtype=np.float64)


def bleu(sums: Counts) -> Counts:
    """Papineni et al. 2002, with sacrebleu's defaults: brevity penalty, and n-gram orders without a match smoothed.

    The k-th order without a match counts as 1 / 2^k matches (Chen and Cherry 2014, method 3); an order of which the
    responses have no n-gram at all makes the score zero.
    """
    return np.where((_totals(sums) > 0).all(-1), sentence_bleu(sums), 0.0)


def sentence_bleu(sums: Counts) -> Counts:
    """BLEU over the orders that the response is long enough for, as sacrebleu scores single sentences."""
    got, wanted, matches, totals = sums[..., 0], sums[..., 1], sums[..., 2 : 2 + BLEU_ORDER], _totals(sums)
    usable, empty = totals > 0, matches == 0
    smoothed = np.where(empty, 0.5 ** np.cumsum(empty, axis=-1), matches)
    logs = np.log(np.where(usable, smoothed / np.maximum(totals, 1), 1))
    precision = np.exp(logs.sum(-1) / np.maximum(usable.sum(-1), 1))
    brevity = np.exp(np.minimum(0, 1 - wanted / np.maximum(got, 1)))
    return np.where((matches > 0).any(-1), brevity * precision, 0.0)


def chrf_counts(cases: Sequence[Case]) -> Counts:
    """(cases, 18): of the 1- to 6-grams of characters those of the response, of the expected one, and of both."""
    return np.array([_chrf_counts(expected, response) for _, expected, response in cases], dtype=np.float64)


def chrf(sums: Counts) -> Counts:
    """chrF2 (Popović 2015) as in sacrebleu: F of mean precision and mean recall, over the orders both sides have."""
    parts = sums.reshape(*sums.shape[:-1], CHRF_ORDER, 3)
    got, wanted, both = parts[..., 0], parts[..., 1], parts[..., 2]
    usable = (got > 0) & (wanted > 0)
    orders = np.maximum(usable.sum(-1), 1)
    precision = (both / np.maximum(got, 1) * usable).sum(-1) / orders
    recall = (both / np.maximum(wanted, 1) * usable).sum(-1) / orders
    weighted = CHRF_BETA**2 * precision + recall
    score: Counts = (1 + CHRF_BETA**2) * precision * recall / np.where(weighted > 0, weighted, 1)
    return score


def label_counts(cases: Sequence[Case]) -> Counts:
    """(cases, 3 labels): of each label of each task whether it was given rightly, expected, and given."""
    labels = task_labels(cases)
    places = {key: place for place, key in enumerate((task, label) for task in labels for label in labels[task])}
    counts = np.zeros((len(cases), 3, len(places)))
    for row, (task, expected, response) in enumerate(cases):
        wanted, got = plain(expected), label_of(response, labels[task])
        counts[row, 1, places[task, wanted]] = 1
        if got:
            counts[row, 2, places[task, got]] = 1
            counts[row, 0, places[task, got]] = wanted == got
    return counts.reshape(len(cases), -1)


def macro_f1(sums: Counts) -> Counts:
    """The mean over labels of 2 right / (expected + given), over the labels that are expected or given at all."""
    right, expected, given = _by_label(sums)
    present = expected + given > 0
    f1 = 2 * right / np.where(present, expected + given, 1)
    mean: Counts = (f1 * present).sum(-1) / np.maximum(present.sum(-1), 1)
    return mean


def rightly_labelled(sums: Counts) -> Counts:
    """Right labels over expected ones: the accuracy, of one row or many."""
    right, expected, _ = _by_label(sums)
    share: Counts = right.sum(-1) / np.maximum(expected.sum(-1), 1)
    return share


def task_labels(cases: Sequence[Case]) -> dict[str, tuple[str, ...]]:
    """The labels of each task: its distinct expected responses, case, white space and a full stop aside."""
    labels: dict[str, set[str]] = {}
    for task, expected, _ in cases:
        labels.setdefault(task, set()).add(plain(expected))
    return {task: tuple(sorted(found)) for task, found in labels.items()}


def label_of(response: str, labels: tuple[str, ...]) -> str:
    """The label that a response is or, as a whole word, holds; "" if it holds none or several.

    So `The answer is: positive` counts, and `positive or negative` doesn't. Where one label is part of another (`yes`,
    `yes and no`), the longer is looked for first and its place is then taken.
    """
    text = plain(response)
    if text in labels:
        return text
    found = {match.group() for match in _any_of(labels).finditer(text)}
    return found.pop() if len(found) == 1 else ""


def plain(text: str) -> str:
    """A text but for case, surrounding and repeated white space, and one full stop at the end."""
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()


CORPUS_SCORES = {
    "bleu": CorpusScore(bleu_counts, bleu, sentence_bleu),
    "chrf": CorpusScore(chrf_counts, chrf, chrf),
    "macro_f1": CorpusScore(label_counts, macro_f1, rightly_labelled),
}


@lru_cache(maxsize=_KEPT)
def _bleu_counts(expected: str, response: str) -> tuple[float, ...]:
    found = _bleu().corpus_score([response], [[expected]])
    return (found.sys_len, found.ref_len, *found.counts, *found.totals)


@lru_cache(maxsize=_KEPT)
def _chrf_counts(expected: str, response: str) -> tuple[float, ...]:
    wanted, got = "".join(expected.split()), "".join(response.split())
    counts: list[float] = []
    for order in range(1, CHRF_ORDER + 1):
        one, other = _characters(got, order), _characters(wanted, order)
        # sacrebleu counts an order of the response only where the expected one has it too.
        counts += [one.total() if other else 0, other.total(), (one & other).total()]
    return tuple(counts)


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU  # imported here: it brings in lxml, and training needs neither

    return BLEU(force=True)  # force: says nothing of texts that look as if they were split into words before


@cache
def _any_of(labels: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(filter(None, labels), key=len, reverse=True)
    return re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")


def _totals(sums: Counts) -> Counts:
    return sums[..., 2 + BLEU_ORDER :]


def _by_label(sums: Counts) -> tuple[Counts, Counts, Counts]:
    parts = sums.reshape(*sums.shape[:-1], 3, -1)
    return parts[..., 0, :], parts[..., 1, :], parts[..., 2, :]


def _characters(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))
