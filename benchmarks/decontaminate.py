"""Evaluation items planted among rows: how many are found, how many rows are accused wrongly, and how fast.

Items: GSM8K's test set (`../shared/data/gsm8k_test.jsonl`). Rows: T0 (`../shared/data/t0_train.parquet`), which holds
none of them. Each item's question is planted three times, in every second case behind the text of a T0 row: verbatim,
with its case and white space changed, and with one clause dropped that holds no number. The answers are not planted.
Then GSM8K's training set is looked through, whose questions resemble those of the test set more than any other text.

    python benchmarks/decontaminate.py [--rows N]
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.parallel import cores, map_chunks
from tunesmith.data.duplicates.decontaminate import Decontaminator
from tunesmith.data.duplicates.items import read_items
from tunesmith.data.sources.read import read_source

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=55_185)
    given = options.parse_args()
    if not (DATA / "gsm8k_test.jsonl").exists():
        print(f"{DATA} is not there: nothing to look for")
        return
    rows = read_source("t0", DATA / "t0_train.parquet").rows[: given.rows]
    items = read_items("gsm8k", DATA / "gsm8k_test.jsonl")
    started = time.process_time()
    stage = Decontaminator(items)
    print(f"{len(items):,} items, their index made in {time.process_time() - started:.2f} s")
    draw = random.Random(13)
    questions = {item.id: next(text for kind, text in item.texts if kind == "question") for item in items}
    for name, change in (("verbatim", verbatim), ("case and white space", respaced), ("a clause dropped", clipped)):
        planted(stage, name, {id: change(text, draw) for id, text in questions.items()}, rows, draw)
    accused(stage, "T0", rows)
    accused(stage, "GSM8K's training set", read_source("train", DATA / "gsm8k_train.jsonl").rows)


def planted(
    stage: Decontaminator, name: str, texts: dict[str, str], rows: list[Conversation], draw: random.Random
) -> None:
    found = named = 0
    for number, (id, text) in enumerate(texts.items()):
        around = draw.choice(rows).messages[0].content + "\n\n" if number % 2 else ""
        hit = stage.find(Conversation(id, (Message("user", around + text), Message("assistant", "I see."))))
        found += hit is not None
        named += hit is not None and hit.item == id
    print(f"  {name:22} {found / len(texts):8.2%} found, {named / len(texts):8.2%} under the item's own name")


def accused(stage: Decontaminator, name: str, rows: list[Conversation]) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    hits = [hit for row in rows if (hit := stage.find(row))]
    taken, used = time.perf_counter() - started, time.process_time() - cpu
    started = time.perf_counter()
    many = [
        hit for part in map_chunks(lambda part: list(map(stage.find, part)), rows, 500, cores()) for hit in part if hit
    ]
    assert many == hits
    both = time.perf_counter() - started
    print(
        f"  {name}: {len(hits):,} of {len(rows):,} rows hold an item ({len(hits) / len(rows):.3%}); "
        f"{len(rows) / taken:,.0f} rows/s in one process ({len(rows) / used:,.0f} a second of processor time), "
        f"{len(rows) / both:,.0f} rows/s in {cores()}"
    )
    for hit in hits[:5]:
        print(f"    {hit.item}, {hit.how}: {hit.span[:100]!r}")


def verbatim(text: str, _: random.Random) -> str:
    return text


def respaced(text: str, draw: random.Random) -> str:
    changes: list[Callable[[str], str]] = [str.upper, str.lower, str.title]
    words = draw.choice(changes)(text).split()
    return "".join(word + draw.choice((" ", "  ", "\n", "\t ")) for word in words)


def clipped(text: str, draw: random.Random) -> str:
    """Without one clause that holds no digit; if each does, without the longest stretch that holds none."""
    clauses = re.findall(r".+?(?:[,.;:?!](?=\s|$)\s*|$)", text, re.DOTALL)
    free = [number for number, clause in enumerate(clauses) if not re.search(r"\d", clause)]
    if free:
        del clauses[draw.choice(free)]
        return "".join(clauses)
    return text.replace(max(re.findall(r"\D+", text), key=len), " ", 1)


if __name__ == "__main__":
    main()
