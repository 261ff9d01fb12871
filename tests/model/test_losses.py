"""The loss at supervised positions, against cross entropy of all logits of one document at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, GraniteConfig, GraniteForCausalLM
from transformers import Gemma2ForCausalLM as Gemma2

from tunesmith.model.attention import NAME
from tunesmith.model.losses import PackedRow, computes_exactly, supervised_loss, token_losses
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 61,
}


def sequences(lengths, seed=0):
    rng = np.random.default_rng(seed)
    drawn = []
    for length in lengths:
        supervised = rng.random(length) < 0.4
        supervised[0], supervised[-1] = False, True
        drawn.append(Encoded(rng.integers(0, 61, length).astype(np.int32), supervised))
    return drawn


def plain(model, documents):
    """The losses of all supervised tokens, from all logits of each document alone."""
    losses = []
    for document in documents:
        ids = torch.from_numpy(document.ids.astype(np.int64))[None]
        each = F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        losses.append(each[torch.from_numpy(document.supervised[1:])])
    return torch.cat(losses)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours, theirs, tolerance=1e-5):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert (gradient - theirs[name]).norm() <= tolerance * theirs[name].norm(), name


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_loss_and_gradient_equal_those_of_documents_alone(model, stock, chunk):
    documents = sequences([20, 3, 2, 31, 17, 18])
    row = PackedRow.of(make_batch(documents, range(6)), "cpu")
    loss, expected = supervised_loss(model, row, chunk=chunk), plain(stock, documents)
    torch.testing.assert_close(loss, expected.sum())
    torch.testing.assert_close(token_losses(model, row, chunk=chunk), expected.detach())
    assert_same_gradients(gradients(model, loss / 10), gradients(stock, expected.sum() / 10))


def test_gradient_is_the_same_to_the_last_digits_in_double_precision(model, stock):
    documents = sequences([20, 3, 31])
    row = PackedRow.of(make_batch(documents, range(3)), "cpu")
    ours = gradients(model.double(), supervised_loss(model.double(), row))
    assert_same_gradients(ours, gradients(stock.double(), plain(stock.double(), documents).sum()), 1e-6)


def test_fill_up_to_the_room_changes_nothing(model):
    batch = make_batch(sequences([9, 14]), range(2))
    exact, filled = (PackedRow.of(batch, "cpu", room) for room in (0, 40))
    assert filled.ids.shape == (1, 40)
    torch.testing.assert_close(token_losses(model, exact), token_losses(model, filled))
    assert_same_gradients(
        gradients(model, supervised_loss(model, exact)), gradients(model, supervised_loss(model, filled))
    )


def test_nothing_flows_into_a_frozen_head(model):
    model.get_input_embeddings().weight.requires_grad_(False)
    row = PackedRow.of(make_batch(sequences([9]), [0]), "cpu")
    found = gradients(model, supervised_loss(model, row))
    assert found and not any("embed" in name for name in found)


def test_a_row_without_supervised_tokens_has_no_loss(model):
    silent = Encoded(np.arange(5, dtype=np.int32), np.zeros(5, dtype=bool))
    row = PackedRow.of(make_batch([silent], [0]), "cpu")
    assert supervised_loss(model, row).item() == 0 and token_losses(model, row).shape == (0,)


@pytest.mark.parametrize(
    "build",
    [
        lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=3.0, attn_implementation=NAME)),
        lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.3, attn_implementation=NAME)),
    ],
)
def test_scaled_logits_are_scaled(build):
    torch.manual_seed(0)
    assert computes_exactly(build())


def test_soft_capped_logits_are_capped():
    torch.manual_seed(0)
    config = Gemma2Config(
        **SMALL, head_dim=8, num_key_value_heads=2, final_logit_softcapping=0.5, attn_implementation="eager"
    )
    model = Gemma2(config)
    assert computes_exactly(model)
    model.config.final_logit_softcapping = None
    row = PackedRow.of(make_batch(sequences([9]), [0]), "cpu")
    uncapped = token_losses(model, row)
    model.config.final_logit_softcapping = 0.5
    assert not torch.allclose(uncapped, token_losses(model, row))


def test_a_model_that_does_something_else_is_found_out(model):
    class Louder(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.weight = inner, inner.weight

        def forward(self, hidden):
            return self.inner(hidden) * (2.0 if hidden.dim() == 3 else 1.0)

    assert computes_exactly(model)
    model.lm_head = Louder(model.lm_head)
    assert not computes_exactly(model)
