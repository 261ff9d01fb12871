"""Rank classification: which of given options a model holds likeliest as the answer, as FLAN and lm-eval choose.

Options are compared by the log-probability of their tokens behind the prompt, log p(option | prompt): as it is (`raw`,
lm-eval's acc), per character (`characters`, lm-eval's acc_norm), per UTF-8 byte (`bytes`, its acc_bytes), per token
(`tokens`), or less log p(option) behind no question (`unconditional`, its acc_mutual_info; Brown et al. 2020,
section 2.4). Of options with equal scores the first is chosen, as there.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.base.conversation import Message
from tunesmith.base.errors import DataError, UserError
from tunesmith.base.progress import progress
from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.read import records_of
from tunesmith.model.generate import CACHE_TOKENS, new_tokens_limit
from tunesmith.model.likelihood import Likelihood, likelihoods
from tunesmith.model.parts import causal_model
from tunesmith.model.seq2seq import is_encoder_decoder
from tunesmith.tokens.rendering import ChatTemplate
from tunesmith.tokens.templates import plain_prompt
from tunesmith.tokens.tokenise import tokenise

Style = Literal["chat", "plain"]
Normalisation = Literal["raw", "characters", "bytes", "tokens", "unconditional"]
NORMALISATIONS: tuple[Normalisation, ...] = ("raw", "characters", "bytes", "tokens", "unconditional")

QUESTIONS = ("question", "prompt", "query", "ctx", "instruction", "sentence")
OPTIONS = ("options", "choices", "endings")
ANSWERS = ("answer", "answerKey", "label", "gold", "target")


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """A question with options. answer: the index of the right one. prompt: the messages before the answer."""

    id: str
    prompt: tuple[Message, ...]
    options: tuple[str, ...]
    answer: int
    cluster: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model makes of one item.

    log: log p(option | prompt) of each option in nats; unconditional: log p(option), empty if it was not asked for.
    tokens: of each option.
    """

    item: ChoiceItem
    log: tuple[float, ...]
    unconditional: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def chosen(self) -> Mapping[Normalisation, int]:
        """The index of the option with the highest score, by normalisation."""
        return {name: max(range(len(self.log)), key=scores.__getitem__) for name, scores in self.scores.items()}

    @property
    def correct(self) -> Mapping[Normalisation, bool]:
        return {name: index == self.item.answer for name, index in self.chosen.items()}

    @property
    def scores(self) -> Mapping[Normalisation, tuple[float, ...]]:
        """Each option's score, by normalisation."""
        options = self.item.options
        scores: dict[Normalisation, tuple[float, ...]] = {
            "raw": self.log,
            "characters": _divided(self.log, [len(option) for option in options]),
            "bytes": _divided(self.log, [len(option.encode("utf-8", "surrogatepass")) for option in options]),
            "tokens": _divided(self.log, self.tokens),
        }
        if self.unconditional:
            pairs = zip(self.log, self.unconditional, strict=True)
            scores["unconditional"] = tuple(log - alone for log, alone in pairs)
        return scores


