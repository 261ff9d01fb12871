"""Near-duplicates among 50,000 documents with 5,000 planted: recall, precision, and speed beside datasketch.

Documents have 50 to 350 words of a vocabulary of 20,000 with Zipf's frequencies. A planted one is a copy of another in
which 1 to 15% of the words were replaced, left out or added. What is true is counted here with sets of tuples of words:
of the planted pairs, and of all that was found. Times are of the whole road from texts to pairs, processor time of all
processes beside wall time; datasketch does not verify its candidates, Tunesmith does.

    python benchmarks/dedup.py [--documents N] [--planted N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tunesmith.base.conversation import Conversation
from tunesmith.base.parallel import cores
from tunesmith.data.duplicates.near import NearDuplicates

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-peers" / "bin" / "python"
SIZE = 5
THRESHOLDS = (0.5, 0.7, 0.8, 0.9)
TIMED = 0.8

Pair = tuple[int, int]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--documents", type=int, default=50_000)
    options.add_argument("--planted", type=int, default=5_000)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    texts, planted = documents(given.documents, given.planted)
    rows = [Conversation.from_text(f"d:{number}", text) for number, text in enumerate(texts)]
    sets = [ngrams(text) for text in texts]
    for threshold in THRESHOLDS:
        check(rows, sets, planted, threshold)
    compare(texts, rows, sets, planted, given.rounds)


def documents(count: int, planted: int) -> tuple[list[str], list[Pair]]:
    draw = random.Random(5)
    frequencies = 1 / np.arange(1, 20_001)
    numbers = np.random.default_rng(5)
    texts: list[list[str]] = []
    for _ in range(count - planted):
        length = draw.randint(50, 350)
        texts.append([f"w{k}" for k in numbers.choice(20_000, length, p=frequencies / frequencies.sum())])
    pairs = []
    for original in draw.sample(range(count - planted), planted):
        pairs.append((original, len(texts)))
        texts.append(edited(texts[original], draw.uniform(0.01, 0.15), draw))
    return [" ".join(words) for words in texts], pairs


def edited(words: list[str], rate: float, draw: random.Random) -> list[str]:
    out: list[str] = []
    for word in words:
        kind = draw.randrange(3) if draw.random() < rate else None
        if kind != 0:  # 0: left out
            out.append(f"w{draw.randrange(20_000)}" if kind == 1 else word)
        if kind == 2:
            out.append(f"w{draw.randrange(20_000)}")
    return out


def ngrams(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(zip(*(words[k:] for k in range(SIZE)), strict=False))


def jaccard(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    return len(a & b) / len(a | b)


def check(rows: list[Conversation], sets: list[set[tuple[str, ...]]], planted: list[Pair], threshold: float) -> None:
    found = set(ours(rows, threshold, cores())[0])
    true = {pair for pair in planted if jaccard(sets[pair[0]], sets[pair[1]]) >= threshold + 0.05}
    at_all = {pair for pair in planted if jaccard(sets[pair[0]], sets[pair[1]]) >= threshold}
    right = sum(jaccard(sets[i], sets[j]) >= threshold for i, j in found)
    print(
        f"threshold {threshold}: of {len(true):,} pairs above {threshold + 0.05:.2f} "
        f"{len(true & found) / len(true):.2%} found, of {len(at_all):,} above {threshold} "
        f"{len(at_all & found) / len(at_all):.2%}; "
        f"{len(found):,} pairs found, {right / len(found):.2%} of them rightly"
    )


def ours(rows: list[Conversation], threshold: float, workers: int) -> tuple[list[Pair], float, float]:
    """The pairs that were verified; wall and processor seconds."""
    started, cpu = time.perf_counter(), processor_seconds()
    near = NearDuplicates(rows, np.arange(len(rows)), threshold=threshold, size=SIZE, over="response", workers=workers)
    pairs = [(min(pair), max(pair)) for pair in near.pairs()]
    return pairs, time.perf_counter() - started, processor_seconds() - cpu


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def compare(
    texts: list[str], rows: list[Conversation], sets: list[set[tuple[str, ...]]], planted: list[Pair], rounds: int
) -> None:
    if not PEERS.exists():
        print(f"{PEERS} is not there (`make bench` builds it): without datasketch")
        return
    taken: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "documents.jsonl", Path(folder) / "pairs.json"
        source.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
        for turn in range(rounds + 1):
            for workers in sorted({1, cores()}):
                name = f"Tunesmith, {workers} process{'es' * (workers > 1)}"
                taken.setdefault(name, []).append(ours(rows, TIMED, workers)[1:])
            taken.setdefault("datasketch", []).append(datasketch(source, out))
            if not turn:  # the first of each is the warm-up
                taken.clear()
        found = {(min(i, j), max(i, j)) for i, j in json.loads(out.read_text())}
    peer = medians(taken["datasketch"])
    print(f"{len(rows):,} documents, threshold {TIMED}, {SIZE}-grams, medians of {rounds}")
    for name, seconds in taken.items():
        wall, cpu = medians(seconds)
        print(
            f"  {name:24} {len(rows) / wall:8,.0f} documents/s, {peer[0] / wall:5.1f} times as fast as datasketch; "
            f"{cpu:6.2f} s of processor time, {peer[1] / cpu:5.1f} times less"
        )
    true = {pair for pair in planted if jaccard(sets[pair[0]], sets[pair[1]]) >= TIMED + 0.05}
    right = sum(jaccard(sets[i], sets[j]) >= TIMED for i, j in found)
    print(f"  datasketch finds {len(true & found) / len(true):.2%} of the same pairs, {right / len(found):.2%} rightly")


def datasketch(source: Path, out: Path) -> tuple[float, float]:
    command = [str(PEERS), str(HERE / "peers" / "datasketch_dedup.py"), str(source), str(out), str(TIMED), str(SIZE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"datasketch failed:\n{done.stderr[-2000:]}")
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def medians(times: Iterable[tuple[float, float]]) -> tuple[float, float]:
    walls, cpus = zip(*times, strict=True)
    return statistics.median(walls), statistics.median(cpus)


if __name__ == "__main__":
    main()
