"""Activation checkpointing: the same losses and gradients, from less memory."""

import copy

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tunesmith.base.errors import UserError
from tunesmith.model.adapters import prepare_method
from tunesmith.model.attention import NAME
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.model.recompute import checkpoint_activations
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded


def row():
    rng = np.random.default_rng(0)
    documents = [Encoded(rng.integers(0, 61, n).astype(np.int32), np.arange(n) > n // 2) for n in (9, 4, 14, 8)]
    return PackedRow.of(make_batch(documents, range(4)), "cpu")


def outcome(model):
    """Loss and gradients by name; the backward pass runs outside of `packed`, as in training."""
    torch.manual_seed(3)
    model.train().zero_grad()
    loss = supervised_loss(model, row())
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


METHODS = {
    "full": {},
    "lora": {"dropout": 0.3},
    "bottleneck": {"dropout": 0.3, "size": 8},
    "prompt": {"tokens": 3},
    "prefix": {"tokens": 3},
}


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_without(model, method):
    prepared = prepare_method(model, method, **METHODS[method])
    twice = checkpoint_activations(copy.deepcopy(prepared))
    loss, gradients = outcome(prepared)
    loss_, gradients_ = outcome(twice)
    assert gradients.keys() == gradients_.keys() and gradients
    torch.testing.assert_close(loss_, loss, atol=1e-6, rtol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_[name], gradient, atol=1e-6, rtol=1e-6)


def test_a_copy_computes_with_its_own_weights(model):
    """`copy.deepcopy` of a prepared model must not go on using the layers of the original."""
    prepared = checkpoint_activations(model)
    other = copy.deepcopy(prepared)
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.zero_()
    assert not torch.equal(outcome(prepared)[0], outcome(other)[0])


def test_less_is_kept_for_the_backward_pass(model):
    def kept(model):
        sizes = {}

        def keep(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = supervised_loss(model.train(), row())
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        return loss, sum(size for at, size in sizes.items() if at not in own)

    before = kept(model)[1]
    assert kept(checkpoint_activations(model))[1] < before / 3


def test_layers_are_computed_twice_in_training_only(model):
    calls = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    checkpoint_activations(model)
    outcome(model)
    assert len(calls) == 2
    with torch.no_grad():
        supervised_loss(model.eval(), row())
    assert len(calls) == 3


def test_other_architectures_and_those_without_layers():
    model = GPT2LMHeadModel(
        GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=61, attn_implementation=NAME, resid_pdrop=0.2, embd_pdrop=0.0
        )
    )
    twice = checkpoint_activations(copy.deepcopy(model))
    loss, gradients = outcome(model)
    loss_, gradients_ = outcome(twice)
    torch.testing.assert_close(loss_, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_[name], gradient, atol=1e-6, rtol=1e-6)

    model.transformer.h = torch.nn.ModuleList([torch.nn.Identity()])
    with pytest.raises(UserError, match=r"activation_checkpointing: gpt2 models do not say"):
        checkpoint_activations(model)
