"""What of rows a split has to know beyond their labels: which are near-duplicates, and how long they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation
from tunesmith.base.parallel import map_chunks
from tunesmith.data.duplicates.near import NearDuplicates
from tunesmith.data.duplicates.ngrams import Indices

NGRAM = 5  # words, as when duplicates are dropped
_ROWS_AT_ONCE = 1_000


def near_groups(rows: Sequence[Conversation], places: Indices, *, near: float, workers: int = 1) -> Indices:
    """Of each row at `places` a number; rows with the same number are linked by near-duplicates, see `near`.

    near: least Jaccard similarity of the word n-grams of both what is asked and what is answered.
    """
    return NearDuplicates(rows, places, threshold=near, size=NGRAM, over="both", workers=workers).roots()


def lengths_of(rows: Sequence[Conversation], places: Indices, *, workers: int = 1) -> NDArray[np.float64]:
    """Characters in all messages of each row at `places`."""

    def measured(part: Any) -> NDArray[np.float64]:
        return np.array(
            [sum(len(message.content) for message in rows[place].messages) for place in part.tolist()], "f8"
        )

    asked: Any = places
    return np.concatenate([np.zeros(0), *map_chunks(measured, asked, _ROWS_AT_ONCE, workers)])
