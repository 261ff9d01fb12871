"""Draws of many epochs, counted row by row."""

import math
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.base.random import stream
from tunesmith.data.draw import draw
from tunesmith.data.mix import MixPlan, Share, Strategic, plan_mix

SIZES = {"a": 1000, "b": 100, "c": 10}
EQUAL = Strategic("equal")


def groups_of(sizes):
    ends = np.cumsum(list(sizes.values()))
    return {name: np.arange(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def test_proportional_is_every_row_once():
    assert sorted(draw(plan_mix(SIZES), groups_of(SIZES), seed=0, epoch=3)) == list(range(1110))


@settings(deadline=None)  # machines may be busy
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 3))
def test_no_row_comes_again_before_all_have_been_seen(rows, total, seed):
    sizes = {"a": rows, "b": 5}
    plan = plan_mix(sizes, EQUAL, max_repeats=40, total=total)
    groups = groups_of(sizes)
    seen = Counter()
    for epoch in range(7):
        order = draw(plan, groups, seed=seed, epoch=epoch)
        assert len(order) == total
        seen.update(order.tolist())
        for name, members in groups.items():
            counts = [seen[member] for member in members.tolist()]
            assert max(counts) - min(counts) <= 1
            within = np.bincount(order, minlength=rows + 5)[members]
            least = plan.groups[name].drawn / len(members)  # none comes more often in an epoch than it has to
            assert math.floor(least) <= within.min() and within.max() <= math.ceil(least)


@settings(deadline=None)  # machines may be busy
@given(st.lists(st.integers(1, 30), min_size=1, max_size=25), st.integers(1, 900), st.integers(0, 3))
def test_tokens_are_drawn_as_planned_and_no_row_too_often(tokens, drawn, seed):
    tokens = np.array(tokens)
    whole = int(tokens.sum())
    plan = MixPlan({"a": Share(whole, 1.0, drawn, False)}, drawn, "tokens")
    seen = np.zeros(len(tokens), np.int64)
    for epoch in range(8):
        order = draw(plan, {"a": np.arange(len(tokens))}, seed=seed, epoch=epoch, tokens=tokens)
        within = np.bincount(order, minlength=len(tokens))
        seen += within
        assert abs(tokens[order].sum() - drawn) < tokens.max()
        assert abs((seen * tokens).sum() - (epoch + 1) * drawn) < tokens.max()
        assert seen.max() - seen.min() <= 1
        assert within.max() <= math.ceil(drawn / whole)


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    plan, groups = plan_mix(SIZES, EQUAL, max_repeats=40), groups_of(SIZES)
    first = draw(plan, groups, seed=1, epoch=1)
    assert np.array_equal(first, draw(plan, groups, seed=1, epoch=1))
    assert not np.array_equal(first, draw(plan, groups, seed=2, epoch=1))
    assert not np.array_equal(first, draw(plan, groups, seed=1, epoch=2))
    # Shuffled over the groups: each third of the epoch holds about a third of each group's rows.
    assert all(100 < np.sum(part < 1000) < 150 for part in np.array_split(first, 3))


def test_halves_are_drawn_anew_in_every_pass():
    plan = plan_mix({"a": 1000}, total=500)
    epochs = [set(draw(plan, {"a": np.arange(1000)}, seed=0, epoch=epoch).tolist()) for epoch in range(4)]
    assert not epochs[0] & epochs[1] and not epochs[2] & epochs[3]
    assert 200 < len(epochs[0] & epochs[2]) < 300


def test_the_first_epoch_is_the_head_of_the_first_shuffled_pass():
    plan = plan_mix({"a": 1000}, total=300)
    head = stream(5, "mix", "group", "a", 0).permutation(1000)[:300]
    assert np.array_equal(
        draw(plan, {"a": np.arange(1000)}, seed=5, epoch=0), head[stream(5, "mix", "epoch", 0).permutation(300)]
    )
