"""Training beside TRL: tokens per second, peak memory, and how much of the machine's matmul speed is reached.

A Llama of 26M parameters with random weights (hidden 384, 8 layers, 6 heads, MLP 1,024, tied vocabulary of 32,000),
T0 rows of at most 1,024 tokens (the pocket world's if T0 is not there), fp32, all cores. Each side starts from the same
weights and reads the same tokens, of which the same are supervised; a step is about 8,192 tokens for each. TRL runs
packed (best fit, in the batch shape that is fastest for it) and in its default way, padded, both without activation
checkpointing, which would only slow it down. Then the same with a vocabulary of 152,064, beside TRL packed.

Sides run in turns, each run in a process of its own; what is printed are medians, and ratios of medians. Only real
tokens count, not padding. Peak memory is all the process ever held while training, libraries included.

Model FLOP: 6 per weight of the linear layers and token (2 forward, 4 backward), of the last layer's MLP only for each
supervised token, since nothing reads the others' results; 6 W V at each supervised token for the head; 6 W L^2 per
layer for the attention of a document of L tokens (two products of L x L x W under causality, each three times). What a
side computes beyond that (padding, other positions' logits) does not count. Their speed is given as a share of a
4,096 x 4,096 matmul's in fp32, measured in the same turns.

    python benchmarks/train.py [--rounds N] [--steps N] [--without-large] [--tokens-per-batch N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prepare import HERE, PEERS, read, trained
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.model.adapters import prepare_method
from tunesmith.model.load import load_base
from tunesmith.tokens.batches import plan_epochs
from tunesmith.tokens.many import encode_many
from tunesmith.tokens.store import TokenStore
from tunesmith.tokens.supervise import Rules
from tunesmith.train.loop import train
from tunesmith.train.settings import TrainSettings

LENGTH = 1024
STEP = 8192  # tokens of an optimizer step
SKIP = 1  # steps of warm-up that are not counted
SMALL = {
    "hidden_size": 384,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "intermediate_size": 1024,
    "vocab_size": 32_000,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
}
LARGE_VOCABULARY = 152_064


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run did after its warm-up. peak, before: bytes held at most, and when training began."""

    tokens: int
    seconds: float
    peak: int
    before: int
    loss_first: float
    loss: float

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=3, help="counted steps of a run")
    options.add_argument("--without-large", action="store_true", help="leave the large vocabulary out")
    options.add_argument("--without-trl", action="store_true")
    options.add_argument("--tokens-per-batch", type=int, default=1024, help="Tunesmith's packed row")
    options.add_argument("--run", help=argparse.SUPPRESS)  # a run of Tunesmith in this process: its job
    given = options.parse_args()
    if given.run:
        print(json.dumps(asdict(run(json.loads(given.run)))))
        return
    with_trl = not given.without_trl and PEERS.exists()
    if not PEERS.exists():
        print(f"{PEERS} is not there (`make bench` builds it): without TRL")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare(folder, SMALL, given.rounds, given.steps, given.tokens_per_batch, with_trl)
        if not given.without_large:
            large = SMALL | {"vocab_size": LARGE_VOCABULARY}
            compare(folder, large, given.rounds, max(1, given.steps - 1), given.tokens_per_batch, with_trl)


