"""Losses behind a plain projection, against cross entropy in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_llama
from torch import nn

from tunesmith.model.embedding import gradient_in_place
from tunesmith.model.projection import is_plain, projected_loss


def close(found, expected):
    return (found.double() - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("count", [0, 7, 32, 90])  # 32 is the hidden size
def test_loss_and_gradients_over_rows_and_chunks_equal_cross_entropy(in_place, count):
    model = tiny_llama(61, tie_word_embeddings=False)
    head, exact = model.lm_head, copy.deepcopy(model.lm_head).double()
    generator = torch.Generator().manual_seed(count)
    with gradient_in_place(model if in_place else tiny_llama(61)):
        for scale in (0.5, 3.0):  # two rows of a step
            hidden = 20 * torch.randn(count, 32, generator=generator)  # some tokens are all but certain
            targets = torch.randint(61, (count,), generator=generator)
            ours, theirs = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
            loss = projected_loss(head.weight, ours, targets, 16)
            expected = F.cross_entropy(exact(theirs), targets, reduction="sum")
            assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
            (loss * scale).backward()
            (expected * scale).backward()
            assert close(ours.grad, theirs.grad)
    if count:
        assert close(head.weight.grad, exact.weight.grad)


def test_a_frozen_projection_gets_no_gradient():
    weight, hidden = torch.randn(61, 8), torch.randn(5, 8, requires_grad=True)
    projected_loss(weight, hidden, torch.arange(5), 512).backward()
    assert weight.grad is None
    assert hidden.grad.abs().sum() > 0


def test_what_does_more_than_a_product_is_not_plain():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    hidden, plain = torch.randn(5, 8), nn.Linear(8, 61, bias=False)
    assert is_plain(plain, hidden)
    for other in (nn.Linear(8, 61), Doubled(8, 61, bias=False), nn.Linear(8, 61, bias=False).bfloat16(), nn.Identity()):
        assert not is_plain(other, hidden)
    assert not is_plain(plain, hidden.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_plain(plain, hidden)
