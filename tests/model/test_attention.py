"""Attention within documents, against dense attention under an explicit mask."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.model.attention import Layout, attend, packed
from tunesmith.model.losses import decoder_of

LENGTHS = [7, 1, 12, 3, 9, 11]


def dense(q, k, v, lengths, window=None):
    """(1, H, T, D) -> (1, T, H, D): softmax over the tokens before, in the same document, within the window."""
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    at = torch.arange(sum(lengths))
    seen = (document[:, None] == document) & (at[:, None] >= at)
    if window:
        seen &= at[:, None] - at < window
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def inputs(tokens, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, heads, tokens, 8, generator=generator, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)
    ]


@pytest.mark.parametrize("window", [None, 4])
def test_equals_dense_attention_under_a_mask_gradients_included(window):
    qkv = inputs(sum(LENGTHS))
    with packed(Layout.of(LENGTHS)):
        result, _ = attend(torch.nn.Identity(), *qkv, None, sliding_window=window)
    expected = dense(*qkv, LENGTHS, window)
    weight = torch.randn_like(expected)
    torch.testing.assert_close(result, expected)
    for ours, theirs in zip(
        torch.autograd.grad(result, qkv, weight), torch.autograd.grad(expected, qkv, weight), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("window", [None, 4])
def test_bf16_equals_dense_attention_to_its_precision(window):
    qkv = inputs(sum(LENGTHS), torch.bfloat16)
    with packed(Layout.of(LENGTHS)):
        result, _ = attend(torch.nn.Identity(), *qkv, None, sliding_window=window)
    torch.testing.assert_close(result.float(), dense(*(x.float() for x in qkv), LENGTHS, window), atol=0.03, rtol=0.03)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_every_token_has_its_place(lengths):
    layout = Layout.of(lengths)
    assert torch.equal(layout.take[layout.place], torch.arange(sum(lengths)))
    assert sum(n * length for n, length in layout.shapes) == len(layout.take)
    assert len(layout.take) - sum(lengths) <= 0.25 * len(layout.take)
    assert layout.boundaries.tolist() == [0, *np.cumsum(lengths)]


def test_another_document_changes_nothing_not_a_bit(model):
    lengths = [6, 9, 6]
    ids = torch.randint(0, 61, (1, 21), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(length) for length in lengths])[None]

    def outcome(ids):
        with packed(Layout.of(lengths)):
            inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
            hidden = decoder_of(model)(inputs_embeds=inputs, position_ids=positions, use_cache=False)[0]
        (gradient,) = torch.autograd.grad(hidden[0, 6:15].square().sum(), inputs)
        return hidden[0], gradient[0]

    changed = ids.clone()
    changed[0, :6] = (ids[0, :6] + 5) % 61
    changed[0, 15:] = (ids[0, 15:] + 7) % 61
    (hidden, gradient), (hidden_, gradient_) = outcome(ids), outcome(changed)
    assert not torch.equal(hidden[:6], hidden_[:6])
    assert torch.equal(hidden[6:15], hidden_[6:15]) and torch.equal(gradient, gradient_)
    assert not gradient[:6].any() and not gradient[15:].any()


def test_outside_of_packed_it_is_ordinary_masked_attention(model, stock):
    ids = torch.randint(1, 61, (2, 10), generator=torch.Generator().manual_seed(2))
    seen = torch.ones_like(ids)
    seen[0, :4] = 0
    ours, theirs = (m(input_ids=ids, attention_mask=seen).logits for m in (model, stock))
    torch.testing.assert_close(ours[seen.bool()], theirs[seen.bool()])
    new, new_ = (
        m.generate(input_ids=ids, attention_mask=seen, max_new_tokens=5, do_sample=False, pad_token_id=0)
        for m in (model, stock)
    )
    assert torch.equal(new, new_)


def test_attention_it_does_not_know_is_refused():
    with pytest.raises(NotImplementedError, match="softcap"):
        attend(torch.nn.Identity(), *inputs(4), None, softcap=30.0)
