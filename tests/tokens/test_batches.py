"""The plan of a run: each epoch's rows exactly once, steps known beforehand, and batches that isolate documents."""

from collections import Counter

import numpy as np
import pytest

from tunesmith.base.random import stream
from tunesmith.tokens.batches import make_batch, plan_epochs
from tunesmith.tokens.encoded import Encoded


def shuffled(count):
    return lambda epoch: stream(0, "order", epoch).permutation(count)


def plan(lengths, epochs=3, rows=4, budget=100, order=None):
    order = order or shuffled(len(lengths))
    return plan_epochs(order, lengths, tokens_per_batch=budget, batches_per_step=rows, epochs=epochs, seed=0)


def test_batch_of_two_documents():
    store = [
        Encoded.from_spans([1, 2, 3], ((1, 2, 3),)),
        Encoded.from_spans([9, 9], ((1, 1, 2),)),
        Encoded.from_spans([4, 5, 6, 7], ((1, 1, 3),)),
    ]
    batch = make_batch(store, np.array([2, 0]))
    assert batch.ids.tolist() == [4, 5, 6, 7, 1, 2, 3] and batch.ids.dtype == np.int64
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 2] and batch.positions.dtype == np.int64
    assert batch.supervised.tolist() == [False, True, True, False, False, False, True]
    assert batch.lengths.tolist() == [4, 3] and batch.sequences.tolist() == [2, 0]
    assert batch.supervised_count == 3


def test_every_epoch_trains_each_sequence_once():
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    made = plan(lengths)
    steps = [made.step(index) for index in range(made.steps)]
    assert Counter(np.concatenate([row for step in steps for row in step]).tolist()) == dict.fromkeys(range(200), 3)
    assert all(len(step) == 4 for step in steps[:-1]) and 1 <= len(steps[-1]) <= 4
    assert all(lengths[row].sum() <= 100 for step in steps for row in step)
    assert made.tokens == 3 * lengths.sum() and made.epoch(made.steps - 1) == 3.0
    assert [made.epoch(index) for index in range(made.steps)] == sorted(
        made.epoch(index) for index in range(made.steps)
    )


def test_repeats_and_store_indices_are_kept():
    made = plan(np.array([10, 20, 30, 40]), epochs=1, order=lambda epoch: np.array([3, 3, 1]))
    assert sorted(np.concatenate([row for index in range(made.steps) for row in made.step(index)]).tolist()) == [
        1,
        3,
        3,
    ]


def test_fraction_of_an_epoch():
    made = plan(np.full(100, 10), epochs=1.5, order=lambda epoch: np.arange(100))
    seen = Counter(np.concatenate([row for index in range(made.steps) for row in made.step(index)]).tolist())
    assert seen == {**dict.fromkeys(range(50), 2), **dict.fromkeys(range(50, 100), 1)}


def test_plan_is_a_pure_function():
    lengths = np.random.default_rng(0).integers(1, 60, 100)
    one, two = plan(lengths), plan(lengths)
    for index in range(one.steps):
        assert all(np.array_equal(a, b) for a, b in zip(one.step(index), two.step(index), strict=True))


def test_no_such_step():
    with pytest.raises(IndexError):
        plan(np.full(10, 10)).step(10**6)


def test_nothing_to_train():
    assert plan(np.array([], dtype=int)).steps == 0
