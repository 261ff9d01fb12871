"""Supervised turns as text: what a server shows the model before each, and what the model must answer.

For each supervised message i of a conversation:

    prompt   the template applied to messages[:i] with its generation prompt
    whole    the template applied to messages[:i + 1]
    answer   what `whole` adds to the prompt, up to and including the first stop token
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesmith.base.errors import SupervisionError, UserError
from tunesmith.tokens.rendering import AnyMessage, ChatTemplate, any_of, field_of, same_until

Supervise = Literal["assistant", "last"] | Sequence[bool]
SpecialTokens = Literal["refuse", "keep_seen"]
Tools = Sequence[Mapping[str, Any]] | None

_SHOWN = 60
_OPENED = re.compile(r"<(\w+)>\Z")
_MARK = re.compile(r"<[^<>\s]+>")


@dataclass(frozen=True, slots=True)
class Turn:
    """One supervised turn: text[:start] is the prompt as served, text[start:] the answer with its stop token.

    message: its index in the conversation. omits: what the row holds of the turn and the template does not show:
    "reasoning", or "content" beside a tool call.
    """

    message: int
    text: str
    start: int
    omits: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        return self.text[: self.start]

    @property
    def answer(self) -> str:
        return self.text[self.start :]

    def follows(self, earlier: Turn) -> bool:
        """Whether this turn's prompt starts with all of an earlier turn."""
        return len(earlier.text) <= self.start and self.text.startswith(earlier.text)


