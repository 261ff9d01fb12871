"""How good one response is against the expected one. Every score lies in 0..1, 1 is best."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from statistics import median

SHORT = 12  # words; tasks whose median expected response is longer are scored by overlap, not exact match

_number = re.compile(r"(?:(?<!\w)[-−])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")
_word = re.compile(r"\w+")
_rouge_word = re.compile(r"[^\W_]+")


def exact_match(expected: str, response: str) -> float:
    """1 if both are equal but for case, surrounding and repeated white space, and one full stop at the end."""
    return float(_plain(expected) == _plain(response))


def token_f1(expected: str, response: str) -> float:
    """Harmonic mean of precision and recall of words, as in SQuAD: case and punctuation don't count.

    Articles do count (SQuAD drops the English ones), so that the metric is the same for every language.
    """
    wanted, got = (Counter(_word.findall(text.casefold())) for text in (expected, response))
    return _f1((wanted & got).total(), wanted.total(), got.total())


def number(expected: str, response: str) -> float:
    """1 if the answers are the same number: the one after `####` (GSM8K) where there is one, else the last of the text.

    `1,200`, `1200.0` and `$1200` are the same. If the expected response holds no number, exact match decides.
    """
    wanted = answer_number(expected)
    return exact_match(expected, response) if wanted is None else float(wanted == answer_number(response))


def rouge_l(expected: str, response: str, words: Callable[[str], Sequence[str]] | None = None) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), as the rouge-score package has it without stemming.

    By default words are runs of letters and digits of any script, where rouge-score knows ASCII only.
    """
    wanted, got = ((words or _rouge_words)(text) for text in (expected, response))
    return _f1(common_subsequence(wanted, got), len(wanted), len(got))


METRICS: Mapping[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "number": number,
    "rouge_l": rouge_l,
}


def metric_for(expected: Iterable[str]) -> str:
    """The metric that suits a task, by its expected responses.

    `number` where most end in `#### x`, `exact_match` where the median has at most `SHORT` words, else `rouge_l`.
    """
    responses = list(expected)
    if 2 * sum("####" in response for response in responses) > len(responses):
        return "number"
    return "exact_match" if median(len(response.split()) for response in responses) <= SHORT else "rouge_l"


def answer_number(text: str) -> Decimal | None:
    """The number after the last `####`, or the last number of the text; None if there is none."""
    _, mark, after = text.rpartition("####")
    found = (_number.findall(after)[:1] if mark else []) or _number.findall(text)[-1:]
    return Decimal(found[0].replace(",", "").replace("−", "-")) if found else None


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel over `a` (Hyyrö 2004): one addition for each word of b."""
    places: dict[str, int] = {}
    for place, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(a)) - 1
    row = everything
    for word in b:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(a) - row.bit_count()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()


def _rouge_words(text: str) -> list[str]:
    return _rouge_word.findall(text.lower())


def _f1(common: int, wanted: int, got: int) -> float:
    """2PR / (P + R). Two empty texts agree."""
    return 2 * common / (wanted + got) if wanted + got else 1.0
