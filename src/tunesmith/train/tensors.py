"""Tensors written to a safetensors file from where they lie, and hashed on the way.

safetensors' own writer first makes bytes of every tensor, with Python's lock held, and the file would have to be read
again for its hash. Here the system gets the tensors' own memory, in pieces; both writing and hashing a large piece let
other threads run, so a checkpoint can be written beside a training (docs/checkpoints.md).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_PIECE = 8 << 20  # bytes
_TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ORDER = {dtype: place for place, dtype in enumerate(_TYPES)}
"""In a file the largest numbers come first, so that all are aligned."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors to a new file, in the format of safetensors, and flush it; its size ("bytes") and "sha256" (hex).

    Tensors on other devices are brought to main memory one by one.
    The format is a length (8 bytes, little-endian), a header of JSON of that length, and the tensors' bytes:
    https://github.com/huggingface/safetensors#format.
    """
    ordered = sorted(tensors.items(), key=lambda named: (_ORDER[named[1].dtype], named[0]))
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for piece in _pieces(ordered):
            digest.update(piece)
            size += len(piece)
            while len(piece):
                piece = piece[os.write(descriptor, piece) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _pieces(tensors: list[tuple[str, Tensor]]) -> Iterator[memoryview]:
    header, start = {}, 0
    for name, tensor in tensors:
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for _, tensor in tensors:
        if not tensor.numel():
            continue
        here = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        content = here.numpy().data
        for first in range(0, len(content), _PIECE):
            yield content[first : first + _PIECE]
