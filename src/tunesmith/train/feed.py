"""What each step trains on, made ready in a thread while the step before is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tunesmith.base.ranks import Ranks
from tunesmith.model.losses import PackedRow
from tunesmith.tokens.batches import DataPlan, Sequences, make_batch


@dataclass(frozen=True, slots=True)
class StepRows:
    """One optimizer step.

    rows: the packed rows that this rank computes, on the device. lengths: of the documents, and supervised: their
    supervised tokens, over all ranks. sequences: which of the store's they are. waited: seconds that training waited.
    """

    step: int
    rows: tuple[PackedRow, ...]
    lengths: NDArray[np.int64]
    supervised: int
    sequences: NDArray[np.int64]
    waited: float = 0.0

    @property
    def tokens(self) -> int:
        """Of all documents together, without fill."""
        return int(self.lengths.sum())


class Feed:
    """The steps of a plan, the next one always being made while one is computed.

    room: fill every packed row up to so many tokens (for compiled models); 0 leaves them as they are.
    """

    def __init__(self, store: Sequences, plan: DataPlan, device: torch.device, ranks: Ranks, room: int = 0) -> None:
        self._store, self._plan, self._device, self._ranks, self._room = store, plan, device, ranks, room
        self._lengths, self._supervised = counts_of(store)

    def steps(self, first: int) -> Generator[StepRows]:
        """From step `first` to the last."""
        return ahead(self._make, range(first, self._plan.steps))

    def _make(self, step: int) -> StepRows:
        packed = self._plan.step(step)
        sequences = np.concatenate(packed)
        own = [make_batch(self._store, row) for row in packed[self._ranks.rank :: self._ranks.size]]
        if len(own) < -(-len(packed) // self._ranks.size):  # ranks compute in step: one without a row left does nothing
            silent = make_batch(self._store, packed[0])
            own.append(replace(silent, supervised=np.zeros_like(silent.supervised)))
        rows = tuple(PackedRow.of(batch, self._device, self._room) for batch in own)
        supervised = int(self._supervised[sequences].sum())
        assert supervised, "a step without a supervised token has no loss"
        return StepRows(step, rows, self._lengths[sequences], supervised, sequences)


def ahead(make: Callable[[int], StepRows], steps: range) -> Generator[StepRows]:
    """`make` of each step, in order; the next is made in a thread while one is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
        waiting: Future[StepRows] | None = pool.submit(make, steps[0]) if steps else None
        for step in steps:
            assert waiting is not None
            started = time.perf_counter()
            rows = waiting.result()
            waited = time.perf_counter() - started
            waiting = pool.submit(make, step + 1) if step + 1 < steps.stop else None
            yield replace(rows, waited=waited)


def counts_of(store: Sequences) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tokens and supervised tokens of each sequence, (sequences,) each; a token store has them at hand."""
    if hasattr(store, "lengths") and hasattr(store, "supervised_counts"):
        return store.lengths, store.supervised_counts
    pairs = [(len(sequence), int(sequence.supervised.sum())) for sequence in map(store.__getitem__, range(len(store)))]
    lengths, supervised = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return lengths, supervised
