"""The formula against PyTorch's own counter, which sees every matrix product that runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_llama
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from tunesmith.model.adapters import prepare_method
from tunesmith.model.flops import TrainingFlops, training_flops
from tunesmith.model.last_layer import last_layer, only_at
from tunesmith.model.parts import causal_model, decoder_of
from tunesmith.model.recompute import checkpoint_activations

LENGTHS = (40, 25, 7)
SUPERVISED_OF = (10, 4, 3)
SUPERVISED = sum(SUPERVISED_OF)
EAGER = {"attn_implementation": "eager"}  # the counter knows no fused attention on CPU


def counted(model: Any) -> int:
    """FLOPs of a forward and a backward pass, one document at a time; head and last MLP at supervised tokens only."""
    model.train()
    torch.manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        hidden = []
        for length, supervised in zip(LENGTHS, SUPERVISED_OF, strict=True):
            layer, wanted = last_layer(decoder_of(model)), torch.arange(supervised)
            with only_at(layer, wanted) if layer is not None else nullcontext():
                ids = torch.randint(61, (1, length))
                here = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
            hidden.append(here[:supervised])
        logits = causal_model(model).get_output_embeddings()(torch.cat(hidden))
        F.cross_entropy(logits, torch.randint(61, (SUPERVISED,))).backward()
    return counter.get_total_flops()


def with_whole_squares(flops: TrainingFlops, lengths: Sequence[int], recomputed: bool = False) -> float:
    """What eager attention computes: all L * L pairs of a document, also those that causality hides."""
    hidden = sum(length * (length - 1) / 2 for length in lengths)
    extra = sum(pair.forward + pair.backward + recomputed * pair.again for pair in flops.pairs.values())
    return flops.of(lengths, SUPERVISED, recomputed=recomputed) + extra * hidden


def frozen_start() -> Any:
    model = tiny_llama(61, **EAGER)
    model.model.embed_tokens.requires_grad_(False)
    model.model.layers[0].requires_grad_(False)
    return model


def lora(**options: Any) -> Any:
    return prepare_method(tiny_llama(61, tie_word_embeddings=True, **EAGER), "lora", rank=4, **options)


def mixtral() -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MixtralConfig(vocab_size=61, num_key_value_heads=2, num_local_experts=4, sliding_window=None, **sizes)
    config._attn_implementation = config._experts_implementation = "eager"
    return MixtralForCausalLM(config)


def gpt2() -> Any:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, **ends, **EAGER))


@pytest.mark.parametrize(
    "build",
    [
        lambda: tiny_llama(61, tie_word_embeddings=True, **EAGER),
        lambda: tiny_llama(61, num_hidden_layers=3, head_dim=16, **EAGER),
        lora,
        lambda: lora(targets=["down_proj"]),
        frozen_start,
        mixtral,
        gpt2,
    ],
    ids=["full", "untied", "lora", "lora of one layer", "frozen start", "mixture of experts", "gpt2"],
)
def test_the_formula_counts_what_runs(build: Any) -> None:
    model = build()
    assert with_whole_squares(training_flops(model), LENGTHS) == pytest.approx(counted(model), rel=0.02)


@pytest.mark.parametrize("build", [lambda: tiny_llama(61, **EAGER), lora], ids=["full", "lora"])
def test_activation_checkpointing_computes_the_layers_again(build: Any) -> None:
    model = build()
    flops = training_flops(model)
    plain = counted(model)
    if hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()
    checkpoint_activations(model)
    again = counted(model)
    assert again > 1.1 * plain
    flops = training_flops(model)  # PEFT makes the embeddings' output carry a gradient, which costs a little
    assert with_whole_squares(flops, LENGTHS, recomputed=True) == pytest.approx(again, rel=0.02)


def test_attention_counts_the_pairs_that_are_seen() -> None:
    full, sliding = tiny_llama(61, **EAGER), tiny_llama(61, **EAGER)
    sliding.config.sliding_window = 8
    for model, window in ((full, 10**6), (sliding, 8)):
        flops = training_flops(model)
        seen = sum(int((np.arange(n)[:, None] - np.arange(n) < window)[np.tril_indices(n)].sum()) for n in LENGTHS)
        of_weights = flops.of([1] * sum(LENGTHS), 0)  # documents of one token see one pair each
        pair = flops.of([1], 0) - flops.token.forward - flops.token.backward
        assert flops.of(LENGTHS, 0) == pytest.approx(of_weights + (seen - sum(LENGTHS)) * pair)


def test_watching_leaves_the_model_as_it_was() -> None:
    model = tiny_llama(61)
    model.train()
    training_flops(model)
    assert model.training and all(not module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
