"""The mixture: how much of an epoch each group of rows gets, in rows or in tokens.

Temperature-scaled mixing, and the cap on what a group counts, are those of T5 (Raffel et al. 2020, section 3.5.2):
p_i proportional to min(n_i, cap)^(1/T); FLAN (Wei et al. 2021) takes a cap of 3,000 rows at T = 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tunesmith.base.errors import UserError
from tunesmith.data.sources.formats import nearest

Strategy = Literal["proportional", "equal", "temperature", "weights"]
Unit = Literal["rows", "tokens"]

WORKED = ", worked"  # behind a group's name: those of its rows that have worked reasoning


@dataclass(frozen=True, slots=True)
class Share:
    """One group of the mixture; sizes are rows or tokens, by the unit of the plan.

    size: how much it has. planned: the share of an epoch that the strategy asks for.
    drawn: how much is drawn in an epoch, after `max_repeats`. capped: whether that held it back.
    """

    size: int
    planned: float
    drawn: int
    capped: bool


@dataclass(frozen=True, slots=True)
class MixPlan:
    """How much of each group an epoch draws, in `unit`; `total` is the sum."""

    groups: Mapping[str, Share]
    total: int
    unit: Unit = "rows"


@dataclass(frozen=True, slots=True)
class Strategic:
    """How shares follow from sizes.

    temperature: for the strategy of that name, up to infinity. weights: for "weights", each group's share; they add up
    to 1, or are divided by their sum with `normalise`. cap: this much of a group counts at most, for "proportional" and
    "temperature".
    """

    strategy: Strategy = "proportional"
    temperature: float = 1.0
    weights: Mapping[str, float] | None = None
    normalise: bool = False
    cap: int | None = None

    def counted(self, size: int) -> int:
        return size if self.cap is None else min(size, self.cap)

    def shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """The share of each group; they sum to 1, and a group without rows has none."""
        if self.strategy == "weights":
            given = self.weights or {}
            some = {name: float(given[name]) if size else 0.0 for name, size in sizes.items()}
        elif self.strategy == "equal":
            some = {name: float(size > 0) for name, size in sizes.items()}
        else:
            power = 1 / self.temperature if self.strategy == "temperature" else 1.0
            largest = max(map(self.counted, sizes.values()), default=0)
            # Divided by the largest before the power is taken, so that no power overflows.
            some = {n: (self.counted(size) / largest) ** power if size else 0.0 for n, size in sizes.items()}
        whole = sum(some.values())
        return {name: value / whole for name, value in some.items()} if whole else some


def plan_mix(
    sizes: Mapping[str, int],
    strategic: Strategic = Strategic(),
    *,
    max_repeats: float = 4.0,
    total: int | None = None,
    unit: Unit = "rows",
    worked: Mapping[str, int] | None = None,
    reasoning: float | None = None,
) -> MixPlan:
    """Plan an epoch of `total` rows or tokens over groups of the given sizes.

    total: by default as much as there is, of each group what counts.
    max_repeats: an epoch draws at most this many times a group's size; what a capped group can't give goes to the
    others in proportion to their shares.
    reasoning: the share of the epoch that has worked reasoning. `worked` says how much of each group has; the strategy
    is followed among what has it, and among what has none, and the groups that have it are named with WORKED behind.

    Raises UserError when the numbers can't be met, saying which can.
    """
    _check(sizes, strategic, max_repeats, unit)
    total = sum(map(strategic.counted, sizes.values())) if total is None else total
    if reasoning is None:
        return MixPlan(_part(sizes, strategic, 1.0, total, max_repeats, unit), total, unit)
    with_it = dict(worked or {})
    without = {name: size - with_it.get(name, 0) for name, size in sizes.items()}
    wanted = round(reasoning * total)
    _check_reasoning(reasoning, total, (without, with_it), strategic, max_repeats, unit)
    groups = _part(without, strategic, 1 - reasoning, total - wanted, max_repeats, unit)
    found = _part(with_it, strategic, reasoning, wanted, max_repeats, unit)
    return MixPlan(groups | {name + WORKED: share for name, share in found.items()}, total, unit)


def _part(
    sizes: Mapping[str, int], strategic: Strategic, share: float, total: int, max_repeats: float, unit: Unit
) -> dict[str, Share]:
    """The groups of a part of the mixture that gets this share of it."""
    shares = strategic.shares(sizes)
    caps = _caps(sizes, shares, max_repeats, total)
    if share and not 1 <= total <= sum(caps.values()):
        raise UserError(
            f"an epoch of {total:,} {unit} can't be drawn: at least 1 is needed, and with max_repeats {max_repeats:g} "
            f"there are at most {sum(caps.values()):,}. Set total within these, raise max_repeats, or add data."
        )
    wanted, capped = _fill(shares, caps, total)
    drawn = _rounded(wanted, caps, total)
    return {name: Share(size, share * shares[name], drawn[name], name in capped) for name, size in sizes.items()}


def _caps(sizes: Mapping[str, int], shares: Mapping[str, float], max_repeats: float, total: int) -> dict[str, int]:
    """The most that an epoch may draw of each group."""
    repeats = min(max_repeats, max(total, 1))  # so that an infinite cap is one too
    return {name: math.floor(repeats * size) if shares[name] > 0 else 0 for name, size in sizes.items()}


def _check(sizes: Mapping[str, int], strategic: Strategic, max_repeats: float, unit: Unit) -> None:
    if not any(sizes.values()):
        raise UserError("there are no rows to mix, so there is nothing to train on. Look at why the rows were dropped.")
    strategy, temperature = strategic.strategy, strategic.temperature
    if strategy not in get_args(Strategy):
        raise UserError(f"mixing strategy {strategy!r} is unknown. {nearest(strategy, get_args(Strategy))}")
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}; it must be above 0: 1 is proportional, larger evens out.")
    if not max_repeats > 0:
        raise UserError(
            f"max_repeats is {max_repeats}: no row could be drawn. Give a number above 0; 1 repeats nothing."
        )
    if strategic.cap is not None and strategic.cap < 1:
        raise UserError(f"cap is {strategic.cap}: no group would count. Give the {unit} of a group that count at most.")
    if strategy == "weights":
        _check_weights(sizes, strategic.weights or {}, strategic.normalise)


def _check_weights(sizes: Mapping[str, int], weights: Mapping[str, float], normalise: bool) -> None:
    for name in weights:
        if name not in sizes:
            raise UserError(f"a weight is given for {name!r}, which is no group of the mixture. {nearest(name, sizes)}")
    missing = [name for name in sizes if name not in weights]
    if missing:
        raise UserError(f"no weight is given for {', '.join(missing)}. Give each group one; 0 leaves it out.")
    for name, weight in weights.items():
        if not (0 <= weight <= 1 or (normalise and 1 < weight < math.inf)):
            raise UserError(f"the weight of {name} is {weight}; weights are shares from 0 to 1.")
        if weight and not sizes[name]:
            raise UserError(f"the weight of {name} is {weight}, but it has no rows to draw. Give it 0, or add data.")
    if fault := sum_fault(weights, normalise):
        raise UserError(fault)


def sum_fault(weights: Mapping[str, float], normalise: bool) -> str:
    """What is wrong with the sum of the weights, or ""."""
    whole = math.fsum(weights.values())
    if normalise:
        return "" if whole > 0 else "the weights sum to 0, so nothing would be drawn. Give one group more than 0."
    if abs(whole - 1) <= 1e-6:
        return ""
    return (
        f"the weights sum to {whole:g}, not 1, so they are no shares. Make them sum to 1, or have them divided by "
        f"their sum with `normalise: true`."
    )


def _check_reasoning(
    reasoning: float,
    total: int,
    parts: tuple[Mapping[str, int], Mapping[str, int]],
    strategic: Strategic,
    max_repeats: float,
    unit: Unit,
) -> None:
    """parts: what of each group has no worked reasoning, and what has."""
    if not 0 <= reasoning <= 1:
        raise UserError(f"reasoning is {reasoning}; it is the share of worked reasoning, from 0 to 1.")
    most = [sum(_caps(sizes, strategic.shares(sizes), max_repeats, total).values()) for sizes in parts]
    lowest, highest = max(0.0, 1 - most[0] / total), min(1.0, most[1] / total)
    if lowest > highest:
        raise UserError(
            f"an epoch of {total:,} {unit} can't be drawn: with max_repeats {max_repeats:g} there are at most "
            f"{most[0]:,} without and {most[1]:,} with worked reasoning. Lower total, raise max_repeats, or add data."
        )
    wanted = round(reasoning * total)
    if wanted > most[1] or total - wanted > most[0]:
        raise UserError(
            f"reasoning: {reasoning:g} of {total:,} {unit} can't be drawn: with max_repeats {max_repeats:g} there are "
            f"at most {most[1]:,} with worked reasoning and {most[0]:,} without, so the share can lie between "
            f"{math.ceil(lowest * 1e4) / 1e4:g} and {math.floor(highest * 1e4) / 1e4:g}. Set it within these, or total "
            f"lower."
        )


def _fill(shares: Mapping[str, float], caps: Mapping[str, int], total: int) -> tuple[dict[str, float], set[str]]:
    """What is wanted of each group (fractional), never above its cap, and the names of those the cap held back."""
    capped: set[str] = set()
    while True:
        free = total - sum(caps[name] for name in capped)
        weight = sum(share for name, share in shares.items() if name not in capped)
        wanted = {
            name: caps[name] if name in capped else free * share / weight for name, share in shares.items() if share
        }
        over = {name for name, amount in wanted.items() if amount > caps[name] + 1e-6}
        if not over:
            return {name: float(wanted.get(name, 0)) for name in shares}, capped
        capped |= over


def _rounded(wanted: Mapping[str, float], caps: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole numbers that sum to `total`: the largest remainders are rounded up, the earlier group at a tie."""
    drawn = {name: min(math.floor(amount), caps[name]) for name, amount in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: drawn[name] - wanted[name])
    while (left := total - sum(drawn.values())) > 0:
        for name in [name for name in by_remainder if drawn[name] < caps[name]][:left]:
            drawn[name] += 1
    return drawn
