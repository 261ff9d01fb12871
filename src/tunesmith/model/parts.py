"""The parts of a model that Transformers loaded, also when PEFT wraps it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def causal_model(model: Any) -> PreTrainedModel:
    """The Transformers model itself, also when PEFT wraps it."""
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


def decoder_of(model: Any) -> PreTrainedModel:
    """The part that turns tokens into hidden states."""
    inner = causal_model(model)
    return getattr(inner, inner.base_model_prefix)


def embeddings_of(model: Any) -> set[nn.Module]:
    """What embeds token ids: of an encoder-decoder that are modules of its two parts, though they share a matrix."""
    inner: Any = causal_model(model)
    parts = [inner.get_encoder(), inner.get_decoder()] if inner.config.is_encoder_decoder else [inner]
    return {part.get_input_embeddings() for part in parts}


def layers_of(model: Any) -> list[nn.ModuleList]:
    """The stacks of layers, each in the order of computation: one for a decoder, two for an encoder-decoder.

    Empty for an architecture that does not say what its layers are.
    """
    lists = [module for module in causal_model(model).modules() if isinstance(module, nn.ModuleList) and len(module)]
    return [stack for stack in lists if all(isinstance(layer, GradientCheckpointingLayer) for layer in stack)]


def gathers_layers(model: nn.Module) -> bool:
    """Whether ranks gather each layer together (FSDP2): then all ranks have to call it equally often."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule  # imported here: it takes a while

    return any(isinstance(module, FSDPModule) for module in model.modules())
