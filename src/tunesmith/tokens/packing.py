"""Packing: whole sequences into rows of at most `budget` tokens, anew every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.errors import UserError
from tunesmith.base.random import stream

LARGE_SHARE = 8
"""Sequences longer than budget / LARGE_SHARE are placed first, longest first; see `pack`."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Rows of sequences: row r holds the sequences order[starts[r] : starts[r + 1]].

    order: int64, (sequences,), every sequence exactly once. starts: int64, (rows + 1,). tokens: sum of all lengths.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    tokens: int
    budget: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> NDArray[np.int64]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.order[self.starts[row] : self.starts[row + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self[row] for row in range(len(self)))

    @property
    def efficiency(self) -> float:
        """The share of the rows' room that holds tokens."""
        return self.tokens / (len(self) * self.budget) if len(self) else 1.0


def pack(lengths: NDArray[np.integer], budget: int, *, seed: int, epoch: int) -> Packing:
    """Pack sequences of the given lengths (tokens, (sequences,)) into rows of `budget` tokens by best fit.

    Nothing is cut, dropped or repeated. The result is a pure function of the arguments; seed and epoch choose which
    sequences meet in a row and the order of the rows. Best fit over the whole epoch: each sequence goes to the row it
    leaves fullest. Long ones go first, longest first, for they decide the efficiency; short ones fill up in random
    order, because best fit *decreasing* all the way would gather the shortest sequences, often of one task, in the
    same rows and so in the same steps.

    Raises UserError if a sequence is longer than `budget`.
    """
    tokens = np.asarray(lengths, dtype=np.int64)
    _check(tokens, budget)
    random = stream(seed, "pack", epoch)
    shuffled = random.permutation(len(tokens))
    large = tokens[shuffled] > budget // LARGE_SHARE
    longest_first = shuffled[large][np.argsort(-tokens[shuffled[large]], kind="stable")]
    placed = np.concatenate([longest_first, shuffled[~large]])
    row_of, rows = _best_fit(tokens[placed].tolist(), budget)
    # Rows are renumbered at random; a stable sort by row number then lines the sequences up.
    row_of = random.permutation(rows)[row_of]
    return Packing(
        order=placed[np.argsort(row_of, kind="stable")],
        starts=np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=rows))]),
        tokens=int(tokens.sum()),
        budget=budget,
    )


def _best_fit(lengths: list[int], budget: int) -> tuple[NDArray[np.int64], int]:
    """The row of each sequence, placed in the given order, and the number of rows.

    `free` is a set of integers held as bits: bit r is set when some open row has r tokens of room. The tightest room
    for n tokens is then the lowest set bit at or above n, two machine-speed operations whatever the number of rows.
    """
    row_of = [0] * len(lengths)
    open_rows: list[list[int]] = [[] for _ in range(budget + 1)]
    free = 0
    rows = 0
    for index, length in enumerate(lengths):
        fitting = free >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                free ^= 1 << room
        else:
            room, row = budget, rows
            rows += 1
        row_of[index] = row
        left = room - length
        if left and not open_rows[left]:
            free |= 1 << left
        open_rows[left].append(row)
    return np.asarray(row_of, dtype=np.int64), rows


def _check(lengths: NDArray[np.int64], budget: int) -> None:
    assert not len(lengths) or lengths.min() > 0, "a sequence without tokens can't be packed"
    if len(lengths) and lengths.max() > budget:
        longest, count = int(lengths.argmax()), int((lengths > budget).sum())
        raise UserError(
            f"{count} sequence(s) are longer than a packed row of {budget} tokens (the longest, number {longest}, has "
            f"{lengths[longest]}), and sequences are never cut. Raise train.tokens_per_batch or lower train.max_length."
        )
