"""Near-duplicates: rows whose sets of word n-grams have at least a given Jaccard similarity.

Candidates come from MinHash signatures (`minhash`); each is then verified by reading its two rows again and counting
their n-grams, so no pair below the threshold is ever linked. Of two parts, instruction and response, each has to reach
the threshold: rows that share a long passage and differ in what is asked, or in a short answer, are no duplicates. Such
candidates are found by the n-grams of both parts together, those of a part told apart: their similarity is never less
than that of the less similar part, so nothing is missed by that. They are dismissed by each part's own.

Rows are named by places in a sequence, best first, and texts are never held all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation
from tunesmith.base.parallel import map_chunks
from tunesmith.data.duplicates.groups import Groups
from tunesmith.data.duplicates.minhash import Asked, Bands, Candidates, Signatures, choose_bands, sign
from tunesmith.data.duplicates.ngrams import Grams, Hashes, Indices, fixed, grams_of, words_of
from tunesmith.data.duplicates.parts import Over, texts_at
from tunesmith.data.duplicates.rare import Counts, Entries, counters_of, prefixes, rare_entries, sets_of

_ROWS_AT_ONCE = 500
_TEXTS_AT_ONCE = 50  # what their words and n-grams take should stay in the processor's cache
_PAIRS_AT_ONCE = 200
_TAGS = fixed("parts", 2)

Similarities = NDArray[np.float64]


class NearDuplicates:
    """Rows at `places` (best first) whose n-gram sets are compared, indices being into `places`."""

    def __init__(
        self, rows: Sequence[Conversation], places: Indices, *, threshold: float, size: int, over: Over, workers: int
    ) -> None:
        self.places = places
        self.crowded = 0
        self._parts = 2 if over == "both" else 1
        self._rows, self._threshold, self._size, self._over, self._workers = rows, threshold, size, over, workers

    def roots(self) -> Indices:
        """For each row the first of its group, groups being what verified pairs link."""
        return self._grouped([])

    def pairs(self) -> list[tuple[int, int]]:
        """The verified pairs that `roots` was made from; pairs that others already linked are not among them."""
        found: list[tuple[int, int]] = []
        self._grouped(found)
        return found

    def _grouped(self, linked: list[tuple[int, int]]) -> Indices:
        groups = Groups(len(self.places))
        for pairs, _ in self._verified(groups.apart, lambda i, j: ~groups.apart(i, j)):
            linked += (links := pairs.tolist())
            groups.join(links)
        return groups.all_roots()

    def matches(self, references: int) -> tuple[Indices, Similarities]:
        """For each row that follows the first `references`, one of those it is similar to, or -1; and how similar."""
        match = np.full(len(self.places), -1)
        similarity = np.zeros(len(self.places))

        def wanted(i: Indices, j: Indices) -> NDArray[np.bool_]:
            found: NDArray[np.bool_] = ((i < references) != (j < references)) & (match[np.maximum(i, j)] < 0)
            return found

        for pairs, found in self._verified(wanted, lambda lead, row: (row < references) | (match[row] >= 0)):
            rows = pairs.max(axis=1)
            best = np.lexsort((-pairs.min(axis=1), found))  # the last that is written stays: most similar, then first
            match[rows[best]], similarity[rows[best]] = pairs.min(axis=1)[best], found[best]
        return match[references:], similarity[references:]

    def similarities(self, pairs: NDArray[np.int64]) -> Similarities:
        """The Jaccard similarity of each pair (P, 2), of the less similar part; in several processes."""
        asked: Any = pairs  # an array can be sliced as map_chunks needs it, but is no Sequence
        found = map_chunks(self._compared, asked, _PAIRS_AT_ONCE, self._workers)
        return np.concatenate([np.zeros(0), *found])

    def _verified(self, wanted: Asked, settled: Asked) -> Iterator[tuple[NDArray[np.int64], Similarities]]:
        """Pairs that reach the threshold with their similarities, in portions."""
        bands = choose_bands(self._threshold)
        signatures, signed = self._sign(bands)
        candidates = Candidates(
            signatures,
            bands.least,
            lambda i, j: wanted(signed[i], signed[j]),
            lambda i, j: settled(signed[i], signed[j]),
            lambda rows: self._rare(self.places[signed[rows]]),
        )
        for i, j in candidates.pairs():
            pairs = np.stack((signed[i], signed[j]), axis=1)
            found = self.similarities(pairs)
            enough = found >= self._threshold
            yield pairs[enough], found[enough]
        self.crowded = int(candidates.crowded.sum())

    def _sign(self, bands: Bands) -> tuple[Signatures, Indices]:
        """Signatures of the rows that have words at all, and which these are."""
        signatures = Signatures.empty(len(self.places), self._parts, bands)
        signed = np.zeros(len(self.places), np.int64)
        done = start = 0
        asked: Any = self.places
        for part, which in map_chunks(lambda part: self._signed(part, bands), asked, _ROWS_AT_ONCE, self._workers):
            end = done + len(which)
            signatures.keys[done:end], signatures.marks[done:end] = part.keys[which], part.marks[which]
            signed[done:end] = start + which
            done, start = end, start + _ROWS_AT_ONCE
        return Signatures(signatures.keys[:done], signatures.marks[:done]), signed[:done]

    def _signed(self, places: Any, bands: Bands) -> tuple[Signatures, Indices]:
        hashes, first = self._sets(places)
        filled = np.flatnonzero(np.diff(first).reshape(-1, self._parts).any(axis=1))
        return sign(hashes, first, self._parts, bands), filled

    def _rare(self, places: Any) -> Iterator[Entries]:
        """The rarest n-grams of the rows at these places, which are named by their indices among these."""

        def distinct(some: Any) -> tuple[Indices, Hashes]:
            hashes, first = self._sets(places[some[0] : some[-1] + 1])
            return sets_of(hashes, first[:: self._parts])

        def chosen(counts: Counts) -> Iterator[Entries]:
            work = map_chunks(
                lambda some: prefixes(*distinct(some), counts, self._threshold), indices, _ROWS_AT_ONCE, self._workers
            )
            for number, (owners, grams) in enumerate(work):
                yield owners + np.uint32(number * _ROWS_AT_ONCE), grams

        def counted() -> Iterator[NDArray[np.uint32]]:
            return map_chunks(lambda some: counters_of(distinct(some)[1]), indices, _ROWS_AT_ONCE, self._workers)

        indices = range(len(places))
        return rare_entries(len(places), self._threshold, counted, chosen)

    def _sets(self, places: Any) -> tuple[Hashes, Indices]:
        """The n-grams of all parts of these rows, those of a part told apart; where each part begins."""
        hashes, numbers = [], [np.zeros(1, np.int64)]
        for grams in self._grams(places):
            if self._parts == 2:
                grams.hashes[:] ^= np.repeat(np.resize(_TAGS, len(grams.first) - 1), np.diff(grams.first))
            hashes.append(grams.hashes)
            numbers.append(np.diff(grams.first))
        return np.concatenate(hashes), np.cumsum(np.concatenate(numbers))

    def _grams(self, places: Indices) -> Iterator[Grams]:
        for start in range(0, len(places), _TEXTS_AT_ONCE):
            texts = texts_at(self._rows, places[start : start + _TEXTS_AT_ONCE].tolist(), self._over)
            yield grams_of(words_of(texts, symbols=True), self._size)

    def _compared(self, pairs: Any) -> NDArray[np.float64]:
        distinct, inverse = np.unique(pairs, return_inverse=True)
        hashes, first = self._sets(self.places[distinct])
        texts = inverse.reshape(pairs.shape) * self._parts
        each = [jaccards(hashes, first, texts[:, 0] + part, texts[:, 1] + part) for part in range(self._parts)]
        return np.asarray(np.min(each, axis=0))


def jaccards(hashes: Hashes, first: Indices, left: Indices, right: Indices) -> NDArray[np.float64]:
    """|A & B| / |A | B| of the n-grams of texts `left` and `right`, pair by pair; two empty sets are alike.

    hashes, first: of all texts, see `Grams`. At most 256 pairs: their number stands in the first byte of each n-gram,
    so that one sort brings together what belongs together, and 7 bytes of the hash are what is compared.
    """
    assert len(left) <= 256
    pairs = np.arange(len(left), dtype=np.uint64) << np.uint64(56)
    sides = []
    for texts in (left, right):
        lengths = first[texts + 1] - first[texts]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        grams = hashes[np.repeat(first[texts], lengths) + within]
        keys = np.sort(grams >> np.uint64(8) | np.repeat(pairs, lengths))
        sides.append(keys[np.flatnonzero(np.diff(keys, prepend=~keys[:1]))])  # np.unique takes four times as long
    both = np.sort(np.concatenate(sides))
    shared = both[1:][both[1:] == both[:-1]]
    common, all_of_both = (np.bincount(keys >> np.uint64(56), minlength=len(left)) for keys in (shared, both))
    union = all_of_both - common
    return np.where(union > 0, common / np.maximum(union, 1), 1.0)
