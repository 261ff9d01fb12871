"""Training on a GPU beside TRL: a Llama of the 1B class with random weights, bf16, 4,096 tokens a row, full and LoRA.

TRL runs as fast as it can here: packed, flash attention and Liger's kernels where they are installed, without
activation checkpointing. Both sides keep weights and optimizer in bf16, start from the same weights and read the same
tokens, in turns, each run in a process of its own; what is printed are medians, ratios of medians, and model FLOP
(see train.py) as a share of a 8,192 x 8,192 bf16 matmul and of the device's peak, where that is known.

    python benchmarks/train_gpu.py [--rounds N] [--steps N]
    python benchmarks/train_gpu.py --tiny      # the same road on the CPU with a toy: shows that it works, no more
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from prepare import PEERS
from train import SKIP, SMALL, Measured, flop_per_token, in_a_process, matmul_speed, prepared, report

from tunesmith.tokens.store import TokenStore

BILLION = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128_256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
TOY = SMALL | {"num_hidden_layers": 2, "hidden_size": 96, "num_key_value_heads": 2, "intermediate_size": 128}
RANK = 16
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}  # dense bf16 FLOP/s


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=8, help="counted steps of a run")
    options.add_argument("--tiny", action="store_true", help="a toy on the CPU")
    given = options.parse_args()
    if not given.tiny and not torch.cuda.is_available():
        sys.exit(
            "There is no CUDA device here, so there is nothing to measure. Run this on a machine with a GPU and a CUDA "
            "build of PyTorch in both environments, or try the script itself on the CPU: --tiny."
        )
    with tempfile.TemporaryDirectory() as folder:
        for lora in (0, RANK):
            compare(Path(folder), lora, 1 if given.tiny else given.rounds, 1 if given.tiny else given.steps, given.tiny)


def compare(folder: Path, lora: int, rounds: int, steps: int, tiny: bool) -> None:
    shape, length, rows_a_step = (TOY, 512, 2) if tiny else (BILLION, 4096, 8)
    step = rows_a_step * length
    rows = (steps + SKIP + 1) * step // 150
    work = prepared(folder, shape, rows=rows, length=length, dtype="float32" if tiny else "bfloat16")
    shared = {**work, "steps": steps + SKIP, "skip": SKIP, "lora": lora, "bf16": not tiny}
    sides: dict[str, dict[str, Any]] = {"Tunesmith": {**shared, "room": length, "step": step}}
    has = installed_beside_trl()
    if lora and "peft" not in has:
        print("there is no PEFT beside TRL (`make bench` builds that environment): LoRA without TRL")
    elif PEERS.exists():
        fast = {
            "attention": "flash_attention_2" if "flash_attn" in has and not tiny else "sdpa",
            "liger": "liger_kernel" in has and not tiny,
        }
        shape_of_batch = {"length": length, "rows_at_once": 1, "accumulate": rows_a_step, "packing": True}
        sides["TRL packed"] = {**shared, **shape_of_batch, **fast, "cpu": tiny, "checkpointing": False}
        print(f"TRL with {fast['attention']}, {'with' if fast['liger'] else 'without'} Liger")
    else:
        print(f"{PEERS} is not there (`make bench` builds it): without TRL")
    runs: dict[str, list[Measured]] = {name: [] for name in sides}
    matmul = []
    for _ in range(rounds):
        matmul.append(matmul_speed(1024) if tiny else matmul_speed(8192, "cuda", torch.bfloat16))
        for name, job in sides.items():
            runs[name].append(in_a_process(name, job))
    cost = flop_per_token(shape, TokenStore.open(Path(work["store"])), lora)
    title = f"{f'LoRA of rank {lora}' if lora else 'full'}: medians of {rounds} runs of {steps} steps"
    report(title, runs, cost, statistics.median(matmul))
    if not tiny:
        utilisation(statistics.median(one.speed for one in runs["Tunesmith"]) * cost)


def utilisation(achieved: float) -> None:
    name = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    share = f"{achieved / peak:.1%} of its peak" if peak else "its peak is not in this file's table"
    print(f"  {name}: Tunesmith computes {achieved / 1e12:,.1f} model TFLOP/s, {share}")


def installed_beside_trl() -> list[str]:
    """What TRL's environment has of what TRL can use."""
    if not PEERS.exists():
        return []
    code = (
        "import json, importlib.util as u; "
        "print(json.dumps([n for n in ('flash_attn', 'liger_kernel', 'peft') if u.find_spec(n)]))"
    )
    found: list[str] = json.loads(subprocess.check_output([str(PEERS), "-c", code], text=True))
    return found


if __name__ == "__main__":
    main()
