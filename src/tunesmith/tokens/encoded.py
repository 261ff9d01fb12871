"""`Encoded`: the pair of arrays that crosses every boundary of the token half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int, int]  # message, start, end


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One sequence: token ids and which of them are supervised.

    ids: int32, (length,).
    supervised: bool, (length,). True trains. The first token is never supervised: nothing comes before it
        from which it could be predicted.
    turns: (message, start, end) of each supervised span, in order; `message` is the index in the conversation, and
        ids[start:end] is what the model must produce there. A sequence of plain text is one span.
    """

    ids: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    turns: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        assert self.ids.dtype == np.int32 and self.supervised.dtype == np.bool_, (
            "Encoded takes int32 ids and bool flags"
        )
        assert self.ids.shape == self.supervised.shape and self.ids.ndim == 1, "ids and supervised differ in shape"
        assert not self.supervised[:1].any(), "the first token of a sequence can't be supervised"

    @classmethod
    def from_spans(cls, ids: list[int] | NDArray[np.int32], turns: tuple[Span, ...]) -> Encoded:
        """A sequence whose supervised tokens are exactly those of `turns`."""
        array = np.asarray(ids, dtype=np.int32)
        supervised = np.zeros(len(array), dtype=np.bool_)
        for _, start, end in turns:
            supervised[start:end] = True
        return cls(array, supervised, turns)

    def of_messages(self, origins: Sequence[int]) -> Encoded:
        """The same tokens; message i of the spans is named `origins[i]`."""
        turns = tuple((origins[message], start, end) for message, start, end in self.turns)
        return Encoded(self.ids, self.supervised, turns)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Encoded)
            and self.turns == other.turns
            and np.array_equal(self.ids, other.ids)
            and np.array_equal(self.supervised, other.supervised)
        )

    __hash__ = None  # type: ignore[assignment]
