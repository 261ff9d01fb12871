"""How much of a text repeats itself, by the measures and thresholds of Gopher (arXiv:2112.11446, table A1).

The thresholds are for web pages. Responses are shorter, and worked arithmetic says the same words line by line: as they
are, they would drop 7% of GSM8K; at 2.5 times, 0.05%, while responses whose last sentence is said eight times more are
found still (93% of Alpaca's, 98% of those of role-play).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

MIN_WORDS = 50  # Gopher judges no document below it: in a short text, a phrase said twice is much of it

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_PARAGRAPHS = re.compile(r"\n\s*\n")

DUPLICATES = {"line": 0.30, "paragraph": 0.30, "sentence": 0.30}
"""Largest share of lines, paragraphs and sentences that were there before. Sentences are not Gopher's: as lines."""
DUPLICATE_CHARACTERS = {"line": 0.20, "paragraph": 0.20, "sentence": 0.20}
"""Largest share of the characters that are in them."""
TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
"""Largest share of the characters that are in the most frequent n-gram of words, by n."""
REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
"""Largest share of the characters that are in n-grams of words which were there before, by n."""


def repetition(text: str, leniency: float = 1.0) -> str:
    """What a text repeats too much of, as "lines 0.45 above 0.30"; "" if nothing, or if it has fewer than 50 words.

    leniency: all thresholds are multiplied by it.
    """
    words = text.split()
    if len(words) < MIN_WORDS or len(set(words)) == len(words):
        return ""
    parts = {
        "line": [line for line in text.split("\n") if line.strip()],
        "paragraph": [part for part in _PARAGRAPHS.split(text) if part.strip()],
        # Two words are no sentence, but the number or the label of one.
        "sentence": [part for part in _SENTENCE_END.split(text) if part.count(" ") > 1],
    }
    for kind, pieces in parts.items():
        if not pieces:
            continue
        share, characters = _duplicates(pieces)
        if share > leniency * DUPLICATES[kind]:
            return _said(f"{kind}s", share, leniency * DUPLICATES[kind])
        if characters > leniency * DUPLICATE_CHARACTERS[kind]:
            return _said(f"characters in repeated {kind}s", characters, leniency * DUPLICATE_CHARACTERS[kind])
    size, longest = sum(map(len, words)), max(map(len, words))
    most = max(Counter(words).values())
    for n, threshold in TOP_NGRAM.items():
        # No n-gram comes more often than a shorter one, and none is longer than n times the longest word.
        if most * n * longest > leniency * threshold * size:
            top, most = _top(words, n)
            if top / size > leniency * threshold:
                return _said(f"characters in one {n}-gram", top / size, leniency * threshold)
    for n, threshold in REPEATED_NGRAMS.items():
        repeated = _repeated(words, n)
        if repeated / size > leniency * threshold:
            return _said(f"characters in repeated {n}-grams", repeated / size, leniency * threshold)
        if not repeated:
            return ""
    return ""


def _duplicates(pieces: Sequence[str]) -> tuple[float, float]:
    """The share of pieces that were there before, and of their characters."""
    seen: set[str] = set()
    number = characters = 0
    for piece in pieces:
        plain = piece.strip()
        if plain in seen:
            number += 1
            characters += len(plain)
        seen.add(plain)
    return number / len(pieces), characters / max(1, sum(len(piece.strip()) for piece in pieces))


def _top(words: Sequence[str], n: int) -> tuple[int, int]:
    """Characters in all occurrences of the most frequent n-gram, 0 if all occur once, and how often it occurs."""
    grams = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    most = max(grams.values(), default=1)
    if most == 1:
        return 0, 1
    return max(sum(map(len, gram)) for gram, count in grams.items() if count == most) * most, most


def _repeated(words: Sequence[str], n: int) -> int:
    """Characters in n-grams that were there before, going on behind each one found, so that none counts twice."""
    seen: set[tuple[str, ...]] = set()
    characters = at = 0
    while at + n <= len(words):
        gram = tuple(words[at : at + n])
        if gram in seen:
            characters += sum(map(len, gram))
            at += n
        else:
            seen.add(gram)
            at += 1
    return characters


def _said(what: str, share: float, threshold: float) -> str:
    return f"{what} {share:.2f} above {threshold:.2f}"
