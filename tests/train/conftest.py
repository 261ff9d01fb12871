"""A tiny model and a small store of sequences that it can learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny import tiny_llama

from tunesmith.tokens.batches import DataPlan, plan_epochs
from tunesmith.tokens.encoded import Encoded
from tunesmith.train.settings import TrainSettings


@pytest.fixture
def build() -> Callable[[], Any]:
    """The same model every time."""
    return lambda: tiny_llama(61, tie_word_embeddings=True)


@pytest.fixture
def store() -> list[Encoded]:
    """Counting upwards, of which only the second half is supervised."""
    rng = np.random.default_rng(0)
    sequences = []
    for length in rng.integers(6, 30, size=60):
        ids = (rng.integers(61) + np.arange(length)) % 61
        sequences.append(Encoded(ids.astype(np.int32), np.arange(length) >= length // 2))
    return sequences


@pytest.fixture
def plan(store: list[Encoded]) -> Callable[..., DataPlan]:
    lengths = np.array([len(sequence) for sequence in store])

    def planned(settings: TrainSettings, epochs: int = 2) -> DataPlan:
        return plan_epochs(
            lambda epoch: np.random.default_rng(epoch).permutation(len(store)),
            lengths,
            tokens_per_batch=settings.tokens_per_batch,
            batches_per_step=settings.batches_per_step,
            epochs=epochs,
            seed=settings.seed,
        )

    return planned
