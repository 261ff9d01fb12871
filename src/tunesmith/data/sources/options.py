"""The options of a classification or multiple-choice row: which there are, which is right, how a prompt lists them."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.base.random import ranked
from tunesmith.data.sources.formats import as_text
from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.sandbox import Expression

Layout = Literal["bullets", "letters", "words"]
Reading = Literal["word", "number", "letter"]
LAYOUTS: tuple[Layout, ...] = ("bullets", "letters", "words")
LETTERS = string.ascii_uppercase
NAMES = ("options", "choices", "option", "letter")  # what templates call what is made of a row's options

# An option, a question or reasoning that speaks of options by place or letter is true in one order only.
_BY_LETTER = re.compile(
    r"(?i:\b(?:option|choice|answer|alternative)s?) (?:(?:is|are|was) )?\(?(?:[A-Z]\b|\d)"
    r"|(?i:\b(?:first|second|third|fourth|fifth|last) (?:option|choice|answer|alternative)\b)"
    r"|\([A-Ea-e]\)|(?:^|\s)[A-E][.):]\s|\b[A-E]\s*(?:,|and|or|&)\s*[A-E]\b"
)
_OF_OTHERS = re.compile(
    r"\b(?:all|none|neither|both|either|any|two|some|one|more|most)(?: \w+)? of (?:the|these|them|those)\b"
    r"|\b(?:above|below|preceding|previous|foregoing|former|latter|others?)\b"
    r"|^[^\w\n]*(?:all|none|both|neither|everything|nothing)[^\w\n]*$"
    r"|^[^\w\n]*[A-Z](?:[^\w\n]+(?:and|or)?[^\w\n]*[A-Z])+[^\w\n]*$",  # "A and C", "(b), (d)"
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Options:
    """Where a row's options come from.

    words: what each value of the label is called, in the order they are listed; None if each row has its own.
    own: a row's own options. label: the right one. reading: what the label of own options is: the option's word, its
    number from 0, or its letter.
    """

    label: Expression
    words: Mapping[str, str] | None = None
    own: Expression | None = None
    reading: Reading = "word"

    @property
    def names(self) -> frozenset[str]:
        """The columns they take."""
        return self.label.names | (self.own.names if self.own else frozenset())

    def of(self, values: dict[str, Any]) -> tuple[tuple[str, ...], int]:
        """A row's options and the place of the right one. Raises Rejected where there is no telling."""
        label = as_key(self.label(values))
        if self.words is not None:
            keys = list(self.words)
            if label not in self.words:
                raise Rejected("label_outside_options", f"label {label!r} is none of {', '.join(keys[:20])}")
            return tuple(self.words.values()), keys.index(label)
        assert self.own, "options are given or found in the row"
        words = _listed(self.own(values))
        return words, _place(label, words, self.reading)


def as_key(label: Any) -> str:
    """A label as text, as a file of templates names it; 1.0, as tables with gaps hold whole numbers, is 1."""
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return as_text(label).strip()


def _listed(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list | tuple):
        raise Rejected("bad_options", f"the options are {type(found).__name__}, not a list")
    words = tuple(as_key(word) for word in found)
    if len(words) < 2 or not all(words):
        raise Rejected("bad_options", f"there are {len(words)} options, {sum(map(bool, words))} of them with words")
    if len(words) > len(LETTERS):
        raise Rejected("bad_options", f"there are {len(words)} options; a prompt lists {len(LETTERS)} at most")
    if len(set(words)) < len(words):
        raise Rejected("bad_options", "two options are the same")
    return words


def _place(label: str, words: Sequence[str], reading: Reading) -> int:
    if reading == "word":
        places: Sequence[str] = words
    elif reading == "number":
        places = [str(number) for number in range(len(words))]
    else:
        places, label = list(LETTERS[: len(words)]), label.strip("().: ").upper()
    if not label or label not in places:
        said = {"word": "one of them", "number": "a number from 0", "letter": "a letter from A"}[reading]
        raise Rejected(
            "label_outside_options", f"label {label!r} is not {said} of {len(words)} options: {', '.join(words)}"
        )
    return places.index(label)


def shuffled(words: Sequence[str], right: int, seed: int, *names: object) -> tuple[tuple[str, ...], int]:
    """The options in another order, by the seed and names, and where the right one went."""
    order = ranked(range(len(words)), words.__getitem__, seed, "options", *names)
    return tuple(words[place] for place in order), order.index(right)


def have_one_order(words: Iterable[str], beside: Iterable[str]) -> bool:
    """Whether options speak of each other ("none of the above"), or a text beside them of one by place or letter
    ("so (B) is right"), so that another order would make them untrue. In doubt they do."""
    lines = "\n".join(words)
    return bool(_OF_OTHERS.search(lines) or _BY_LETTER.search("\n".join((lines, *beside))))


def written(words: Sequence[str], layout: Layout) -> str:
    """The list as a prompt shows it: a line each, behind a dash or a letter, or in words: "yes, maybe or no"."""
    if layout == "bullets":
        return "\n".join(f"- {word}" for word in words)
    if layout == "letters":
        return "\n".join(f"{letter}. {word}" for letter, word in zip(LETTERS, words, strict=False))
    return f"{', '.join(words[:-1])} or {words[-1]}"
