"""Bottleneck adapters, against the same computation written out by hooks, and through PEFT's own saving."""

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tunesmith.base.errors import UserError
from tunesmith.model.adapters import merge, prepare_method
from tunesmith.model.bottleneck import targets_of
from tunesmith.model.load import parameter_counts
from tunesmith.model.losses import computes_exactly

IDS = torch.arange(12)[None]


def moved(model):
    """The model with adapters that are no longer at their start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def test_it_starts_where_the_base_is_and_trains_two_adapters_a_layer(model):
    before = model(IDS).logits
    total = sum(parameter.numel() for parameter in model.parameters())
    tuned = prepare_method(model, "bottleneck", size=8)
    added = 2 * 2 * (32 * 8 + 8 + 8 * 32 + 32)
    assert parameter_counts(tuned) == (total + added, added)
    assert torch.equal(tuned(IDS).logits, before)
    assert computes_exactly(moved(tuned))


def test_adapters_stand_behind_attention_and_mlp_before_the_residual(model):
    tuned = moved(prepare_method(copy.deepcopy(model), "bottleneck", size=8))
    weights = {name: parameter for name, parameter in tuned.named_parameters() if parameter.requires_grad}

    def adapt(path):
        own = {name.split(f"{path}.bottleneck_")[1]: w for name, w in weights.items() if f".{path}." in name}

        def hook(module, inputs, output):
            x = output[0] if isinstance(output, tuple) else output
            inner = F.gelu(x @ own["down.default.weight"].T + own["down.default.bias"])
            x = x + inner @ own["up.default.weight"].T + own["up.default.bias"]
            return (x, *output[1:]) if isinstance(output, tuple) else x

        return hook

    for number, layer in enumerate(model.model.layers):
        layer.self_attn.register_forward_hook(adapt(f"layers.{number}.self_attn"))
        layer.mlp.register_forward_hook(adapt(f"layers.{number}.mlp"))
    torch.testing.assert_close(tuned(IDS).logits, model(IDS).logits)


def test_peft_saves_and_loads_it_and_can_turn_it_off(model, tmp_path):
    base = copy.deepcopy(model)
    tuned = moved(prepare_method(model, "bottleneck", size=8))
    tuned.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(again(IDS).logits, tuned(IDS).logits)
    assert not torch.allclose(again(IDS).logits, base(IDS).logits, atol=1e-2)
    with again.disable_adapter():
        assert torch.equal(again(IDS).logits, base(IDS).logits)


def test_dropout_acts_in_training_only(model):
    tuned = moved(prepare_method(model, "bottleneck", size=8, dropout=0.5)).train()
    assert not torch.equal(tuned(IDS).logits, tuned(IDS).logits)
    assert torch.equal(tuned.eval()(IDS).logits, tuned(IDS).logits)


def test_it_is_not_merged(model):
    with pytest.raises(UserError, match=r"bottleneck can't be merged: its adapters are not linear"):
        merge(prepare_method(model, "bottleneck"))


@pytest.mark.parametrize(
    ("build", "targets"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=61)), {"attn", "mlp"}),
        (
            lambda: GPTNeoForCausalLM(
                GPTNeoConfig(
                    hidden_size=32, num_layers=1, num_heads=4, vocab_size=61, attention_types=[[["global"], 1]]
                )
            ),
            {"attn", "mlp"},  # its `attn.attention` is inside
        ),
        (
            lambda: T5ForConditionalGeneration(
                T5Config(d_model=32, d_ff=48, d_kv=8, num_layers=1, num_heads=4, vocab_size=61)
            ),
            {"SelfAttention", "EncDecAttention", "DenseReluDense"},
        ),
    ],
    ids=["gpt2", "gpt_neo", "t5"],
)
def test_other_architectures(build, targets):
    model = build().eval()
    given = {"input_ids": IDS} | ({"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {})
    before = model(**given).logits
    assert targets_of(model) == targets
    tuned = prepare_method(model, "bottleneck", size=8)
    torch.testing.assert_close(tuned(**given).logits, before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moved(tuned)(**given).logits, before, atol=1e-3)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (
            lambda: OPTForCausalLM(
                OPTConfig(hidden_size=32, ffn_dim=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=61)
            ),
            r"layers of opt models have no MLP module .*fc1, fc2.*Use lora",
        ),
        (
            lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=1, n_head=4, vocab_size=61)),
            r"layers of bloom models have no attention module",
        ),
    ],
    ids=["opt", "bloom"],
)
def test_an_architecture_that_leaves_no_place_for_it_is_refused(build, said):
    with pytest.raises(UserError, match=said):
        prepare_method(build(), "bottleneck")
