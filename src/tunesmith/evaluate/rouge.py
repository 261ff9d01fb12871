"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), as the rouge-score package has them, at many times its speed.

Two definitions differ from one paper to the next, so both are had: words of any script, which is what compares across
languages, and rouge-score's own, runs of a-z and 0-9, stemmed as published English scores are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from tunesmith.evaluate.porter import stem

Words = Callable[[str], Sequence[str]]

_word = re.compile(r"[^\W_]+")
_ascii_gaps = {code: " " for code in range(128) if not chr(code).isalnum()}
_english_word = re.compile(r"[a-z0-9]+")
_STEMMED = 4  # letters; shorter words stay as they are


def words(text: str) -> list[str]:
    """Runs of letters and digits of any script, in lower case. In ASCII they are rouge-score's words, unstemmed."""
    lower = text.lower()
    # In ASCII, which strings are told to be at once, translating is twice as fast as the pattern.
    return lower.translate(_ascii_gaps).split() if lower.isascii() else _word.findall(lower)


def stemmed_words(text: str) -> list[str]:
    """rouge-score's words with its stemmer: runs of a-z and 0-9 in lower case, longer ones without their endings."""
    return [word if len(word) < _STEMMED else stem(word) for word in _english_word.findall(text.lower())]


def rouge_n(expected: str, response: str, n: int, words: Words = words) -> float:
    """F1 of the n-grams of words that both texts hold, each as often as the rarer side has it; 0 if one has none."""
    wanted, got = (_ngrams(words(text), n) for text in (expected, response))
    return _f1((wanted & got).total(), wanted.total(), got.total())


def rouge_l(expected: str, response: str, words: Words = words) -> float:
    """F1 of the longest common subsequence of words; 0 if one of the texts has no word."""
    wanted, got = words(expected), words(response)
    return _f1(common_subsequence(wanted, got), len(wanted), len(got))


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, bit-parallel over `a` (Hyyrö 2004): one addition for each word of b."""
    places: dict[str, int] = {}
    known, bit = places.get, 1
    for word in a:
        places[word] = known(word, 0) | bit
        bit <<= 1
    row = everything = bit - 1
    for there in filter(None, map(known, b)):
        matches = row & there
        row = (row + matches) | (row - matches)  # carries run upward, out of `everything`
    return len(a) - (row & everything).bit_count()


def _ngrams(words: Sequence[str], n: int) -> Counter[Hashable]:
    if n == 1:
        return Counter(words)
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _f1(common: int, wanted: int, got: int) -> float:
    """2PR / (P + R)."""
    return 2 * common / (wanted + got) if common else 0.0
