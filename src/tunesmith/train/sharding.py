"""One model over several processes: each holds a part of every weight, its gradient and its optimizer state (FSDP2).

Layers are gathered when they are computed, one after the other; what lies around them (embeddings, last norm, output
projection) is gathered for the whole of a row, since the loss needs it outside of the model's own forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.base.errors import UserError
from tunesmith.model.losses import causal_model

_ROW = "objective_of_row"  # the name under which FSDP knows the method that computes a row


def shard(model: Any, objective: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """Shard a model over all ranks, in place, and return the objective as it has to be called from now on.

    Raises UserError for an architecture that does not say what its layers are.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    inner = causal_model(model)
    kinds = set(inner._no_split_modules or ())
    layers = [module for module in inner.modules() if type(module).__name__ in kinds]
    if not layers:
        raise UserError(
            f"train.sharding: fsdp can't cut {inner.config.model_type} models, since Transformers does not say what "
            f"their layers are. Use sharding: none."
        )
    for layer in layers:
        fully_shard(layer)
    fully_shard(model)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # a sum: the loss is divided by the count of all ranks already
            module.set_force_sum_reduction_for_comms(True)
    setattr(model, _ROW, lambda row: objective(model, row))
    register_fsdp_forward_method(model, _ROW)
    return lambda model, row: getattr(model, _ROW)(row)


def is_sharded(model: nn.Module) -> bool:
    return hasattr(model, _ROW)


def last_backward(model: Any, is_last: bool) -> None:
    """Tell a sharded model whether gradients are to be added up over the ranks after the next backward pass."""
    if is_sharded(model):
        model.set_requires_gradient_sync(is_last)


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Within, a sharded model can be computed like any other, by all ranks at once."""
    if not is_sharded(model):
        yield
        return
    # Before any step the outermost module has to know that it is: measuring may begin within it. PyTorch has no public
    # call for that; it does nothing where a step was taken.
    model._get_fsdp_state()._lazy_init()
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters by name, whole and on the CPU. Of a sharded model all ranks have to ask at once."""
    trained = ((name, p.detach()) for name, p in model.named_parameters() if p.requires_grad)
    return {name: _whole(value).cpu() for name, value in trained}


def _whole(value: Any) -> Tensor:
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole


def local(value: Any) -> Tensor:
    """The part of a tensor that this rank holds."""
    part: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return part


def first_row(value: Any, rank: int, size: int) -> int:
    """Which row of the whole tensor is the first that this rank holds: rows are dealt out in equal runs."""
    if not hasattr(value, "to_local"):
        return 0
    rows: int = value.shape[0]
    return min(rows, rank * math.ceil(rows / size))


def put_back(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy `trained_weights` of one model into another of the same kind."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
