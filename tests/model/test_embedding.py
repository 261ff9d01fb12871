"""Gradients of embeddings that are added in place, against PyTorch's own."""

import copy

import pytest
import torch
from tiny import tiny_llama
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from tunesmith.model.embedding import gradient_in_place


def gradients(model, batches):
    """By name, after the batches' losses were each taken back."""
    for ids in batches:
        model(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("padding", [None, 3])
def test_equals_what_pytorch_gathers(tied, padding):
    model = tiny_llama(61, tie_word_embeddings=tied)
    model.get_input_embeddings().padding_idx = padding
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(0, 61, shape, generator=generator) for shape in [(2, 9), (1, 40), (3, 5)]]
    batches[0][0, :4] = 3
    expected = gradients(copy.deepcopy(model), batches)
    with gradient_in_place(model):
        assert "forward" in vars(model.get_input_embeddings())
        found = gradients(model, batches)
    assert "forward" not in vars(model.get_input_embeddings())
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7, msg=name)


def test_both_parts_of_an_encoder_decoder_add_to_the_matrix_that_they_share():
    torch.manual_seed(0)
    config = T5Config(vocab_size=61, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    batches = [torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(1))]
    expected = gradients(copy.deepcopy(model), batches)
    with gradient_in_place(model):
        found = gradients(model, batches)
    torch.testing.assert_close(found["shared.weight"], expected["shared.weight"], rtol=1e-5, atol=1e-7)


def test_embeddings_that_do_more_or_do_not_train_are_left_alone():
    class Scaled(nn.Embedding):
        def forward(self, ids):
            return 2 * super().forward(ids)

    model = tiny_llama(61, tie_word_embeddings=False)
    weight = model.get_input_embeddings().weight.detach()
    frozen, half = nn.Embedding.from_pretrained(weight), nn.Embedding(61, 8, dtype=torch.bfloat16)
    for embedding in (Scaled(61, 8), frozen, half):
        model.set_input_embeddings(embedding)
        with gradient_in_place(model):
            assert "forward" not in vars(embedding)
