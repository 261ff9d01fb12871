"""`Conversation`: the one value that crosses every boundary of the data half."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool", "text"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool", "text")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    role: "system", "user", "assistant", "tool" (a tool's result), or "text" (plain text, no chat template).
    reasoning: what a reasoning model thinks before it answers; templates call it `reasoning_content`.
    tool_calls: calls in the OpenAI shape, `{"name": ..., "arguments": {...}}`.
    train: False leaves an assistant message unsupervised; None leaves the choice to the recipe.
    """

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    train: bool | None = None

    def for_template(self) -> dict[str, Any]:
        """The dictionary that chat templates of the Hub expect for this message."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            out["reasoning_content"] = self.reasoning
        if self.tool_calls:
            out["tool_calls"] = [{"type": "function", "function": dict(call)} for call in self.tool_calls]
        if self.name is not None:
            out["name"] = self.name
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row of instruction data, or of plain text, with where it came from.

    id: unique within a run, "SOURCE:LINE" ("SOURCE:LINE.K" when one line yields several rows).
    cluster, task, phrasing: the task cluster, task and prompt template in FLAN's sense; "" when unknown.
    item: what the row was made from; "" means its prompt. Rows of one item never land on both sides of a split.
    tools: tool descriptions (JSON schema) for the chat template.
    extra: further columns a source carries along, kept for metrics.
    """

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    cluster: str = ""
    task: str = ""
    phrasing: str = ""
    item: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_text(cls, id: str, text: str, source: str = "") -> Conversation:
        """A row of plain text: every token is supervised and no chat template is used."""
        return cls(id=id, messages=(Message("text", text),), source=source)

    @property
    def is_text(self) -> bool:
        return len(self.messages) == 1 and self.messages[0].role == "text"

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last one: what a model is shown when the row is evaluated."""
        return self.messages[:-1]

    @property
    def response(self) -> str:
        """The content of the last message."""
        return self.messages[-1].content

    @property
    def prompt_key(self) -> bytes:
        """A hash of what is asked (of a plain text, all of it); case and white space make no other prompt of it."""
        messages = self.messages if self.is_text else self.prompt
        text = "\x1f".join(f"{message.role}\x1e{message.content}\x1e{message.tool_calls or ''}" for message in messages)
        plain = " ".join(text.casefold().split())
        return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def content_hash(self) -> str:
        """SHA-256 (hex) of what is trained: messages and tools, without id, source or labels."""
        body = [[getattr(m, f.name) for f in fields(m)] for m in self.messages]
        return hashlib.sha256(_json([body, self.tools]).encode("utf-8", "surrogatepass")).hexdigest()

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal value."""
        row = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "messages"}
        row["messages"] = [_without_defaults(m) for m in self.messages]
        return _json(row)

    @classmethod
    def from_json(cls, line: str) -> Conversation:
        row = json.loads(line)
        messages = tuple(Message(**{**m, "tool_calls": tuple(m.get("tool_calls", ()))}) for m in row.pop("messages"))
        return cls(**{**row, "messages": messages, "tools": tuple(row.get("tools", ()))})


def _without_defaults(message: Message) -> dict[str, Any]:
    return {f.name: getattr(message, f.name) for f in fields(message) if getattr(message, f.name) != f.default}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=list)
