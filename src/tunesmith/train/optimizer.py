"""Optimizers without weight decay on norms and biases, and the learning rate of every step."""

from __future__ import annotations

import math

import torch
from torch import nn

from tunesmith.base.errors import UserError
from tunesmith.train.settings import TrainSettings


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters; those of one dimension (norms, biases) are not decayed.

    The learning rate is zero until `set_learning_rate` gives a step its own. AdamW is arXiv:1711.05101, its 8-bit kind
    (arXiv:2110.02861) bitsandbytes's, Adafactor arXiv:1804.04235.
    Raises UserError if bitsandbytes is needed and not there.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(groups, lr=0.0)
    if settings.optimizer == "adamw_8bit":
        return _adamw_8bit(groups, settings)
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, fused=True)


def update(optimizer: torch.optim.Optimizer) -> None:
    """A step of the optimizer. A parameter that had gradients before, and has none in this step, has one of zeros: it
    moves on by its momentum, whether the gradients were set to zero in place or, as in a run resumed, are not there."""
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        if parameter.grad is None and optimizer.state.get(parameter):
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()


def _adamw_8bit(groups: list[dict[str, object]], settings: TrainSettings) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit  # type: ignore[attr-defined]
    except ImportError as error:
        raise UserError(
            "train.optimizer: adamw_8bit needs bitsandbytes. Install it (pip install 'tunesmith[quantized]'), or use "
            "adamw or adafactor."
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=0.0, betas=settings.betas)  # type: ignore[no-untyped-call]
    return optimizer


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """The learning rate of step `step` (from 0) of `steps`.

    With W steps of warm-up, their k-th (from 1) has k / W of the peak. "constant" stays there. The others end with D
    steps of decay, D = steps - W, or for "wsd" (warm-up, stable, decay: arXiv:2404.06395) at most the part `decay` of
    all steps, and at least one; until then the peak stays. In the k-th of them (from 0), k / (D - 1) of the decay is
    done: the first has the peak, the last the floor, `floor` times the peak. A decay of one step has the floor, since
    the steps before it had the peak, unless there are none: a run of one step learns at the peak.
    """
    warming = warmup_steps(steps, settings)
    if step < warming:
        return settings.learning_rate * (step + 1) / warming
    length = steps - warming
    if settings.schedule == "wsd":
        length = min(length, max(1, round(settings.decay * steps)))
    decayed = step - (steps - length)
    done = max(0.0, decayed / (length - 1)) if length > 1 else float(decayed == 0 and steps > 1)
    remaining = {
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 - done,
        "wsd": 1 - done,
        "constant": 1.0,
    }[settings.schedule]
    return settings.learning_rate * (settings.floor + (1 - settings.floor) * remaining)


def warmup_steps(steps: int, settings: TrainSettings) -> int:
    """How many of `steps` warm up; never all of them."""
    wanted = round(settings.warmup * steps) if settings.warmup_steps is None else settings.warmup_steps
    return min(wanted, max(0, steps - 1))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
