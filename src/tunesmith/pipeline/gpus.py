"""Devices to plan for: this one, or a GPU by its name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch

from tunesmith.base.errors import UserError
from tunesmith.model.device import known_peak

GIB = 1 << 30
CONTEXT = 600 << 20
"""Bytes that CUDA and its libraries take of a GPU before the first tensor: about 0.5 GiB on recent ones."""
RESERVE = 0.05
"""Part of a GPU's memory that PyTorch's allocator loses to gaps between blocks."""
# GiB that can be used, of what the makers' data sheets name in GB.
MEMORY = {
    "A100 40GB": 39.4,
    "A100 80GB": 79.1,
    "H100": 79.1,
    "H100 PCIe": 79.1,
    "H100 NVL": 93.0,
    "H200": 139.8,
    "H200 NVL": 139.8,
    "L4": 22.0,
    "L40S": 44.4,
    "RTX 3090": 23.6,
    "RTX 4090": 23.5,
    "T4": 14.6,
    "V100 16GB": 15.8,
    "V100 32GB": 31.7,
    "MI300X": 191.7,
}


@dataclass(frozen=True, slots=True)
class Device:
    """What is planned for. memory: bytes of one. here: whether it is this machine's."""

    name: str
    memory: int
    here: bool
    is_gpu: bool

    def peak(self, precision: str) -> float | None:
        """FLOP/s of a GPU from its data sheet; None for a CPU."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        return known_peak(self.name, dtype) if self.is_gpu else None


def device_named(name: str | None) -> Device:
    """The GPU of this name ("H100", "a100-80gb"), or this machine's device. Raises UserError naming those known."""
    here = _here()
    if name is None:
        return here
    wanted = _plain(name)
    if here.is_gpu and wanted in _plain(here.name):
        return here
    fitting = [each for each in MEMORY if wanted in _spellings(each)]
    if not fitting:
        near = get_close_matches(wanted, {_plain(each): each for each in MEMORY}, n=1)
        hint = next((f"Did you mean {each}? " for each in MEMORY if _plain(each) in near), "")
        raise UserError(f"--gpu {name}: not in the table. {hint}It has {', '.join(MEMORY)}.")
    if len(fitting) > 1:
        raise UserError(f"--gpu {name}: which one? {' or '.join(fitting)}.")
    return Device(fitting[0], round(MEMORY[fitting[0]] * GIB), here=False, is_gpu=True)


def _spellings(name: str) -> set[str]:
    """With and without the size of its memory, or its unit."""
    return {_plain(name), _plain(name.removesuffix("GB")), _plain(re.sub(r" \d+GB$", "", name))}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("nvidia", ""))


def _here() -> Device:
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return Device(name, torch.cuda.get_device_properties(0).total_memory, here=True, is_gpu=True)
    return Device(f"this CPU ({torch.get_num_threads()} threads)", _main_memory(), here=True, is_gpu=False)


def _main_memory() -> int:
    """Bytes of main memory, or what the container may take of it."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes, default=0)


def process_memory() -> int:
    """Bytes of main memory that this process takes now: Python, PyTorch and what has been read; 0 if not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def watch_memory() -> Callable[[], int | None]:
    """What is returned tells the most bytes of main memory that this process has taken since; None if not told."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the most so far is what there is now
    except OSError:
        return lambda: None

    def most() -> int | None:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)

    return most
