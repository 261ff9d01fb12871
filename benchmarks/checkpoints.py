"""How much of the training time goes into checkpoints, written in line and beside the training.

A 26-million-parameter Llama (315 MB a checkpoint, with AdamW's state) trains in turns without checkpoints, with them,
and with them written in the background. What counts is from the first checkpoint to the last, so that neither the start
nor the last checkpoint, which has no training beside it, is in it. Printed of each way: time and processor time between
two checkpoints, against those without any; and how long training waits for one.

    python benchmarks/checkpoints.py [--steps N] [--every N] [--rounds N] [--threads N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.model.attention import NAME
from tunesmith.tokens.batches import plan_epochs
from tunesmith.tokens.encoded import Encoded
from tunesmith.train import trainer
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.loop import train
from tunesmith.train.settings import TrainSettings

NONE, IN_LINE, BESIDE = "no checkpoints", "written in line", "written in the background"
DEFAULT_EVERY = 200  # steps, of the recipe


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of an interval between checkpoints; processor seconds of it, all threads; and, per checkpoint, seconds
    that training waited."""

    interval: float
    processor: float
    waited: float


class Watched(Checkpoints):
    """Checkpoints that notes when it was called, by the clock and by processor time, and for how long; or only that."""

    saves = True
    calls: list[tuple[float, float, float]]

    def save(self, state: Mapping[str, Any], *, best: int | None = None) -> None:
        started, used = time.perf_counter(), time.process_time()
        if Watched.saves:
            super().save(state, best=best)
        Watched.calls.append((started, used, time.perf_counter() - started))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=40)
    options.add_argument("--every", type=int, default=10)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=0, help="of the training; 0: one per core")
    given = options.parse_args()
    trainer.Checkpoints = Watched  # type: ignore[misc]
    taken: dict[str, list[Taken]] = {way: [] for way in (NONE, IN_LINE, BESIDE)}
    for _ in range(given.rounds):
        for way, found in taken.items():
            found.append(watched(way, given.steps, given.every, given.threads))
    print(f"{given.steps} steps, a checkpoint every {given.every}, medians of {given.rounds} rounds")
    alone, busy = middle(taken[NONE], "interval"), middle(taken[NONE], "processor")
    for way, found in taken.items():
        interval, processor, waited = (middle(found, name) for name in ("interval", "processor", "waited"))
        rare = waited / (alone / given.every * DEFAULT_EVERY)
        print(
            f"  {way:26} {interval:6.1f} s ({interval / alone - 1:+.1%}), of processors {processor:.1f} s "
            f"({processor / busy - 1:+.1%}); waited {waited:.2f} s ({waited / alone:.1%}; every {DEFAULT_EVERY} "
            f"steps {rare:.2%})"
        )


def middle(found: list[Taken], name: str) -> float:
    return statistics.median(getattr(each, name) for each in found)


def watched(way: str, steps: int, every: int, threads: int) -> Taken:
    Watched.saves, Watched.calls = way != NONE, []
    settings = TrainSettings(tokens_per_step=2048, tokens_per_batch=1024, learning_rate=1e-4, threads=threads)
    trained(replace(settings, checkpoint_every=every, background_checkpoints=way == BESIDE), steps)
    first, last, count = Watched.calls[0], Watched.calls[-1], len(Watched.calls) - 1
    waits = [waited for _, _, waited in Watched.calls[1:]]  # the first makes room for the copies
    return Taken((last[0] - first[0]) / count, (last[1] - first[1]) / count, statistics.mean(waits))


def trained(settings: TrainSettings, steps: int) -> None:
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
    with tempfile.TemporaryDirectory() as folder:
        train(llama(), rows, plan, settings, Path(folder))


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
