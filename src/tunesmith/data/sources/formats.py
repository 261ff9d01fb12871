"""The shapes of instruction data: what a record's columns mean, told by the record's own columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from tunesmith.base.conversation import Message
from tunesmith.base.errors import DataError
from tunesmith.data.sources.messages import Rejected, parsed, read_messages, read_tools, settle

Row = Mapping[str, Any]

MESSAGE_KEYS = ("messages", "conversations", "conversation", "dialogue", "dialog")
PROMPT_KEYS = ("prompt", "question", "query", "problem", "inputs")
INPUT_KEYS = ("input", "context")
RESPONSE_KEYS = ("output", "response", "completion", "answer", "solution", "target", "targets")
LABEL_KEYS = {
    "cluster": ("cluster",),
    "task": ("task", "dataset"),
    "phrasing": ("phrasing", "template"),
    "item": ("item",),
}
# Columns that are part of the question in data sets that have them: a prompt without them would be another question.
PROMPT_PARTS = ("choices", "options", "passage", "document", "article", "table", "premise", "hypothesis")

MAP_KEYS = ("instruction", "input", "response", "system", "text", "messages", "tools", *LABEL_KEYS)
_ALL_KEYS = {
    *MESSAGE_KEYS, *PROMPT_KEYS, *INPUT_KEYS, *RESPONSE_KEYS, *PROMPT_PARTS, *MAP_KEYS,
    *(key for keys in LABEL_KEYS.values() for key in keys), "instances", "turns", "history", "system_prompt",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Draft:
    """One row read: its messages, the tools it may call, and what was mended on the way.

    labels: what a prompt template says of its rows: phrasing, cluster and task, "" where it leaves them to the source,
    and variant, which makes another task of the source's.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    changes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """A known shape: its name in a recipe, its title in messages, what tells it, and how one record is read.

    `read` yields one result for each row in the record, a Draft or what is wrong with that row.
    """

    name: str
    title: str
    fits: Callable[[Row], bool]
    read: Callable[[Row], Sequence[Draft | Rejected]]


def recognise(record: Row) -> Shape | None:
    """The shape of a record, by the columns it has; None when no shape is known."""
    return next((shape for shape in SHAPES if shape.fits(record)), None)


def shape_named(name: str) -> Shape:
    """Raises DataError for a name that no shape has."""
    for shape in SHAPES:
        if shape.name == name:
            return shape
    names = [shape.name for shape in SHAPES]
    raise DataError(f"format {name!r} is unknown, so nothing can be read by it. {nearest(name, names)}")


def mapped(columns: Mapping[str, str]) -> Shape | None:
    """The shape that a recipe's `map` describes; None when it names labels only and the shape is to be recognised.

    Raises DataError for a key that `map` doesn't know, or when the response has no column.
    """
    for key in columns:
        if key not in MAP_KEYS:
            raise DataError(f"`map` has no key {key!r}, so its column would be lost. {nearest(key, MAP_KEYS)}")
    if not set(columns) - set(LABEL_KEYS) - {"tools", "system"}:
        return None
    if not {"messages", "text"} & set(columns) and not {"instruction", "response"} <= set(columns):
        missing = "response" if "response" not in columns else "instruction"
        raise DataError(
            f"`map` names no column for the {missing}, so there would be nothing to train. Give instruction and "
            f"response, or messages, or text; it has {', '.join(columns)}."
        )

    def read(record: Row) -> Sequence[Draft | Rejected]:
        for key in ("messages", "text", "instruction", "response"):
            if key in columns and columns[key] not in record:
                raise Rejected("missing_column", f"no column {columns[key]} for {key}; it has {', '.join(record)}")
        return _read_mapped({key: record.get(column) for key, column in columns.items()})

    return Shape("map", "columns by map", lambda _: True, read)


def labels(record: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """cluster, task, phrasing and item of a record, by `map` or by the usual names; "" where it has none."""
    found = {}
    for label, usual in LABEL_KEYS.items():
        keys = (columns[label],) if label in columns else usual
        value = next((record[key] for key in keys if record.get(key) is not None), "")
        found[label] = str(value) if isinstance(value, str | int | float) else ""
    return found


def extra(record: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    """The plain values among the columns that no shape uses."""
    used = _ALL_KEYS | set(columns.values())
    return {k: v for k, v in record.items() if k not in used and isinstance(v, str | int | float)}


def nearest(name: str, known: Iterable[str]) -> str:
    """The sentence that names what exists, and the one that was probably meant."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    return f"{meant}There is {', '.join(names[:40])}{', …' if len(names) > 40 else ''}."


