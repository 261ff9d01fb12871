"""Pairs of rows whose n-gram sets may be similar, by MinHash and locality-sensitive hashing, without comparing all.

For a random order of all n-grams, two sets have the same first n-gram with a probability equal to their Jaccard
similarity J = |A & B| / |A | B| (Broder 1997). A signature holds the smallest value for each of `permutations` orders;
it is cut into bands of `rows` values, and rows that agree in a whole band are candidates (Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, chapter 3).

How many bands. A pair of similarity J agrees in a band with probability J^rows, and in at least one of b bands with
probability 1 - (1 - J^rows)^b. `choose_bands` takes the b at which this reaches 1 - MISSED for pairs that are MARGIN
above the threshold, and the most rows a band for which all this needs no more than PERMUTATIONS.

Where more than CROWD rows share a band, comparing each with each would take time with the square of their number. Such
rows are compared where they have one of their rarest n-grams in common, which misses no pair, see `rare`. Only where
even a rare n-gram is in more than CROWD rows is each compared with just the CROWD that follow it in the order of their
signatures; `Candidates.crowded` counts the rows to which this happened.

What is kept of a signature. 4 bytes for each band, and the last byte of each value, of each part of a row: enough to
estimate J, so that most candidates are dismissed before their texts are read, namely those whose estimate is 3 standard
deviations below the threshold. Of pairs just at the threshold one in 700 is dismissed wrongly, of those MARGIN above it
less than one in 10,000. With a threshold of 0.8 that is 117 bytes a row, 182 with two parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.duplicates.ngrams import Hashes, Indices, fixed, mixed

MARGIN = 0.05  # pairs this far above the threshold are found ...
MISSED = 0.0005  # ... but for this part of them
PERMUTATIONS = 96  # at most, and so in effect the time that signatures take
MOST_ROWS = 16
CROWD = 64
_PAIRS_AT_ONCE = 50_000

Pairs = tuple[Indices, Indices]
Asked = Callable[[Indices, Indices], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Bands:
    """How signatures are cut. least: equal values of a signature below which a pair is not looked at."""

    number: int
    rows: int
    least: int

    @property
    def permutations(self) -> int:
        return self.number * self.rows


def choose_bands(threshold: float) -> Bands:
    """The bands for a threshold above 0 and up to 1; see the head of this file for how."""
    target = min(threshold + MARGIN, (1 + threshold) / 2)
    number, rows = _bands_needed(target, 1), 1
    while rows < MOST_ROWS and _bands_needed(target, rows + 1) * (rows + 1) <= PERMUTATIONS:
        rows += 1
        number = _bands_needed(target, rows)
    size = number * rows
    least = size * threshold - 3 * math.sqrt(size * threshold * (1 - threshold))
    return Bands(number, rows, max(0, math.floor(least)))


def _bands_needed(similarity: float, rows: int) -> int:
    missed = 1 - similarity**rows
    return max(1, math.ceil(math.log(MISSED) / math.log(missed))) if missed else 1


@dataclass(frozen=True, slots=True)
class Signatures:
    """keys (rows, bands): a hash of each band, of all parts. marks (rows, parts, permutations): the last byte of each
    value, of each part."""

    keys: NDArray[np.uint32]
    marks: NDArray[np.uint8]

    @classmethod
    def empty(cls, count: int, parts: int, bands: Bands) -> Signatures:
        return cls(np.zeros((count, bands.number), np.uint32), np.zeros((count, parts, bands.permutations), np.uint8))


def sign(hashes: Hashes, first: Indices, parts: int, bands: Bands) -> Signatures:
    """Signatures of rows of `parts` sets of n-grams each, of which not all should be empty.

    hashes: of all sets, one after the other. first (rows * parts + 1): where each set begins.
    The orders are h(x) = a x + b modulo 2^32 with odd a, of the upper half of each hash.
    """
    rows = (len(first) - 1) // parts
    values = (hashes >> np.uint64(32)).astype(np.uint32)
    factors, terms = fixed("minhash", 2 * bands.permutations).astype(np.uint32).reshape(2, -1)
    smallest = np.full((bands.permutations, rows * parts), 0xFFFFFFFF, np.uint32)  # of an empty set it stays so
    filled = np.flatnonzero(np.diff(first))
    starts = first[filled]
    placed = np.empty_like(values)
    for number in range(bands.permutations if len(filled) else 0):
        np.multiply(values, factors[number] | np.uint32(1), out=placed)
        np.add(placed, terms[number], out=placed)
        smallest[number, filled] = np.minimum.reduceat(placed, starts)
    of_all = smallest.reshape(-1, rows, parts).min(axis=2)
    keys = np.zeros((bands.number, rows), np.uint64)
    for row in range(bands.rows):
        keys *= np.uint64(0x9E3779B97F4A7C15)
        keys += of_all[row :: bands.rows]
    marks = smallest.astype(np.uint8).T.reshape(rows, parts, -1)
    return Signatures((mixed(keys) >> np.uint64(32)).astype(np.uint32).T, marks)


@dataclass(slots=True)
class Candidates:
    """Pairs (i, j), i != j, of rows worth comparing. A pair may come more than once.

    least: see `Bands`. wanted: told pairs, which of them are still of interest; asked just before they would be given
    out, so that what is known by then saves work. settled: told pairs of one signature and asked after these were
    given out, for which of them the first may stand for the second from then on.
    rare: rows among these (given in order) with their rarest n-grams, as indices into them and n-grams, in portions.
    crowded: rows not compared with all that they share a rare n-gram with.
    """

    signatures: Signatures
    least: int
    wanted: Asked
    settled: Asked
    rare: Callable[[Indices], Iterable[tuple[NDArray[np.uint32], NDArray[np.uint32]]]]
    crowded: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.crowded = np.zeros(len(self.signatures.keys), np.bool_)

    def pairs(self) -> Iterator[Pairs]:
        """All candidates, in portions. What each is found to be should be known to `wanted` before the next."""
        order, lengths = _runs(_row_hashes(self.signatures))
        leads = np.repeat(order[np.cumsum(lengths) - lengths], lengths)
        yield from self._portions(leads, order)
        settled = np.zeros(len(self.crowded), np.bool_)
        settled[order] = (leads != order) & self.settled(leads, order)
        rows, crowd = np.flatnonzero(~settled), np.zeros(len(settled), np.bool_)
        for band in range(self.signatures.keys.shape[1]):
            order, lengths = _runs(self.signatures.keys[rows, band])
            few = lengths <= CROWD
            yield from self._within(rows[order[np.repeat(few, lengths)]], lengths[few])
            crowd[rows[order[np.repeat(~few, lengths)]]] = True
        if crowd.any():
            yield from self._crowd(np.flatnonzero(crowd))

    def _crowd(self, rows: Indices) -> Iterator[Pairs]:
        rank = np.empty(len(rows), np.int64)
        by_signature = np.lexsort(self.signatures.marks[rows, 0, :8].T)
        rank[by_signature] = np.arange(len(rows))
        for owners, grams in self.rare(rows):
            # In the order of signatures, so that those who follow each other in a run are similar.
            ranks = rank[owners]
            order = np.argsort(ranks, kind="stable")
            found, lengths = _runs(grams[order])
            found, lengths = _different_runs(ranks[order][found], lengths)
            runs = rows[by_signature[found]]
            self.crowded[runs[np.repeat(lengths > CROWD, lengths)]] = True
            yield from self._within(runs, lengths)

    def _within(self, order: Indices, lengths: Indices) -> Iterator[Pairs]:
        """Each row with up to CROWD that follow it in its run. lengths: of the runs that `order` consists of."""
        after = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(order)) - 1
        places = np.arange(len(order))
        for distance in range(1, CROWD + 1):
            places = places[after[places] >= distance]
            yield from self._portions(order[places], order[places + distance])

    def _portions(self, left: Indices, right: Indices) -> Iterator[Pairs]:
        marks = self.signatures.marks
        for begin in range(0, len(left), _PAIRS_AT_ONCE):
            i, j = left[begin : begin + _PAIRS_AT_ONCE], right[begin : begin + _PAIRS_AT_ONCE]
            wanted = (i != j) & self.wanted(i, j)
            i, j = i[wanted], j[wanted]
            near = np.count_nonzero(marks[i] == marks[j], axis=2).min(axis=1) >= self.least
            if near.any():
                yield i[near], j[near]


def _runs(keys: NDArray[np.unsignedinteger]) -> tuple[Indices, Indices]:
    """Places whose key occurs more than once, those of one key together and in order; the lengths of these runs."""
    order = np.argsort(keys)  # not the stable kind, which takes three times as long; what is kept is put in order
    ordered = keys[order]
    again = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(keys), np.bool_)
    shared[1:] = again
    shared[:-1] |= again
    places = np.sort(order[shared])
    places = places[np.argsort(keys[places], kind="stable")]
    ordered = keys[places]
    begins = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(places) else places
    return places, np.diff(begins, append=len(places))


def _different_runs(order: Indices, lengths: Indices) -> tuple[Indices, Indices]:
    """Without runs of the same rows as another: n-grams that follow each other in a passage are in the same rows."""
    if not len(lengths):
        return order, lengths
    starts = np.cumsum(lengths) - lengths
    _, chosen = np.unique(np.add.reduceat(mixed(order.astype(np.uint64)), starts), return_index=True)
    kept = np.zeros(len(lengths), np.bool_)
    kept[chosen] = True
    return order[np.repeat(kept, lengths)], lengths[kept]


def _row_hashes(signatures: Signatures) -> Hashes:
    """A hash of each signature."""
    found = np.zeros(len(signatures.keys), np.uint64)
    for columns in (signatures.keys.T, *signatures.marks.transpose(1, 2, 0)):
        for column in columns:
            found = mixed(found * np.uint64(0x9E3779B97F4A7C15) + column)
    return found