class TurnReader:
    """Reads the supervised turns of conversations; made once for a tokenizer and its template.

    special_tokens: whether messages that are only seen may hold the text of one, see `encode`.
    stops: the tokens that end a turn, as text. Raises SupervisionError("no_stop_token") if the template has none.
    """

    def __init__(
        self, tokenizer: Any, template_args: Mapping[str, Any] | None, special_tokens: SpecialTokens = "refuse"
    ) -> None:
        self._template = ChatTemplate(tokenizer, template_args)
        self._keeps_seen = special_tokens == "keep_seen"
        self._stops = self._template.stops()
        self.stops = self._stops.tokens
        self._stop = any_of(self.stops)
        prompt = self._template.asking()
        marks = (mark for mark in self._template.added.findall(prompt) if mark.strip())
        self._reserved = any_of({*self._template.special, *self.stops, *marks})
        self._normalise, self._normalised = _found_in_normalised_text(tokenizer)
        opened = _OPENED.search(prompt.rstrip())
        self._opening = opened[0] if opened else ""

    def read(self, messages: Sequence[AnyMessage], tools: Tools, supervise: Supervise) -> list[Turn]:
        """Raises SupervisionError for a turn that can't be supervised exactly, or if no turn is supervised."""
        rendered = self._template.messages(messages)
        chosen = _chosen(messages, supervise)
        self._check_content(rendered, tools, chosen if self._keeps_seen else range(len(rendered)))
        return [self._turn(rendered, index, tools) for index in chosen]

    def holds_special(self, messages: Sequence[AnyMessage], tools: Tools) -> bool:
        """Whether the text of a special token is anywhere in a conversation."""
        try:
            self._check_content(self._template.messages(messages), tools, range(len(messages)))
        except SupervisionError:
            return True
        return False

    def _turn(self, messages: list[dict[str, Any]], index: int, tools: Tools) -> Turn:
        if index == 0:
            raise SupervisionError(
                "nothing_before_answer",
                "message 0 is an assistant message and supervised, but a server has nothing to feed the model before "
                "it. Put a user message first, or set `train: false` for it.",
            )
        prompt = self._template.render(messages[:index], tools, prompt=True)
        whole = self._template.render(messages[: index + 1], tools, prompt=False)
        if not prompt:
            raise SupervisionError("nothing_before_answer", f"the template renders nothing before message {index}.")
        rest = self._rest(messages[: index + 1], tools, prompt, whole)
        if rest is None:
            raise SupervisionError("prompt_not_prefix", _difference(index, prompt, whole))
        self._check_calls(messages[: index + 1], tools, rest)
        text = prompt + self._up_to_stop(messages[index], index, rest)
        return Turn(index, text, len(prompt), _omitted(messages[index], rest))

    def _rest(self, messages: list[dict[str, Any]], tools: Tools, prompt: str, whole: str) -> str | None:
        """What `whole` adds to `prompt`; None if that can't be told."""
        if whole.startswith(prompt):
            return whole[len(prompt) :]
        try:
            other = self._template.render([*messages[:-1], _other(messages[-1])], tools, prompt=False)
            return self._after_opening(messages[-1], prompt, whole, other) or self._after_other_history(
                messages, tools, prompt, whole, other
            )
        except SupervisionError:  # the template refuses what it is tried with, so nothing is proven
            return None

    def _after_opening(self, message: dict[str, Any], prompt: str, whole: str, other: str) -> str | None:
        """The turn where the generation prompt writes a mark of reasoning that the answered turn does not show.

        A mark that ends reasoning (the prompt turns thinking off: Gemma 4) leaves the answer to be produced. One that
        opens it (DeepSeek R1) leaves the reasoning, the mark that ends it, and the answer. What ends reasoning is found
        by rendering; the line breaks around that mark are these models' convention.
        """
        start = _before_mark(prompt, same_until(prompt, other))
        opening, answer = prompt[start:].strip(), whole[start:]
        marks = _MARK.findall(opening)
        if not marks or prompt[:start] != whole[:start] or any(mark in answer for mark in marks):
            return None  # a mark on both sides is a header, which the two only set otherwise
        if self._template.takes_as_reasoning(opening.removesuffix(marks[-1]), marks[-1]):
            return answer
        opened = _OPENED.fullmatch(opening)
        if not opened or not prompt.endswith("\n") or not self._template.takes_as_reasoning(opening, f"</{opened[1]}>"):
            return None
        inside, closed, _ = str(message.get("content")).partition(f"</{opened[1]}>")
        reasoning = message.get("reasoning_content") or (inside.strip().removeprefix(opening) if closed else "")
        return f"{reasoning.strip()}\n</{opened[1]}>\n\n{answer.lstrip()}" if reasoning.strip() else None

    def _after_other_history(
        self, messages: list[dict[str, Any]], tools: Tools, prompt: str, whole: str, other: str
    ) -> str | None:
        """The turn where the template, once it is answered, shows what came before the last message differently.

        Mistral's, say, writes the system prompt into the last user message, and leaves it out of all others. From the
        content of that message on prompt and `whole` must be the same, up to where the answer begins.
        """
        other_prompt = self._template.render([*messages[:-2], _other(messages[-2])], tools, prompt=True)
        shared = prompt[same_until(prompt, other_prompt) :]
        before = whole[: same_until(whole, other)]
        if not shared or whole == other or prompt.count(shared) != before.count(shared):
            return None
        return whole[before.rindex(shared) + len(shared) :]

    def _up_to_stop(self, message: dict[str, Any], index: int, rest: str) -> str:
        stop = self._stop.search(rest)
        implied = self._stops.after_call if message.get("tool_calls") else self._stops.implied
        if stop is None and implied:
            return rest.removesuffix(self._stops.tail) + implied
        if stop is None:
            raise SupervisionError(
                "no_stop_token",
                f"message {index}: the template renders the answer as {_end(rest)}, without any of the tokens that "
                f"stop generation ({', '.join(self.stops)}), so the model would not learn to stop here. Choose another "
                f"chat_template, or set `train: false` for the message.",
            )
        after = rest[stop.end() :]
        if after != self._stops.tail and self._template.added.sub("", after).strip():
            raise SupervisionError(
                "text_after_stop",
                f"message {index}: the template goes on after the stop token {stop[0]} with {_start(after)}, which the "
                f"model would never produce. Choose another chat_template, or set `train: false` for the message.",
            )
        return rest[: stop.end()]

    def _check_content(self, messages: list[dict[str, Any]], tools: Tools, checked: Sequence[int]) -> None:
        """Of messages and tools if all are checked, else of the messages `checked` alone."""
        named = [
            (f"message {index} ({messages[index].get('role')})", self._without_opening(messages[index]))
            for index in checked
        ]
        described = [("the tool descriptions", tools)] if tools and len(checked) == len(messages) else []
        for where, value in [*named, *described]:
            for text in _strings(value):
                check_no_special(text, where, self._reserved)
                if self._normalised:
                    check_no_special(self._normalise(text), where, self._normalised)

    def _without_opening(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message without the mark of reasoning at its start that the generation prompt writes as well."""
        content = message.get("content")
        if not self._opening or message.get("role") != "assistant" or not isinstance(content, str):
            return message
        return {**message, "content": content.lstrip().removeprefix(self._opening)}

    def _check_calls(self, messages: list[dict[str, Any]], tools: Tools, rest: str) -> None:
        """A template that knows no tools leaves calls out without a word, and an empty answer would be trained."""
        index, message = len(messages) - 1, messages[-1]
        calls = [call.get("function") or call for call in message.get("tool_calls") or ()]
        if not calls:
            return
        renamed = [{"type": "function", "function": {**call, "name": f"Zq7tool{k}e"}} for k, call in enumerate(calls)]
        shown = self._template.render([*messages[:-1], {**message, "tool_calls": renamed}], tools, prompt=False)
        for k, call in enumerate(calls):
            leaves = [leaf for leaf in _strings(_parsed(call.get("arguments"))) if leaf.strip()]
            missing = [leaf for leaf in leaves if not any(form in rest for form in _forms(leaf))]
            if f"Zq7tool{k}e" not in shown or str(call.get("name")) not in rest or missing:
                raise SupervisionError(
                    "tool_calls_not_rendered",
                    f"message {index} calls the tool {call.get('name')!r}, but the chat template leaves "
                    f"{_start(missing[0]) if missing else 'the call'} out: {_start(rest)}. Choose a chat_template that "
                    f"knows tools (chatml and alpaca do), or set `train: false` for the message.",
                )


def _found_in_normalised_text(tokenizer: Any) -> tuple[Callable[[str], str], re.Pattern[str] | None]:
    """How the tokenizer normalises text, and the special tokens it finds in text only after that; None if none."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    tokens = [token for token in tokenizer.added_tokens_decoder.values() if token.special and token.normalized]
    if normalizer is None or not tokens:
        return str, None
    normalise: Callable[[str], str] = normalizer.normalize_str
    return normalise, any_of(normalise(token.content) for token in tokens)


def check_no_special(text: str, where: str, reserved: Any) -> None:
    """Raises SupervisionError if `text` holds a token of the pattern `reserved`, which it would become."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SupervisionError(
            "bad_content", f"{where} holds {text[error.start]!r}, half of a character. Mend it, or leave the row out."
        ) from error
    if found := reserved.search(text):
        raise SupervisionError(
            "special_token_in_content",
            f"{where} contains the text {found[0]!r}, which the tokenizer would turn into the special token of that "
            f"name: {_start(text[max(0, found.start() - 20) :])}. Take it out of the data, or leave the row out.",
        )


def _chosen(messages: Sequence[AnyMessage], supervise: Supervise) -> list[int]:
    """The indices of the messages to supervise."""
    assistant = [index for index, message in enumerate(messages) if field_of(message, "role") == "assistant"]
    if supervise == "last":
        assistant = assistant[-1:]
    elif not isinstance(supervise, str):
        if len(supervise) != len(messages):
            raise UserError(f"supervise has {len(supervise)} choices for {len(messages)} messages. Give one for each.")
        wrong = [index for index, train in enumerate(supervise) if train and index not in assistant]
        if wrong:
            raise UserError(
                f"supervise chooses messages {wrong}, which are not the assistant's. Only those can be trained."
            )
        assistant = [index for index in assistant if supervise[index]]
    elif supervise != "assistant":
        raise UserError(f"supervise is {supervise!r}. Give 'assistant', 'last', or True or False for each message.")
    trained = [index for index in assistant if _trains(messages[index], index)]
    if not trained:
        why = "the assistant's are all left untrained" if assistant else "none is an assistant message to train on"
        raise SupervisionError(
            "nothing_supervised", f"of {len(messages)} message(s) {why}. Add a response, or leave the row out."
        )
    return trained


def _trains(message: AnyMessage, index: int) -> bool:
    """Whether a message's own `train` and `weight` leave it to be trained."""
    for name in ("train", "weight"):
        value = field_of(message, name)
        if value not in (None, 0, 1):
            raise UserError(f"message {index} has {name} {value!r}. A message is trained (1, true) or not (0, false).")
        if value is not None and not value:
            return False
    return True


def _strings(value: Any) -> Iterator[str]:
    """Every text inside a message, keys and values, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, Iterable):
        for inner in value:
            yield from _strings(inner)


def _omitted(message: dict[str, Any], rest: str) -> tuple[str, ...]:
    """What the template leaves out of an answered turn: it is exact as rendered, but less than the row holds."""
    held = {
        "reasoning": message.get("reasoning_content"),
        "content": message.get("tool_calls") and message.get("content"),
    }
    return tuple(name for name, text in held.items() if isinstance(text, str) and text.strip() not in rest)


def _parsed(arguments: Any) -> Any:
    """Arguments of a call, which may be JSON as text."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def _forms(text: str) -> tuple[str, ...]:
    """The ways in which a template may write a text: as it is, trimmed, as JSON, or as Python does."""
    return text, text.strip(), json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1], repr(text)[1:-1]


def _before_mark(text: str, place: int) -> int:
    """The place, or the beginning of the mark `<...>` in which it lies."""
    opened = text.rfind("<", 0, place)
    return opened if opened >= 0 and not re.search(r"[>\s]", text[opened:place]) else place


def _other(message: dict[str, Any]) -> dict[str, Any]:
    """The message with content that differs from its first character on."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [{"type": "text", "text": "Zq7"}, *content]}
    content = str(content or "")
    return {**message, "content": ("Y" if content.lstrip().startswith("Z") else "Z") + content}


def _difference(index: int, prompt: str, whole: str) -> str:
    same = same_until(prompt, whole)
    return (
        f"message {index}: after {_end(prompt[:same])} a server shows the model {_start(prompt[same:])}, but once "
        f"answered the template renders {_start(whole[same:])} there; what is trained would not be what is served. Set "
        f"template_args to what serving uses, choose another chat_template, or set `train: false` for the message."
    )


def _start(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _end(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else "…" + text[-_SHOWN:])