def _read_mapped(values: Row) -> Sequence[Draft | Rejected]:
    if "messages" in values:
        return [_draft(_message_list(values["messages"]), values)]
    if "text" in values:
        return _read_text(values)
    return [_draft(_turn(_text(values, "instruction"), _text(values, "input"), _text(values, "response")), values)]


def _read_messages(record: Row) -> Sequence[Draft | Rejected]:
    key = next(key for key in MESSAGE_KEYS if _holds_messages(record.get(key)))
    return [_draft(_message_list(record[key]), record)]


def _read_prompt(record: Row) -> Sequence[Draft | Rejected]:
    prompt, context = _one_of(record, PROMPT_KEYS, "prompt"), _one_of(record, INPUT_KEYS, "input")
    if prompt is None:
        prompt, context = context, None
    response = _one_of(record, RESPONSE_KEYS, "response")
    if not isinstance(prompt, list):
        turn = _turn(as_text(prompt), as_text(context), as_text(response))
        _refuse_unread(record, PROMPT_PARTS, turn[0].content)
        return [_draft((*_history(record.get("history")), *turn), record)]
    # TRL's conversational prompt and completion: only the completion is trained.
    asked = [replace(m, train=False) if m.role == "assistant" else m for m in read_messages(prompt)]
    beside = ("history", *PROMPT_PARTS, *(INPUT_KEYS if context is not None else ()))
    _refuse_unread(record, beside, "\n".join(message.content for message in asked))
    given = read_messages(response if isinstance(response, list) else [])
    return [_draft((*asked, *(given or [Message("assistant", as_text(response))])), record)]


def _read_alpaca(record: Row) -> Sequence[Draft | Rejected]:
    response = _one_of(record, RESPONSE_KEYS, "response")
    turn = _turn(_text(record, "instruction"), as_text(_one_of(record, INPUT_KEYS, "input")), as_text(response))
    _refuse_unread(record, (*PROMPT_PARTS, *PROMPT_KEYS), turn[0].content)
    return [_draft((*_history(record.get("history")), *turn), record)]


def _read_instances(record: Row) -> Sequence[Draft | Rejected]:
    """self-instruct: one instruction with several inputs, each with its response."""
    instances = record["instances"]
    if not instances:
        raise Rejected("no_response", "`instances` is empty")
    results: list[Draft | Rejected] = []
    for instance in instances:
        try:
            if not isinstance(instance, Mapping):
                raise Rejected("unknown_shape", "an instance is no object with input and output")
            results.extend(_read_alpaca({**record, **instance}))
        except Rejected as fault:
            results.append(fault)
    return results


def _read_text(record: Row) -> Sequence[Draft | Rejected]:
    text = as_text(record["text"])
    if not text.strip():
        raise Rejected("empty_text", "`text` holds nothing")
    return [Draft((Message("text", text),))]


def _read_turns(_: Row) -> Sequence[Draft | Rejected]:
    raise Rejected("no_response", "`turns` holds what is asked and no response: data for evaluation by a judge")


def _draft(messages: Iterable[Message], record: Row) -> Draft:
    messages = tuple(messages)
    system = _text(record, "system", "system_prompt")
    if system.strip() and not any(message.role == "system" for message in messages):
        messages = (Message("system", system), *messages)
    settled, changes = settle(messages)
    return Draft(settled, read_tools(record.get("tools")), tuple(changes))


def _turn(instruction: str, input: str, response: str) -> tuple[Message, Message]:
    prompt = "\n\n".join(part for part in (instruction, input) if part.strip())
    if not prompt:
        raise Rejected("no_instruction", "instruction and input are both empty")
    return Message("user", prompt), Message("assistant", response)


