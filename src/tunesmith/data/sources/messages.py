"""Messages as the field writes them, read into ours: roles, typed parts, reasoning, tool calls, tools."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.base.conversation import Message, Role

ROLE_WORDS: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bard", "bing", "bot", "model"), "assistant"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
}
CALL_ROLES = ("function_call", "tool_call")
TEXT_PARTS = ("text", "input_text", "output_text")
REASONING_PARTS = ("reasoning", "thinking")
CALL_PARTS = ("tool_call", "tool_use", "function_call", "function")

DEEPEST = 100  # levels of nesting; far beyond any real row, and far from Python's own limit

# Markers that a data set left at the end of its responses. The chat template writes the stop token; a literal one
# would be trained as text, or be refused as a special token in the content.
END_MARKERS = re.compile(
    r"(?:\s*(?:<\|endoftext\|>|<\|end_of_text\|>|<\|im_end\|>|<\|eot_id\|>|<\|end\|>|<end_of_turn>|<eos>|</s>))+\s*\Z"
)


class Rejected(Exception):
    """A row that can't be read: `reason` is the ledger's short word, `detail` the particulars.

    messages: the whole conversation where all that it lacks is a last message that says something.
    """

    def __init__(self, reason: str, detail: str = "", messages: Sequence[Message] = ()) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.messages = tuple(messages)


def read_messages(values: Sequence[Any]) -> tuple[Message, ...]:
    """Messages in the OpenAI (`role`, `content`) or ShareGPT (`from`, `value`) manner. Raises Rejected.

    ShareGPT writes a call as a message of its own: it is joined to the assistant message just before it, and calls in
    a row become one message with several calls, as chat templates expect.
    """
    messages: list[Message] = []
    for number, value in enumerate(values, 1):
        if not isinstance(value, Mapping):
            raise Rejected("not_a_message", f"message {number} is {_kind(value)}, not an object with a role")
        word = _role_word(value)
        try:
            message = _message(word, value)
        except Rejected as fault:
            raise Rejected(fault.reason, f"message {number}: {fault.detail}") from fault
        if word in CALL_ROLES and messages and messages[-1].role == "assistant":
            before = messages[-1]
            messages[-1] = replace(before, tool_calls=before.tool_calls + message.tool_calls)
        else:
            messages.append(message)
    return tuple(messages)


def settle(messages: Sequence[Message]) -> tuple[tuple[Message, ...], list[str]]:
    """Check that a conversation can be trained on, and mend what is certain. Returns it and what was changed.

    Mended: end markers behind a response, empty system messages, turns after the last response. Raises Rejected when
    nothing is asked, or a response is missing or empty.
    """
    kept = [message for message in messages if message.role != "system" or message.content.strip()]
    changes = ["empty system message removed"] if len(kept) < len(messages) else []

    for index, message in enumerate(kept):
        if message.role == "assistant" and (bare := without_end_marker(message.content)) != message.content:
            kept[index] = replace(message, content=bare)
            changes.append("end marker removed from a response")

    answered = max((i + 1 for i, message in enumerate(kept) if message.role == "assistant"), default=0)
    if not answered:
        raise Rejected("no_response", "no message is the assistant's")
    if answered < len(kept):
        del kept[answered:]
        changes.append("turns after the last response removed")
    if len(kept) == 1:
        raise Rejected("no_instruction", "nothing comes before the response")
    for number, message in enumerate(kept, 1):
        if message.role == "assistant" and not message.content.strip() and not message.tool_calls:
            what = f"message {number} of {len(kept)} is the assistant's and says nothing"
            raise Rejected("empty_response", what, kept if number == len(kept) else ())
        if message.role == "user" and not message.content.strip():
            raise Rejected("no_instruction", f"message {number} of {len(kept)} is the user's and says nothing")
    return tuple(kept), list(dict.fromkeys(changes))


def without_end_marker(response: str) -> str:
    """The response without the end markers a data set left behind it; HTML's own `</s>` is left alone."""
    if not response.rstrip().endswith(">") or (response.rstrip().endswith("</s>") and "<s>" in response):
        return response
    return END_MARKERS.sub("", response)


