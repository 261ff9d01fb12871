"""What a chat template renders, what it takes, and which tokens end its turns: found by trying it.

Rendering is transformers' own `apply_chat_template` (sandboxed), so that training sees what serving shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from jinja2 import TemplateError

from tunesmith.base.conversation import Message
from tunesmith.base.deadline import time_limit
from tunesmith.base.errors import SupervisionError, UserError

SHIPPED = ("chatml", "alpaca", "plain", "seq2seq")
DEFAULT = "alpaca"
DEFAULT_SEQ2SEQ = "seq2seq"
SECONDS_TO_RENDER = 10.0

Template = str | dict[str, str]
AnyMessage = Message | Mapping[str, Any]

_NOT_FOR_TEMPLATES = ("train", "weight")
_TEMPLATE_FAULTS = (
    TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError,
)  # fmt: skip

# Messages that templates are tried with. The tool that is described has another name than the one that is called, so
# that the name marks the call wherever it stands.
ANSWER = "Zq7answer"
ASKED = Message("user", "Zq7question")
ANSWERED = Message("assistant", ANSWER)
CALLED = "Zq7tool"
CALLING = Message("assistant", "", tool_calls=({"name": CALLED, "arguments": {}},))
OTHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "Zq7other", "description": "", "parameters": {"type": "object", "properties": {}}},
}


@dataclass(frozen=True, slots=True)
class Stops:
    """The tokens that end an assistant's turn, as text; the first is the one that ends an answer.

    tail: what the template writes behind an answer at the end of a conversation; behind the stop token, if it is there.
    implied: the template writes no stop token in the turn itself: it is the header of the next message, or EOS.
    after_call: likewise, behind a turn that calls tools.
    """

    tokens: tuple[str, ...]
    tail: str
    implied: str | None = None
    after_call: str | None = None


def shipped_template(name: str) -> str:
    """The text of a template that comes with Tunesmith."""
    return files("tunesmith.tokens").joinpath(f"{name}.jinja").read_text(encoding="utf-8")


class ChatTemplate:
    """A tokenizer's chat template with the template arguments that serving will use.

    template: used instead of the tokenizer's own; without either, the default one.
    """

    def __init__(
        self,
        tokenizer: Any,
        template_args: Mapping[str, Any] | None = None,
        template: Template | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.args = dict(template_args or {})
        self.added = added_tokens(tokenizer)
        self.special = frozenset(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
        self._text = template or tokenizer.chat_template or shipped_template(DEFAULT)
        self._reasoning: dict[tuple[str, str], bool] = {}

    def text_for(self, tools: Sequence[Mapping[str, Any]] | None) -> str:
        """The template itself; a few models have one for tools and one without."""
        if isinstance(self._text, str):
            return self._text
        name = "tool_use" if tools and "tool_use" in self._text else "default"
        if name not in self._text:
            raise UserError(
                f"the tokenizer has chat templates {sorted(self._text)} but none named 'default'. Choose one."
            )
        return self._text[name]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        prompt: bool,
    ) -> str:
        """The text of `messages`, with the generation prompt at its end if `prompt`.

        Raises SupervisionError, "template_refused" with the template's own words if it can't render them, or
        "template_too_slow" if it takes longer than SECONDS_TO_RENDER.
        """
        try:
            with time_limit(SECONDS_TO_RENDER):
                rendered: str = self.tokenizer.apply_chat_template(
                    messages,
                    tools=[dict(tool) for tool in tools] if tools else None,
                    chat_template=self.text_for(tools),
                    add_generation_prompt=prompt,
                    tokenize=False,
                    **self.args,
                )
        except TimeoutError as error:
            raise SupervisionError(
                "template_too_slow",
                f"the chat template did not render {len(messages)} message(s) within {SECONDS_TO_RENDER:.0f} s; it may "
                f"loop for ever. Choose another chat_template.",
            ) from error
        except _TEMPLATE_FAULTS as error:
            roles = ", ".join(str(message.get("role")) for message in messages) or "none"
            raise SupervisionError(
                "template_refused",
                f"the chat template can't render the first {len(messages)} message(s) (roles: {roles}): {error}. "
                f"Change these messages, or choose another chat_template.",
            ) from error
        return rendered

    def messages(self, messages: Iterable[AnyMessage]) -> list[dict[str, Any]]:
        """Messages as the dictionaries this template expects, without what is meant for training alone.

        The content of a `Message` is put in the shape that the template takes; dictionaries stay as they are, since
        their shape is the one that serving uses.
        Raises SupervisionError("content_not_rendered") for a dictionary's text that the template would not show.
        """
        return [self._shaped(index, message) for index, message in enumerate(messages)]

    def _shaped(self, index: int, message: AnyMessage) -> dict[str, Any]:
        if not isinstance(message, Message | Mapping):
            raise UserError(f"message {index} is {type(message).__name__}; messages are dictionaries or `Message`s.")
        if isinstance(message, Message):
            shaped = message.for_template()
            return shaped | {"content": _parts(message.content)} if self._takes_parts else shaped
        if self._takes_parts and isinstance(message.get("content"), str) and message["content"]:
            raise SupervisionError(
                "content_not_rendered",
                f"message {index}: the chat template takes content as a list of parts and shows nothing of plain text. "
                f'Give [{{"type": "text", "text": ...}}], or choose another chat_template.',
            )
        if not isinstance(message.get("content", ""), str | list | None):
            raise SupervisionError(
                "bad_content",
                f"message {index}: its content is {type(message['content']).__name__}, not text. Mend it, or leave the "
                f"row out.",
            )
        return {key: value for key, value in message.items() if key not in _NOT_FOR_TEMPLATES}

    @cached_property
    def _takes_parts(self) -> bool:
        """Whether the template shows content only if it is a list of typed parts, as some for images do."""
        rendered = []
        for content in (ASKED.content, _parts(ASKED.content)):
            try:
                rendered.append(self.render([{"role": "user", "content": content}], prompt=False))
            except SupervisionError:
                rendered.append("")
        return ASKED.content not in rendered[0] and ASKED.content in rendered[1]

    def stops(self) -> Stops:
        """The tokens that end an assistant's turn: first what ends an answer, then a tool call, then EOS.

        Found by rendering. The template's own stop token is, in what follows the content of an answer both at the end
        of a conversation and in the middle of one, EOS if it is there and else the first special token. If the two
        have none in common, what follows at the end counts alone. If nothing but white space follows there, the model
        learns to stop with the header that opens the next user message, provided it is one token (GLM-4), or else with
        EOS, which the template itself never shows it (Falcon).

        Raises SupervisionError("no_stop_token") if there is none, for then the model would never learn to stop.
        """
        last = self._after(ANSWER, [ASKED, ANSWERED])
        try:
            middle = self._after(ANSWER, [ASKED, ANSWERED, Message("user", "Zq7next")])
        except SupervisionError:  # some templates refuse further messages
            middle = ""
        eos = self.tokenizer.eos_token
        stop = self._stop_in(last[: same_until(last, middle)]) or self._stop_in(last)
        if stop:
            tokens = dict.fromkeys(token for token in (stop, self._tool_stop(stop), eos) if token)
            return Stops(tuple(tokens), last.partition(stop)[2])
        header = None if last.strip() else self._header(last, middle)
        implied = header or (None if last.strip() else eos)
        if implied is None:
            raise SupervisionError(
                "no_stop_token",
                f"the chat template writes {last!r} after an answer, and no special token of the tokenizer is in it, "
                f"so the model would never learn to stop. End the assistant's turn with "
                f"{eos or 'an EOS token (the tokenizer has none: set one)'} in the template, or choose another "
                f"chat_template ({', '.join(SHIPPED)}).",
            )
        after_call = self._tool_header() if header else eos
        tokens = dict.fromkeys(token for token in (implied, after_call, eos) if token)
        return Stops(tuple(tokens), last, implied, after_call)

    def asking(self) -> str:
        """What the template makes of a question: the plainest prompt there is."""
        return self.render(self.messages([ASKED]), prompt=True)

    def takes_as_reasoning(self, opening: str, mark: str) -> bool:
        """Whether the template leaves out of an answer what stands between `opening` and `mark`."""
        if (opening, mark) not in self._reasoning:
            answer = Message("assistant", f"{opening}Zq7thought{mark}{ANSWER}")
            text = self.render(self.messages([ASKED, answer]), prompt=False)
            self._reasoning[opening, mark] = ANSWER in text and "Zq7thought" not in text
        return self._reasoning[opening, mark]

    def _after(self, answer: str, messages: list[Message]) -> str:
        """What follows an answer."""
        text = self.render(self.messages(messages), prompt=False)
        if answer not in text:
            raise SupervisionError(
                "template_refused",
                f"the chat template leaves the content of an answer out: of {answer!r} it makes {text[-80:]!r}. Choose "
                f"another chat_template.",
            )
        return text.rpartition(answer)[2]

    def _header(self, last: str, middle: str) -> str | None:
        """The added token that opens the next message, where an answer is followed by `last` or by `middle`."""
        opening = self.added.match(middle, len(last)) if middle.startswith(last) else None
        return opening and opening[0]

    def _tool_header(self) -> str | None:
        """The added token that opens the message with a tool's result."""
        messages = self.messages([ASKED, CALLING, Message("tool", "Zq7result")])
        try:
            last, middle = (self.render(messages[:end], [OTHER_TOOL], prompt=False) for end in (2, 3))
        except SupervisionError:
            return None
        return self._header(last, middle)

    def _stop_in(self, text: str) -> str | None:
        """EOS, or the first special token, or the first added token that is more than white space."""
        eos = self.tokenizer.eos_token
        found = [token for token in self.added.findall(text) if token.strip()]
        special = [token for token in found if token in self.special]
        return eos if eos in found else next(iter(special or found), None)

    def _tool_stop(self, stop: str) -> str | None:
        """The last special token after a tool call, where it is another than after an answer (Llama 3, gpt-oss)."""
        try:
            text = self.render(self.messages([ASKED, CALLING]), [OTHER_TOOL], prompt=False)
        except SupervisionError:
            return None
        called, tail = text.rpartition(CALLED)[1:]
        if not called or stop in tail:
            return None
        return next((token for token in reversed(self.added.findall(tail)) if token in self.special), None)


def field_of(message: AnyMessage, name: str) -> Any:
    """A field of a message in either shape; None where it has none."""
    return getattr(message, name, None) if isinstance(message, Message) else message.get(name)


def _parts(text: str) -> list[dict[str, str]]:
    """Content as a list of typed parts."""
    return [{"type": "text", "text": text}]


def added_tokens(tokenizer: Any) -> re.Pattern[str]:
    """A pattern that finds added tokens in text as the tokenizer does: leftmost, longest."""
    return any_of(token.content for token in tokenizer.added_tokens_decoder.values())


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern for the leftmost, longest of some texts; without any it matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(set(texts), key=len, reverse=True))) or r"(?!)")


def same_until(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
