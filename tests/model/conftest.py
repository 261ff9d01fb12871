"""A tiny Llama whose attention packs, and its twin with the attention of Transformers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.model.attention import NAME


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=61,
        tie_word_embeddings=True,
        attn_implementation=NAME,
    )
    return LlamaForCausalLM(config)


@pytest.fixture
def stock(model: Any) -> Any:
    """The same weights, attending as Transformers does."""
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("eager")
    return twin
