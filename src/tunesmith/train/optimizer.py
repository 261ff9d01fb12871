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

    It rises linearly to the peak over the warm-up, reaching it at the warm-up's last step. Then it stays constant, or
    follows a cosine or a line that ends, at the last step of all, at `floor` times the peak; or, with "wsd" (warm-up,
    stable, decay: arXiv:2404.06395), it stays at the peak and falls in a line over the last `decay` of all steps.
    """
    warming = warmup_steps(steps, settings)
    if step < warming:
        return settings.learning_rate * (step + 1) / warming
    start = max(warming, steps - max(1, round(settings.decay * steps))) if settings.schedule == "wsd" else warming
    done = max(0.0, (step - start) / max(1, steps - 1 - start))
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
