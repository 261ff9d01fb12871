"""The mixture: how many rows of each group an epoch draws, and which.

Temperature-scaled mixing is that of T5 (Raffel et al. 2020, section 3.5.2): p_i proportional to n_i^(1/T).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from tunesmith.base.errors import UserError
from tunesmith.base.random import stream
from tunesmith.data.formats import nearest

Strategy = Literal["proportional", "equal", "temperature", "weights"]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Share:
    """One group of the mixture.

    rows: how many it has. planned: the share of an epoch that the strategy asks for.
    drawn: rows drawn in an epoch, after the cap. capped: whether the cap on repetitions held it back.
    """

    rows: int
    planned: float
    drawn: int
    capped: bool


@dataclass(frozen=True, slots=True)
class MixPlan:
    """How many rows of each group an epoch draws; `total` is their sum."""

    strategy: Strategy
    temperature: float
    groups: Mapping[str, Share]
    total: int

    def summary(self) -> dict[str, dict[str, Any]]:
        """group -> rows, planned (share), drawn (rows of an epoch), share (drawn of all), repeats, capped."""
        return {
            name: {
                "rows": group.rows,
                "planned": group.planned,
                "drawn": group.drawn,
                "share": group.drawn / self.total,
                "repeats": group.drawn / group.rows if group.rows else 0.0,
                "capped": group.capped,
            }
            for name, group in self.groups.items()
        }


def plan_mix(
    sizes: Mapping[str, int],
    *,
    strategy: Strategy = "proportional",
    temperature: float = 1.0,
    weights: Mapping[str, float] | None = None,
    max_repeats: float = 4.0,
    total: int | None = None,
) -> MixPlan:
    """Plan an epoch of `total` rows (by default as many as there are) over groups of the given sizes.

    max_repeats: an epoch draws at most this many times a group's rows; what a capped group can't give goes to the
    others in proportion to their shares. Raises UserError when the numbers can't be met, saying which can.
    """
    if not any(sizes.values()):
        raise UserError("there are no rows to mix, so there is nothing to train on. Look at why the rows were dropped.")
    shares = _shares(sizes, strategy, temperature, weights)
    if not max_repeats > 0:
        raise UserError(
            f"max_repeats is {max_repeats}: no row could be drawn. Give a number above 0; 1 repeats nothing."
        )
    total = sum(sizes.values()) if total is None else total
    repeats = min(max_repeats, max(total, 1))  # so that an infinite cap is one too
    caps = {name: math.floor(repeats * size) if shares[name] > 0 else 0 for name, size in sizes.items()}
    if not 1 <= total <= sum(caps.values()):
        raise UserError(
            f"an epoch of {total:,} rows can't be drawn: at least 1 is needed, and with max_repeats {max_repeats:g} "
            f"there are at most {sum(caps.values()):,}. Set total within these, raise max_repeats, or add data."
        )
    wanted, capped = _fill(shares, caps, total)
    drawn = _rounded(wanted, caps, total)
    groups = {name: Share(size, shares[name], drawn[name], name in capped) for name, size in sizes.items()}
    return MixPlan(strategy, temperature, groups, total)


def draw(plan: MixPlan, groups: Mapping[str, Sequence[int] | Indices], *, seed: int, epoch: int) -> Indices:
    """The rows of an epoch, shuffled: `groups` gives the row indices of each group, in any fixed order.

    A pure function of its arguments. Each group is one endless stream of shuffled passes over its rows, and an epoch
    takes up where the one before stopped: no row comes again before all of its group have been seen.
    """
    parts = []
    for name, share in plan.groups.items():
        rows = np.asarray(groups.get(name, ()), dtype=np.int64)
        assert len(rows) == share.rows, f"group {name} was planned with {share.rows} rows and has {len(rows)}"
        if share.drawn:
            passes = list(_passes(share, seed, name, epoch))
            start = epoch * share.drawn % share.rows
            parts.append(rows[np.concatenate(passes)[start : start + share.drawn]])
    drawn = np.concatenate(parts)
    return drawn[stream(seed, "mix", "epoch", epoch).permutation(len(drawn))]


def _passes(share: Share, seed: int, name: str, epoch: int) -> Iterator[Indices]:
    first, behind = epoch * share.drawn // share.rows, -(-(epoch + 1) * share.drawn // share.rows)
    for number in range(first, behind):
        yield stream(seed, "mix", "group", name, number).permutation(share.rows)


def _shares(
    sizes: Mapping[str, int], strategy: Strategy, temperature: float, weights: Mapping[str, float] | None
) -> dict[str, float]:
    filled = [name for name, size in sizes.items() if size]
    if strategy == "weights":
        return _checked_weights(sizes, weights or {})
    if strategy == "equal":
        return {name: (name in filled) / len(filled) for name in sizes}
    if strategy not in ("proportional", "temperature"):
        raise UserError(f"mixing strategy {strategy!r} is unknown. {nearest(strategy, get_args(Strategy))}")
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}; it must be above 0: 1 is proportional, larger evens out.")
    power = 1 / temperature if strategy == "temperature" else 1.0
    largest = max(sizes.values())
    # Divided by the largest before the power is taken, so that no power overflows.
    scaled = {name: (size / largest) ** power for name, size in sizes.items()}
    return {name: value / sum(scaled.values()) for name, value in scaled.items()}


def _checked_weights(sizes: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, float]:
    for name in weights:
        if name not in sizes:
            raise UserError(f"a weight is given for {name!r}, which is no group of the mixture. {nearest(name, sizes)}")
    missing = [name for name in sizes if name not in weights]
    if missing:
        raise UserError(f"no weight is given for {', '.join(missing)}. Give each group one; 0 leaves it out.")
    for name, weight in weights.items():
        if not 0 <= weight <= 1:
            raise UserError(f"the weight of {name} is {weight}; weights are shares from 0 to 1.")
        if weight and not sizes[name]:
            raise UserError(f"the weight of {name} is {weight}, but it has no rows to draw. Give it 0, or add data.")
    if abs(sum(weights.values()) - 1) > 1e-6:
        raise UserError(
            f"the weights sum to {sum(weights.values()):g}, not 1, so they are no shares. Make them sum to 1."
        )
    return {name: float(weights[name]) for name in sizes}


def _fill(shares: Mapping[str, float], caps: Mapping[str, int], total: int) -> tuple[dict[str, float], set[str]]:
    """Rows wanted of each group (fractional), none above its cap, and the names of those the cap held back."""
    capped: set[str] = set()
    while True:
        free = total - sum(caps[name] for name in capped)
        weight = sum(share for name, share in shares.items() if name not in capped)
        wanted = {
            name: caps[name] if name in capped else free * share / weight for name, share in shares.items() if share
        }
        over = {name for name, rows in wanted.items() if rows > caps[name] + 1e-6}
        if not over:
            return {name: float(wanted.get(name, 0)) for name in shares}, capped
        capped |= over


def _rounded(wanted: Mapping[str, float], caps: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole rows that sum to `total`: the largest remainders are rounded up, the earlier group at a tie."""
    drawn = {name: min(math.floor(rows), caps[name]) for name, rows in wanted.items()}
    by_remainder = sorted(wanted, key=lambda name: drawn[name] - wanted[name])
    while (left := total - sum(drawn.values())) > 0:
        for name in [name for name in by_remainder if drawn[name] < caps[name]][:left]:
            drawn[name] += 1
    return drawn
