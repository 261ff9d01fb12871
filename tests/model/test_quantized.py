"""QLoRA: weights in four bits, against the same weights written out."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from tiny import byte_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tunesmith.base.errors import UserError
from tunesmith.model import quantized
from tunesmith.model.adapters import prepare_method
from tunesmith.model.load import load_base, load_trained, parameter_counts
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.model.recompute import checkpoint_activations
from tunesmith.serve.export import export_merged
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded
from tunesmith.train.save import save_model

bitsandbytes = pytest.importorskip("bitsandbytes")
IDS = torch.arange(12)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    model = tiny_llama(258, hidden_size=64, intermediate_size=128, tie_word_embeddings=True)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def tuned(base, dtype="float32", **values):
    loaded = load_base(base, dtype=dtype, quantized=True)
    model = prepare_method(loaded.model, "qlora", rank=4, **values)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model, loaded.tokenizer


def row():
    rng = np.random.default_rng(0)
    documents = [Encoded(rng.integers(0, 258, n).astype(np.int32), np.arange(n) > n // 2) for n in (9, 4, 14)]
    return PackedRow.of(make_batch(documents, range(3)), "cpu")


def by_hand(weight):
    """NF4 in blocks of 64, without the second quantisation of the blocks' scales (arXiv:2305.14314, appendix E)."""
    levels = torch.tensor(
        [
            -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
            -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
            0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
        ]
    )  # fmt: skip
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    return (levels[((blocks / scales)[..., None] - levels).abs().argmin(-1)] * scales).reshape(weight.shape)


def test_linear_layers_but_the_head_are_held_in_four_bits(base):
    model, plain = load_base(base, quantized=True).model, load_base(base).model
    for (name, module), (_, other) in zip(model.named_modules(), plain.named_modules(), strict=True):
        if isinstance(other, torch.nn.Linear) and name != "lm_head":
            assert module.weight.dtype == torch.uint8 and module.weight.numel() == other.weight.numel() // 2
            assert module.weight.quant_type == "nf4" and module.weight.quant_state.nested
        elif hasattr(other, "weight"):
            assert torch.equal(module.weight, other.weight)
    assert parameter_counts(model)[0] == sum(parameter.numel() for parameter in plain.parameters())
    for written, plain_ in zip(quantized.dequantized(model).parameters(), plain.parameters(), strict=True):
        if plain_.ndim == 2 and plain_ is not plain.get_input_embeddings().weight:
            scales = plain_.detach().abs().amax()
            torch.testing.assert_close(written, by_hand(plain_), atol=0.02 * float(scales), rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_adapter_is_fp32_and_trains_alone(base, dtype):
    model, _ = tuned(base, dtype)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert parameter_counts(model)[1] == sum(parameter.numel() for parameter in trained)
    assert model.get_base_model().model.norm.weight.dtype == getattr(torch, dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = supervised_loss(model.train(), row())
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)


def test_gradients_flow_after_an_evaluation_and_nothing_has_changed(base):
    """bitsandbytes 0.50 repacks weights when it evaluates, on some processors; then they would have no gradient."""
    model, _ = tuned(base)
    before, gradients = model(IDS).logits.detach(), []
    for _ in range(2):
        loss = supervised_loss(model.train(), row())
        gradients.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
        with torch.no_grad():
            assert torch.equal(model.eval()(IDS).logits, before)
    assert all(torch.equal(*pair) and pair[0].any() for pair in zip(*gradients, strict=True))


def test_losses_and_gradients_are_those_of_the_same_weights_written_out(base):
    model, _ = tuned(base)
    whole = prepare_method(quantized.dequantized(load_base(base, quantized=True).model), "lora", rank=4)
    whole.load_state_dict({n: p for n, p in model.state_dict().items() if "lora" in n}, strict=False)
    checkpointed = checkpoint_activations(tuned(base)[0])
    losses, gradients = [], []
    for one in (model, whole, checkpointed):
        loss = supervised_loss(one.train(), row())
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in one.parameters() if p.requires_grad]))
    for loss, gradient in zip(losses[1:], gradients[1:], strict=True):
        torch.testing.assert_close(loss, losses[0], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(gradient, gradients[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", [{}, {"dora": True}], ids=["lora", "dora"])
def test_it_is_saved_loaded_by_us_and_by_peft_and_merged_into_whole_weights(base, tmp_path, variant):
    model, tokenizer = tuned(base, **variant)
    with torch.no_grad():
        said = model.eval()(IDS).logits
    save_model(model, tokenizer, tmp_path / "model", base=base, stop_ids=[7])
    card = (tmp_path / "model/README.md").read_text()
    assert "BitsAndBytesConfig" in card and quantized.FILE in card

    config = BitsAndBytesConfig(**json.loads((tmp_path / "model" / quantized.FILE).read_text()))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=config)
    # In training mode, for in the other bitsandbytes rounds weights anew on some processors; there is no dropout.
    again = PeftModel.from_pretrained(plain, tmp_path / "model").train()
    ours = load_trained(tmp_path / "model").model
    export_merged(tmp_path / "model", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert not getattr(merged, "is_quantized", False) and not (tmp_path / "merged" / quantized.FILE).exists()
    for other in (again, ours, merged):
        with torch.no_grad():
            torch.testing.assert_close(other(IDS).logits, said, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(load_base(base).model(IDS).logits, said, atol=1e-2)


def test_the_type_of_training_is_that_of_serving(base, tmp_path):
    model, tokenizer = tuned(base, "bfloat16")
    save_model(model, tokenizer, tmp_path / "model", base=base, stop_ids=[7])
    loaded = load_trained(tmp_path / "model").model
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model.eval()(IDS).logits)


def test_other_methods_refuse_quantised_weights(base):
    for method in ("full", "lora", "prompt"):
        with pytest.raises(UserError, match=f"method {method}: the base model's weights are quantised"):
            prepare_method(load_base(base, quantized=True).model, method)


def test_without_bitsandbytes_it_says_what_to_install(base, monkeypatch):
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tunesmith\[quantized\]'"):
        load_base(base, quantized=True)
