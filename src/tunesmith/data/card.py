"""The card of an exported data set: what is in it, where it came from, and what was done to it, as Markdown.

It begins with the header that the Hub reads, so that `datasets.load_dataset` of the folder gives the splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

UNKNOWN = "not given"
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
_LARGEST = "10M<n<100M"


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """name: as in row ids. origin: the file, glob or Hub address. files: of each its name, bytes and SHA-256."""

    name: str
    origin: str
    licence: str | None
    read: int
    understood: str
    files: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file that was written. config: "default" or "plain_text"."""

    config: str
    split: str
    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a card tells. steps: the ledger's. mixture: as in mixture.json. fields: of messages, beside role and
    content. halved: rows with half of a surrogate pair, which no file can hold."""

    name: str
    version: str
    seed: int
    sources: Sequence[SourceFacts]
    files: Sequence[FileFacts]
    steps: Sequence[Mapping[str, Any]]
    mixture: Mapping[str, Any]
    fields: Sequence[str]
    halved: int


def card(facts: CardFacts) -> str:
    """The text of README.md."""
    parts = [
        _header(facts),
        f"# {facts.name}\n",
        f"Instruction data in messages format, prepared by Tunesmith {facts.version} with seed {facts.seed}. Every row "
        f"that was read is accounted for below.\n",
        "## Sources\n",
        _table(
            ["source", "from", "licence", "rows read", "understood as"],
            ([s.name, s.origin, s.licence or UNKNOWN, f"{s.read:,}", s.understood] for s in facts.sources),
        ),
        _table(
            ["source", "file", "bytes", "SHA-256"],
            ([s.name, name, f"{size:,}", f"`{sha256}`"] for s in facts.sources for name, size, sha256 in s.files),
        ),
        "## What was done\n",
        _table(
            ["stage", "rows in", "kept", "changed", "dropped", "why"],
            map(_step, facts.steps),
        ),
        "## Splits\n",
        _table(
            ["set", "split", "file", "rows", "bytes", "SHA-256"],
            ([f.config, f.split, f.path, f"{f.rows:,}", f"{f.bytes:,}", f"`{f.sha256}`"] for f in facts.files),
        ),
        *_mixture(facts.mixture),
        *_columns(facts),
        *_loading(facts),
    ]
    return "\n".join(part for part in parts if part)


def _header(facts: CardFacts) -> str:
    licences = sorted({source.licence or "unknown" for source in facts.sources})
    rows = sum(file.rows for file in facts.files if file.path.endswith(".parquet"))
    configs: dict[str, list[dict[str, str]]] = {}
    for file in facts.files:
        if file.path.endswith(".parquet"):
            configs.setdefault(file.config, []).append({"split": file.split, "path": file.path})
    header = {
        "license": licences[0] if len(licences) == 1 else licences,
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning"],
        "size_categories": [next((name for below, name in _SIZES if rows < below), _LARGEST)],
        "configs": [{"config_name": name, "data_files": files} for name, files in configs.items()],
    }
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n"


def _step(step: Mapping[str, Any]) -> list[str]:
    counts = [f"{step[name]:,}" for name in ("read", "kept", "changed", "dropped")]
    return [step["stage"], *counts, "; ".join(f"{why} {count:,}" for why, count in step["reasons"].items())]


def _mixture(mixture: Mapping[str, Any]) -> list[str]:
    groups = mixture.get("groups") or {}
    if not groups:
        return []
    names = list(dict.fromkeys(key for group in groups.values() for key in group))
    table = _table(
        [str(mixture.get("by", "group")), *(name.replace("_", " ") for name in names)],
        ([group, *(_number(facts.get(name)) for name in names)] for group, facts in groups.items()),
    )
    lines = f"Each row is in the files once. In training, an epoch drew ({mixture.get('strategy', 'as given')}):\n"
    replay = mixture.get("replay") or {}
    share = [f"Replayed plain text made {replay['drawn']:.1%} of its tokens.\n"] if replay.get("drawn") else []
    return ["## Mixture\n", lines, table, *share]


def _columns(facts: CardFacts) -> list[str]:
    told = {
        "reasoning_content": "what the model thinks before it answers",
        "tool_calls": "`{id, type, function: {name, arguments}}`, the arguments as a JSON string: rows that call "
        "different tools then have one type, which Parquet needs",
        "name": "of the tool whose result it is",
        "tool_call_id": "the call that is answered",
        "train": "false for an answer that is not to be learned",
    }
    lines = [
        "- `messages`: a list of `role` (system, user, assistant, tool) and `content`"
        + (", and where there is something to say" if facts.fields else ""),
        *(f"  - `{name}`: {told[name]}" for name in facts.fields),
        "- `tools`: the tools that may be called, as a JSON string of a list of JSON schemas, or null",
        "- `id` (SOURCE:LINE), `source`, `cluster`, `task`, `phrasing`, `split`: where the row is from and belongs",
    ]
    note = f"\nIn {facts.halved:,} rows half of a surrogate pair, which is no character, is U+FFFD.\n"
    return ["## Columns\n", "\n".join(lines) + "\n", note if facts.halved else ""]


def _loading(facts: CardFacts) -> list[str]:
    nulls = """
    features = datasets.Features({**data.features, "messages": datasets.List(datasets.Json())})
    data = data.map(trl.trainer.utils.remove_none_values, features=features)  # fields that a message lacks"""
    training = "\n        message_field_training: train" if "train" in facts.fields else ""
    return [
        "## Loading\n",
        '    import datasets\n    data = datasets.load_dataset("DIR")  # or its id on the Hub\n',
        "TRL takes `messages` and `tools` as they are:\n",
        '    data = datasets.load_dataset("DIR", split="train")'
        + (nulls if facts.fields else "")
        + "\n    trl.SFTTrainer(model, train_dataset=data)\n",
        "Axolotl:\n",
        "    datasets:\n      - path: DIR/data/train.parquet\n        ds_type: parquet\n        type: chat_template\n"
        f"        field_messages: messages{training}\n",
        "LLaMA-Factory reads `dataset_info.json`: give `dataset_dir: DIR` and `dataset: train`.\n",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_line(row) for row in rows]
    return "\n".join([_line(head), _line(["---"] * len(head)), *lines]) + "\n" if lines else ""


def _line(cells: Sequence[str]) -> str:
    plain = (" ".join(str(cell).split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(plain)} |"


def _number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
