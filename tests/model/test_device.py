from __future__ import annotations

import time

import pytest
import torch

from tunesmith.model.device import device_peak, known_peak, peak_memory


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA A100-SXM4-80GB", 312, 19.5),
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9),
        ("NVIDIA H100 PCIe", 756.5, 51.2),
        ("NVIDIA H200", 989.4, 66.9),
        ("NVIDIA L4", 121, 30.3),
        ("NVIDIA L40S", 362.05, 91.6),
        ("NVIDIA GeForce RTX 3090", 71, 35.6),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("Tesla T4", 8.1, 8.1),
        ("Tesla V100-SXM2-16GB", 15.7, 15.7),
        ("AMD Instinct MI300X", 1307.4, 163.4),
    ],
)
def test_gpus_are_found_by_the_names_they_give_themselves(name: str, bf16: float, fp32: float) -> None:
    assert known_peak(name, torch.bfloat16) == pytest.approx(bf16 * 1e12)
    assert known_peak(name, torch.float32) == pytest.approx(fp32 * 1e12)


def test_tensor_cores_count_where_they_are_used() -> None:
    assert known_peak("Tesla T4", torch.float16) == pytest.approx(65e12)
    assert known_peak("NVIDIA A100-SXM4-40GB", torch.float32, tf32=True) == pytest.approx(156e12)
    assert known_peak("NVIDIA L40", torch.float32) is None  # an L40 is neither an L4 nor an L40S
    assert known_peak("NVIDIA GeForce RTX 5090", torch.float32) is None


def test_a_cpu_is_measured_quickly_and_about_right() -> None:
    started = time.perf_counter()
    peak = device_peak("cpu", seconds=0.1)
    assert time.perf_counter() - started < 5
    width = 512
    left = torch.ones(width, width)
    left @ left
    started = time.perf_counter()
    left @ left
    small = 2 * width**3 / (time.perf_counter() - started)
    assert 0.2 * small < peak < 1e14


def test_peak_memory_holds_what_was_taken() -> None:
    before = peak_memory("cpu")
    assert before > 50e6  # PyTorch alone is larger
    taken = torch.ones(before // 4 + 30_000_000)  # four bytes each: more than all so far
    assert peak_memory("cpu") >= taken.numel() * 4
