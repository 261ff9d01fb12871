"""Reading to finished token store, against the tokenizer alone and against TRL's preparation of the same rows.

Data: T0 (`../shared/data/t0_train.parquet`) if it is there, else as many rows of the pocket world. The tokenizer is a
byte-level BPE of 32,000 tokens trained on these rows. Everything runs on both cores, in turns, several times; what is
printed are medians and ratios. Sequences have at most 2,048 tokens: TRL cuts longer rows, Tunesmith leaves them out.

    python benchmarks/prepare.py [--rows N] [--rounds N] [--without-trl]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunesmith.base.conversation import Conversation
from tunesmith.base.parallel import cores
from tunesmith.data.sources.read import read_source
from tunesmith.pocket import tasks
from tunesmith.tokens.many import encode_many
from tunesmith.tokens.store import TokenStore
from tunesmith.tokens.supervise import Rules

HERE = Path(__file__).parent
T0 = HERE.parent.parent / "shared" / "data" / "t0_train.parquet"
PEERS = HERE.parent / ".venv-peers" / "bin" / "python"
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}{% else %}\
{{ message.content }}<|im_end|>{% endif %}

{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=55_185)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--without-trl", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), given.rows, given.rounds, not given.without_trl)


def compare(folder: Path, rows: int, rounds: int, with_trl: bool) -> None:
    conversations = list(read(rows))
    tokenizer = trained(folder, conversations)
    source = folder / "rows.jsonl"
    source.write_text("".join(line(row) for row in conversations), encoding="utf-8")
    texts = [rendered(row, tokenizer) for row in conversations]
    runs: dict[str, Callable[[], float]] = {
        "the tokenizer's encode_batch alone": lambda: alone(tokenizer, texts),
        "Tunesmith, file to token store": lambda: ours(folder, source, tokenizer, len(conversations)),
    }
    if with_trl and PEERS.exists():
        runs["TRL 1.16, two processes"] = lambda: trl(folder, source)
    elif with_trl:
        print(f"{PEERS} is not there (`make bench` builds it): without TRL")
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            seconds = run()
            if turn:  # the first of each is the warm-up
                taken[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    own = medians["Tunesmith, file to token store"]
    print(f"{len(conversations):,} rows, medians of {rounds}")
    for name, median in medians.items():
        print(f"  {name:36} {len(conversations) / median:8,.0f} rows/s, Tunesmith is {median / own:.2f} times as fast")


def read(rows: int) -> Iterator[Conversation]:
    if T0.exists():
        yield from read_source("t0", str(T0)).rows[:rows]
    else:
        print(f"{T0} is not there: rows of the pocket world instead")
        yield from tasks.conversations(0, rows)


def line(row: Conversation) -> str:
    return json.dumps({"messages": [message.for_template() for message in row.messages]}, ensure_ascii=False) + "\n"


def rendered(row: Conversation, tokenizer: PreTrainedTokenizerFast) -> str:
    text: str = tokenizer.apply_chat_template([m.for_template() for m in row.messages], tokenize=False)
    return text


def trained(folder: Path, rows: list[Conversation]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=32_000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((message.content for row in rows for message in row.messages), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    return tokenizer


def alone(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    started = time.perf_counter()
    for start in range(0, len(texts), 1000):
        tokenizer.backend_tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False)
    return time.perf_counter() - started


def ours(folder: Path, source: Path, tokenizer: PreTrainedTokenizerFast, rows: int) -> float:
    started = time.perf_counter()
    found = read_source("t0", str(source))
    drops: list[str] = []
    encoded = encode_many(
        found.rows, tokenizer, Rules(max_length=2048), on_drop=lambda row, error: drops.append(row.id), workers=cores()
    )
    sequences = ((part, row.id, row.cluster) for row, parts in encoded for part in parts)
    store = TokenStore.write(folder / "store", sequences, {}, vocabulary=len(tokenizer))
    taken = time.perf_counter() - started
    assert len(store) + len(drops) + len(found.rejected) == rows
    return taken


def trl(folder: Path, source: Path) -> float:
    out = folder / "trl"
    command = [
        str(PEERS),
        str(HERE / "peers" / "trl_prepare.py"),
        str(source),
        str(folder / "tokenizer"),
        str(out),
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"TRL failed:\n{done.stderr[-2000:]}")
    shutil.rmtree(out, ignore_errors=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
