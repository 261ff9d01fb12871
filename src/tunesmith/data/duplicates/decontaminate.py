"""Rows that hold evaluation items are found, so that what is measured was not trained on.

Texts are compared as sequences of words: case, punctuation, white space and Unicode forms make no difference. A text of
an item is in a row if one of its messages (its reasoning included) holds

- the whole text, from WHOLE words on, or is nothing but it, if it is shorter;
- OVERLAP (13, as for GPT-3, Brown et al. 2020, appendix C) of its words in a row; or
- at least `near` of its n-grams of SIZE words, in any order: an item with a clause changed or left out.

The last two are for texts of OVERLAP words or more; shorter ones are looked for whole. Of answers only those with
OVERLAP words or more are looked for: "yes" and "18" are in many rows that know nothing of the item. Texts of unknown
kind may be an answer or a category's name, so those of less than TELLING words are not looked for either. Questions are
looked for in all messages of a row, since a model that wrote the data may have written them anywhere.

What many items share (a template, "how many does she have left") says nothing of any of them: n-grams that are in more
than COMMON different texts don't count, neither as found nor as missing, and DISTINCT of the others have to be found.

A `Decontaminator` is made once from all items and is a stage: it looks at one row, in any process.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import DataError
from tunesmith.data.curation.stage import Outcome
from tunesmith.data.duplicates.items import Item, Kind
from tunesmith.data.duplicates.ngrams import Hashes, Words, grams_of, words_of

REASON = "contaminated"
OVERLAP = 13
WHOLE = 6
TELLING = 4
SIZE = 4
NEAR = 0.5
COMMON = 20
DISTINCT = 5
_SHOWN = 200  # characters of a span that are told
_ITEMS_AT_ONCE = 100
_BITS = 16  # of the table that says at once that an n-gram is of no item, for each n-gram of items


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that a row holds. kind: which text of the item. where: the message of the row, from 1. how: in words.

    span: what of the row overlaps, normalised; from the first to the last word in common if these are not in a row.
    """

    item: str
    kind: Kind
    where: int
    how: str
    span: str


@dataclass(frozen=True, slots=True)
class _Text:
    """A text of an item. words: hashes. distinct: its different n-grams that count."""

    item: str
    kind: Kind
    words: Hashes
    distinct: int


