"""A tiny Llama whose attention packs, and its twin with the attention of Transformers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tiny import tiny_llama


@pytest.fixture
def model() -> Any:
    return tiny_llama(61, tie_word_embeddings=True)


@pytest.fixture
def stock(model: Any) -> Any:
    """The same weights, attending as Transformers does."""
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    return twin
