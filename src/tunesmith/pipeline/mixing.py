"""Which sequences are trained on, how often and in which order: the mixture, replay, and the plan of every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tunesmith.data.draw import draw
from tunesmith.data.mix import WORKED, MixPlan, Share, Strategic, plan_mix
from tunesmith.recipe.data import Mix
from tunesmith.recipe.models import Recipe
from tunesmith.tokens.batches import DataPlan
from tunesmith.tokens.store import TokenStore

REPLAY = "replay"  # the source of replayed texts
HISTOGRAM = (0, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


@dataclass(frozen=True, slots=True)
class Members:
    """The rows that may be trained on, in the store's order; a row's sequences lie side by side.

    names: their ids. first, count (rows,): of each row, its first sequence and how many there are. tokens (rows,).
    groups: the rows of each group. replayed: those of plain text.
    """

    names: pa.Array
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    tokens: NDArray[np.int64]
    groups: dict[str, NDArray[np.int64]]
    replayed: NDArray[np.int64]

    def sequences(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """All sequences of these rows, in order."""
        count = self.count[rows]
        ends = np.cumsum(count)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
        found: NDArray[np.int64] = np.repeat(self.first[rows], count) + within
        return found


def members_of(store: TokenStore, held_out: Sequence[str], worked: Sequence[str] = ()) -> Members:
    """worked: the ids of rows with worked reasoning, where the mixture tells them apart."""
    names = store.rows["row"].combine_chunks()
    starts = np.flatnonzero(np.append(True, pc.not_equal(names[1:], names[:-1]).to_numpy(zero_copy_only=False)))
    starts = starts[: len(names)]
    count = np.diff(np.append(starts, len(names)))
    tokens = np.add.reduceat(store.lengths, starts) if len(starts) else starts
    names = names.take(pa.array(starts))
    trained = ~pc.is_in(names, pa.array(held_out, pa.string())).to_numpy(zero_copy_only=False)
    names, starts, count, tokens = names.filter(pa.array(trained)), starts[trained], count[trained], tokens[trained]
    again = pc.starts_with(names, f"{REPLAY}:").to_numpy(zero_copy_only=False)
    found = store.rows["cluster"].combine_chunks().take(pa.array(starts)).dictionary_encode()
    shown = pc.is_in(names, pa.array(worked, pa.string())).to_numpy(zero_copy_only=False)
    codes = 2 * found.indices.to_numpy(zero_copy_only=False).astype(np.int64) + shown
    codes[again] = -1
    by_code = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[by_code], np.arange(-1, 2 * len(found.dictionary)), side="right")
    called = [name + behind for name in found.dictionary.to_pylist() for behind in ("", WORKED)]
    bounds = zip(called, ends[:-1], ends[1:], strict=True)
    groups = {name: by_code[start:end] for name, start, end in bounds if end > start}
    return Members(names, starts, count, tokens, dict(sorted(groups.items())), np.flatnonzero(again))


def mixture_of(recipe: Recipe, members: Members) -> tuple[Callable[[int], NDArray[np.int64]], dict[str, Any]]:
    """The order of each epoch's sequences, and the mixture as planned and as drawn in the first epoch."""
    mix, replay, seed = recipe.data.mix, recipe.data.replay, recipe.seed
    tokens = members.tokens
    plan = _plan(mix, members)
    wanted = replay.share if replay else 0.0
    replay_plan = _replay_plan(plan, members, wanted)
    replayed = {REPLAY: members.replayed}

    def instructed(epoch: int) -> NDArray[np.int64]:
        return draw(plan, members.groups, seed=seed, epoch=epoch, tokens=tokens)

    def order(epoch: int) -> NDArray[np.int64]:
        rows = instructed(epoch)
        if replay_plan:
            rows = np.concatenate([rows, draw(replay_plan, replayed, seed=seed, epoch=epoch)])
        return members.sequences(rows)

    first = instructed(0)
    again = tokens[draw(replay_plan, replayed, seed=seed, epoch=0)].sum() if replay_plan else 0
    mixture = {
        "by": mix.by,
        "strategy": mix.strategy,
        "temperature": mix.temperature if math.isfinite(mix.temperature) else "inf",  # JSON has no infinity
        "unit": plan.unit,
        "cap": mix.cap,
        "reasoning": mix.reasoning,
        "groups": _groups(plan, members, first),
        "replay": {
            "planned": wanted,
            "drawn": float(again / (again + tokens[first].sum())),
            "tokens": int(again),
            "repeats": replay_plan.groups[REPLAY].drawn / len(members.replayed) if replay_plan else 0.0,
        }
        if replay
        else None,
    }
    return order, mixture


