"""Behind the last attention only what is asked for is computed: the same values and gradients, fewer products."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_llama
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tunesmith.model.adapters import prepare_method
from tunesmith.model.attention import NAME
from tunesmith.model.blank import blank_batch
from tunesmith.model.last_layer import last_layer, only_at
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.model.parts import decoder_of
from tunesmith.model.recompute import checkpoint_activations

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def build(kind, config, **changes):
    torch.manual_seed(0)
    made = config(**(SHAPE | changes))
    made._attn_implementation, made._experts_implementation = NAME, "eager"
    return kind(made)


KNOWN = {
    "llama": lambda: tiny_llama(61),
    "qwen3": lambda: build(Qwen3ForCausalLM, Qwen3Config, head_dim=8),
    "mixtral": lambda: build(MixtralForCausalLM, MixtralConfig, num_local_experts=4),
    "lora": lambda: prepare_method(tiny_llama(61), "lora", rank=4),
    "bottleneck": lambda: prepare_method(tiny_llama(61), "bottleneck"),
    "prompt": lambda: prepare_method(tiny_llama(61), "prompt"),
    "checkpointed": lambda: checkpoint_activations(tiny_llama(61)),
}


def found(model, row):
    model.zero_grad()
    loss = supervised_loss(model, row)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", KNOWN)
def test_loss_and_gradient_are_those_of_the_whole_layer(name, monkeypatch):
    model = KNOWN[name]().double().train()
    row = PackedRow.of(blank_batch((20, 3, 31), 0.3), "cpu")
    assert last_layer(decoder_of(model)) is not None
    seen = []
    last_layer(decoder_of(model)).mlp.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    loss, gradients = found(model, row)
    assert set(seen) == {len(row.targets)} and len(row.targets) < 54
    monkeypatch.setattr("tunesmith.model.hidden.last_layer", lambda decoder: None)
    expected, theirs = found(model, row)
    assert max(seen) >= 54
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, theirs[parameter], rtol=1e-9, atol=1e-12)


def test_a_row_without_supervised_tokens_has_gradients_of_zero():
    model = tiny_llama(61).train()
    loss, gradients = found(model, PackedRow.of(replace(blank_batch((5, 4), 0.3), supervised=np.zeros(9, bool)), "cpu"))
    assert loss == 0 and not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize(
    "model",
    [build(Gemma2ForCausalLM, Gemma2Config, head_dim=8), build(GraniteForCausalLM, GraniteConfig)],
    ids=["norms behind the parts", "scaled residuals"],
)
def test_layers_that_compute_otherwise_are_left_alone(model):
    assert last_layer(decoder_of(model)) is None


def test_the_layer_is_whole_again_afterwards():
    model = tiny_llama(61)
    layer, hidden = last_layer(decoder_of(model)), torch.zeros(1, 4, 32)
    with pytest.raises(ZeroDivisionError), only_at(layer, torch.tensor([1])):
        raise ZeroDivisionError
    assert "forward" not in vars(layer) and last_layer(decoder_of(model)) is layer
    assert decoder_of(model)(inputs_embeds=hidden).last_hidden_state.shape == (1, 4, 32)
