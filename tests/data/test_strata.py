"""Shares and folds of groups of units, against what a plain count allows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.strata import WHOLE, folds_of, share_of

units = st.lists(st.integers(1, 6), min_size=1, max_size=40)


def drawn(sizes, seed):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, len(sizes), dtype=np.uint64)
    return hashes, np.array(sizes, np.int64), rng.integers(0, 9, len(sizes)).astype("f8")


@settings(deadline=None)  # machines may be busy
@given(units, st.sampled_from([0.02, 0.1, 0.3, 0.5]), st.integers(1, 5), st.integers(0, 99))
def test_a_share_is_never_exceeded_by_more_than_chance_gives(sizes, fraction, strata, seed):
    hashes, sizes, lengths = drawn(sizes, seed)
    held = share_of(hashes, sizes, lengths, fraction, strata=strata, chance=int(hashes[0]))
    taken, share = sizes[held].sum(), fraction * sizes.sum()
    assert taken < sizes.sum() and 2 * taken <= max(sizes.sum(), 2 * round(share))
    assert held.sum() <= 1 or taken <= round(share)
    if (sizes == 1).all() and share >= 1:
        assert taken == min(round(share), len(sizes) - 1)
    order = np.random.default_rng(seed).permutation(len(sizes))
    again = share_of(hashes[order], sizes[order], lengths[order], fraction, strata=strata, chance=int(hashes[0]))
    assert np.array_equal(again, held[order])


def test_of_many_groups_too_small_for_a_whole_item_the_share_is_kept():
    rng = np.random.default_rng(0)
    for sizes in ([1, 1, 1], [3, 3, 3, 3], [2, 1, 1, 2]):
        items = 0
        for _ in range(4000):
            hashes, some, lengths = drawn(sizes, int(rng.integers(1 << 30)))
            chance = int(rng.integers(0, 2**64, dtype=np.uint64))
            items += some[share_of(hashes, some, lengths, 0.1, strata=4, chance=chance)].sum()
        assert abs(items / (4000 * sum(sizes)) - 0.1) < 0.01


@settings(deadline=None)  # machines may be busy
@given(units, st.integers(2, 7), st.integers(1, 4), st.integers(0, 99))
def test_every_unit_is_in_one_fold_and_folds_are_even(sizes, of, strata, seed):
    hashes, sizes, lengths = drawn(sizes, seed)
    offsets = np.random.default_rng(seed + 1).random(strata)
    folds = folds_of(hashes, sizes, lengths, of, strata=strata, offset=lambda number: float(offsets[number]))
    assert ((folds >= 0) & (folds < of)).all()
    counts = np.bincount(folds, weights=sizes, minlength=of)
    used = max(1, min(strata, sizes.sum() // of))
    assert counts.max() - counts.min() <= used * (2 * sizes.max() - 1)


def test_the_largest_hash_stays_below_the_whole():
    assert (2**64 - 1) / WHOLE <= 1.0
