"""The gradient of the embeddings, added to the rows it belongs to, and of the output projection, added in place.

PyTorch makes a matrix of zeros as large as the vocabulary for every packed row, adds a few hundred rows to it, adds it
to the gradient of the output projection if that is the same matrix, into a third, and this to what has been gathered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunesmith.model.parts import causal_model, embeddings_of


@contextmanager
def gradient_in_place(model: Any) -> Iterator[None]:
    """Within, backward passes add the gradient of the model's embeddings to `.grad` itself, row by row; and
    `adds_in_place` is true of its output projection, whose gradient the loss may add.

    For `backward()` only: `torch.autograd.grad` would not find it. It is done where it is the same computation: trained
    fp32 matrices on a CPU (on a GPU the order of additions would be left to chance) in a module that does nothing else.
    """
    plain = [embedding for embedding in embeddings_of(model) if _is_plain(embedding)]
    head = getattr(causal_model(model).get_output_embeddings(), "weight", None)
    heads = {id(head)} - _in_place
    for embedding in plain:
        embedding.forward = MethodType(_look_up, embedding)
    _in_place.update(heads)
    try:
        yield
    finally:
        _in_place.difference_update(heads)
        for embedding in plain:
            del embedding.forward


_in_place: set[int] = set()  # ids of weights, while their models train


def adds_in_place(weight: Tensor) -> bool:
    """Whether a backward pass may add to the weight's `.grad` itself."""
    return id(weight) in _in_place


def _is_plain(embedding: nn.Module) -> bool:
    if type(embedding) is not nn.Embedding or "forward" in vars(embedding):
        return False
    weight, does_more = embedding.weight, embedding.max_norm or embedding.scale_grad_by_freq or embedding.sparse
    return weight.requires_grad and weight.dtype == torch.float32 and weight.device.type == "cpu" and not does_more


def _look_up(embedding: nn.Embedding, ids: Tensor) -> Tensor:
    result: Tensor = _LookUp.apply(embedding.weight, ids, embedding.padding_idx)  # type: ignore[no-untyped-call]
    return result


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, padding: int | None) -> Tensor:
        ctx.weight, ctx.ids, ctx.padding = weight, ids.flatten(), padding
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        weight, ids, rows = ctx.weight, ctx.ids, gradient.flatten(0, -2)
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        if ctx.padding is not None:  # it has no gradient
            rows = rows.masked_fill((ids == ctx.padding)[:, None], 0)
        weight.grad.index_add_(0, ids, rows)
        return None, None, None
