"""The loss behind a plain projection on a CPU, with one array of logits where PyTorch makes three.

Shapes: S supervised tokens, W hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.model.embedding import adds_in_place

SMALL_CHUNK = 128  # tokens a chunk: here another chunk costs no array as large as the head


def is_plain(projection: nn.Module, hidden: Tensor) -> bool:
    """Whether logits of `hidden` (S, W) are a product of fp32 matrices on a CPU and nothing else."""
    kind: type = type(projection)
    parameters = dict(projection.named_parameters())
    if kind is not nn.Linear or list(parameters) != ["weight"] or "forward" in vars(projection):
        return False
    same = {(x.dtype, x.device.type) for x in (parameters["weight"], hidden)} == {(torch.float32, "cpu")}
    return same and not torch.is_autocast_enabled("cpu")


def projected_loss(weight: Tensor, hidden: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """The sum (nats, scalar) of the cross entropies of `hidden @ weight.T` (S, V) with targets (S,).

    The logits of `chunk` tokens exist at a time and become their own gradient. Into the weight (V, W) it is added once
    it is known by what the loss is scaled, if until then no more is kept than that gradient takes.
    """
    loss: Tensor = _ProjectedLoss.apply(weight, hidden, targets, chunk)  # type: ignore[no-untyped-call]
    return loss


class _ProjectedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, hidden: Tensor, targets: Tensor, chunk: int) -> Tensor:
        total, into_hidden = hidden.new_zeros(()), torch.empty_like(hidden)
        trains = ctx.needs_input_grad[0]
        later = trains and adds_in_place(weight) and len(hidden) <= hidden.shape[1] + chunk
        into_weight = torch.zeros_like(weight) if trains and not later else None
        kept = []
        chunks = (torch.split(x, chunk) for x in (hidden, targets, into_hidden))
        for part, wanted, into_part in zip(*chunks, strict=True):
            losses, into_logits = _cross_entropy_(part @ weight.T, wanted)
            total += losses
            torch.mm(into_logits, weight, out=into_part)
            if into_weight is not None:
                into_weight.addmm_(into_logits.T, part)
            elif later:
                kept.append((into_logits, part.detach()))
        ctx.weight, ctx.gradients, ctx.kept = weight, (into_weight, into_hidden), kept
        return total

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        assert ctx.gradients is not None, "this loss can be differentiated once"
        (into_weight, into_hidden), kept, weight = ctx.gradients, ctx.kept, ctx.weight
        ctx.gradients = ctx.kept = None
        if kept and weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        for into_logits, part in kept:
            weight.grad.addmm_(into_logits.T, part * above)
        return None if into_weight is None else into_weight.mul_(above), into_hidden.mul_(above), None, None


def _cross_entropy_(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the cross entropies, and its gradient into the logits (S, V), in their place."""
    places = targets[:, None]
    logits.sub_(logits.amax(dim=1, keepdim=True))
    chosen = logits.gather(1, places)
    sums = logits.exp_().sum(dim=1, keepdim=True)
    logits.div_(sums).scatter_add_(1, places, torch.full_like(chosen, -1.0))
    return (sums.log() - chosen).sum(), logits
