"""Candidates among rows that are all half-similar, by their rarest n-grams (prefix filtering, Chaudhuri et al. 2006).

Rows of one template, or about one passage, share most of their n-grams, so MinHash finds each of them similar to each.
But put the n-grams of all rows in one order, and two rows of Jaccard similarity t or more have in common at least one
of the first |x| - ceil(t |x|) + 1 of each. With the rarest first these are what a row alone has, or its duplicates.
The order is by counts in COUNTERS hashed counters, which makes it inexact but one order for all rows, as is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.duplicates.ngrams import Hashes, Indices

COUNTERS = 1 << 22
ENTRIES = 20_000_000  # pairs of a row and an n-gram that are held at once

Counts = NDArray[np.uint32]
Entries = tuple[NDArray[np.uint32], NDArray[np.uint32]]


def sets_of(hashes: Hashes, first: Indices) -> tuple[Indices, Hashes]:
    """Rows and their distinct n-grams, by row and then n-gram. first: where the n-grams of each row begin."""
    owners = np.repeat(np.arange(len(first) - 1), np.diff(first))
    order = np.lexsort((hashes, owners))
    owners, hashes = owners[order], hashes[order]
    new = np.ones(len(owners), np.bool_)
    new[1:] = (owners[1:] != owners[:-1]) | (hashes[1:] != hashes[:-1])
    return owners[new], hashes[new]


def counters_of(hashes: Hashes) -> NDArray[np.uint32]:
    """The counter of each n-gram."""
    return (hashes & np.uint64(COUNTERS - 1)).astype(np.uint32)


def prefixes(owners: Indices, hashes: Hashes, counts: Counts, threshold: float) -> Entries:
    """Of each row the n-grams that come first in the order of all: rows and 32 bits of n-grams. See `sets_of`."""
    order = np.lexsort((hashes, counts[counters_of(hashes)], owners))
    owners, hashes = owners[order], hashes[order]
    sizes = np.bincount(owners)
    taken = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    rank = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = rank < taken[owners]
    return owners[chosen].astype(np.uint32), (hashes[chosen] >> np.uint64(32)).astype(np.uint32)


def rare_entries(
    rows: int,
    threshold: float,
    counted: Callable[[], Iterator[NDArray[np.uint32]]],
    chosen: Callable[[Counts], Iterator[Entries]],
) -> Iterator[Entries]:
    """Rows with their rarest n-grams, all rows that have one n-gram in the same portion.

    counted: the counters of all rows' n-grams. chosen: `prefixes` of all rows by their counts; gone through as often as
    there are portions.
    """
    counts, total = np.zeros(COUNTERS, np.uint32), 0
    for counters in counted():
        counts += np.bincount(counters, minlength=COUNTERS).astype(np.uint32)
        total += len(counters)
    portions = int((total * (1 - threshold) + 2 * rows) // ENTRIES) + 1
    for portion in range(portions):
        found = [_of_portion(entries, portion, portions) for entries in chosen(counts)]
        yield np.concatenate([owners for owners, _ in found]), np.concatenate([grams for _, grams in found])


def _of_portion(entries: Entries, portion: int, portions: int) -> Entries:
    if portions == 1:
        return entries
    mine = entries[1] % np.uint32(portions) == portion
    return entries[0][mine], entries[1][mine]
