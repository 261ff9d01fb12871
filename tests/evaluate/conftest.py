"""A byte tokenizer and a tiny random model: any text goes in, one token a byte."""

from __future__ import annotations

import pytest
from tiny import byte_tokenizer, tiny_llama
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return tiny_llama(len(tokenizer), max_position_embeddings=512, initializer_range=0.3).eval()