def _one_of(record: Row, keys: Sequence[str], what: str) -> Any:
    """The value of the one column among `keys` that is filled; None if none is. Raises Rejected if two disagree."""
    filled = {key: record[key] for key in keys if not is_missing(record.get(key))}
    values = list(filled.values())
    if any(value != values[0] for value in values):
        names = " and ".join(filled)
        raise Rejected(f"ambiguous_{what}", f"{names} differ; say with `map` which of them is the {what}")
    if not values and what == "response" and not any(key in record for key in keys):
        raise Rejected("no_response", f"no column for the response among {', '.join(record)}; name it with `map`")
    return values[0] if values else None


def _refuse_unread(record: Row, keys: Sequence[str], prompt: str) -> None:
    """Refuse a row whose prompt would lack what another of its columns holds."""
    for key in keys:
        value = record.get(key)
        parts = value if isinstance(value, list) else [value]
        if not all(str(part).strip() in prompt for part in parts if not is_missing(part)):
            raise Rejected(
                "unread_column",
                f"column {key} belongs to what is asked and would be left out; join it into the prompt, "
                f"or name the columns to use with `map`",
            )


def _history(pairs: Any) -> list[Message]:
    """LLaMA-Factory's earlier turns: a list of [instruction, response]."""
    if is_missing(pairs):
        return []
    if isinstance(pairs, str):  # JSON, as CSV columns hold it
        pairs = parsed(pairs, "bad_history", "`history`")
    messages = []
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise Rejected("bad_history", "`history` is not a list of [instruction, response]")
        messages += [Message("user", as_text(pair[0])), Message("assistant", as_text(pair[1]))]
    return messages


def _text(record: Row, *keys: str) -> str:
    return as_text(next((record[key] for key in keys if not is_missing(record.get(key))), None))


def as_text(value: Any) -> str:
    """A column's value as text: numbers as they are written, null and NaN as nothing. Raises Rejected for the rest."""
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise Rejected("not_text", f"a column that should hold text holds {type(value).__name__}; name another with `map`")


def is_missing(value: Any) -> bool:
    """Whether a column holds nothing: null, NaN, or an empty text, list or object. 0 and false are something."""
    return value in (None, "", [], {}) or (isinstance(value, float) and math.isnan(value))


def _message_list(value: Any) -> tuple[Message, ...]:
    """Messages from a list, or from JSON in a string as CSV columns hold it."""
    if isinstance(value, str):
        value = parsed(value, "bad_json", "the list of messages")
    if not isinstance(value, list):
        raise Rejected("not_a_message", "the messages are not a list")
    return read_messages(value)


def _holds_messages(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("[{"))


def _is_sharegpt(record: Row) -> bool:
    for key in MESSAGE_KEYS:
        value = record.get(key)
        if _holds_messages(value):
            first = value[0] if value and isinstance(value, list) else value
            return "from" in first if isinstance(first, dict) else '"from"' in str(first)
    return False


def _is_prompt(record: Row) -> bool:
    asks = any(key in record for key in PROMPT_KEYS)
    return asks or ("input" in record and any(key in record for key in RESPONSE_KEYS))


# In order: the first that fits reads the record.
SHAPES = (
    Shape("sharegpt", "ShareGPT conversations", _is_sharegpt, _read_messages),
    Shape(
        "messages", "OpenAI messages", lambda r: any(_holds_messages(r.get(k)) for k in MESSAGE_KEYS), _read_messages
    ),
    Shape("instances", "self-instruct tasks", lambda r: isinstance(r.get("instances"), list), _read_instances),
    Shape("alpaca", "Alpaca triples", lambda r: "instruction" in r, _read_alpaca),
    Shape("prompt_completion", "prompts and completions", _is_prompt, _read_prompt),
    Shape("turns", "questions without responses", lambda r: isinstance(r.get("turns"), list), _read_turns),
    Shape("text", "plain text", lambda r: "text" in r, _read_text),
)
