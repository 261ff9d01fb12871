"""The whole of `prepare` at two sizes: peak memory, and what a row costs at the larger one against the smaller.

Conversations of about 1 KB are generated: varied, with planted duplicates, near-duplicates, evaluation items, empty
phrases, personal data and cut code. All stages but the semantic one run on them: clean, filter, decontaminate, exact
and near duplicates, split, mix, supervise. Memory is the sum of the proportional set sizes of all processes at its
highest, cost is their processor time; the wall time is told beside it.

    python benchmarks/prepare_scale.py [ROWS ...] [--folder DIR] [--profile]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from tunesmith.pocket import corpus

SIZES = (200_000, 2_000_000)
MEMORY_GIB, COST_RATIO = 4.0, 1.3  # what is promised
ITEMS = 1_000
RECIPE = """
base: pocket
data:
  sources: [{{path: {rows}}}]
  clean: {{}}
  filter: {{personal: redact, refusals: drop}}
  decontaminate: {{against: [{{path: {items}}}]}}
  dedup: {{near: 0.8}}
  mix: {{strategy: temperature, temperature: 2.0}}
  hold_out: {{items: 0.01}}
train: {{max_length: 2048}}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("rows", type=int, nargs="*", default=SIZES)
    options.add_argument("--folder", type=Path, help="where to work; needs about 6 KB a row")
    options.add_argument("--profile", action="store_true", help="tell when each line of the command came")
    given = options.parse_args()
    results = []
    for count in given.rows:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            results.append(measured(Path(folder), count, given.profile))
    first, last = results[0], results[-1]
    ratio = last.processor / last.rows / (first.processor / first.rows)
    print(f"processor time of a row at {last.rows:,} against {first.rows:,}: {ratio:.2f} (at most {COST_RATIO})")
    print(f"most memory: {last.peak:.2f} GiB (at most {MEMORY_GIB:.0f})")
    sys.exit(ratio > COST_RATIO or last.peak > MEMORY_GIB)


# The conversations


def generate(folder: Path, count: int) -> tuple[Path, Path]:
    """The file of conversations and the file of evaluation items."""
    rng = np.random.default_rng(count)
    rows, items = folder / "rows.jsonl", folder / "items.jsonl"
    texts = Texts(rng)
    questions = [texts.sentence(24) for _ in range(ITEMS)]
    items.write_text("".join(json.dumps({"instruction": q, "output": "It is so."}) + "\n" for q in questions))
    with rows.open("w", encoding="utf-8", buffering=1 << 20) as file:
        for asked, answer in conversations(rng, texts, questions, count):
            group = f"topic {hash_of(asked) % 23}"
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": messages, "cluster": group}, ensure_ascii=False) + "\n")
    return rows, items


def conversations(
    rng: np.random.Generator, texts: Texts, questions: list[str], count: int
) -> Iterator[tuple[str, str]]:
    """(instruction, response) pairs. Of a hundred, two are copies, three near copies, one holds an evaluation item."""
    recent: list[tuple[str, str]] = []
    for kind in rng.integers(0, 100, count).tolist():
        asked, answer = texts.passage(3), texts.passage(9)
        if kind < 5 and recent:
            asked, answer = recent[int(rng.integers(len(recent)))]
            if kind >= 2:
                answer = f"{answer} {texts.sentence(3)}"
        elif kind == 5:
            asked = f"{asked} {questions[int(rng.integers(len(questions)))]}"
        elif kind < 12:
            answer = f"Sure! {answer} I hope this helps!"
        elif kind == 12:
            answer += " Write to jane.doe@harbourmail.com."
        elif kind == 13:
            answer = "I'm sorry, but I can't help with that."
        elif kind == 14:
            answer += "\n```python\nprint(1)"
        yield asked, answer
        if len(recent) < 10_000:
            recent.append((asked, answer))
        else:
            recent[int(rng.integers(10_000))] = asked, answer


class Texts:
    """Text of 20,000 words whose frequencies fall as Zipf's law has it, the first of them the pocket world's."""

    def __init__(self, rng: np.random.Generator) -> None:
        known = dict.fromkeys(word for text in corpus.documents(0, 500) for word in text.split() if word.isalpha())
        syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "ol")]
        made = ("".join(rng.choice(syllables, int(rng.integers(2, 4)))) for _ in range(40_000))
        self._words = np.array(list(dict.fromkeys([*known, *made]))[:20_000], object)
        shares = 1 / np.arange(10, 10 + len(self._words))
        self._below = np.cumsum(shares / shares.sum())
        self._rng = rng
        self._drawn: list[str] = []

    def sentence(self, words: int) -> str:
        if len(self._drawn) < words:
            drawn = np.searchsorted(self._below, self._rng.random(1 << 18)).clip(max=len(self._words) - 1)
            self._drawn = self._words[drawn].tolist()
        taken = self._drawn[-words:]
        del self._drawn[-words:]
        return " ".join(taken).capitalize() + "."

    def passage(self, sentences: int) -> str:
        return " ".join(self.sentence(int(words)) for words in self._rng.integers(6, 24, sentences))


def hash_of(text: str) -> int:
    return sum(text.encode()[:20])


# Measuring


@dataclass
class Result:
    """What `prepare` took. wall, processor: seconds. peak: GiB. lines: (seconds, GiB) at each line that was said."""

    rows: int
    wall: float = 0.0
    processor: float = 0.0
    peak: float = 0.0
    lines: list[tuple[float, float, str]] = field(default_factory=list)


def measured(folder: Path, count: int, profile: bool) -> Result:
    rows, items = generate(folder, count)
    size = rows.stat().st_size
    print(f"{count:,} conversations, {size / 1e9:.2f} GB", flush=True)
    recipe = folder / "scale.yaml"
    recipe.write_text(RECIPE.format(rows=rows, items=items))
    result = Result(count)
    before = children_time()
    started = time.perf_counter()
    command = [sys.executable, "-m", "tunesmith", "prepare", str(recipe), "--output", str(folder / "run")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stopped, now = threading.Event(), [0.0]
    watcher = threading.Thread(target=watch, args=(child.pid, stopped, now, result))
    watcher.start()
    assert child.stdout
    for line in child.stdout:
        result.lines.append((time.perf_counter() - started, now[0], line.rstrip()))
        if profile:
            print("{:8.1f} s {:6.2f} GiB  {}".format(*result.lines[-1])[:200], flush=True)
    code = child.wait()
    stopped.set()
    watcher.join()
    result.wall, result.processor = time.perf_counter() - started, children_time() - before
    if code:
        sys.exit("prepare failed:\n" + "\n".join(line for *_, line in result.lines[-20:]))
    print(
        f"  {count / result.wall:,.0f} rows/s; {result.processor / count * 1e3:.2f} ms of processor time a row; "
        f"most memory {result.peak:.2f} GiB; disk {disk(folder) / 1e9:.1f} GB",
        flush=True,
    )
    return result


def watch(pid: int, stopped: threading.Event, now: list[float], result: Result) -> None:
    while not stopped.wait(0.5):
        try:
            processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            return
        now[0] = sum(map(pss, processes)) / 2**30
        result.peak = max(result.peak, now[0])


def pss(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss)
    except psutil.Error:  # it has ended
        return 0.0


def children_time() -> float:
    """Processor seconds of all processes that were started below this one and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
