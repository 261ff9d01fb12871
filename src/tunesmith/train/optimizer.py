"""AdamW without weight decay on norms and biases, and the learning rate of every step."""

from __future__ import annotations

import math

import torch
from torch import nn

from tunesmith.train.settings import TrainSettings


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; those of one dimension (norms, biases) are not decayed.

    The learning rate is zero until `set_learning_rate` gives a step its own.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=settings.betas, fused=True)


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """The learning rate of step `step` (from 0) of `steps`.

    It rises linearly to the peak over the warm-up, reaching it at the warm-up's last step, and then follows a cosine
    or a line that ends, at the last step of all, at `floor` times the peak; or it stays constant.
    """
    warming = round(settings.warmup * steps)
    if step < warming:
        return settings.learning_rate * (step + 1) / warming
    done = (step - warming) / max(1, steps - 1 - warming)
    remaining = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[settings.schedule]
    return settings.learning_rate * (settings.floor + (1 - settings.floor) * remaining)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
