"""What a device can do at most, and how much memory this process has taken of it."""

from __future__ import annotations

import sys
import time

import torch

# Dense peaks in TFLOP/s, without sparsity, products summed in fp32: by part of the device's name, the more exact part
# first: (fp16 and bf16, TF32, fp32). TF32 is as fp32 where there is none.
# Sources, the makers' data sheets: NVIDIA A100 (2021), H100 (2024: SXM, PCIe, NVL), H200 (2024), L4 and L40S (2023),
# V100 (2020), T4 (2018), whose sparse figures are halved; the GA102 (2021) and Ada (2023) architecture papers for the
# RTX 3090 and 4090; AMD Instinct MI300X (2023).
_PEAKS: tuple[tuple[str, float, float, float], ...] = (
    ("A100", 312.0, 156.0, 19.5),
    ("H100 PCIe", 756.5, 378.0, 51.2),
    ("H100 NVL", 835.5, 417.5, 60.0),
    ("H100", 989.4, 494.7, 66.9),
    ("H200 NVL", 835.5, 417.5, 60.0),
    ("H200", 989.4, 494.7, 66.9),
    ("L40S", 362.05, 183.0, 91.6),
    ("L4", 121.0, 60.0, 30.3),
    ("RTX 3090", 71.0, 35.6, 35.6),
    ("RTX 4090", 165.2, 82.6, 82.6),
    ("V100", 125.0, 15.7, 15.7),
    ("T4", 65.0, 8.1, 8.1),
    ("MI300X", 1307.4, 653.7, 163.4),
)
_WITHOUT_BF16 = ("V100", "T4")  # they compute bf16 as fp32
_MATRIX = 1024  # width of the measured product: beyond it a CPU gets no faster


def known_peak(name: str, dtype: torch.dtype, *, tf32: bool = False) -> float | None:
    """Dense peak in FLOP/s of the GPU of this name ("NVIDIA H100 80GB HBM3"), or None for one not in the table.

    tf32: fp32 products may be computed in TF32.
    """
    words = name.replace("-", " ").split()
    for part, half, middle, single in _PEAKS:
        if not all(word in words for word in part.split()):
            continue
        slow = dtype == torch.float32 or (dtype == torch.bfloat16 and part in _WITHOUT_BF16)
        return 1e12 * ((middle if tf32 else single) if slow else half)
    return None


def device_peak(device: torch.device | str, dtype: torch.dtype = torch.float32, *, seconds: float = 0.2) -> float:
    """The most FLOP/s that one device can do in `dtype`: a GPU's from its data sheet; else measured.

    A CPU, or a GPU that the table lacks, multiplies large matrices for `seconds`, with the threads that PyTorch has
    now; in fp32 too, since a CPU without bf16 instructions is faster in it. The best time counts.
    """
    device = torch.device(device)
    if device.type == "cuda":
        tf32 = torch.get_float32_matmul_precision() != "highest"
        peak = known_peak(torch.cuda.get_device_name(device), dtype, tf32=tf32)
        if peak is not None:
            return peak
    return max(_measured(device, kind, seconds) for kind in {dtype, torch.float32})


def _measured(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    width = _MATRIX * (8 if device.type == "cuda" else 1)
    left = torch.ones(width, width, dtype=dtype, device=device)
    result = torch.empty_like(left)
    best, until = 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(left, left, out=result)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * width**3 / (time.perf_counter() - started))
    return best


def peak_memory(device: torch.device | str) -> int:
    """The most bytes taken so far: by PyTorch's tensors on a GPU, by the whole process in main memory elsewhere."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0  # not told there without a further package
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # kilobytes on Linux
