"""Mixtures: how far what is drawn lies from the formula, whether a cap is ever exceeded, and what 2,000,000 rows cost.

Random mixtures: 2 to 40 groups of 1 to 1,000,000 rows, temperatures from 1 to infinity, with and without a cap on what
a group counts, in rows and in tokens, epochs of 100,000 to 5,000,000. The formula is worked out here by logarithms, and
what a group can't give without too many repetitions is found by bisection. Some epochs are counted row by row.

    python benchmarks/mixing.py [--cases N] [--rows N]
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.errors import UserError
from tunesmith.data.draw import draw
from tunesmith.data.mix import MixPlan, Strategic, Unit, plan_mix

TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0, 1e6, math.inf)
REPEATS = (1.0, 2.0, 4.0, 16.0, math.inf)
DRAWN_ROWS = 300_000  # mixtures of more rows are planned, and not drawn row by row
EPOCHS = 3
ROW_TOKENS = (10, 500)


@dataclass(slots=True)
class Worst:
    """The largest deviations met. planned, drawn: of a share, of the formula. over: of a cap, in rows or tokens."""

    planned: float = 0.0
    drawn: float = 0.0
    rows: float = 0.0
    over: float = 0.0
    often: int = 0
    plans: int = 0
    draws: int = 0
    refused: int = 0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cases", type=int, default=2000)
    options.add_argument("--rows", type=int, default=2_000_000)
    given = options.parse_args()
    worst = {unit: Worst() for unit in ("rows", "tokens")}
    rng = np.random.default_rng(0)
    for number in range(given.cases):
        unit: Unit = "tokens" if number % 2 else "rows"
        case(rng, unit, worst[unit])
    for unit, found in worst.items():
        print(
            f"{unit}: {found.plans:,} mixtures planned, {found.refused:,} unreachable ones refused: a planned "
            f"share is off the formula by at most {found.planned:.2e}, a drawn one by {found.drawn:.4%} of the epoch "
            f"({found.rows:.3f} {unit}); caps exceeded by {found.over:g}; of {found.draws:,} epochs counted, a row "
            f"came at most {found.often} times more often than its group on average, rounded up",
            flush=True,
        )
    large(given.rows)


def case(rng: np.random.Generator, unit: Unit, worst: Worst) -> None:
    """Plan one random mixture, and draw it if it is small."""
    sizes = np.exp(rng.uniform(0, math.log(1e6), rng.integers(2, 41))).astype(np.int64)
    if unit == "tokens":
        sizes *= 100
    temperature = float(rng.choice(TEMPERATURES))
    cap = int(rng.integers(1, sizes.max() + 1)) if rng.random() < 0.5 else None
    repeats, total = float(rng.choice(REPEATS)), int(np.exp(rng.uniform(math.log(1e5), math.log(5e6))))
    strategic = Strategic("temperature", temperature, cap=cap)
    named = {f"g{number}": int(size) for number, size in enumerate(sizes)}
    most = math.inf if math.isinf(repeats) else int(sum(math.floor(repeats * size) for size in named.values()))
    try:
        plan = plan_mix(named, strategic, max_repeats=repeats, total=total, unit=unit)
    except UserError:
        assert total > most, "refused what can be drawn"
        worst.refused += 1
        return
    assert total <= most, "planned what can't be drawn"
    worst.plans += 1
    shares = list(plan.groups.values())
    formula = by_logarithms(sizes.tolist(), temperature, cap)
    wanted = handed_on(formula, [repeats * size for size in sizes.tolist()], total)
    planned = max(abs(share.planned - one) for share, one in zip(shares, formula, strict=True))
    off = max(abs(share.drawn - one) for share, one in zip(shares, wanted, strict=True))
    worst.planned, worst.rows = max(worst.planned, planned), max(worst.rows, off)
    worst.drawn = max(worst.drawn, off / total)
    worst.over = max(worst.over, max(share.drawn - repeats * share.size for share in shares))
    if unit == "rows" and sizes.sum() <= DRAWN_ROWS and repeats <= 16:
        drawn(plan, sizes, worst)


def by_logarithms(sizes: Sequence[int], temperature: float, cap: int | None) -> list[float]:
    """p_i = min(n_i, cap)^(1/T) / sum, by another way than the one that is measured."""
    logs = [math.log(min(size, cap or size)) * (0.0 if math.isinf(temperature) else 1 / temperature) for size in sizes]
    whole = max(logs) + math.log(math.fsum(math.exp(one - max(logs)) for one in logs))
    return [math.exp(one - whole) for one in logs]


def handed_on(shares: Sequence[float], caps: Sequence[float], total: int) -> list[float]:
    """The amount x of each group with min(level * share, cap) = x and sum total; the level is found by bisection."""
    low, high = 0.0, float(total) / min(shares)
    for _ in range(100):
        level = (low + high) / 2
        if math.fsum(min(level * share, cap) for share, cap in zip(shares, caps, strict=True)) < total:
            low = level
        else:
            high = level
    return [min(high * share, cap) for share, cap in zip(shares, caps, strict=True)]


def drawn(plan: MixPlan, sizes: NDArray[np.int64], worst: Worst) -> None:
    """Draw some epochs, and count every row."""
    ends = np.cumsum(sizes)
    groups = {name: np.arange(end - size, end) for name, size, end in zip(plan.groups, sizes, ends, strict=True)}
    seen = np.zeros(ends[-1], np.int64)
    for epoch in range(EPOCHS):
        times = np.bincount(draw(plan, groups, seed=1, epoch=epoch), minlength=ends[-1])
        seen += times
        worst.draws += 1
        for name, rows in groups.items():
            share = plan.groups[name]
            assert times[rows].sum() == share.drawn, "an epoch draws what was planned"
            assert np.ptp(seen[rows]) <= 1, "no row comes again before all have been seen"
            worst.often = max(worst.often, int(times[rows].max()) - math.ceil(share.drawn / share.size))


def large(rows: int) -> None:
    """Plan and draw a large mixture."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(*ROW_TOKENS, rows)
    group = np.minimum(rng.geometric(0.1, rows), 40)
    by_group = {f"g{number}": np.flatnonzero(group == number) for number in range(1, 41)}
    for unit in ("rows", "tokens"):
        of = {name: int(tokens[some].sum()) if unit == "tokens" else len(some) for name, some in by_group.items()}
        started = time.perf_counter()
        plan = plan_mix(of, Strategic("temperature", 2.0), unit=unit)
        took = []
        for epoch in range(3):
            order = draw(plan, by_group, seed=0, epoch=epoch, tokens=tokens)
            took.append(time.perf_counter() - started)
            started = time.perf_counter()
        shares = {name: tokens[order[np.isin(order, some)]].sum() for name, some in list(by_group.items())[:1]}
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        share, wanted = shares["g1"] / tokens[order].sum(), plan.groups["g1"].drawn / plan.total
        told = f"; tokens of the largest group {share:.4%}, planned {wanted:.4%}" if unit == "tokens" else ""
        print(
            f"{rows:,} rows in 40 groups, {unit}: plan and first epoch {took[0]:.2f} s, the next ones "
            f"{took[1]:.2f} and {took[2]:.2f} s, {memory:.2f} GiB at most{told}"
        )


if __name__ == "__main__":
    main()
