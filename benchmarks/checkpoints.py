"""How much of the training time goes into checkpoints, written in line and beside the training.

A 26-million-parameter Llama (300 MB a checkpoint) trains for some steps, with a checkpoint every ten, in turns without
checkpoints, with them, and with them written in the background. Printed: time against training without.

    python benchmarks/checkpoints.py [--steps N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.model.attention import NAME
from tunesmith.tokens.batches import plan_epochs
from tunesmith.tokens.encoded import Encoded
from tunesmith.train.loop import train
from tunesmith.train.settings import TrainSettings

SETTINGS = TrainSettings(tokens_per_step=2048, tokens_per_batch=1024, learning_rate=1e-4)
WAYS = {
    "no checkpoints": replace(SETTINGS, checkpoint_every=0),
    "written in line": replace(SETTINGS, checkpoint_every=10),
    "written in the background": replace(SETTINGS, checkpoint_every=10, background_checkpoints=True),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(given.rounds + 1):
        for way, settings in WAYS.items():
            seconds = trained(settings, given.steps)
            if turn:  # the first of each is the warm-up
                taken[way].append(seconds)
    medians = {way: statistics.median(seconds) for way, seconds in taken.items()}
    print(f"{given.steps} steps, a checkpoint every 10, medians of {given.rounds}")
    for way, median in medians.items():
        print(f"  {way:28} {median / medians['no checkpoints'] - 1:+7.1%} time")


def trained(settings: TrainSettings, steps: int) -> float:
    """Seconds of training, the last write included only as far as training waits for it."""
    rng = np.random.default_rng(0)
    rows = [Encoded(rng.integers(0, 32_000, 256).astype(np.int32), np.arange(256) >= 192) for _ in range(8 * steps)]
    plan = plan_epochs(
        lambda epoch: np.arange(len(rows)),
        np.full(len(rows), 256),
        tokens_per_batch=settings.tokens_per_batch,
        batches_per_step=settings.batches_per_step,
        epochs=1,
        seed=0,
    )
    model = llama()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train(model, rows, plan, settings, Path(folder))
        return time.perf_counter() - started


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        tie_word_embeddings=True,
        attn_implementation=NAME,
    )
    return LlamaForCausalLM(config)


if __name__ == "__main__":
    main()
