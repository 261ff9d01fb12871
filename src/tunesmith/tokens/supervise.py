"""Exact supervision: for any chat template, which tokens a model sees and which of them it is trained on, or a refusal.

`turns` says what each supervised turn's prompt and answer are as text. As tokens: the prompt's are those of the prompt
tokenised as one string, as a server does it; the answer's are those that follow. A turn goes on the sequence of the
turn before it if its prompt starts with that sequence, token by token; a template that rewrites history (drops earlier
reasoning, moves the system prompt) thus gives such turns sequences of their own.

`_turn_by_turn` is that definition, and tokenises every prompt. `OnePass` gives the same sequences from one tokenisation
of each conversation; one whose prompts it can't prove is left to the definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import SupervisionError, UserError
from tunesmith.tokens.encoded import Encoded, Span
from tunesmith.tokens.one_pass import OnePass
from tunesmith.tokens.rendering import AnyMessage, any_of, field_of
from tunesmith.tokens.seq2seq import continuations
from tunesmith.tokens.tokenise import Ids, Tokenise, by_tokenizer
from tunesmith.tokens.turns import SpecialTokens, Supervise, Tools, Turn, TurnReader, check_no_special

TooLong = Literal["drop", "oldest_turns"]
Outcome = tuple[Encoded, ...] | SupervisionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is supervised, and what is refused; `encode` says what each means. Raises UserError for what can't be.

    encoder_decoder: the sequences are for a model whose encoder reads what stands before a turn. So plain text is
        trained from its middle on, and turns of which one follows the other without a token between are refused.
    """

    supervise: Supervise = "assistant"
    template_args: Mapping[str, Any] | None = None
    max_length: int | None = None
    too_long: TooLong = "drop"
    special_tokens: SpecialTokens = "refuse"
    encoder_decoder: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("too_long", TooLong), ("special_tokens", SpecialTokens)):
            if getattr(self, name) not in get_args(choices):
                wanted = " or ".join(map(repr, get_args(choices)))
                raise UserError(f"{name} is {getattr(self, name)!r}. Give {wanted}.")
        if self.max_length is not None and self.max_length < 2:
            raise UserError(
                f"max_length is {self.max_length}; a sequence has at least 2 tokens, one to predict from another."
            )


def encode(
    messages: Iterable[AnyMessage],
    tokenizer: Any,
    *,
    tools: Tools = None,
    supervise: Supervise = "assistant",
    template_args: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    too_long: TooLong = "drop",
    special_tokens: SpecialTokens = "refuse",
) -> tuple[Encoded, ...]:
    """The exact tokens of a conversation, and which of them are supervised.

    messages: `Message`s or dictionaries in the Hub's shape. A dictionary's `train: false` or `weight: 0` leaves an
        assistant message unsupervised, as `Message.train` does.
    tokenizer: of transformers. Without a chat template it gets Tunesmith's default, which ends turns with EOS.
    tools: tool descriptions (JSON schema) for the template.
    supervise: "assistant" (every assistant message), "last" (the last of them) or a choice for each message.
    template_args: further arguments of the template (`enable_thinking`, say); serving must use the same.
    max_length: tokens; the most a sequence may have.
    too_long: of a conversation that has more, "drop" refuses it; "oldest_turns" leaves out its oldest exchanges (a
        user's message and all up to the next one; a system message before the first stays) until the rest fits.
    special_tokens: of a conversation whose content holds the text of one (a user who typed `<|im_end|>`), "refuse"
        refuses it; "keep_seen" keeps it where the text is only seen, as the special token that a server makes of it
        too. In a supervised turn it is refused either way.

    Returns one sequence, or several where the template shows later turns another history than earlier ones.

    Raises SupervisionError, its `reason` saying why, for whatever can't be supervised exactly; nothing is ever cut.
    """
    rules = Rules(
        supervise=supervise,
        template_args=template_args,
        max_length=max_length,
        too_long=too_long,
        special_tokens=special_tokens,
    )
    return _or_raise(Supervisor(tokenizer, rules).encode([Row(list(messages), tools, supervise)])[0])


def encode_conversation(conversation: Conversation, tokenizer: Any, rules: Rules | None = None) -> tuple[Encoded, ...]:
    """`encode` for a row of instruction data, `encode_text` for a row of plain text."""
    rules = rules or Rules()
    row = Row(conversation.messages, conversation.tools, rules.supervise)
    return _or_raise(Supervisor(tokenizer, rules).encode([row])[0])


def encode_text(text: str, tokenizer: Any, *, max_length: int | None = None) -> tuple[Encoded, ...]:
    """Plain text as sequences of at most `max_length` tokens, for pretraining and replay: [BOS] text EOS.

    BOS and EOS are there if the tokenizer has them. Every token but the first is supervised. Where the text goes on in
    another sequence, that one starts with the last token of the one before, so that each token is trained just once.

    Raises SupervisionError if the text is empty or holds the text of a special token.
    """
    return encode_conversation(Conversation.from_text("text", text), tokenizer, Rules(max_length=max_length))


