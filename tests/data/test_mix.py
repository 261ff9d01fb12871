import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.base.errors import UserError
from tunesmith.data.mix import WORKED, Strategic, plan_mix

SIZES = {"a": 1000, "b": 100, "c": 10}


def drawn(plan):
    return {name: share.drawn for name, share in plan.groups.items()}


def plan_of(sizes, strategy="proportional", temperature=1.0, weights=None, normalise=False, cap=None, **limits):
    return plan_mix(sizes, Strategic(strategy, temperature, weights, normalise, cap), **limits)


def test_proportional_is_every_row_once():
    plan = plan_of(SIZES)
    assert drawn(plan) == SIZES and plan.total == 1110
    assert not any(share.capped for share in plan.groups.values())


def test_equal_and_weights():
    assert drawn(plan_of(SIZES, strategy="equal", max_repeats=math.inf)) == {"a": 370, "b": 370, "c": 370}
    weights = {"a": 0.5, "b": 0.5, "c": 0.0}
    assert drawn(plan_of(SIZES, strategy="weights", weights=weights, total=101)) == {"a": 51, "b": 50, "c": 0}
    assert drawn(plan_of({"a": 10, "b": 0}, strategy="equal")) == {"a": 10, "b": 0}


def test_temperature_is_that_of_t5():
    plan = plan_of({"a": 900, "b": 100}, strategy="temperature", temperature=2.0, max_repeats=4)
    # sqrt(900) : sqrt(100) = 3 : 1
    assert drawn(plan) == {"a": 750, "b": 250}
    assert plan_of(SIZES, strategy="temperature", temperature=1.0).groups == plan_of(SIZES).groups
    flat = plan_of(SIZES, strategy="temperature", temperature=1e9, max_repeats=1000)
    assert drawn(flat) == {"a": 370, "b": 370, "c": 370}
    sharp = plan_of(SIZES, strategy="temperature", temperature=1e-3, total=900)
    assert drawn(sharp) == {"a": 900, "b": 0, "c": 0}


def test_the_cap_gives_what_it_holds_back_to_the_others():
    plan = plan_of(SIZES, strategy="equal", max_repeats=2)
    assert drawn(plan) == {"a": 890, "b": 200, "c": 20}
    assert [name for name, share in plan.groups.items() if share.capped] == ["b", "c"]
    assert plan.groups["c"].planned == pytest.approx(1 / 3)


def test_faults_name_what_is_reachable():
    with pytest.raises(UserError, match="at most 2,220"):
        plan_of(SIZES, max_repeats=2, total=2221)
    with pytest.raises(UserError, match=r"an epoch of 2,221 tokens .* at most 2,220"):
        plan_of(SIZES, max_repeats=2, total=2221, unit="tokens")
    with pytest.raises(UserError, match=r"sum to 0\.9.*`normalise: true`"):
        plan_of(SIZES, strategy="weights", weights={"a": 0.5, "b": 0.3, "c": 0.1})
    with pytest.raises(UserError, match="no weight is given for c"):
        plan_of(SIZES, strategy="weights", weights={"a": 0.5, "b": 0.5})
    with pytest.raises(UserError, match="no group"):
        plan_of(SIZES, strategy="weights", weights={"x": 1.0, **dict.fromkeys(SIZES, 0.0)})
    with pytest.raises(UserError, match="no rows to draw"):
        plan_of({"a": 1, "b": 0}, strategy="weights", weights={"a": 0.5, "b": 0.5})
    with pytest.raises(UserError, match="from 0 to 1"):
        plan_of({"a": 1, "b": 1}, strategy="weights", weights={"a": 1.5, "b": -0.5})
    with pytest.raises(UserError, match="Did you mean 'temperature'"):
        plan_of(SIZES, strategy="temprature")
    with pytest.raises(UserError, match="sum to 0, so nothing"):
        plan_of(SIZES, strategy="weights", weights=dict.fromkeys(SIZES, 0.0), normalise=True)
    with pytest.raises(UserError, match="cap is 0"):
        plan_of(SIZES, cap=0)
    for bad in ({"temperature": 0.0, "strategy": "temperature"}, {"max_repeats": 0.0}, {"total": 0}):
        with pytest.raises(UserError):
            plan_of(SIZES, **bad)
    with pytest.raises(UserError, match="no rows"):
        plan_of({"a": 0})


def test_at_an_infinite_temperature_all_groups_are_equal():
    sizes = {**SIZES, "none": 0}
    endless = plan_of(sizes, strategy="temperature", temperature=math.inf, max_repeats=40)
    assert (
        drawn(endless) == drawn(plan_of(sizes, strategy="equal", max_repeats=40)) and not endless.groups["none"].drawn
    )


