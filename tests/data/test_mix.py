import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.base.errors import UserError
from tunesmith.data.mix import draw, plan_mix

SIZES = {"a": 1000, "b": 100, "c": 10}


def drawn(plan):
    return {name: share.drawn for name, share in plan.groups.items()}


def groups_of(sizes):
    ends = np.cumsum(list(sizes.values()))
    return {name: np.arange(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def test_proportional_is_every_row_once():
    plan = plan_mix(SIZES)
    assert drawn(plan) == SIZES and plan.total == 1110
    assert not any(share.capped for share in plan.groups.values())
    assert sorted(draw(plan, groups_of(SIZES), seed=0, epoch=3)) == list(range(1110))


def test_equal_and_weights():
    assert drawn(plan_mix(SIZES, strategy="equal", max_repeats=math.inf)) == {"a": 370, "b": 370, "c": 370}
    weights = {"a": 0.5, "b": 0.5, "c": 0.0}
    assert drawn(plan_mix(SIZES, strategy="weights", weights=weights, total=101)) == {"a": 51, "b": 50, "c": 0}
    assert drawn(plan_mix({"a": 10, "b": 0}, strategy="equal")) == {"a": 10, "b": 0}


def test_temperature_is_that_of_t5():
    plan = plan_mix({"a": 900, "b": 100}, strategy="temperature", temperature=2.0, max_repeats=4)
    # sqrt(900) : sqrt(100) = 3 : 1
    assert drawn(plan) == {"a": 750, "b": 250}
    assert plan_mix(SIZES, strategy="temperature", temperature=1.0).groups == plan_mix(SIZES).groups
    flat = plan_mix(SIZES, strategy="temperature", temperature=1e9, max_repeats=1000)
    assert drawn(flat) == {"a": 370, "b": 370, "c": 370}
    sharp = plan_mix(SIZES, strategy="temperature", temperature=1e-3, total=900)
    assert drawn(sharp) == {"a": 900, "b": 0, "c": 0}


def test_the_cap_gives_what_it_holds_back_to_the_others():
    plan = plan_mix(SIZES, strategy="equal", max_repeats=2)
    assert drawn(plan) == {"a": 890, "b": 200, "c": 20}
    assert [name for name, share in plan.groups.items() if share.capped] == ["b", "c"]
    assert plan.summary()["c"] == {
        "rows": 10,
        "planned": pytest.approx(1 / 3),
        "drawn": 20,
        "share": pytest.approx(20 / 1110),
        "repeats": 2.0,
        "capped": True,
    }


def test_faults_name_what_is_reachable():
    with pytest.raises(UserError, match="at most 2,220"):
        plan_mix(SIZES, max_repeats=2, total=2221)
    with pytest.raises(UserError, match=r"sum to 0\.9"):
        plan_mix(SIZES, strategy="weights", weights={"a": 0.5, "b": 0.3, "c": 0.1})
    with pytest.raises(UserError, match="no weight is given for c"):
        plan_mix(SIZES, strategy="weights", weights={"a": 0.5, "b": 0.5})
    with pytest.raises(UserError, match="no group"):
        plan_mix(SIZES, strategy="weights", weights={"x": 1.0, **dict.fromkeys(SIZES, 0.0)})
    with pytest.raises(UserError, match="no rows to draw"):
        plan_mix({"a": 1, "b": 0}, strategy="weights", weights={"a": 0.5, "b": 0.5})
    with pytest.raises(UserError, match="from 0 to 1"):
        plan_mix({"a": 1, "b": 1}, strategy="weights", weights={"a": 1.5, "b": -0.5})
    with pytest.raises(UserError, match="Did you mean 'temperature'"):
        plan_mix(SIZES, strategy="temprature")
    for bad in ({"temperature": 0.0, "strategy": "temperature"}, {"max_repeats": 0.0}, {"total": 0}):
        with pytest.raises(UserError):
            plan_mix(SIZES, **bad)
    with pytest.raises(UserError, match="no rows"):
        plan_mix({"a": 0})


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any),
    st.sampled_from(["proportional", "equal", "temperature"]),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([1.0, 1.5, 4.0]),
    st.integers(1, 200),
)
def test_counts_sum_keep_the_caps_and_share_what_is_left(sizes, strategy, temperature, max_repeats, total):
    named = {f"g{n}": size for n, size in enumerate(sizes)}
    reachable = sum(math.floor(max_repeats * size) for size in sizes)
    if total > reachable:
        with pytest.raises(UserError, match=f"{reachable:,}"):
            plan_mix(named, strategy=strategy, temperature=temperature, max_repeats=max_repeats, total=total)
        return
    plan = plan_mix(named, strategy=strategy, temperature=temperature, max_repeats=max_repeats, total=total)
    counts = drawn(plan)
    assert sum(counts.values()) == total
    assert all(counts[name] <= max_repeats * size for name, size in named.items())
    assert math.isclose(sum(share.planned for share in plan.groups.values()), 1)
    # Groups under the cap stand to each other as their shares do, to within the rounding of one row each.
    free = [share for share in plan.groups.values() if not share.capped and share.rows]
    scale = Fraction(sum(share.drawn for share in free)) / Fraction(sum(share.planned for share in free) or 1)
    assert all(abs(share.drawn - float(scale) * share.planned) < 1 + 1e-6 for share in free)


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 3))
def test_no_row_comes_again_before_all_have_been_seen(rows, total, seed):
    sizes = {"a": rows, "b": 5}
    plan = plan_mix(sizes, strategy="equal", max_repeats=40, total=total)
    groups = groups_of(sizes)
    seen = Counter()
    for epoch in range(7):
        order = draw(plan, groups, seed=seed, epoch=epoch)
        assert len(order) == total
        seen.update(order.tolist())
        for members in groups.values():
            counts = [seen[member] for member in members.tolist()]
            assert max(counts) - min(counts) <= 1


def test_the_order_is_a_pure_function_of_seed_and_epoch():
    plan, groups = plan_mix(SIZES, strategy="equal", max_repeats=40), groups_of(SIZES)
    first = draw(plan, groups, seed=1, epoch=1)
    assert np.array_equal(first, draw(plan, groups, seed=1, epoch=1))
    assert not np.array_equal(first, draw(plan, groups, seed=2, epoch=1))
    assert not np.array_equal(first, draw(plan, groups, seed=1, epoch=2))
    # Shuffled over the groups: each third of the epoch holds about a third of each group's rows.
    assert all(100 < np.sum(part < 1000) < 150 for part in np.array_split(first, 3))
