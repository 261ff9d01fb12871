"""Pairs of rows whose n-gram sets may be similar, by MinHash and locality-sensitive hashing, without comparing all.

For a random order of all n-grams, two sets have the same first n-gram with a probability equal to their Jaccard
similarity J = |A & B| / |A | B| (Broder 1997). A signature holds the smallest value for each of `permutations` orders;
it is cut into bands of `rows` values, and rows that agree in a whole band are candidates (Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, chapter 3).

How many bands. A pair of similarity J agrees in a band with probability p = J^rows, and in at least two of b bands with
probability 1 - (1-p)^b - b p (1-p)^(b-1). `choose_bands` takes the b at which this reaches 1 - MISSED for pairs that
are MARGIN above the threshold, and the most rows a band for which all this needs no more than PERMUTATIONS. One band
in common is enough to be compared: two are asked only where more than CROWD rows share a band, which is what keeps
data with many half-similar rows (one template, short fillings) from being compared each with each. Where even two
bands are shared by more than CROWD rows, each row is compared with the CROWD that follow it in the order of their
signatures; `Candidates.crowded` counts the rows to which this happened.

What is kept of a signature. 4 bytes for each band, and the last byte of each value: enough to estimate J, so that most
candidates are dismissed before their texts are read, namely those whose estimate is 3 standard deviations below the
threshold. Of pairs just at the threshold one in 700 is dismissed wrongly, of those MARGIN above it one in a million.
With a threshold of 0.8 that is 162 bytes a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.ngrams import Hashes, Indices, fixed, mixed

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
    p, bands = similarity**rows, 2
    while (1 - p) ** bands + bands * p * (1 - p) ** (bands - 1) > MISSED:
        bands += 1
    return bands


@dataclass(frozen=True, slots=True)
class Signatures:
    """keys (rows, bands): a hash of each band. marks (rows, permutations): the last byte of each value."""

    keys: NDArray[np.uint32]
    marks: NDArray[np.uint8]

    @classmethod
    def empty(cls, count: int, bands: Bands) -> Signatures:
        return cls(np.zeros((count, bands.number), np.uint32), np.zeros((count, bands.permutations), np.uint8))


def sign(hashes: Hashes, first: Indices, bands: Bands) -> Signatures:
    """Signatures of sets of n-grams. hashes: of all sets, one after the other. first (D + 1): where each begins.

    No set may be empty. The orders are h(x) = a x + b modulo 2^32 with odd a, of the upper half of each hash.
    """
    if len(first) == 1:
        return Signatures.empty(0, bands)
    values = (hashes >> np.uint64(32)).astype(np.uint32)
    factors, terms = fixed("minhash", 2 * bands.permutations).astype(np.uint32).reshape(2, -1)
    smallest = np.empty((bands.permutations, len(first) - 1), np.uint32)
    placed = np.empty_like(values)
    for number in range(bands.permutations):
        np.multiply(values, factors[number] | np.uint32(1), out=placed)
        np.add(placed, terms[number], out=placed)
        np.minimum.reduceat(placed, first[:-1], out=smallest[number])
    keys = np.zeros((bands.number, len(first) - 1), np.uint64)
    for row in range(bands.rows):
        keys *= np.uint64(0x9E3779B97F4A7C15)
        keys += smallest[row :: bands.rows]
    return Signatures((mixed(keys) >> np.uint64(32)).astype(np.uint32).T, smallest.astype(np.uint8).T)


@dataclass(slots=True)
class Candidates:
    """Pairs (i, j), i != j, of rows worth comparing. A pair may come more than once.

    least: see `Bands`. wanted: told pairs, which of them are still of interest; asked just before they would be given
    out, so that what is known by then saves work. settled: told pairs of one signature and asked after these were
    given out, for which of them the first may stand for the second from then on.
    crowded: rows not compared with all that they share two bands with.
    """

    signatures: Signatures
    least: int
    wanted: Asked
    settled: Asked
    crowded: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.crowded = np.zeros(len(self.signatures.keys), np.bool_)

    def pairs(self) -> Iterator[Pairs]:
        """All candidates, in portions. What each is found to be should be known to `wanted` before the next."""
        order, lengths = _runs(_row_hashes(self.signatures.marks))
        leads = np.repeat(order[np.cumsum(lengths) - lengths], lengths)
        yield from self._portions(leads, order)
        settled = np.zeros(len(self.crowded), np.bool_)
        settled[order] = (leads != order) & self.settled(leads, order)
        rows = np.flatnonzero(~settled)
        for band in range(self.signatures.keys.shape[1]):
            order, lengths = _runs(self.signatures.keys[rows, band])
            few = lengths <= CROWD
            yield from self._within(rows[order[np.repeat(few, lengths)]], lengths[few])
            crowd = np.sort(rows[order[np.repeat(~few, lengths)]])
            for other in range(band + 1, self.signatures.keys.shape[1]) if len(crowd) else ():
                yield from self._crowd(crowd, band, other)

    def _crowd(self, rows: Indices, band: int, other: int) -> Iterator[Pairs]:
        keys, marks = self.signatures.keys, self.signatures.marks
        rows = rows[np.lexsort(marks[rows, :8].T)]
        order, lengths = _runs(keys[rows, band].astype(np.uint64) << np.uint64(32) | keys[rows, other])
        self.crowded[rows[order[np.repeat(lengths > CROWD, lengths)]]] = True
        yield from self._within(rows[order], lengths)

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
            near = np.count_nonzero(marks[i] == marks[j], axis=1) >= self.least
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


def _row_hashes(marks: NDArray[np.uint8]) -> Hashes:
    """A hash of each row."""
    found = np.zeros(len(marks), np.uint64)
    for column in marks.T:
        found = mixed(found * np.uint64(0x9E3779B97F4A7C15) + column)
    return found
