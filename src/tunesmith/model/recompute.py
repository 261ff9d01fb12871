"""Activation checkpointing: a layer keeps only its inputs, and is computed a second time when its gradient is due."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tunesmith.base.errors import UserError
from tunesmith.model.attention import within
from tunesmith.model.parts import causal_model, layers_of


def checkpoint_activations(model: Any) -> Any:
    """Let every layer of the model (in place; it is returned) compute its activations twice while it trains.

    The second time runs among the documents of the first, whatever `packed` holds by then, with the same dropout.
    Transformers' own way is not taken: it knows nothing of packed rows, and drops a trained prefix.
    Raises UserError for an architecture that does not say what its layers are.
    """
    stacks = layers_of(model)
    if not stacks:
        kind = causal_model(model).config.model_type
        raise UserError(
            f"train.activation_checkpointing: {kind} models do not say what their layers are. Turn it off; to save "
            f"memory, lower tokens_per_batch."
        )
    for stack in stacks:
        for layer in stack:
            layer.forward = MethodType(_forward, layer)  # bound anew by copies of the model
    return model


def is_checkpointed(model: Any) -> bool:
    """Whether `checkpoint_activations` was called with the model."""
    return any(is_twice(layer) for stack in layers_of(model) for layer in stack)


def is_twice(layer: nn.Module) -> bool:
    """Whether the layer is one that is computed twice."""
    return getattr(vars(layer).get("forward"), "__func__", None) is _forward


def twice(layer: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What `forward` makes of a layer's inputs; while the layer trains, computed again when its gradient is due."""
    if not (layer.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(within(forward), *args, use_reentrant=False, **kwargs)


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return twice(layer, MethodType(type(layer).forward, layer), *args, **kwargs)
