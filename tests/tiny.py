"""The tiny model and tokenizer that the tests share."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from tunesmith.model.attention import NAME
from tunesmith.tokens.rendering import shipped_template


def tiny_llama(vocab_size: int, *, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A Llama of two layers, the same for the same seed. changes: of its configuration."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # threads only get in each other's way in so small a model
    config: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attn_implementation": NAME,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **(config | changes)))


def tiny_t5(vocab_size: int, *, seed: int = 0, **changes: Any) -> T5ForConditionalGeneration:
    """An encoder-decoder of two layers each, without dropout; its decoder starts from token 0, as T5's do."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config: dict[str, Any] = {
        "d_model": 32,
        "d_kv": 8,
        "num_heads": 4,
        "d_ff": 48,
        "num_layers": 2,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
        "relative_attention_num_buckets": 8,
    }
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size, **(config | changes))).eval()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Any text goes in, a token a byte; <s> and </s> are 256 and 257. Its chat template is Alpaca's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    backend.add_special_tokens(["<s>", "</s>"])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = shipped_template("alpaca")
    return tokenizer
