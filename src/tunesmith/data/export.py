"""Rows in messages format, as Parquet and JSONL, for other programs.

    data/SPLIT.parquet          conversations      plain_text/SPLIT.parquet     plain text, which has no messages
    jsonl/SPLIT.jsonl           the same           jsonl/plain_text_SPLIT.jsonl

A message has role, content and what else any message of the export has: in JSONL only where it has something to say, in
Parquet null where it has not. Arguments of tool calls and descriptions of tools are JSON strings, since Parquet gives
all of them one type: as structures, every call would have the arguments of every tool, null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.files import file_hash
from tunesmith.data.card import FileFacts

CONVERSATIONS, PLAIN_TEXT = "default", "plain_text"
OPTIONAL = ("reasoning_content", "tool_calls", "name", "tool_call_id", "train")
_FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
_CALL = pa.struct([("id", pa.string()), ("type", pa.string()), ("function", _FUNCTION)])
_TYPES = {"tool_calls": pa.list_(_CALL), "train": pa.bool_()}
_LABELS = ("id", "source", "cluster", "task", "phrasing", "split")
_SURROGATE = re.compile("[\ud800-\udfff]")
_AT_ONCE = 1024  # rows, which are a row group


@dataclass
class Exported:
    """What was written. fields: those of OPTIONAL that any message has. tools: whether any row describes some.

    halved: rows with half of a surrogate pair, which no file of text can hold.
    """

    files: list[FileFacts] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    tools: bool = False
    halved: int = 0


def export_rows(folder: Path, rows: Iterable[tuple[str, Conversation]]) -> Exported:
    """Write (split, row) pairs, which may come in any order; only some are in memory at a time."""
    done, used = Exported(), set[str]()
    counts: dict[tuple[str, str], int] = {}
    for part in ("jsonl", "data", PLAIN_TEXT):
        (folder / part).mkdir(parents=True)
    with ExitStack() as stack:
        opened: dict[tuple[str, str], TextIO] = {}
        for split, row in rows:
            key = (PLAIN_TEXT if row.is_text else CONVERSATIONS, split)
            if key not in opened:
                opened[key] = stack.enter_context(
                    _lines_of(folder, *key).open("w", encoding="utf-8", buffering=1 << 20)
                )
            line = json.dumps(_record(row, split, used), ensure_ascii=False)
            if not line.isascii() and _SURROGATE.search(line):
                done.halved += 1
                line = _SURROGATE.sub("\ufffd", line)
            opened[key].write(line + "\n")
            counts[key] = counts.get(key, 0) + 1
    done.fields, done.tools = [name for name in OPTIONAL if name in used], "tools" in used
    for (config, split), count in counts.items():
        lines, table = _lines_of(folder, config, split), _table_of(folder, config, split)
        calls = config == CONVERSATIONS and "tool_calls" in done.fields
        _to_parquet(lines, table, _schema(config, done.fields), calls)
        for path in (table, lines):
            facts = path.relative_to(folder).as_posix(), count, path.stat().st_size, file_hash(path)
            done.files.append(FileFacts(config, split, *facts))
    if not any((folder / PLAIN_TEXT).iterdir()):
        (folder / PLAIN_TEXT).rmdir()
    return done


def dataset_info(done: Exported) -> dict[str, Any]:
    """What LLaMA-Factory wants to know of each file, see its data/README.md.

    Its converter for tool calls also writes "detailed thinking off" into system prompts, so it is named only where
    there are tool calls.
    """
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    tags |= {"system_tag": "system", "observation_tag": "tool", "function_tag": "function_call"}
    chat = {"formatting": "openai" if "tool_calls" in done.fields else "sharegpt", "tags": tags}
    info: dict[str, Any] = {}
    for file in done.files:
        if not file.path.endswith(".jsonl"):
            continue
        if file.config == PLAIN_TEXT:
            info[f"{PLAIN_TEXT}_{file.split}"] = {"file_name": file.path, "columns": {"prompt": "text"}}
        else:
            columns = {"messages": "messages"} | ({"tools": "tools"} if done.tools else {})
            info[file.split] = {"file_name": file.path, **chat, "columns": columns}
    return info


def _record(row: Conversation, split: str, used: set[str]) -> dict[str, Any]:
    labels = {"id": row.id, "source": row.source, "cluster": row.cluster, "task": row.task, "phrasing": row.phrasing}
    if row.is_text:
        return {"text": row.response, **labels, "split": split}
    messages = [_message(message) for message in row.messages]
    used.update(name for message in messages for name in message)
    used.update(["tools"] if row.tools else [])
    tools = json.dumps(row.tools, ensure_ascii=False, default=dict) if row.tools else None
    return {"messages": messages, "tools": tools, **labels, "split": split}


def _message(message: Message) -> dict[str, Any]:
    out = message.for_template()
    if message.tool_calls:
        out["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.train is not None:
        out["train"] = message.train
    return out


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=list)
    told = {"type": "function", "function": {"name": call.get("name", ""), "arguments": text}}
    return {"id": call["id"], **told} if "id" in call else told


def _schema(config: str, used: Iterable[str]) -> pa.Schema:
    labels = [(name, pa.string()) for name in _LABELS]
    if config == PLAIN_TEXT:
        return pa.schema([("text", pa.string()), *labels])
    fields = [(name, _TYPES.get(name, pa.string())) for name in ("role", "content", *used)]
    return pa.schema([("messages", pa.list_(pa.struct(fields))), ("tools", pa.string()), *labels])


def _to_parquet(lines: Path, path: Path, schema: pa.Schema, calls: bool) -> None:
    """calls: whether any message calls tools. In JSONL every answer then has a list of calls, an empty one too, since
    LLaMA-Factory counts them; in Parquet there is null, which TRL's users are told to take out."""
    again = lines.with_suffix(".part")
    with ExitStack() as stack:
        file = stack.enter_context(lines.open(encoding="utf-8"))
        writer = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
        rewritten = stack.enter_context(again.open("w", encoding="utf-8", buffering=1 << 20)) if calls else None
        while some := [json.loads(line) for line in islice(file, _AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(some, schema))
            if rewritten:
                rewritten.writelines(f"{json.dumps(_with_calls(row), ensure_ascii=False)}\n" for row in some)
    if calls:
        again.replace(lines)


def _with_calls(row: dict[str, Any]) -> dict[str, Any]:
    for message in row["messages"]:
        if message["role"] == "assistant":
            message.setdefault("tool_calls", [])
    return row


def _lines_of(folder: Path, config: str, split: str) -> Path:
    return folder / "jsonl" / (f"{PLAIN_TEXT}_{split}.jsonl" if config == PLAIN_TEXT else f"{split}.jsonl")


def _table_of(folder: Path, config: str, split: str) -> Path:
    return folder / (PLAIN_TEXT if config == PLAIN_TEXT else "data") / f"{split}.parquet"