def _plan(mix: Mix, members: Members) -> MixPlan:
    """How much of each group an epoch draws, in the recipe's unit."""

    def size(name: str) -> int:
        rows = members.groups.get(name, members.replayed[:0])
        return int(members.tokens[rows].sum()) if mix.unit == "tokens" else len(rows)

    names = sorted(
        {name.removesuffix(WORKED) for name in members.groups} if mix.reasoning is not None else members.groups
    )
    worked = {name: size(name + WORKED) for name in names} if mix.reasoning is not None else {}
    return plan_mix(
        {name: size(name) + worked.get(name, 0) for name in names},
        Strategic(mix.strategy, mix.temperature, mix.weights, mix.normalise, mix.cap),
        max_repeats=mix.max_repeats,
        total=mix.total,
        unit=mix.unit,
        worked=worked,
        reasoning=mix.reasoning,
    )


def _groups(plan: MixPlan, members: Members, drawn: NDArray[np.int64]) -> dict[str, dict[str, Any]]:
    """Of each group: what it has, the share that was planned (in the unit), and the share of what an epoch drew."""
    times = np.bincount(drawn, minlength=len(members.tokens))
    all_rows, all_tokens = len(drawn), int(members.tokens[drawn].sum())

    def told(name: str, share: Share) -> dict[str, Any]:
        rows = members.groups.get(name, members.replayed[:0])
        count, tokens = int(times[rows].sum()), int(times[rows] @ members.tokens[rows])
        of_rows, of_tokens = count / max(all_rows, 1), tokens / max(all_tokens, 1)
        return {
            "rows": len(rows),
            "tokens": int(members.tokens[rows].sum()),
            "planned": share.planned,
            "drawn": count,
            "drawn_tokens": tokens,
            "share": of_tokens if plan.unit == "tokens" else of_rows,
            "share_of_rows": of_rows,
            "share_of_tokens": of_tokens,
            "repeats": count / len(rows) if len(rows) else 0.0,
            "capped": share.capped,
        }

    return {name: told(name, share) for name, share in plan.groups.items() if share.size or share.planned}


def _replay_plan(plan: MixPlan, members: Members, share: float) -> MixPlan | None:
    """How many documents an epoch replays, so that they make up `share` of its tokens on average."""
    replayed, tokens = members.replayed, members.tokens
    if not share or not len(replayed):
        return None
    instructed: float = plan.total
    if plan.unit == "rows":
        instructed = sum(plan.groups[group].drawn * tokens[rows].mean() for group, rows in members.groups.items())
    wanted = share / (1 - share) * instructed
    count = max(round(wanted / tokens[replayed].mean()), 1)
    return plan_mix({REPLAY: len(replayed)}, total=count, max_repeats=float("inf"))


def times_drawn(plan: DataPlan, members: Members, sequences: int) -> NDArray[np.int64]:
    """How often each row is trained on in all epochs together."""
    orders = [order for _, order in plan.epochs]
    counts = np.bincount(np.concatenate(orders), minlength=sequences) if orders else np.zeros(sequences, np.int64)
    return counts[members.first]


def summary_of(store: TokenStore, plan: DataPlan, budget: int) -> dict[str, Any]:
    """What tokens/summary.json says of the rows of the store, replayed and held-out ones included."""
    longest = int(store.lengths.max(initial=0))
    edges = sorted({edge for edge in HISTOGRAM if edge <= longest} | {longest + 1})
    return {
        "sources": _counts(store, pc.replace_substring_regex(store.rows["row"], ":[^:]*$", "")),
        "clusters": _counts(store, store.rows["cluster"].cast(pa.string())),
        "sequences": len(store),
        "tokens": store.tokens,
        "supervised": int(store.supervised_counts.sum()),
        "packing": {"efficiency": plan.efficiency, "rows": plan.rows, "budget": budget},
        "lengths": {"edges": edges, "counts": np.histogram(store.lengths, bins=edges)[0].tolist()},
    }


def _counts(store: TokenStore, names: pa.ChunkedArray) -> dict[str, dict[str, int]]:
    """Rows, tokens and supervised tokens by name."""
    wanted = {"rows": ("row", "count_distinct"), "tokens": ("length", "sum"), "supervised": ("supervised", "sum")}
    found = store.rows.append_column("name", names).group_by("name").aggregate(list(wanted.values())).sort_by("name")
    columns = [found[f"{column}_{kind}"].to_pylist() for column, kind in wanted.values()]
    rows = zip(found["name"].to_pylist(), *columns, strict=True)
    return {name: dict(zip(wanted, numbers, strict=True)) for name, *numbers in rows}
