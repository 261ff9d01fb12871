"""The gradient of one step: of the sum of its losses, divided once by the number of its supervised tokens.

It is the same however the step is cut into packed rows and these are dealt out to ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.base.random import seed_of
from tunesmith.base.ranks import Ranks
from tunesmith.model.losses import PackedRow
from tunesmith.train.feed import StepRows
from tunesmith.train.settings import TrainSettings
from tunesmith.train.sharding import is_sharded, last_backward, local

Objective = Callable[[Any, PackedRow], Tensor]
"""The sum over a row's supervised tokens (nats, scalar) of what is to become small, such as `supervised_loss`."""

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
LARGEST_SCALE = 2.0**16
"""fp16 begins with a loss so many times as large: small gradients would vanish. It is halved where that overflows."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """What was found of a step. loss: nats per supervised token. norm: of the gradient, before it was clipped.
    scale: by which the loss was multiplied in between (fp16); 1 otherwise.
    """

    loss: float
    norm: float
    scale: float = 1.0

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.norm)


def gradient_of(
    model: nn.Module, rows: StepRows, settings: TrainSettings, objective: Objective, ranks: Ranks, scale: float
) -> Gradient:
    """Put the gradient of a step's mean loss into the parameters, clipped; the same on every rank.

    Where fp16 overflows, the step is computed again with half the scale, so that none is lost.
    """
    while True:
        # Every random choice of a step follows from its number; ranks drop out different places.
        torch.manual_seed(seed_of(settings.seed, "step", rows.step, *([ranks.rank] if ranks.rank else [])))
        loss = _accumulate(model, rows, settings, objective, ranks, scale)
        norm = clip(model, settings.clip, scale)
        loss_here, norm_here = torch.stack([loss, norm.to(loss)]).tolist()
        found = Gradient(loss_here, norm_here, scale)
        if found.is_finite or scale <= 1.0:
            return found
        scale /= 2
        model.zero_grad()


def _accumulate(
    model: nn.Module, rows: StepRows, settings: TrainSettings, objective: Objective, ranks: Ranks, scale: float
) -> Tensor:
    """Add up gradients over rows and ranks; returns the step's loss (float64 scalar)."""
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    dtype = AUTOCAST.get(settings.precision)
    for number, row in enumerate(rows.rows):
        last_backward(model, number == len(rows.rows) - 1)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = objective(model, row) / rows.supervised
        (loss * scale).backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    if not is_sharded(model):  # there the backward pass has added up the ranks' gradients
        ranks.sum(*_gradients(model, even_none=ranks.size > 1))
    ranks.sum(total)
    return total


def _gradients(model: nn.Module, even_none: bool = False) -> list[Tensor]:
    """The gradients of trained parameters. even_none: zeros where a rank had nothing to compute."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained if even_none else ():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in trained if parameter.grad is not None]


@torch.no_grad()
def clip(model: nn.Module, largest: float, scale: float = 1.0) -> Tensor:
    """Undo the loss's scale, then scale the gradient to a norm of at most `largest` (0: don't); the norm it had."""
    gradients = _gradients(model)
    parts = [local(gradient) for gradient in gradients]
    if scale != 1.0:
        torch._foreach_div_(parts, scale)
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if largest:
        factor = torch.clamp(largest / (norm + 1e-6), max=1.0)
        torch._foreach_mul_(parts, factor)
    return norm
