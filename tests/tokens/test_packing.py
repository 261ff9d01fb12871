"""Packing keeps every sequence, cuts none, wastes little, and depends on seed and epoch alone."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.errors import UserError
from tunesmith.tokens.packing import pack


@given(st.lists(st.integers(1, 64), max_size=300), st.integers(0, 3), st.integers(0, 3))
def test_every_sequence_exactly_once_and_no_row_over_budget(lengths, seed, epoch):
    lengths = np.array(lengths, dtype=np.int32)
    packing = pack(lengths, 64, seed=seed, epoch=epoch)
    assert sorted(packing.order.tolist()) == list(range(len(lengths)))
    assert all(0 < lengths[row].sum() <= 64 for row in packing)
    assert packing.tokens == lengths.sum()


def test_pure_function_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    first = pack(lengths, 256, seed=1, epoch=0)
    again = pack(lengths, 256, seed=1, epoch=0)
    assert np.array_equal(first.order, again.order) and np.array_equal(first.starts, again.starts)
    for other in (pack(lengths, 256, seed=1, epoch=1), pack(lengths, 256, seed=2, epoch=0)):
        assert not np.array_equal(first.order, other.order)


def test_known_best_fit():
    packing = pack(np.array([60, 50, 40, 30, 20]), 100, seed=0, epoch=0)
    assert sorted(sorted(row.tolist()) for row in packing) == [[0, 2], [1, 3, 4]]
    assert packing.efficiency == 1.0


@pytest.mark.parametrize("mean", [60, 230, 700])
def test_efficient_and_fast_at_55k_sequences(mean):
    lengths = np.random.default_rng(0).lognormal(np.log(mean), 0.7, 55_000).astype(int).clip(8, 2048)
    start = time.perf_counter()
    packing = pack(lengths, 2048, seed=0, epoch=0)
    assert time.perf_counter() - start < 1
    assert packing.efficiency >= 0.985


def test_short_sequences_of_equal_length_are_spread():
    """Best fit decreasing all the way would put the 8-token sequences, all of one task, in rows of their own."""
    lengths = np.array([8] * 2000 + [200] * 400)
    packing = pack(lengths, 2048, seed=0, epoch=0)
    assert sum((lengths[row] == 8).all() for row in packing) <= 2


def test_too_long_is_the_users_error():
    with pytest.raises(UserError, match=r"1 sequence.*number 1, has 11.*tokens_per_batch"):
        pack(np.array([3, 11]), 10, seed=0, epoch=0)


def test_nothing_to_pack():
    packing = pack(np.array([], dtype=int), 10, seed=0, epoch=0)
    assert len(packing) == 0 and list(packing) == [] and packing.efficiency == 1.0
