"""Frozen weights in four bits, NF4 with double quantisation, as QLoRA has them (arXiv:2305.14314), by bitsandbytes.

An adapter that was trained on such weights belongs to them, so its folder says how its base was quantised.
"""

from __future__ import annotations

import json
import logging
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from tunesmith.base.errors import UserError
from tunesmith.base.files import read_json, write_json
from tunesmith.model.parts import causal_model

FILE = "quantization_config.json"
# On some processors bitsandbytes warns, when PEFT imports it, that a faster kernel could be downloaded and run.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """How Transformers is to quantise; dtype is what is computed in. Raises UserError if bitsandbytes is missing."""
    if find_spec("bitsandbytes") is None:
        raise UserError(
            "method qlora: bitsandbytes, which quantises the weights, is not installed. "
            "Install it (pip install 'tunesmith[quantized]'), or use lora."
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def stay_as_quantized(model: Any) -> Any:
    """The model, so that its weights remain what they are.

    On processors with AVX512-BF16, bitsandbytes 0.50 repacks a layer's weights, rounded, at its first forward pass
    that is not training, and from then on no gradient flows through that layer. So that is turned off.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def is_quantized(model: Any) -> bool:
    """Whether frozen weights are held in a few bits."""
    return bool(getattr(causal_model(model), "is_quantized", False))


def dequantized(model: Any) -> Any:
    """The model with its quantised weights written out, all in fp32: the same function, ready to be merged into."""
    if is_quantized(model):
        level = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # it tells the type in which it does it
        try:
            model = model.dequantize()
        finally:
            transformers_logging.set_verbosity(level)
    return model.float()


def save_quantization(model: Any, folder: Path) -> None:
    """Write down how the base of an adapter was quantised, if it was."""
    if is_quantized(model):
        config = causal_model(model).config.quantization_config
        write_json(folder / FILE, json.loads(config.to_json_string(use_diff=False)))


def saved_type(folder: Path) -> str | None:
    """What the quantised base of the adapter in `folder` computes in, a torch name; None if it was not quantised."""
    path = folder / FILE
    return str(read_json(path)["bnb_4bit_compute_dtype"]) if path.is_file() else None


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """(all parameters, those that are trained); tied ones count once, quantised ones as the numbers they stand for."""
    parameters = list(model.parameters())
    return sum(map(_count, parameters)), sum(_count(p) for p in parameters if p.requires_grad)


def _count(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else math.prod(state.shape)
