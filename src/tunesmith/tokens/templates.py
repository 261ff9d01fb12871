"""Chat templates: which one a model has, what a server feeds the model, and what ends an answer."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.base.errors import SupervisionError, UserError
from tunesmith.tokens.rendering import (
    DEFAULT,
    DEFAULT_SEQ2SEQ,
    SHIPPED,
    AnyMessage,
    ChatTemplate,
    Template,
    field_of,
    shipped_template,
)
from tunesmith.tokens.tokenise import tokenise

_NOT_ARGUMENTS = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token")


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """A chat template and one sentence saying where it comes from. Assign `text` to `tokenizer.chat_template`."""

    text: Template
    said: str


def chat_template_of(
    tokenizer: Any,
    choice: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    *,
    encoder_decoder: bool = False,
) -> ChosenTemplate:
    """The chat template to train and serve with.

    choice: a name in SHIPPED, or the path of a Jinja file; None takes the tokenizer's own template, and DEFAULT for a
    base model that has none, or DEFAULT_SEQ2SEQ if it is an encoder-decoder.
    template_args: written into the template, see `with_args`.

    Raises UserError if `choice` is neither, if the template knows no such argument, or if it ends turns with no token
    of this tokenizer.
    """
    chosen = _chosen(tokenizer, choice, encoder_decoder)
    if template_args:
        given = ", ".join(f"{name}: {json.dumps(value)}" for name, value in template_args.items())
        chosen = ChosenTemplate(with_args(chosen.text, template_args), f"{chosen.said} Saved in it: {given}.")
    try:
        ChatTemplate(tokenizer, template=chosen.text).stops()
    except SupervisionError as error:
        raise UserError(f"{chosen.said} It does not suit this tokenizer: {error}") from error
    return chosen


def _chosen(tokenizer: Any, choice: str | None, encoder_decoder: bool) -> ChosenTemplate:
    if choice is None and tokenizer.chat_template:
        return ChosenTemplate(tokenizer.chat_template, "The chat template is the base model's own.")
    if choice is None and encoder_decoder:
        return ChosenTemplate(
            shipped_template(DEFAULT_SEQ2SEQ),
            f"The base model is an encoder-decoder without a chat template: it gets Tunesmith's '{DEFAULT_SEQ2SEQ}' "
            f"(the encoder reads the text and EOS, the answer ends with EOS), which is saved with the model.",
        )
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
    template = ChatTemplate(tokenizer, template_args)
    text = template.render(template.messages(messages), tools, prompt=True)
    return tokenise(tokenizer, [text])[0]


def plain_prompt(messages: Iterable[AnyMessage]) -> str:
    """A prompt for a base model that has seen no chat template: each instruction, a blank line and "Answer:".

    Earlier answers follow their "Answer:" after a space; system messages stand before as paragraphs of their own. The
    model should go on with a space and the answer; cut what it writes at the first blank line.
    """
    parts = {"assistant": " {}\n\n", "user": "{}\n\nAnswer:"}
    return "".join(parts.get(str(field_of(m, "role")), "{}\n\n").format(field_of(m, "content")) for m in messages)