class Decontaminator:
    """A stage that drops the rows that hold one of the items. Raises DataError for a `near` outside of (0, 1]."""

    def __init__(self, items: Iterable[Item], *, near: float = NEAR, answers: bool = True) -> None:
        if not 0 < near <= 1:
            raise DataError(
                f"decontaminate: `near` is {near:g}, and it is the share of an item's n-grams that a row has to hold. "
                f"Give a number above 0 and up to 1, such as {NEAR}."
            )
        self._near = near
        self._short: dict[bytes, tuple[str, Kind]] = {}
        kept: list[tuple[str, Kind, Hashes, Hashes]] = []
        known: set[bytes] = set()
        for item, kind, words, grams in _split_up(items):
            key = words.tobytes()
            if key in known or not len(words) or (kind == "answer" and (not answers or len(words) < OVERLAP)):
                continue
            if kind == "text" and len(words) < TELLING:
                continue
            known.add(key)
            if len(words) < WHOLE:
                self._short[key] = item, kind
            else:
                kept.append((item, kind, words, grams))
        self._index(kept)

    def __call__(self, row: Conversation) -> Outcome:
        hit = self.find(row)
        if not hit:
            return Outcome(row)
        span = hit.span if len(hit.span) <= _SHOWN else f"{hit.span[:_SHOWN]}…"
        return Outcome.dropped(REASON, f"{hit.item} ({hit.kind}) in message {hit.where}, {hit.how}: {span!r}")

    def find(self, row: Conversation) -> Hit | None:
        """The item that the row holds most of, of those found in the first message that holds any; None without."""
        texts: list[str] = []
        numbers: list[int] = []
        for number, message in enumerate(row.messages, 1):
            texts += [message.content, message.reasoning] if message.reasoning else [message.content]
            numbers += [number] * (len(texts) - len(numbers))
        words = words_of(texts)
        if self._short and (hit := self._nothing_but(words, numbers)):
            return hit
        grams = grams_of(words, SIZE)
        maybe = np.flatnonzero(self._table[grams.hashes & self._low])
        if not len(maybe):
            return None
        hashes = grams.hashes[maybe]
        which = np.minimum(np.searchsorted(self._grams, hashes), len(self._grams) - 1)
        same = self._grams[which] == hashes
        starts, which = grams.starts[maybe[same]], which[same]
        owners = np.searchsorted(words.first, starts, side="right") - 1
        for text in np.unique(owners).tolist():
            mine = owners == text
            found = self._best(words, text, starts[mine].tolist(), which[mine].tolist())
            if found:
                return Hit(found[0].item, found[0].kind, numbers[text], found[1], words.span(found[2], found[3]))
        return None

    def _nothing_but(self, words: Words, numbers: Sequence[int]) -> Hit | None:
        for text, number in enumerate(numbers):
            start, end = words.first[text : text + 2].tolist()
            if 0 < end - start < WHOLE and (short := self._short.get(words.hashes[start:end].tobytes())):
                return Hit(*short, number, "the whole text", words.span(start, end))
        return None

    def _best(
        self, words: Words, message: int, starts: list[int], which: list[int]
    ) -> tuple[_Text, str, int, int] | None:
        """The text of an item that one message holds most of: it, how, and the words from which to which.

        starts, which: the words at which n-grams of items begin in the message, and which n-grams these are.
        """
        begin, end = words.first[message : message + 2].tolist()
        at: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for start, gram in zip(starts, which, strict=True):
            for place in range(self._first[gram], self._first[gram + 1]):
                at[self._owners[place]].append((start, self._places[place]))
        for number in sorted(at, key=lambda number: (-len({place for _, place in at[number]}), number)):
            text, pairs = self._texts[number], at[number]
            distinct, long = len({place for _, place in pairs}), len(text.words) >= OVERLAP
            if distinct < (min(DISTINCT, text.distinct) if long else text.distinct):
                continue  # the whole text would have all of its n-grams
            run, start = _longest_run(text.words, words.hashes, begin, end, pairs)
            if run == len(text.words):
                return text, "the whole text", start, start + run
            if not long or distinct < DISTINCT:
                continue
            if run >= OVERLAP:
                return text, f"{run} words in a row", start, start + run
            if distinct >= self._near * text.distinct:
                first, last = min(s for s, _ in pairs), max(s for s, _ in pairs)
                return text, f"{distinct / text.distinct:.0%} of its {SIZE}-grams", first, min(last + SIZE, end)
        return None

    def _index(self, kept: list[tuple[str, Kind, Hashes, Hashes]]) -> None:
        """Which texts hold an n-gram and where, by n-gram: those of n-gram k from `_first[k]` on."""
        texts = np.repeat(np.arange(len(kept)), [len(grams) for *_, grams in kept])
        places = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(grams)) for *_, grams in kept)])
        hashes = np.concatenate([np.zeros(0, np.uint64), *(grams for *_, grams in kept)])
        order = np.lexsort((places, texts, hashes))
        texts, places, hashes = texts[order], places[order], hashes[order]
        # One place of an n-gram in a text is enough: what it is part of is followed to both sides.
        new = np.ones(len(texts), np.bool_)
        new[1:] = (hashes[1:] != hashes[:-1]) | (texts[1:] != texts[:-1])
        texts, places, hashes = texts[new], places[new], hashes[new]
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        counts = counts[inverse]
        lasting = counts <= COMMON
        # A text that has only common n-grams can still be found whole, by its rarest.
        rest = np.lexsort((counts, texts))
        rest = rest[np.unique(texts[rest], return_index=True)[1]]
        lasting[rest[np.bincount(texts[lasting], minlength=len(kept))[texts[rest]] == 0]] = True
        texts, places, hashes = texts[lasting], places[lasting], hashes[lasting]
        self._grams, first = np.unique(hashes, return_index=True)
        self._first = [*first.tolist(), len(hashes)]
        self._owners, self._places = texts.tolist(), places.tolist()
        size = 1 << max(10, (_BITS * max(1, len(self._grams))).bit_length())
        self._low = np.uint64(size - 1)
        self._table = np.zeros(size, np.bool_)
        self._table[self._grams & self._low] = True
        distinct = Counter(self._owners)
        self._texts = [_Text(item, kind, words, distinct[n]) for n, (item, kind, words, _) in enumerate(kept)]


def _split_up(items: Iterable[Item]) -> Iterable[tuple[str, Kind, Hashes, Hashes]]:
    """Each text of each item with its words and its n-grams."""
    texts = [(item.id, kind, text) for item in items for kind, text in item.texts]
    for start in range(0, len(texts), _ITEMS_AT_ONCE):
        some = texts[start : start + _ITEMS_AT_ONCE]
        words = words_of([text for *_, text in some])
        grams = grams_of(words, SIZE)
        for number, (item, kind, _) in enumerate(some):
            of_words, of_grams = (slice(*part.first[number : number + 2].tolist()) for part in (words, grams))
            yield item, kind, words.hashes[of_words].copy(), grams.hashes[of_grams].copy()


def _longest_run(item: Hashes, row: Hashes, begin: int, end: int, pairs: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The most words in a row that are the same in an item and in the words of a row from `begin` to before `end`, and
    where they begin. pairs: words of the row and of the item at which the same n-gram begins."""
    best, start = 0, 0
    for shift in {at - place for at, place in pairs}:
        low, high = max(begin, shift), min(end, shift + len(item))
        differ = np.flatnonzero(row[low:high] != item[low - shift : high - shift])
        edges = np.concatenate(([-1], differ, [high - low]))
        gap = int(np.argmax(np.diff(edges)))
        if (run := int(edges[gap + 1] - edges[gap]) - 1) > best:
            best, start = run, low + int(edges[gap]) + 1
    return best, start