def _divided(logs: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    return tuple(log / size for log, size in zip(logs, sizes, strict=True))


def choose(
    model: Any,
    tokenizer: Any,
    items: Sequence[ChoiceItem],
    *,
    style: Style,
    unconditional: bool = True,
    batch_tokens: int = CACHE_TOKENS,
    title: str = "Choosing",
) -> list[Choice]:
    """What the model makes of every item, in order.

    style: "chat" asks by the chat template, and options stand where the answer begins. "plain" asks in the words of
    `plain_prompt`, and options follow after a space. unconditional: measure options behind no question too: behind the
    template of an empty one, or ("plain") behind the token that starts a text, without the space, as lm-eval does.

    Raises UserError if an item with its longest option has no room in the model's context, or the tokenizer has no
    token to start a text with.
    """
    encode = _Encoder(tokenizer, style, is_encoder_decoder(causal_model(model)))
    asked = [encode.item(item.prompt, item.options) for item in items]
    _check_room(model, items, asked)
    # The same options (yes, no) belong to many items, and behind no question each of them is measured once.
    different = list(dict.fromkeys(option for item in items for option in item.options)) if unconditional else []
    start, bare = encode.nothing(different) if different else ([], [])
    with progress(title, total=len(items) + bool(bare)) as bar:
        found = likelihoods(
            model, [prompt for prompt, _ in asked], [options for _, options in asked],
            batch_tokens=batch_tokens, advance=bar.advance,
        )  # fmt: skip
        alone = _alone(model, start, bare, batch_tokens)
        bar.advance(bool(bare))
    known = dict(zip(different, alone, strict=True))
    return [
        Choice(
            item=item,
            log=tuple(one.log for one in likely),
            unconditional=tuple(known[option] for option in item.options) if unconditional else (),
            tokens=tuple(one.tokens for one in likely),
        )
        for item, likely in zip(items, found, strict=True)
    ]


def _alone(model: Any, start: list[int], options: Sequence[list[int]], batch_tokens: int) -> list[float]:
    """The log-probability of each option behind `start`, of which one batch reads as many as it has room for."""
    parts = [options[first : first + 64] for first in range(0, len(options), 64)]
    found: list[list[Likelihood]] = likelihoods(model, [start] * len(parts), parts, batch_tokens=batch_tokens)
    return [one.log for part in found for one in part]


def _check_room(model: Any, items: Sequence[ChoiceItem], asked: Sequence[tuple[list[int], list[list[int]]]]) -> None:
    for item, (prompt, options) in zip(items, asked, strict=True):
        longest = max(map(len, options))
        room = new_tokens_limit(model, len(prompt), longest)
        if room < longest:
            raise UserError(
                f"item {item.id}: its prompt of {len(prompt):,} tokens leaves room for {room} in the model's context, "
                f"and its longest option has {longest}, so it can't be measured. Take the item out, or shorten it."
            )


class _Encoder:
    """Token ids of prompts and of the options behind them."""

    def __init__(self, tokenizer: Any, style: Style, encoder_decoder: bool) -> None:
        self._tokenizer, self._style, self._encoder_decoder = tokenizer, style, encoder_decoder
        self._template = ChatTemplate(tokenizer) if style == "chat" else None
        self._start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def item(self, prompt: Sequence[Message], options: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        if self._template is not None:
            text = self._template.render(self._template.messages(prompt), None, prompt=True)
            return self._pair([], text, options)
        return self._pair(self._start, plain_prompt(prompt), [f" {option}" for option in options])

    def nothing(self, options: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """What stands for no question, and the options behind it."""
        if self._template is not None:
            return self.item([Message("user", "")], options)
        start = self._start or [self._tokenizer.eos_token_id]
        if start == [None]:
            raise UserError(
                "the tokenizer has neither a BOS nor an EOS token, so the likelihood of an option behind no question "
                "can't be measured. Set one in the tokenizer, or leave the unconditional normalisation out."
            )
        return start, tokenise(self._tokenizer, options)

    def _pair(self, start: list[int], text: str, options: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """As a tokenizer cuts prompt and option together; or each alone, where the cut is not between them."""
        prompt, *whole = tokenise(self._tokenizer, [text, *(text + option for option in options)])
        alone = tokenise(self._tokenizer, options)
        joint = not self._encoder_decoder
        after = [
            ids[len(prompt) :] if joint and ids[: len(prompt)] == prompt and len(ids) > len(prompt) else apart
            for ids, apart in zip(whole, alone, strict=True)
        ]
        ends = self._encoder_decoder and self._style == "plain"  # an encoder was pretrained on texts with an end
        return [*start, *prompt, *([self._tokenizer.eos_token_id] if ends else [])], after


def read_choices(name: str, path: Path | str) -> list[ChoiceItem]:
    """The items of files (JSON, JSONL, CSV or Parquet).

    A record has a question (one of QUESTIONS, or `messages`), options (one of OPTIONS: texts, or ARC's
    {"text": [...], "label": [...]}) and an answer (one of ANSWERS: an index from 0, an option's text, its label, or a
    letter, A being the first). Raises DataError at the first record of another shape: what is left out unseen would
    make the figure one of other items.
    """
    items = [_read(f"{name}:{label}{record.number}", record.value) for _, label, record in records_of(path)]
    if not items:
        raise DataError(f"{path} holds no items, so nothing would be measured. Check the path.")
    return items


def _read(id: str, value: Any) -> ChoiceItem:
    if isinstance(value, Rejected):
        raise DataError(f"item {id} can't be read ({value.reason}: {value.detail}). Mend or remove that line.")
    if not isinstance(value, Mapping):
        raise DataError(f"item {id} is {_short(value)}, not an object with a question, options and an answer.")
    options, labels = _options(id, _field(id, value, OPTIONS, "options"))
    answer = _answer(id, _field(id, value, ANSWERS, "right answer"), options, labels)
    names = {key: str(value[key]) for key in ("cluster", "task") if isinstance(value.get(key), str)}
    return ChoiceItem(id, _prompt(id, value), options, answer, **names)


def _field(id: str, value: Mapping[str, Any], names: Sequence[str], what: str) -> Any:
    found = [name for name in names if value.get(name) is not None]
    if not found:
        raise DataError(
            f"item {id} has no {what}: its keys are {', '.join(map(str, value)) or 'none'}, and {what} is looked for "
            f"under {', '.join(names)}. Rename the key, or take the item out."
        )
    return value[found[0]]


def _prompt(id: str, value: Mapping[str, Any]) -> tuple[Message, ...]:
    messages = value.get("messages")
    if messages is None:
        question = _field(id, value, QUESTIONS, "question")
        if not isinstance(question, str) or not question.strip():
            raise DataError(f"item {id}: its question is {_short(question)}, not a text.")
        return (Message("user", question),)
    roles = ("system", "user", "assistant")
    sound = isinstance(messages, Sequence) and all(
        isinstance(m, Mapping) and m.get("role") in roles and isinstance(m.get("content"), str) for m in messages
    )
    if not sound or not messages or messages[-1]["role"] != "user":
        raise DataError(
            f"item {id}: its messages are {_short(messages)}; they should be objects with a role ({', '.join(roles)}) "
            f"and a text as content, the last of them the user's."
        )
    return tuple(Message(message["role"], message["content"]) for message in messages)


def _options(id: str, given: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options' texts and labels."""
    labels: Any = ()
    if isinstance(given, Mapping):
        given, labels = given.get("text"), given.get("label") or ()
    texts = given if isinstance(given, list | tuple) else ()
    if (
        len(texts) < 2
        or not all(isinstance(text, str) and text.strip() for text in texts)
        or len(set(texts)) < len(texts)
    ):
        raise DataError(f"item {id}: its options are {_short(given)}; they should be two or more different texts.")
    if labels and (not isinstance(labels, list | tuple) or len(labels) != len(texts)):
        raise DataError(f"item {id}: {len(texts)} options have the labels {_short(labels)}; each needs one of its own.")
    return tuple(texts), tuple(map(str, labels))


def _answer(id: str, given: Any, options: Sequence[str], labels: Sequence[str]) -> int:
    """The index of the right option. A text counts as an option before it counts as a label, a letter or a number."""
    letters = string.ascii_uppercase[: len(options)]
    if isinstance(given, str):
        for names in (options, labels, letters, letters.lower()):
            if given in names and given:
                return list(names).index(given)
        given = int(given) if given.strip().isdecimal() else given
    elif str(given) in labels:  # labels may be numbers, from 1 say
        return list(labels).index(str(given))
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(options):
        return given
    raise DataError(
        f"item {id}: its answer {_short(given)} is none of its {len(options)} options, nor the index (from 0) or "
        f"letter of one: {_short(list(options))}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
