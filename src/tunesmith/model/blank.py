"""Models and rows without numbers: tensors that have a shape and a type, and no contents.

A model is made on the device "meta" from its configuration alone; then it gets PyTorch's fake tensors, which say that
they are on the CPU, so that the code that trains can't tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.initialization import no_init_weights

from tunesmith.base.errors import UserError
from tunesmith.model.attention import NAME
from tunesmith.model.load import base_path
from tunesmith.model.losses import PackedRow
from tunesmith.tokens.batches import Batch

FLASH = "_scaled_dot_product_flash_attention_for_cpu"


def empty_base(
    name: str, *, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False, attention: str = NAME
) -> Any:
    """A base model from its configuration, without weights; made on the device "meta" if called there.

    Raises UserError if there is no configuration that Transformers knows.
    """
    try:
        config = AutoConfig.from_pretrained(base_path(name), trust_remote_code=trust_remote_code)
        return model_of(config, dtype, trust_remote_code, attention)
    except (OSError, ValueError) as error:
        raise UserError(f"base {name}: no configuration can be read: {str(error).strip().splitlines()[0]}") from error


def model_of(
    config: Any, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False, attention: str = NAME
) -> Any:
    """A model of this configuration with weights that are not set to anything.

    attention: the implementation, for decoders; "eager" for those that can't attend within documents.
    """
    both = getattr(config, "is_encoder_decoder", False)
    kind = AutoModelForSeq2SeqLM if both else AutoModelForCausalLM
    given = {} if both else {"attn_implementation": attention}
    with no_init_weights():
        model = kind.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code, **given)
    model.tie_weights()
    return model


def blank_batch(lengths: Sequence[int], supervised: float) -> Batch:
    """A packed row of these documents; the end of each is supervised, at least its last token."""
    sizes = np.asarray(lengths, dtype=np.int64)
    positions = np.concatenate([np.arange(size) for size in sizes])
    first = np.concatenate([np.full(size, max(1, size - max(1, round(size * supervised)))) for size in sizes])
    return Batch(np.zeros(sizes.sum(), np.int64), positions, positions >= first, sizes, np.arange(len(sizes)))


def put_fakes(model: nn.Module) -> None:
    """Give the model tensors that say they are on the CPU instead of those on "meta", shared ones once."""
    made: dict[int, tuple[Tensor, Tensor]] = {}  # with the old ones, so that no other gets the id of one

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = tensor, nn.Parameter(empty, tensor.requires_grad) if parameter else empty
        return made[id(tensor)][1]

    for module in model.modules():
        for tensors in [each for each in vars(module).values() if type(each) is dict]:  # PEFT has some in plain ones
            tensors.update({key: fake(each) for key, each in tensors.items() if _is_on_meta(each)})


def with_known_places(row: PackedRow) -> PackedRow:
    """The row for encoder-decoders, which look at the places of labels to cut it into pairs."""
    layout = replace(row.layout, boundaries=cast(Tensor, _Known(row.layout.boundaries.numpy())))
    return replace(row, predicting=cast(Tensor, _Known(row.predicting.numpy())), layout=layout)


@dataclass(frozen=True, slots=True)
class _Known:
    """Numbers where a tensor is expected that is only asked for them."""

    numbers: np.ndarray

    def cpu(self) -> _Known:
        return self

    def numpy(self) -> np.ndarray:
        return self.numbers


def _is_on_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "meta"


class FusedAttention(TorchFunctionMode):
    """Attention by the fused kernel, which PyTorch would not choose for tensors without numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "grouped_mm" in getattr(func, "__name__", ""):  # experts: any one will do, as tokens are shared out anyhow
            return args[0] @ args[1][0]
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value, mask, dropout, causal = _attention_arguments(*args, **kwargs)
        kernel = getattr(torch.ops.aten, FLASH)
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype)
        if dropout:  # the kernel has none: then the weights are kept
            return func(*args, **kwargs)
        return kernel(query, key, value, 0.0, causal, attn_mask=mask, scale=kwargs.get("scale"))[0]


def _attention_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float, bool]:
    return query, key, value, attn_mask, dropout_p, is_causal