class Remarks(NamedTuple):
    """On a row that was encoded. left_out: messages that made way, as the row was too long.
    omits: what the chat template does not show of supervised turns, see `Turn`. special: it holds the text of a special
    token where that is only seen, and was kept.
    """

    left_out: int = 0
    omits: tuple[str, ...] = ()
    special: bool = False


NOTHING = Remarks()


class Row(NamedTuple):
    """What is to be encoded of a conversation.

    origins: of a shortened row, which message of the whole conversation each of `messages` is."""

    messages: Sequence[AnyMessage]
    tools: Tools
    supervise: Supervise
    origins: Sequence[int] = ()

    @property
    def text(self) -> str | None:
        """The content of a row of plain text."""
        first = self.messages[0] if len(self.messages) == 1 else None
        return first.content if isinstance(first, Message) and first.role == "text" else None

    def without_oldest(self) -> Row | None:
        """The row without its oldest exchange; None if only one is left."""
        asked = [index for index, message in enumerate(self.messages) if field_of(message, "role") == "user"]
        if len(asked) < 2:
            return None
        kept = [
            index
            for index, message in enumerate(self.messages)
            if index >= asked[1] or (index < asked[0] and field_of(message, "role") not in ("assistant", "tool"))
        ]
        chosen = self.supervise if isinstance(self.supervise, str) else [self.supervise[index] for index in kept]
        origins = self.origins or range(len(self.messages))
        return Row([self.messages[index] for index in kept], self.tools, chosen, [origins[index] for index in kept])