def test_weights_are_divided_by_their_sum_only_when_asked():
    weights = {"a": 3.0, "b": 1.0, "c": 0.0}
    plan = plan_of(SIZES, strategy="weights", weights=weights, normalise=True, total=400)
    assert drawn(plan) == {"a": 300, "b": 100, "c": 0}


def test_a_cap_bounds_what_a_group_counts():
    """FLAN: examples-proportional mixing with at most N examples of a set."""
    plan = plan_of({"a": 100_000, "b": 3000, "c": 1000}, cap=3000)
    assert drawn(plan) == {"a": 3000, "b": 3000, "c": 1000}  # so an epoch has no more than that by default
    larger = plan_of({"a": 100_000, "b": 3000, "c": 1000}, cap=3000, total=700)
    assert drawn(larger) == {"a": 300, "b": 300, "c": 100}
    warm = plan_of({"a": 10_000, "b": 100}, strategy="temperature", temperature=2.0, cap=900, total=400)
    assert drawn(warm) == {"a": 300, "b": 100}


def test_a_share_of_worked_reasoning():
    sizes, worked = {"a": 1000, "b": 1000, "c": 100}, {"a": 200, "b": 0, "c": 100}
    plan = plan_of(sizes, worked=worked, reasoning=0.3, total=1000)
    assert drawn(plan) == {"a": 311, "b": 389, "c": 0, "a" + WORKED: 200, "b" + WORKED: 0, "c" + WORKED: 100}
    assert plan.total == 1000 and sum(share.planned for share in plan.groups.values()) == pytest.approx(1)
    weights = {"a": 0.5, "b": 0.5, "c": 0.0}
    given = plan_of(sizes, strategy="weights", weights=weights, worked=worked, reasoning=0.1, total=1000)
    assert drawn(given) == {"a": 450, "b": 450, "c": 0, "a" + WORKED: 100, "b" + WORKED: 0, "c" + WORKED: 0}
    for share, total in ((0.0, 100), (1.0, 600)):
        plan = plan_of(sizes, worked=worked, reasoning=share, total=total)
        assert sum(one.drawn for name, one in plan.groups.items() if name.endswith(WORKED)) == share * total
    with pytest.raises(UserError, match=r"at most 600 with worked .* can lie between 0 and 0\.2857"):
        plan_of(sizes, worked=worked, reasoning=0.3, max_repeats=2)
    with pytest.raises(UserError, match=r"between 0 and 0\.6\."):
        plan_of(sizes, worked=worked, reasoning=0.9, max_repeats=2, total=1000)
    with pytest.raises(UserError, match="at most 0 with worked"):
        plan_of(sizes, worked={}, reasoning=0.3)


@settings(deadline=None)  # machines may be busy
@given(
    st.lists(st.integers(1, 10**6), min_size=2, max_size=30),
    st.floats(1, 1e6) | st.just(math.inf),
    st.none() | st.integers(1, 10**6),
    st.integers(10**4, 10**7),
)
def test_drawn_shares_follow_the_formula(sizes, temperature, cap, total):
    """p_i = min(n_i, cap)^(1/T) / sum: to within a row, so within 0.1% of an epoch of 1,000 rows or more."""
    named = {f"g{n}": size for n, size in enumerate(sizes)}
    plan = plan_of(named, strategy="temperature", temperature=temperature, cap=cap, max_repeats=math.inf, total=total)
    power = 0.0 if temperature == math.inf else 1 / temperature
    formula = [math.pow(min(size, cap or size), power) for size in sizes]
    wanted = [value / math.fsum(formula) for value in formula]
    for share, one in zip(plan.groups.values(), wanted, strict=True):
        assert abs(share.drawn - one * total) < 1 + 1e-6 * total and abs(share.drawn / total - one) < 0.001
        assert share.planned == pytest.approx(one) and not share.capped


@settings(deadline=None)  # machines may be busy
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
            plan_of(named, strategy=strategy, temperature=temperature, max_repeats=max_repeats, total=total)
        return
    plan = plan_of(named, strategy=strategy, temperature=temperature, max_repeats=max_repeats, total=total)
    counts = drawn(plan)
    assert sum(counts.values()) == total
    assert all(counts[name] <= max_repeats * size for name, size in named.items())
    assert math.isclose(sum(share.planned for share in plan.groups.values()), 1)
    # Groups under the cap stand to each other as their shares do, to within the rounding of one row each.
    free = [share for share in plan.groups.values() if not share.capped and share.size]
    scale = Fraction(sum(share.drawn for share in free)) / Fraction(sum(share.planned for share in free) or 1)
    assert all(abs(share.drawn - float(scale) * share.planned) < 1 + 1e-6 for share in free)
