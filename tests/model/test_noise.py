"""NEFTune: how large the noise is, and that it is there in training only."""

import numpy as np
import pytest
import torch
from tiny import tiny_llama

from tunesmith.model.adapters import prepare_method
from tunesmith.model.losses import PackedRow, supervised_loss, token_losses
from tunesmith.model.noise import embedding_noise
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded

ALPHA, WIDTH = 5.0, 32


def row(*lengths):
    rng = np.random.default_rng(0)
    documents = [Encoded(rng.integers(0, 61, n).astype(np.int32), np.arange(n) > n // 2) for n in lengths]
    return PackedRow.of(make_batch(documents, range(len(documents))), "cpu")


def embedded(model, packed_row):
    """What the first layer was given, (T, W), while the loss of a row was computed."""
    seen = []
    handle = model.get_input_embeddings().register_forward_hook(lambda *args: seen.append(args[2].detach()))
    supervised_loss(model, packed_row)
    handle.remove()
    return seen


def test_noise_is_uniform_and_scaled_by_the_length_of_each_document(model):
    lengths = (400, 25, 100)
    packed_row = row(*lengths)
    (plain,) = embedded(model.train(), packed_row)
    with embedding_noise(model, ALPHA):
        (noisy,) = embedded(model, packed_row)
    for noise, length in zip(torch.split((noisy - plain)[0], lengths), lengths, strict=True):
        most = ALPHA / (length * WIDTH) ** 0.5
        assert noise.abs().max() <= most * 1.0001
        assert noise.abs().max() > most * 0.98
        n = noise.numel()
        assert abs(noise.mean()) < 4 * most / (3 * n) ** 0.5
        # The variance of a uniform distribution, and that of its estimate from n draws.
        assert abs(noise.square().mean() - most**2 / 3) < 4 * most**2 * (4 / 45 / n) ** 0.5
    (again,) = embedded(model, packed_row)
    assert torch.equal(again, plain)


def test_the_global_generator_decides_it_and_it_reaches_the_loss(model):
    def loss(seed, alpha=ALPHA):
        torch.manual_seed(seed)
        with embedding_noise(model.train(), alpha):
            return supervised_loss(model, row(9, 12)).detach()

    assert torch.equal(loss(1), loss(1)) and not torch.equal(loss(1), loss(2))
    assert torch.equal(loss(1, alpha=0.0), loss(2, alpha=0.0))


def test_none_while_evaluating(model):
    plain = token_losses(model.eval(), row(9, 12))
    with embedding_noise(model, ALPHA):
        assert torch.equal(token_losses(model, row(9, 12)), plain)


def test_documents_computed_in_groups_get_noise_by_their_own_length(stock):
    """Padded at their ends, in a group: the length that counts is the document's, not the group's."""
    lengths = (400, 350)
    found = {}
    for alpha in (0.0, ALPHA):
        with embedding_noise(stock.train(), alpha):
            (found[alpha],) = embedded(stock, row(*lengths))
    for noise, length in zip(found[ALPHA] - found[0.0], lengths, strict=True):
        most = ALPHA / (length * WIDTH) ** 0.5
        assert most * 0.98 < noise[:length].abs().max() <= most * 1.0001


@pytest.mark.parametrize("method", ["lora", "prompt", "prefix"])
def test_noise_goes_with_every_method(method):
    model = prepare_method(tiny_llama(61), method).train()
    losses = set()
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with embedding_noise(model, ALPHA):
            loss = supervised_loss(model, row(9, 12))
            loss.backward()
        losses.add(float(loss.detach()))
    assert len(losses) == 2