class Supervisor:
    """Encodes rows; what it has to know about tokenizer and template is found once.

    tokenise: what gives the tokens of texts; None is the tokenizer itself.
    remarks: on the rows encoded last, by index, where there are any.
    """

    def __init__(self, tokenizer: Any, rules: Rules, tokenise: Tokenise | None = None) -> None:
        self._tokenizer = tokenizer
        self._tokenise = tokenise or by_tokenizer(tokenizer)
        self._rules = rules
        added = tokenizer.added_tokens_decoder
        self._special = any_of(token.content for token in added.values() if token.special)
        self._id_of = {token.content: id for id, token in added.items()}
        self._one_pass = OnePass(tokenizer, self._tokenise)
        self._reader: TurnReader | None = None

    def encode(self, rows: Sequence[Row]) -> list[Outcome]:
        """The sequences of each row, or why there are none."""
        self.remarks: dict[int, Remarks] = {}
        outcomes: dict[int, Outcome] = {}
        texts: dict[int, str] = {}
        conversations: dict[int, list[Turn]] = {}
        for index, row in enumerate(rows):
            try:
                if row.text is None:
                    turns = conversations[index] = self._turns(row)
                    omits = {name for turn in turns for name in turn.omits}
                    remarks = Remarks(omits=tuple(sorted(omits)), special=self._keeps_special(row))
                    if remarks != NOTHING:
                        self.remarks[index] = remarks
                else:
                    texts[index] = self._text(row.text)
            except SupervisionError as error:
                outcomes[index] = error
        for index, ids in zip(texts, self._tokenise(list(texts.values())), strict=True):
            outcomes[index] = self._chunks(ids)
        proven = self._one_pass.encode(conversations.values())
        for (index, turns), found in zip(conversations.items(), proven, strict=True):
            try:
                outcomes[index] = self._short_enough(self._separated(found or self._turn_by_turn(turns)))
            except SupervisionError as error:
                outcomes[index] = self._shortened(rows[index], index, error)
        return [outcomes[index] for index in range(len(rows))]

    def _shortened(self, row: Row, index: int, error: SupervisionError) -> Outcome:
        """The sequences of a row that is too long without its oldest exchanges, if that is wanted; else the error."""
        wanted = self._rules.too_long == "oldest_turns" and error.reason == "too_long"
        shorter = row.without_oldest() if wanted else None
        while shorter:
            try:
                sequences = self._short_enough(self._separated(self._turn_by_turn(self._turns(shorter))))
            except SupervisionError as still:
                shorter = shorter.without_oldest() if still.reason == "too_long" else None
            else:
                left_out = len(row.messages) - len(shorter.messages)
                self.remarks[index] = self.remarks.get(index, NOTHING)._replace(left_out=left_out)
                return tuple(sequence.of_messages(shorter.origins) for sequence in sequences)
        return error

    def _turns(self, row: Row) -> list[Turn]:
        # Made when first needed: plain text needs no chat template, so it doesn't fail for want of a good one.
        self._reader = self._reader or TurnReader(
            self._tokenizer, self._rules.template_args, self._rules.special_tokens
        )
        return self._reader.read(row.messages, row.tools, row.supervise)

    def _keeps_special(self, row: Row) -> bool:
        kept = self._rules.special_tokens == "keep_seen"
        return kept and self._reader is not None and self._reader.holds_special(row.messages, row.tools)

    def _turn_by_turn(self, turns: list[Turn]) -> tuple[Encoded, ...]:
        """The definition: each prompt tokenised as a server does it, each answer what follows it."""
        sequences: list[tuple[list[int], list[Span]]] = []
        for turn in turns:
            prompt, ids = self._turn_ids(turn)
            span = (turn.message, len(prompt), len(ids))
            if sequences and prompt[: len(sequences[-1][0])] == sequences[-1][0]:
                sequences[-1] = (ids, [*sequences[-1][1], span])
            else:
                sequences.append((ids, [span]))
        return tuple(Encoded.from_spans(ids, tuple(spans)) for ids, spans in sequences)

    def _turn_ids(self, turn: Turn) -> tuple[list[int], list[int]]:
        """Token ids of a turn's prompt, and of the prompt with its answer."""
        prompt, whole, answer = (ids.tolist() for ids in self._tokenise([turn.prompt, turn.text, turn.answer]))
        ids = whole
        if whole[: len(prompt)] != prompt:
            # A token of the whole lies across the boundary, which a served model can't produce: its prompt is tokenised
            # already. It has to produce the answer's own tokens, if these say the same text.
            ids = prompt + answer
            if self._tokenizer.decode(ids) != self._tokenizer.decode(whole):
                raise SupervisionError(
                    "no_token_boundary",
                    f"message {turn.message}: no token ends where the prompt ends ({turn.prompt[-20:]!r}) and the "
                    f"answer begins ({turn.answer[:20]!r}), and the answer tokenised by itself is another text. Let "
                    f"the chat template's generation prompt end with a special token or a line break.",
                )
        if not prompt:
            raise SupervisionError(
                "nothing_before_answer", f"message {turn.message}: the prompt {turn.prompt!r} has no tokens."
            )
        stops = {self._id_of[stop] for stop in self._stops()}
        if ids[-1] not in stops or not stops.isdisjoint(ids[len(prompt) : -1]):
            raise SupervisionError(
                "stop_token_lost",
                f"message {turn.message}: the tokenizer makes {self._tokenizer.convert_ids_to_tokens(ids[-4:])} of the "
                f"end of the answer {turn.answer[-20:]!r}, not one stop token ({', '.join(self._stops())}). Add the "
                f"stop token to the tokenizer as a special token, or choose another chat_template.",
            )
        return prompt, ids

    def _stops(self) -> tuple[str, ...]:
        assert self._reader is not None
        return self._reader.stops

    def _separated(self, sequences: tuple[Encoded, ...]) -> tuple[Encoded, ...]:
        for sequence in sequences if self._rules.encoder_decoder else ():
            for (_, _, end), (message, start, _) in pairwise(sequence.turns):
                if end == start:
                    raise SupervisionError(
                        "turns_not_separated",
                        f"message {message} follows another supervised one, and the chat template writes nothing "
                        f"between them, so an encoder-decoder would learn them as one answer. Choose another "
                        f"chat_template (seq2seq), or set `train: false` for one of them.",
                    )
        return sequences

    def _short_enough(self, sequences: tuple[Encoded, ...]) -> tuple[Encoded, ...]:
        longest, most = max(map(len, sequences)), self._rules.max_length
        if most is not None and longest > most:
            raise SupervisionError(
                "too_long",
                f"the conversation has {longest} tokens, max_length is {most}, and answers are never cut. "
                f"Raise max_length, let too_long be oldest_turns, or leave the row out.",
            )
        return sequences

    def _text(self, text: str) -> str:
        check_no_special(text, "the text", self._special)
        if not text:
            raise SupervisionError("nothing_supervised", "the text is empty. Leave the row out.")
        return text

    def _chunks(self, text: Ids) -> Outcome:
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        ids = [*([] if bos is None else [bos]), *text.tolist(), *([] if eos is None else [eos])]
        if len(ids) < 2:
            return SupervisionError("nothing_supervised", "the text is a single token. Leave the row out.")
        if self._rules.encoder_decoder:
            longest = len(ids) if self._rules.max_length is None else self._rules.max_length
            return tuple(continuations(ids, max(1, min(len(ids), longest) // 2), eos, self._rules.max_length))
        step = len(ids) if self._rules.max_length is None else self._rules.max_length - 1
        chunks = (ids[start : start + step + 1] for start in range(0, len(ids) - 1, step))
        return tuple(Encoded.from_spans(chunk, ((0, 1, len(chunk)),)) for chunk in chunks)


def _or_raise(outcome: Outcome) -> tuple[Encoded, ...]:
    if isinstance(outcome, SupervisionError):
        raise outcome
    return outcome
