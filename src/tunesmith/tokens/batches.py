"""Batches: which sequences each optimizer step trains on, and the arrays of one packed row."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.packing import Packing, pack


class Sequences(Protocol):
    """A token store, or a list of sequences."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Encoded: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """One packed row: whole documents one after another, without padding.

    ids: int64, (tokens,). positions: int64, (tokens,), from 0 in each document.
    supervised: bool, (tokens,). The target at t is predicted from t - 1 in the same document, so a document's first
        token is never supervised.
    lengths: int64, (documents,), tokens of each document. sequences: int64, (documents,), its index in the store.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    supervised: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    sequences: NDArray[np.int64]

    @property
    def supervised_count(self) -> int:
        return int(self.supervised.sum())


def make_batch(store: Sequences, indices: Sequence[int] | NDArray[np.integer]) -> Batch:
    """The packed row of the sequences `indices`, in that order."""
    chosen = [store[int(index)] for index in indices]
    lengths = np.array([len(sequence) for sequence in chosen], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    return Batch(
        ids=np.concatenate([sequence.ids for sequence in chosen]).astype(np.int64),
        positions=np.arange(lengths.sum(), dtype=np.int64) - np.repeat(starts, lengths),
        supervised=np.concatenate([sequence.supervised for sequence in chosen]),
        lengths=lengths,
        sequences=np.asarray(indices, dtype=np.int64),
    )


@dataclass(frozen=True, slots=True)
class DataPlan:
    """The packed rows of every optimizer step, known before training and never a matter of generator state.

    Rows flow on from one epoch to the next: a step that an epoch leaves incomplete is filled from the next, so that
    only the very last step of a run can be smaller. Resuming needs the number of the next step and nothing else.

    epochs: of each epoch, its packing and the order the packing's indices point into.
    """

    epochs: tuple[tuple[Packing, NDArray[np.int64]], ...]
    ends: tuple[int, ...]
    batches_per_step: int

    @property
    def steps(self) -> int:
        return -(-self.ends[-1] // self.batches_per_step) if self.ends else 0

    @property
    def rows(self) -> int:
        return self.ends[-1] if self.ends else 0

    @property
    def tokens(self) -> int:
        """Tokens of all steps together."""
        return sum(packing.tokens for packing, _ in self.epochs)

    @property
    def efficiency(self) -> float:
        """The share of the packed rows' room that holds tokens."""
        room = sum(len(packing) * packing.budget for packing, _ in self.epochs)
        return self.tokens / room if room else 1.0

    def step(self, index: int) -> list[NDArray[np.int64]]:
        """The packed rows of one step, each an array of indices in the store."""
        if not 0 <= index < self.steps:
            raise IndexError(f"step {index} of a plan of {self.steps}")
        first = index * self.batches_per_step
        return [self._row(row) for row in range(first, min(first + self.batches_per_step, self.rows))]

    def epoch(self, index: int) -> float:
        """How many epochs have been seen once step `index` is done; 1.5 is halfway through the second."""
        row = min((index + 1) * self.batches_per_step, self.rows)
        epoch = min(bisect_right(self.ends, row), len(self.ends) - 1)
        start = self.ends[epoch - 1] if epoch else 0
        return epoch + (row - start) / (self.ends[epoch] - start)

    def _row(self, row: int) -> NDArray[np.int64]:
        epoch = bisect_right(self.ends, row)
        packing, order = self.epochs[epoch]
        return order[packing[row - (self.ends[epoch - 1] if epoch else 0)]]


def plan_epochs(
    order_of_epoch: Callable[[int], NDArray[np.integer]],
    lengths: NDArray[np.integer],
    *,
    tokens_per_batch: int,
    batches_per_step: int,
    epochs: float,
    seed: int,
) -> DataPlan:
    """Plan every optimizer step of a run.

    order_of_epoch: the store's indices that epoch e trains on, repeats included; a pure function of e.
    lengths: tokens of each sequence of the store, (sequences,).
    tokens_per_batch: room of one packed row. batches_per_step: packed rows of one optimizer step.
    epochs: may be a fraction; half an epoch is the first half of its order.

    Raises UserError if a sequence is longer than `tokens_per_batch`.
    """
    assert epochs > 0 and batches_per_step > 0, "a plan needs epochs and rows"
    lengths = np.asarray(lengths, dtype=np.int64)
    planned: list[tuple[Packing, NDArray[np.int64]]] = []
    for epoch in range(math.ceil(epochs)):
        order = np.asarray(order_of_epoch(epoch), dtype=np.int64)
        order = order[: math.ceil(len(order) * min(1.0, epochs - epoch))]
        if len(order):
            planned.append((pack(lengths[order], tokens_per_batch, seed=seed, epoch=epoch), order))
    ends = np.cumsum([len(packing) for packing, _ in planned], dtype=np.int64)
    return DataPlan(tuple(planned), tuple(ends.tolist()), batches_per_step)
