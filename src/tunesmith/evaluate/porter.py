"""English words without their endings, by Porter's algorithm.

M. F. Porter, "An algorithm for suffix stripping" (1980), with the departures of NLTK that published ROUGE scores are
computed with: some irregular words, `-ied` and `-ies` of four letters, `-fulli`, `-logi`, and `-alli` taken twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

_VOWELS = frozenset("aeiou")
_IRREGULAR = {
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "innings": "inning",
    "outings": "outing",
    "cannings": "canning",
    **{word: word for word in "sky news inning outing canning howe proceed exceed succeed".split()},
}
_DERIVED = (
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
)
_FORMED = (
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
)
_LAST = (
    "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"  # the first that fits decides
).split()


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """The stem of a lower-case word: `relational` and `relate` share `relat`."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _without_past(_without_plural(word))
    if word.endswith("y") and len(word) > 2 and _consonant(word, len(word) - 2):
        word = word[:-1] + "i"
    word = _replaced(_underived(word), _FORMED)
    return _without_e(_without_last(word))


def _without_plural(word: str) -> str:
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _without_past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) else word
    ending = next((ending for ending in ("ed", "ing") if word.endswith(ending)), "")
    rest = word.removesuffix(ending)
    if not ending or not _has_vowel(rest):
        return word
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if _doubled(rest):
        return rest if rest[-1] in "lsz" else rest[:-1]
    return rest + "e" if _measure(rest) == 1 and _short(rest) else rest


def _underived(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]):
        return _underived(word[:-2])
    if word.endswith("logi"):
        return word[:-1] if _measure(word[:-3]) else word
    return _replaced(word, _DERIVED)


def _replaced(word: str, rules: Sequence[tuple[str, str]]) -> str:
    """The ending of the first rule that fits is replaced, if a syllable is left before it."""
    for ending, new in rules:
        if word.endswith(ending):
            rest = word[: len(word) - len(ending)]
            return rest + new if _measure(rest) else word
    return word


def _without_last(word: str) -> str:
    for ending in _LAST:
        if word.endswith(ending):
            rest = word[: len(word) - len(ending)]
            fits = _measure(rest) > 1 and (ending != "ion" or rest[-1:] in ("s", "t"))
            return rest if fits else word
    return word


def _without_e(word: str) -> str:
    if word.endswith("e"):
        size = _measure(word[:-1])
        if size > 1 or (size == 1 and not _short(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _consonant(word: str, place: int) -> bool:
    """Whether the letter is a consonant; y is one at the start and after a vowel."""
    if word[place] == "y":
        return place == 0 or not _consonant(word, place - 1)
    return word[place] not in _VOWELS


def _measure(word: str) -> int:
    """How many times a vowel is followed by a consonant: Porter's m."""
    kinds = [_consonant(word, place) for place in range(len(word))]
    return sum(not before and after for before, after in pairwise(kinds))


def _has_vowel(word: str) -> bool:
    return any(not _consonant(word, place) for place in range(len(word)))


def _doubled(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _consonant(word, len(word) - 1)


def _short(word: str) -> bool:
    """Whether it ends as `hop` does: consonant, vowel, consonant, the last not w, x or y; or is as `at`."""
    kinds = [_consonant(word, place) for place in range(max(0, len(word) - 3), len(word))]
    if len(word) == 2:
        return kinds == [False, True]
    return kinds == [True, False, True] and word[-1] not in "wxy"
