"""Methods as ways of preparing a model: what trains, in which type, and what LoRA's variants compute."""

import copy

import pytest
import torch
from tiny import tiny_llama
from transformers import GPT2Config, GPT2LMHeadModel

from tunesmith.base.errors import UserError
from tunesmith.model.adapters import Method, merge, prepare_method
from tunesmith.model.attention import NAME
from tunesmith.model.load import parameter_counts
from tunesmith.model.losses import computes_exactly

IDS = torch.arange(12)[None]


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def moved(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1 * ("magnitude" not in name))
    return model


def test_frozen_parts_of_a_full_model():
    untied = tiny_llama(61)
    everything = trained(prepare_method(untied, "full"))
    assert everything == {name for name, _ in untied.named_parameters()}
    frozen = prepare_method(untied, Method("full", freeze_embeddings=True, freeze_layers=1))
    left = trained(frozen)
    assert everything - left == {"model.embed_tokens.weight"} | {n for n in everything if ".layers.0." in n}
    assert "lm_head.weight" in left and parameter_counts(frozen)[1] == sum(
        p.numel() for n, p in frozen.named_parameters() if n in left
    )


def test_frozen_embeddings_freeze_a_head_tied_to_them(model):
    assert model.lm_head.weight is model.model.embed_tokens.weight
    prepare_method(model, "full", freeze_embeddings=True)
    assert not model.lm_head.weight.requires_grad
    prepare_method(model, "full")
    assert model.lm_head.weight.requires_grad


def test_more_frozen_layers_than_there_are(model):
    prepare_method(model, "full", freeze_layers=2)
    with pytest.raises(UserError, match=r"freeze\.layers 3: this model has 2"):
        prepare_method(model, "full", freeze_layers=3)


@pytest.mark.parametrize(("rslora", "scale"), [(False, 32 / 4), (True, 32 / 4**0.5)])
def test_the_scale_of_an_adapter(model, rslora, scale):
    base = copy.deepcopy(model)
    tuned = moved(prepare_method(model, "lora", rank=4, alpha=32, targets=["down_proj"], rslora=rslora))
    for number, layer in enumerate(base.model.layers):
        lora = tuned.base_model.model.model.layers[number].mlp.down_proj
        with torch.no_grad():
            layer.mlp.down_proj.weight += scale * lora.lora_B["default"].weight @ lora.lora_A["default"].weight
    torch.testing.assert_close(tuned(IDS).logits, base(IDS).logits)


def test_dora_trains_the_length_of_each_weight_row_apart(model):
    base = copy.deepcopy(model)
    tuned = moved(prepare_method(model, "lora", rank=4, alpha=8, targets=["down_proj"], dora=True))
    lengths = {name: p for name, p in tuned.named_parameters() if "magnitude" in name and p.requires_grad}
    assert len(lengths) == 2
    for number, layer in enumerate(base.model.layers):
        lora = tuned.base_model.model.model.layers[number].mlp.down_proj
        with torch.no_grad():
            length = lora.lora_magnitude_vector["default"].weight
            length *= 1.5
            weight = layer.mlp.down_proj.weight + 2 * lora.lora_B["default"].weight @ lora.lora_A["default"].weight
            layer.mlp.down_proj.weight.copy_(length[:, None] * weight / weight.norm(dim=1, keepdim=True))
    torch.testing.assert_close(tuned.eval()(IDS).logits, base(IDS).logits)


@pytest.mark.parametrize("variant", [{}, {"rslora": True}, {"dora": True}], ids=["lora", "rslora", "dora"])
def test_merging_keeps_what_the_model_says(model, variant):
    tuned = moved(prepare_method(model, "lora", rank=4, **variant)).eval()
    said = tuned(IDS).logits
    torch.testing.assert_close(merge(tuned)(IDS).logits, said)


@pytest.mark.parametrize("method", ["full", "lora", "bottleneck", "prompt", "p_tuning", "prefix"])
def test_trained_parameters_are_fp32_and_frozen_ones_as_they_were_loaded(method):
    model = prepare_method(tiny_llama(61).to(torch.bfloat16).eval(), method)
    assert not model.training
    types = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert types == ({True: torch.float32} if method == "full" else {True: torch.float32, False: torch.bfloat16})
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert computes_exactly(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model(IDS).logits).all()


@pytest.mark.parametrize(
    ("method", "said"),
    [("prompt", "virtual tokens are no weights"), ("p_tuning", "virtual tokens"), ("prefix", "virtual tokens")],
)
def test_virtual_tokens_are_not_merged(model, method, said):
    with pytest.raises(UserError, match=f"method {method} can't be merged: {said}"):
        merge(prepare_method(model, method))


def test_the_head_as_a_target():
    tuned = prepare_method(tiny_llama(61), "lora", targets=["lm_head"])
    assert computes_exactly(moved(tuned))
    with pytest.raises(UserError, match=r"lora targets lm_head: .*token embedding.*Take it out"):
        prepare_method(tiny_llama(61, tie_word_embeddings=True), "lora", targets=["q_proj", "lm_head"])


def test_layers_that_are_stored_the_other_way_round():
    """GPT-2 keeps the transposed weights, in a class of its own."""
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=61, attn_implementation=NAME)
    model = GPT2LMHeadModel(config).eval()
    tuned = moved(prepare_method(model, "lora", rank=4))
    said = tuned(IDS).logits
    assert computes_exactly(tuned)
    torch.testing.assert_close(merge(tuned)(IDS).logits, said)
    with pytest.raises(UserError, match=r"query: this model.*It has c_attn"):
        prepare_method(GPT2LMHeadModel(config), "lora", targets=["query"])


def test_qlora_needs_quantised_weights(model):
    with pytest.raises(UserError, match="method qlora: the base model was loaded without quantisation"):
        prepare_method(model, "qlora")