def compare(folder: Path, shape: dict[str, Any], rounds: int, steps: int, room: int, with_trl: bool) -> None:
    work = prepared(folder, shape, rows=(steps + SKIP + 1) * STEP // 150, length=LENGTH)
    ours = {**work, "steps": steps + SKIP, "skip": SKIP, "room": room, "step": STEP, "lora": 0, "bf16": False}
    sides: dict[str, dict[str, Any]] = {"Tunesmith": ours}
    if with_trl:
        sides["TRL packed"] = trl(work, steps, packing=True, rows_at_once=1, accumulate=STEP // LENGTH)
        if shape["vocab_size"] == SMALL["vocab_size"]:
            sides["TRL padded"] = trl(work, steps, packing=False, rows_at_once=8, accumulate=STEP // 8 // 228 or 1)
    runs: dict[str, list[Measured]] = {name: [] for name in sides}
    matmul = []
    for _ in range(rounds):
        matmul.append(matmul_speed())
        for name, job in sides.items():
            runs[name].append(in_a_process(name, job))
            print(f"    {name}: {runs[name][-1].speed:,.0f} tokens/s", flush=True)
    cost = flop_per_token(shape, TokenStore.open(Path(work["store"])))
    title = f"vocabulary of {shape['vocab_size']:,}: medians of {rounds} runs of {steps} steps"
    report(title, runs, cost, statistics.median(matmul))


def trl(work: Mapping[str, Any], steps: int, **changes: Any) -> dict[str, Any]:
    """A job of peers/trl_train.py."""
    fixed = {"length": LENGTH, "lora": 0, "bf16": False, "cpu": True, "liger": False, "checkpointing": False}
    return {**work, "steps": steps + SKIP, "skip": SKIP, "attention": "sdpa", **fixed, **changes}


def prepared(folder: Path, shape: dict[str, Any], *, rows: int, length: int, dtype: str = "float32") -> dict[str, str]:
    """Tokens for both sides, and a model with random weights; where they are."""
    model, store, lines = folder / f"model-{shape['vocab_size']}", folder / "store", folder / "rows.jsonl"
    if not store.exists():
        conversations = list(read(55_185))
        tokenizer = trained(folder, conversations)
        chosen = np.random.default_rng(0).permutation(len(conversations))[:rows]
        drawn = [conversations[index] for index in chosen]
        encoded = encode_many(drawn, tokenizer, Rules(max_length=length), on_drop=lambda row, error: None, workers=1)
        sequences = ((part, row.id, row.cluster) for row, parts in encoded for part in parts)
        written = TokenStore.write(store, sequences, {}, vocabulary=len(tokenizer))
        lines.write_text("".join(as_line(sequence) for sequence in written), encoding="utf-8")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**shape)).to(getattr(torch, dtype)).save_pretrained(model)
    for file in (folder / "tokenizer").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    out = folder / "out"
    return {"model": str(model), "store": str(store), "rows": str(lines), "out": str(out)}


def as_line(sequence: Any) -> str:
    labels = np.where(sequence.supervised, sequence.ids, -100)
    return json.dumps({"input_ids": sequence.ids.tolist(), "labels": labels.tolist()}) + "\n"


def in_a_process(name: str, job: Mapping[str, Any]) -> Measured:
    script = [str(PEERS), str(HERE / "peers" / "trl_train.py")] if name.startswith("TRL") else [sys.executable]
    command = [*script, json.dumps(job)] if name.startswith("TRL") else [*script, __file__, "--run", json.dumps(job)]
    quiet = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as out:  # caches and checkpoints of a run
        command[-1] = json.dumps({**job, "out": out})
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def run(job: Mapping[str, Any]) -> Measured:
    """One run of Tunesmith, in this process."""
    on_gpu = torch.cuda.is_available()
    loaded = load_base(job["model"], dtype="auto")
    method = "lora" if job["lora"] else "full"
    model = prepare_method(loaded.model, method, rank=job["lora"] or 16, alpha=2.0 * job["lora"])
    store = TokenStore.open(Path(job["store"]))
    settings = TrainSettings(
        learning_rate=1e-4,
        schedule="constant",
        warmup=0.0,
        tokens_per_step=job["step"],
        tokens_per_batch=job["room"],
        precision="bf16" if job["bf16"] else "fp32",
    )
    plan = plan_epochs(
        lambda epoch: np.arange(len(store))[: rows_for(store, job["steps"] * job["step"])],
        store.lengths,
        tokens_per_batch=job["room"],
        batches_per_step=settings.batches_per_step,
        epochs=1,
        seed=0,
    )
    before = start_of_memory(on_gpu)
    started = time.perf_counter()
    train(model, store, plan, settings, Path(job["out"]))
    taken = time.perf_counter() - started
    logged = (json.loads(line) for line in (Path(job["out"]) / "metrics.jsonl").read_text().splitlines())
    lines = [line for line in logged if "loss" in line]
    first, last = lines[job["skip"] - 1], lines[job["steps"] - 1]
    assert last["seconds"] <= taken, "the log counts fewer seconds than have passed"
    peak = torch.cuda.max_memory_allocated() if on_gpu else memory("VmHWM")
    tokens, seconds = last["tokens"] - first["tokens"], last["seconds"] - first["seconds"]
    return Measured(tokens, seconds, peak, before, lines[0]["loss"], last["loss"])


def rows_for(store: TokenStore, tokens: int) -> int:
    """How many of the store's first rows hold just under `tokens` tokens."""
    found = int(np.searchsorted(np.cumsum(store.lengths), tokens))
    assert found < len(store), f"{len(store)} rows are too few for {tokens} tokens"
    return found


def start_of_memory(on_gpu: bool) -> int:
    """What is held now, in bytes; the peak is counted from here on."""
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is held
    return memory("VmRSS")


def memory(name: str) -> int:
    """A line of this process's memory in bytes; VmHWM is the peak of VmRSS."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def flop_per_token(shape: Mapping[str, Any], store: TokenStore, lora: int = 0) -> float:
    """Model FLOP per token of the store's rows, as the docstring above counts them.

    lora: rank of adapters on all linear layers of the decoder; frozen weights need no gradient, so 4 instead of 6.
    """
    width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    shared = width * shape["num_key_value_heads"] // shape["num_attention_heads"]
    linear = [(width, width), (width, shared), (width, shared), (width, width), *[(width, inner)] * 3]
    frozen = 4 if lora else 6
    attend, mlp = (
        sum(frozen * a * b + 6 * lora * (a + b) for a, b in matrices) for matrices in (linear[:4], linear[4:])
    )
    lengths = store.lengths.astype(np.float64)
    supervised = store.supervised_counts.sum() / lengths.sum()
    attention = layers * 6 * width * (lengths**2).sum() / lengths.sum()
    head = frozen * width * shape["vocab_size"] * supervised
    return float(layers * attend + (layers - 1 + supervised) * mlp + attention + head)


def matmul_speed(size: int = 4096, device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of a product of two square matrices, the median of several."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    taken = []
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(a, b)
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(taken[1:])


def report(title: str, runs: Mapping[str, Sequence[Measured]], cost: float, matmul: float) -> None:
    def median(name: str, what: str) -> float:
        return statistics.median(getattr(one, what) for one in runs[name])

    print(f"{title}; {cost / 1e6:,.0f} MFLOP a token, matmul {matmul / 1e9:,.0f} GFLOP/s")
    for name in runs:
        speed, peak, before = (median(name, what) for what in ("speed", "peak", "before"))
        times, share = median("Tunesmith", "speed") / speed, median("Tunesmith", "peak") / peak
        above = (median("Tunesmith", "peak") - median("Tunesmith", "before")) / max(1.0, peak - before)
        print(
            f"  {name:12} {speed:10,.0f} tokens/s, {speed * cost / matmul:5.1%} of matmul; peak {peak / 1e9:6.2f} GB, "
            f"{(peak - before) / 1e9:6.2f} above the start; loss {median(name, 'loss_first'):.2f} to "
            f"{median(name, 'loss'):.2f}"
        )
        if name != "Tunesmith":
            print(
                f"    Tunesmith is {times:.2f} times as fast, with {share:.2f} of the peak memory ({above:.2f} of it "
                f"above the start)"
            )


if __name__ == "__main__":
    main()
