"""The memory that `tunesmith plan` foresees beside what training takes: at most 15% apart for full and LoRA.

Llamas with random weights (the pocket model's shape, 26M parameters, 100M) train some steps of two packed rows, each in
a process of its own, in fp32, with and without activation checkpointing. Measured is the highest resident memory of
the process above what it held when a much smaller training had run in it, so that libraries and their buffers are
not counted; foreseen is the same, without "process and libraries". Freed blocks go back to the system
(`tunesmith.base.heap`), since else glibc's heaps are measured: that is what --heaps shows.

    python benchmarks/plan_memory.py [--sizes pocket,26M,100M] [--tokens N] [--heaps]
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig

from tunesmith.model.adapters import prepare_method
from tunesmith.model.attention import NAME
from tunesmith.model.blank import model_of
from tunesmith.model.memory import rehearse, step_memory
from tunesmith.model.recompute import checkpoint_activations
from tunesmith.tokens.batches import plan_epochs
from tunesmith.tokens.encoded import Encoded
from tunesmith.train.loop import train
from tunesmith.train.settings import TrainSettings

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 512},
    "pocket": {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 2048},
    "26M": {"hidden_size": 384, "num_hidden_layers": 8, "num_attention_heads": 6, "vocab_size": 32_000},
    "100M": {"hidden_size": 768, "num_hidden_layers": 9, "num_attention_heads": 12, "vocab_size": 32_000},
}
WIDE = {"tiny": 128, "pocket": 512, "26M": 1024, "100M": 2304}  # of the MLP
STEPS, ROWS, DOCUMENT, SUPERVISED = 2, 2, 256, 0.25


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--sizes", default="pocket,26M,100M")
    options.add_argument("--tokens", type=int, default=1024, help="of a packed row, a multiple of 256")
    options.add_argument("--heaps", action="store_true", help="leave glibc's heaps as they are")
    options.add_argument("--child", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(json.dumps(measured(**json.loads(given.child))))
        return
    print(f"fp32, {ROWS} packed rows of {given.tokens:,} tokens a step; MB, foreseen / measured")
    apart = 0.0
    for size in given.sizes.split(","):
        for method in ("full", "lora"):
            for checkpointing in (False, True):
                job = {"size": size, "method": method, "checkpointing": checkpointing, "tokens": given.tokens}
                ours, real = foreseen(**job), child({**job, "heaps": given.heaps})
                apart = max(apart, abs(ours / real - 1))
                name = f"{size}, {method}" + (", checkpointing" if checkpointing else "")
                print(f"  {name:30} {ours / 1e6:8,.0f} {real / 1e6:8,.0f}   {ours / real:.2f}", flush=True)
    print(f"at most {apart:.0%} apart")


def config(size: str) -> LlamaConfig:
    return LlamaConfig(
        **SIZES[size],
        num_key_value_heads=SIZES[size]["num_attention_heads"],
        intermediate_size=WIDE[size],
        tie_word_embeddings=True,
        attn_implementation=NAME,
    )


def built(size: str, method: str, checkpointing: bool) -> Any:
    model = prepare_method(model_of(config(size)), method)
    return checkpoint_activations(model) if checkpointing else model


def foreseen(size: str, method: str, checkpointing: bool, tokens: int) -> int:
    lengths = [DOCUMENT] * (tokens // DOCUMENT)
    found = rehearse(lambda: built(size, method, checkpointing), lengths, SUPERVISED, rows=ROWS)
    return step_memory(found, "adamw", rows=ROWS).total


def child(job: dict[str, Any]) -> int:
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the training failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def measured(size: str, method: str, checkpointing: bool, tokens: int, heaps: bool) -> int:
    """Bytes of the highest resident memory above what a much smaller training has left."""
    trained("tiny", method, checkpointing, DOCUMENT, heaps)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest is now what there is
    before = resident("VmRSS")
    trained(size, method, checkpointing, tokens, heaps)
    return resident("VmHWM") - before


def trained(size: str, method: str, checkpointing: bool, tokens: int, heaps: bool) -> None:
    torch.manual_seed(0)
    model = built(size, method, checkpointing)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter.data, std=0.02)  # touches every page
    ids = np.random.default_rng(0).integers(500, size=(STEPS * ROWS * tokens // DOCUMENT, DOCUMENT)).astype(np.int32)
    first = round(DOCUMENT * (1 - SUPERVISED))
    store = [Encoded(row, np.arange(DOCUMENT) >= first) for row in ids]
    settings = TrainSettings(tokens_per_batch=tokens, tokens_per_step=ROWS * tokens, low_memory=not heaps)
    lengths = np.full(len(store), DOCUMENT)
    plan = plan_epochs(
        lambda _: np.arange(len(store)), lengths, tokens_per_batch=tokens, batches_per_step=ROWS, epochs=1, seed=0
    )
    with tempfile.TemporaryDirectory() as folder:
        train(model, store, plan, settings, Path(folder))


def resident(name: str) -> int:
    """A line of this process's status, in bytes; VmHWM is the highest VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
