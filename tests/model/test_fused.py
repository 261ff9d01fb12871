"""Parts of models in fused forms, against Transformers' own."""

import copy
import sys

import pytest
import torch
from tiny import tiny_llama, tiny_t5
from torch import nn
from transformers import AutoModelForCausalLM, GemmaConfig, GPTNeoXConfig, Phi3Config, Qwen2Config, Qwen3Config
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tunesmith.model.adapters import prepare_method
from tunesmith.model.attention import NAME, Layout, packed
from tunesmith.model.fused import fused
from tunesmith.model.recompute import checkpoint_activations

SMALL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "attn_implementation": NAME,
}


def gradients(model, ids):
    model.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def patched(model):
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


def random_ids(seed=0, shape=(1, 40)):
    return torch.randint(1, 61, shape, generator=torch.Generator().manual_seed(seed))


def of(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SMALL, num_key_value_heads=2))
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.2)  # norms that are not all ones
    return model


def held_equal(model, ids):
    expected = gradients(copy.deepcopy(model), ids)
    with fused(model):
        changed, found = patched(model), gradients(model, ids)
    assert not patched(model)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    return changed


@pytest.mark.parametrize("config", [Qwen2Config, Qwen3Config])
def test_norms_and_gated_mlps_equal_their_own(config):
    changed = held_equal(of(config), random_ids())
    norms = 13 - 4 * (config is Qwen2Config) - 4  # two a layer and the last; Qwen3 has two more on queries and keys
    assert sum("norm" in name for name in changed) == norms
    assert sum(name.endswith("mlp") for name in changed) == 2


@pytest.mark.parametrize("width", [64, 384, 2048])
def test_wide_norms_are_recognised(width):
    """Rounding grows with the width, and so do the numbers."""
    torch.manual_seed(0)
    norm = LlamaRMSNorm(width, eps=1e-6)
    with fused(norm):
        assert patched(norm) == [""]
    for other in (LlamaRMSNorm(width, eps=1e-4), GemmaRMSNorm(width, eps=1e-6)):
        with fused(nn.ModuleList([norm, other])):
            assert "forward" in vars(norm)
            assert ("forward" in vars(other)) == isinstance(other, LlamaRMSNorm)


@pytest.mark.parametrize("config", [GemmaConfig, GPTNeoXConfig, Phi3Config])
def test_what_computes_otherwise_is_left_alone(config):
    model = of(config)
    changed = held_equal(model, random_ids())
    if config is not Phi3Config:  # whose norms are plain
        assert not any("norm" in name for name in changed)
    if config is not GemmaConfig:
        assert not any(name.endswith("mlp") for name in changed)


def test_encoder_decoders_and_adapters_equal_their_own():
    model = tiny_t5(61)
    assert held_equal(model, random_ids(shape=(2, 9)))
    lora = prepare_method(tiny_llama(61), "lora", rank=4, alpha=8.0)
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    assert any(name.endswith("mlp") for name in held_equal(lora, random_ids()))


def test_rotary_embeddings_are_replaced_within_and_put_back():
    model = tiny_llama(61)
    file = sys.modules[type(model).__module__]
    own = file.apply_rotary_pos_emb
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 4, 9, 8, generator=generator), torch.randn(1, 2, 9, 8, generator=generator)
    cos, sin = (torch.randn(1, 9, 8, generator=generator) for _ in range(2))
    with pytest.raises(RuntimeError, match="in between"), fused(model):
        assert file.apply_rotary_pos_emb is not own
        for found, expected in zip(file.apply_rotary_pos_emb(q, k, cos, sin), own(q, k, cos, sin), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        halves = q.bfloat16(), k.bfloat16(), cos, sin  # not taken: bit for bit its own
        assert all(map(torch.equal, file.apply_rotary_pos_emb(*halves), own(*halves)))
        raise RuntimeError("in between")
    assert file.apply_rotary_pos_emb is own
    assert not patched(model)


def test_bf16_by_autocast_equals_its_own():
    model, ids = tiny_llama(61), random_ids()
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(copy.deepcopy(model), ids)
        with fused(model):
            found = gradients(model, ids)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0.05, atol=2e-3, msg=name)


def test_a_norm_by_another_formula_a_changed_mlp_and_halves_are_left_alone():
    model = tiny_llama(61)
    norm, mlp = type(model.model.norm), type(model.model.layers[0].mlp)

    class Shifted(norm):
        def forward(self, x):
            return super().forward(x) + 1e-4

    class Clamped(mlp):
        def forward(self, x):
            return self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=0.5)) * self.up_proj(x))

    model.model.norm.__class__, model.model.layers[0].mlp.__class__ = Shifted, Clamped
    model.model.layers[1].input_layernorm.bfloat16()
    with fused(model):
        assert set(patched(model)) == {
            "model.layers.0.input_layernorm",
            "model.layers.0.post_attention_layernorm",
            "model.layers.1.post_attention_layernorm",
            "model.layers.1.mlp",
        }


def test_less_is_kept_for_the_backward_pass():
    model, ids = tiny_llama(61, intermediate_size=256), random_ids()

    def kept():
        storages = {}

        def pack(tensor):
            storages[tensor.untyped_storage()._cdata] = tensor  # held, so that no address comes twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), packed(Layout.of([40])):
            model.model(input_ids=ids)
        return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())

    before = kept()
    with fused(model):
        assert kept() <= before - 2 * 2 * 40 * 256 * 4  # of each layer the activation and the product


def test_layers_that_are_computed_twice_keep_their_mlp():
    with fused(model := checkpoint_activations(tiny_llama(61))):
        assert any("norm" in name for name in patched(model))
        assert not any(name.endswith("mlp") for name in patched(model))