def read_tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Tool descriptions, as a list or as JSON in a string, in the shape that chat templates expect. Raises Rejected."""
    if isinstance(value, str):
        value = parsed(value, "bad_tools", "`tools`") if value.strip() else None
    if value is None:
        return ()
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise Rejected("bad_tools", f"`tools` is {_kind(value)}, not a list of descriptions")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in value)


def _role_word(value: Mapping[str, Any]) -> str:
    return str(value.get("role") or value.get("from") or "").strip().lower()


def _message(word: str, value: Mapping[str, Any]) -> Message:
    role = ROLE_WORDS.get(word)
    if role is None:
        raise Rejected("unknown_role", f"role {word!r} is none of {', '.join(ROLE_WORDS)}")
    raw = next((value[key] for key in ("content", "value", "text") if value.get(key) is not None), None)
    if word in CALL_ROLES and raw is not None:
        content, thoughts, calls = "", "", read_calls(raw)
    else:
        content, thoughts, calls = _content(raw)
    for key in ("tool_calls", "function_call"):
        calls += read_calls(value[key]) if value.get(key) else ()
    if calls and role != "assistant":
        raise Rejected("bad_tool_call", f"a {role} message holds a tool call; only the assistant calls tools")
    return Message(
        role=role,
        content=content,
        reasoning=_reasoning(value) or thoughts or None,
        tool_calls=calls,
        name=_word(value.get("name")),
        tool_call_id=_word(value.get("tool_call_id")),
        train=_train(value),
    )


def _content(raw: Any) -> tuple[str, str, tuple[Mapping[str, Any], ...]]:
    """Text, reasoning and tool calls of a content: a string, or a list of typed parts, joined as they stand."""
    if raw is None or isinstance(raw, str):
        return raw or "", "", ()
    if isinstance(raw, Mapping):
        raw = [raw]
    if not isinstance(raw, list):
        raise Rejected("bad_content", f"content is {_kind(raw)}, neither text nor a list of parts")
    text: list[str] = []
    thoughts: list[str] = []
    calls: list[Mapping[str, Any]] = []
    for part in raw:
        kind = str(part.get("type", "text")) if isinstance(part, Mapping) else "text"
        if kind in CALL_PARTS:
            calls.extend(read_calls(part.get("value", part)))
        elif kind in TEXT_PARTS:
            text.append(_part_text(part, kind))
        elif kind in REASONING_PARTS:
            thoughts.append(_part_text(part, kind))
        else:
            raise Rejected("unsupported_part", f"a part of type {kind!r}; text, reasoning and tool calls can be read")
    return "".join(text), "".join(thoughts), tuple(calls)


def _part_text(part: Any, kind: str) -> str:
    text = part
    if isinstance(part, Mapping):
        text = next((part[key] for key in ("text", "value", "content", kind) if part.get(key) is not None), "")
    if not isinstance(text, str):
        raise Rejected("bad_content", f"a {kind} part holds {_kind(text)}, not text")
    return text


def read_calls(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Tool calls as `{"name": str, "arguments": dict}` from the shapes in use, JSON in strings included."""
    if isinstance(value, str):
        value = parsed(value, "bad_tool_call", "the tool call")
    if isinstance(value, list):
        return tuple(call for one in value for call in read_calls(one))
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        value = value["function"]
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str) or not value["name"]:
        raise Rejected("bad_tool_call", f"the tool call has no name: {_short(value)}")
    arguments: Any = next(
        (value[key] for key in ("arguments", "parameters", "input") if value.get(key) is not None), {}
    )
    if isinstance(arguments, str):
        arguments = parsed(arguments, "bad_tool_call", "`arguments`") if arguments.strip() else {}
    if not isinstance(arguments, Mapping):
        raise Rejected("bad_tool_call", f"the arguments of {value['name']} are {_kind(arguments)}, not an object")
    return ({"name": value["name"], "arguments": dict(arguments)},)


def _reasoning(value: Mapping[str, Any]) -> str:
    keys = ("reasoning_content", "reasoning", "thinking")
    return next((value[key] for key in keys if isinstance(value.get(key), str)), "")


def _train(value: Mapping[str, Any]) -> bool | None:
    """Which messages a data set itself asks to train: `train` (true or false) or OpenAI's `weight` (0 or 1)."""
    key = "train" if value.get("train") is not None else "weight"
    said = value.get(key)
    if said not in (None, 0, 1):  # True and False are 1 and 0
        raise Rejected("bad_weight", f"{key} is {_short(said)}; a message is trained (true, 1) or not (false, 0)")
    return None if said is None else bool(said)


def _word(value: Any) -> str | None:
    return None if value is None else str(value)


def parsed(text: str, reason: str, what: str) -> Any:
    """The value of JSON inside a string, checked as the row around it was. Raises Rejected with `reason`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected(reason, f"{what} is not JSON ({error}): {_short(text)}") from error
    check_values(value)
    return value


def check_values(value: Any, depth: int = 0) -> None:
    """Raise Rejected for text that UTF-8 can't hold (undecodable bytes, lone surrogates) and for bottomless nesting."""
    if depth > DEEPEST:
        raise Rejected("nested_too_deeply", f"values lie more than {DEEPEST} levels deep")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Rejected("invalid_utf8", "the row holds bytes or escapes that are no Unicode text") from error
    elif isinstance(value, dict | list):
        for inner in value:
            check_values(inner, depth + 1)
        for inner in value.values() if isinstance(value, dict) else ():
            check_values(inner, depth + 1)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"


def _kind(value: Any) -> str:
    names = {type(None): "null", str: "text", bool: "true or false", dict: "an object", list: "a list"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
