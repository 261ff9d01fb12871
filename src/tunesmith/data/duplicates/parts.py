"""The texts of a row that are compared when duplicates are looked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from tunesmith.base.conversation import Conversation, Message

Over = Literal["instruction", "response", "both"]


def parts_of(row: Conversation, over: Over, system: bool = False) -> tuple[str, ...]:
    """The instruction (all before the last message), the response (the last message), or both, one text each.

    Of a plain text the instruction is empty. Tool calls are part of a message, reasoning is not: two rows that think
    differently and answer alike are alike. system: whether system messages and tools are part of the instruction; a
    long system prompt would make all rows that have it similar.
    """
    messages = row.messages
    response = () if over == "instruction" else (_text(messages[-1]),)
    if over == "response":
        return response
    prompt = () if messages[-1].role == "text" else messages[:-1]
    asked = [_text(message) for message in prompt if system or message.role != "system"]
    if system and row.tools:
        asked.append(_json(row.tools))
    return ("\n".join(asked), *response)


def texts_at(rows: Sequence[Conversation], places: Iterable[int], over: Over) -> list[str]:
    """The parts of the rows at these places, one after the other."""
    return [part for place in places for part in parts_of(rows[place], over)]


def _text(message: Message) -> str:
    return f"{message.content}\n{_json(message.tool_calls)}" if message.tool_calls else message.content


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=list)
