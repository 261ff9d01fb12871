"""How far a response is about its instruction: the words they share, rare ones counting more, without a corpus.

Long words are rare ones: a word's weight is its number of letters beyond two, and the commonest words weigh nothing.
A word counts by its first five letters, so that inflected forms meet. Own responses scored above those of other rows
in 96% to 99.9% of pairs (Alpaca, code, GSM8K, T0, role-play); at 0.02, of rows scored, it drops 46% to 76% of swapped
responses, and 0.02% (GSM8K) to 2.4% (Alpaca) of right ones: those that do as told in other words, as a list of foods.
"""

from __future__ import annotations

import re

from tunesmith.data.curation.fences import without_fenced

MIN_WORDS = 30  # of a response; a label or a number shares no words with its instruction
_STEM = 5
_WORD = re.compile(r"[^\W_]{3,}")
_COMMON = frozenset(
    "the and for are but not you your all any can had her was one our out has him his how its may new now old see "
    "two way who did get let put say she too use that with have this will from they know want been good much some "
    "time very when come here just like long make many more only over such take than them well were what there "
    "their which would about could other into these after first also then because through should where being both "
    "each does most must same while between without under again before every might during however within".split()
)


def relevance(instruction: str, response: str) -> float | None:
    """0 to 1; None where it can't be told: fewer than 30 words, or nothing but common ones.

    The weight of the shared words in that of the instruction's or of the response's, whichever share is larger, so
    that neither a long instruction nor a long response makes a row look irrelevant.
    """
    answered = _weights(without_fenced(response))
    if len(response.split()) < MIN_WORDS or not answered:
        return None
    asked = _weights(instruction)
    if not asked:
        return None
    shared = sum(min(weight, answered[stem]) for stem, weight in asked.items() if stem in answered)
    return min(1.0, shared / min(sum(asked.values()), sum(answered.values())))


def _weights(text: str) -> dict[str, int]:
    weights: dict[str, int] = {}
    for word in _WORD.findall(text.lower()):
        if word not in _COMMON:
            weights.setdefault(word[:_STEM], min(len(word), 10) - 2)
    return weights
