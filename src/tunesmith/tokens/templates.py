"""Chat templates: which one a model has, what it renders, what a server feeds the model, and what ends a turn.

Rendering is transformers' own `apply_chat_template` (sandboxed), so that training sees what serving shows.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tunesmith.base.conversation import Message
from tunesmith.base.deadline import time_limit
from tunesmith.base.errors import SupervisionError, UserError

SHIPPED = ("chatml", "alpaca", "plain")
DEFAULT = "alpaca"

Template = str | dict[str, str]
AnyMessage = Message | Mapping[str, Any]

SECONDS_TO_RENDER = 10.0

_NOT_FOR_TEMPLATES = ("train", "weight")
_NOT_ARGUMENTS = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token")
_TEMPLATE_FAULTS = (
    TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """A chat template and one sentence saying where it comes from. Assign `text` to `tokenizer.chat_template`."""

    text: Template
    said: str


@dataclass(frozen=True, slots=True)
class Stops:
    """The tokens that end an assistant's turn, as text; the first is the one the template ends an answer with.

    implied: the template does not write it in the turn itself, it is the header of the next message.
    """

    tokens: tuple[str, ...]
    implied: bool


def shipped_template(name: str) -> str:
    """The text of a template that comes with Tunesmith."""
    return files("tunesmith.tokens").joinpath(f"{name}.jinja").read_text(encoding="utf-8")


def chat_template_of(
    tokenizer: Any, choice: str | None = None, template_args: Mapping[str, Any] | None = None
) -> ChosenTemplate:
    """The chat template to train and serve with.

    choice: a name in SHIPPED, or the path of a Jinja file; None takes the tokenizer's own template, and DEFAULT for a
    base model that has none.
    template_args: written into the template, see `with_args`.

    Raises UserError if `choice` is neither, if the template knows no such argument, or if it ends turns with no token
    of this tokenizer.
    """
    chosen = _chosen(tokenizer, choice)
    if template_args:
        given = ", ".join(f"{name}: {json.dumps(value)}" for name, value in template_args.items())
        chosen = ChosenTemplate(with_args(chosen.text, template_args), f"{chosen.said} Saved in it: {given}.")
    try:
        ChatTemplate(tokenizer, template=chosen.text).stops()
    except SupervisionError as error:
        raise UserError(f"{chosen.said} It does not suit this tokenizer: {error}") from error
    return chosen


def _chosen(tokenizer: Any, choice: str | None) -> ChosenTemplate:
    if choice is None and tokenizer.chat_template:
        return ChosenTemplate(tokenizer.chat_template, "The chat template is the base model's own.")
    if choice is None:
        return ChosenTemplate(
            shipped_template(DEFAULT),
            f"The base model has no chat template: it gets Tunesmith's '{DEFAULT}' (headings in plain text, turns end "
            f"with the EOS token), which is saved with the model.",
        )
    if choice in SHIPPED:
        return ChosenTemplate(shipped_template(choice), f"The chat template is Tunesmith's '{choice}'.")
    if Path(choice).is_file():
        return ChosenTemplate(Path(choice).read_text(encoding="utf-8"), f"The chat template is the file {choice}.")
    raise UserError(
        f"chat_template: {choice!r} is neither a file nor one of {', '.join(SHIPPED)}. Give the path of a Jinja file "
        f"or one of these names, or leave it out to use the base model's own template."
    )


def with_args(template: Template, args: Mapping[str, Any]) -> Template:
    """The template with `args` as the defaults of its arguments: whatever serves it renders as training did.

    Who passes such an argument when serving still overrides it.
    Raises UserError for an argument that the template does not read, or a value that is not plain JSON.
    """
    if not isinstance(template, str):
        return {name: str(with_args(text, args)) for name, text in template.items()}
    words = set(re.findall(r"[^\W\d]\w*", template)) - set(_NOT_ARGUMENTS)
    for name in args:
        if name not in words:
            near = ", ".join(sorted(difflib.get_close_matches(name, words, n=3)))
            raise UserError(
                f"template_args: the chat template reads no argument {name!r}, so it would change nothing. "
                + (f"It reads {near}." if near else "Leave it out, or choose another chat_template.")
            )
    preset = (
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(args[name])} %}}{{% endif %}}" for name in args
    )
    return "".join(preset) + "{{ '' }}" + template  # which keeps a line break at the template's start


def _literal(value: Any) -> str:
    """JSON as a Jinja expression."""
    match value:
        case None | bool():
            return str(value).lower()
        case int() | float() | str():
            return json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(map(_literal, value))}]"
        case Mapping():
            return f"{{{', '.join(f'{_literal(str(key))}: {_literal(inner)}' for key, inner in value.items())}}}"
    raise UserError(f"template_args: {value!r} can't be saved with a template. Give text, numbers, lists or mappings.")


def for_template(messages: Iterable[AnyMessage]) -> list[dict[str, Any]]:
    """Messages as the dictionaries templates expect, without what is meant for training alone."""
    return [
        message.for_template()
        if isinstance(message, Message)
        else {key: value for key, value in message.items() if key not in _NOT_FOR_TEMPLATES}
        for message in messages
    ]


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

    def stops(self) -> Stops:
        """The tokens that end an assistant's turn: first what the template writes, then EOS.

        Found by rendering. The template's own stop token is, in what follows the content of an answer both at the end
        of a conversation and in the middle of one, EOS if it is there and else the first special token. If the two
        have none in common, what follows at the end counts alone. If nothing follows there, the header that opens the
        next user message is what the model learns to stop with (GLM-4), provided it is one token.

        Raises SupervisionError("no_stop_token") if there is none, for then the model would never learn to stop.
        """
        answer = "Zq7answer"
        asked = {"role": "user", "content": "Zq7question"}
        answered = [asked, {"role": "assistant", "content": answer}]
        last = self.render(answered, prompt=False).rpartition(answer)[2]
        middle = self._after(answer, [*answered, {"role": "user", "content": "Zq7next"}])
        eos = self.tokenizer.eos_token
        stop = self._stop_in(last[: same_until(last, middle)]) or self._stop_in(last)
        if stop is None and not last.strip() and middle.startswith(last):
            opening = self.added.match(middle, len(last))
            stop = opening and opening[0]
        if stop is None:
            raise SupervisionError(
                "no_stop_token",
                f"the chat template writes {last!r} after an answer, and no special token of the tokenizer is in it, "
                f"so the model would never learn to stop. End the assistant's turn with "
                f"{eos or 'an EOS token (the tokenizer has none: set one)'} in the template, or choose another "
                f"chat_template ({', '.join(SHIPPED)}).",
            )
        tokens = dict.fromkeys(token for token in (stop, self._tool_stop(stop), eos) if token)
        return Stops(tuple(tokens), implied=stop not in last)

    def markers(self) -> set[str]:
        """The added tokens the template itself writes in a prompt, special or not."""
        prompt = self.render([{"role": "user", "content": "Zq7question"}], prompt=True)
        return {token for token in self.added.findall(prompt) if token.strip()}

    def _after(self, answer: str, messages: list[dict[str, Any]]) -> str:
        """What follows an answer that is not the last message; empty if the template refuses further messages."""
        try:
            return self.render(messages, prompt=False).rpartition(answer)[2]
        except SupervisionError:
            return ""

    def _stop_in(self, text: str) -> str | None:
        """EOS, or the first special token, or the first added token that is more than white space."""
        eos = self.tokenizer.eos_token
        found = [token for token in self.added.findall(text) if token.strip()]
        special = [token for token in found if token in self.special]
        return eos if eos in found else next(iter(special or found), None)

    def _tool_stop(self, stop: str) -> str | None:
        """The last special token after a tool call, where it is another than after an answer (Llama 3, gpt-oss)."""
        name = "Zq7tool"
        # The described tool has another name than the called one, so that the name marks the call wherever it stands.
        schema = {"name": "Zq7other", "description": "", "parameters": {"type": "object", "properties": {}}}
        call = {"type": "function", "function": {"name": name, "arguments": {}}}
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": "Zq7question"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        try:
            text = self.render(messages, [{"type": "function", "function": schema}], prompt=False)
        except SupervisionError:
            return None
        called, tail = text.rpartition(name)[1:]
        if not called or stop in tail:
            return None
        return next((token for token in reversed(self.added.findall(tail)) if token in self.special), None)


def stop_token_ids(tokenizer: Any, template_args: Mapping[str, Any] | None = None) -> tuple[int, ...]:
    """The token ids that end generation, first the one that ends an answer in the chat template.

    Raises SupervisionError("no_stop_token") if the template ends turns without one.
    """
    stops = ChatTemplate(tokenizer, template_args).stops()
    return tuple(tokenizer.convert_tokens_to_ids(stop) for stop in stops.tokens)


def prompt_ids(
    messages: Iterable[AnyMessage],
    tokenizer: Any,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template_args: Mapping[str, Any] | None = None,
) -> list[int]:
    """The tokens a server feeds the model for `messages`: the template with its generation prompt, as one string.

    BOS is there once if the template writes it; none is added.
    """
    text = ChatTemplate(tokenizer, template_args).render(for_template(messages), tools, prompt=True)
    return tokenise(tokenizer, [text])[0]


def plain_prompt(messages: Iterable[AnyMessage]) -> str:
    """A prompt for a base model that has seen no chat template: each instruction, a blank line and "Answer:".

    Earlier answers follow their "Answer:" after a space; system messages stand before as paragraphs of their own. The
    model should go on with a space and the answer; cut what it writes at the first blank line.
    """
    parts = {"assistant": " {}\n\n", "user": "{}\n\nAnswer:"}
    return "".join(parts.get(str(m["role"]), "{}\n\n").format(m["content"]) for m in for_template(messages))


def tokenise(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, special tokens in it recognised and none added.

    Equal to `tokenizer(texts, add_special_tokens=False)`, at the speed of the backend without offsets.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    # Left over from whatever the tokenizer did before; transformers sets both anew at each call of its own.
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def added_tokens(tokenizer: Any) -> re.Pattern[str]:
    """A pattern that finds added tokens in text as the tokenizer does: leftmost, longest."""
    return any_of(token.content for token in tokenizer.added_tokens_decoder.values())


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern for the leftmost, longest of some texts; without any it matches nothing."""
    return re.compile("|".join(map(re.escape, sorted(set(texts), key=len, reverse=True))) or r"(?!)")


def same_until(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
