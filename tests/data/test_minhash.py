"""Bands find what they promise, and all but these; counted against theory and brute force."""

import math
from itertools import combinations

import numpy as np
import pytest

from tunesmith.data.duplicates import minhash
from tunesmith.data.duplicates.minhash import MISSED, PERMUTATIONS, Candidates, choose_bands, sign
from tunesmith.data.duplicates.rare import counters_of, prefixes, rare_entries, sets_of


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97, 1.0])
def test_bands_reach_their_recall(threshold):
    bands = choose_bands(threshold)
    similarity = min(threshold + 0.05, (1 + threshold) / 2)
    missed = (1 - similarity**bands.rows) ** bands.number
    assert missed <= MISSED and bands.permutations <= PERMUTATIONS
    assert bands.least <= bands.permutations * threshold
    # Both ways to lose a pair together stay within one in a thousand: the binomial tail, summed.
    tail = sum(
        math.comb(bands.permutations, k) * similarity**k * (1 - similarity) ** (bands.permutations - k)
        for k in range(bands.least)
    )
    assert missed + tail < 0.001


def pairs_of_sets(similarity, count, draw):
    """Two sets of 200 n-grams each time, of nearly this similarity; their hashes, and their true similarities."""
    shared = round(400 * similarity / (1 + similarity))
    sets = []
    for _ in range(count):
        grams = draw.integers(0, 2**64, 400 - shared, dtype=np.uint64)
        sets += [grams[:200], grams[200 - shared :]]
    return sets, shared / (400 - shared)


@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.8])
def test_equal_values_estimate_the_jaccard_similarity(similarity):
    sets, true = pairs_of_sets(similarity, 500, np.random.default_rng(3))
    first = np.cumsum([0, *map(len, sets)])
    bands = choose_bands(0.8)
    found = sign(np.concatenate(sets), first, 1, bands)
    equal = (found.marks[::2] == found.marks[1::2]).mean()
    error = math.sqrt(true * (1 - true) / (500 * bands.permutations))
    assert abs(equal - true) < 4 * error + 1 / 256  # last bytes of different values are equal once in 256
    in_a_band = (found.keys[::2] == found.keys[1::2]).any(axis=1).mean()
    expected = 1 - (1 - true**bands.rows) ** bands.number
    assert abs(in_a_band - expected) < 4 * math.sqrt(expected * (1 - expected) / 500) + 0.002


def candidates(sets, threshold, crowded=None):
    """All candidate pairs, by the same functions as in use, with nothing known of any pair."""
    first = np.cumsum([0, *map(len, sets)])
    hashes = np.concatenate(sets)

    def rare(rows):
        chosen = np.concatenate([sets[row] for row in rows])
        owners, grams = sets_of(chosen, np.cumsum([0, *(len(sets[row]) for row in rows)]))
        return rare_entries(
            len(rows),
            threshold,
            lambda: iter([counters_of(grams)]),
            lambda counts: iter([prefixes(owners, grams, counts, threshold)]),
        )

    bands = choose_bands(threshold)
    everything = Candidates(
        sign(hashes, first, 1, bands),
        bands.least,
        lambda i, j: np.ones(len(i), bool),
        lambda i, j: np.zeros(len(i), bool),
        rare,
    )
    found = {(min(i, j), max(i, j)) for left, right in everything.pairs() for i, j in zip(left, right, strict=True)}
    if crowded is not None:
        crowded.append(int(everything.crowded.sum()))
    return {(int(i), int(j)) for i, j in found}


def test_a_crowd_of_half_similar_rows_loses_no_pair(monkeypatch):
    """300 rows share a template of 50 n-grams and have 60 of their own, so each is 0.29 like each; ten are doubled."""
    draw = np.random.default_rng(1)
    template = draw.integers(0, 2**64, 50, dtype=np.uint64)
    sets = [np.concatenate((template, draw.integers(0, 2**64, 60, dtype=np.uint64))) for _ in range(300)]
    for number in range(10):
        sets.append(sets[number * 7][: -5 - number % 3])
    planted = {(number * 7, 300 + number) for number in range(10)}
    asked = []
    original = Candidates._portions

    def counting(self, left, right):
        asked.append(len(left))
        return original(self, left, right)

    monkeypatch.setattr(Candidates, "_portions", counting)
    monkeypatch.setattr(minhash, "CROWD", 16)
    crowded = []
    assert planted <= candidates(sets, 0.5, crowded)
    assert sum(asked) < 0.2 * len(list(combinations(sets, 2)))
    assert crowded == [0]


def test_rare_ngrams_of_similar_sets_meet():
    draw = np.random.default_rng(7)
    universe = draw.integers(0, 2**64, 60, dtype=np.uint64)
    sets = [draw.choice(universe, draw.integers(1, 50), replace=False) for _ in range(120)]
    owners, grams = sets_of(np.concatenate(sets), np.cumsum([0, *map(len, sets)]))
    counts = np.bincount(counters_of(grams), minlength=1 << 22).astype(np.uint32)
    for threshold in (0.3, 0.5, 0.9, 1.0):
        rows, first = prefixes(owners, grams, counts, threshold)
        kept = [set(first[rows == row].tolist()) for row in range(120)]
        for i, j in combinations(range(120), 2):
            a, b = set(sets[i].tolist()), set(sets[j].tolist())
            assert kept[i] & kept[j] or len(a & b) < threshold * len(a | b)


def test_portions_hold_what_one_holds(monkeypatch):
    draw = np.random.default_rng(2)
    owners, grams = sets_of(draw.integers(0, 500, 4000).astype(np.uint64) << np.uint64(32), np.arange(0, 4001, 40))

    def entries():
        found = rare_entries(
            100,
            0.5,
            lambda: iter([counters_of(grams)]),
            lambda counts: iter([prefixes(owners, grams, counts, 0.5)]),
        )
        return [list(zip(rows.tolist(), of.tolist(), strict=True)) for rows, of in found]

    (whole,) = entries()
    monkeypatch.setattr("tunesmith.data.duplicates.rare.ENTRIES", 300)
    parts = entries()
    assert len(parts) > 3 and sorted(entry for part in parts for entry in part) == sorted(whole)
    assert sum(len({gram for _, gram in part}) for part in parts) == len({gram for _, gram in whole})
