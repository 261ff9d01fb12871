"""The coloured view of a sequence: which tokens are supervised, with special tokens and white space made visible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from tunesmith.base.conversation import Conversation
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.templates import prompt_ids

STYLES = {
    (False, False): "dim",
    (False, True): "dim cyan",
    (True, False): "black on green",
    (True, True): "bold black on bright_yellow",
}
"""Of the terminal, by (supervised, special)."""

VISIBLE = str.maketrans({"\n": "⏎\n", "\t": "→\t", "\r": "␍"})
_BROKEN = "\ufffd"
_MOST_TOKENS_A_CHARACTER = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """The fewest tokens that together are whole characters; supervised or not, and special or not, alike.

    text: what they decode to. ids: their token ids.
    """

    text: str
    ids: tuple[int, ...]
    supervised: bool
    special: bool


def pieces(encoded: Encoded, tokenizer: Any) -> Iterator[Piece]:
    """The sequence in pieces; the ids of all of them are those of the sequence."""
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids, supervised = encoded.ids.tolist(), encoded.supervised.tolist()
    start = 0
    while start < len(ids):
        end = start + 1
        if ids[start] not in special:
            limit = min(len(ids), start + _MOST_TOKENS_A_CHARACTER)
            alike = (at for at in range(end, limit) if ids[at] in special or supervised[at] != supervised[start])
            end = _whole_characters(ids, start, next(alike, limit), tokenizer)
        text = tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False)
        yield Piece(text, tuple(ids[start:end]), supervised[start], ids[start] in special)
        start = end


def as_text(encoded: Encoded, tokenizer: Any, *, with_ids: bool = False) -> Text:
    """For the terminal: supervised tokens on green, special ones marked, line breaks and tabs shown."""
    shown = Text()
    for piece in pieces(encoded, tokenizer):
        shown.append(piece.text.translate(VISIBLE), STYLES[piece.supervised, piece.special])
        if with_ids:
            shown.append(f"{{{' '.join(map(str, piece.ids))}}}", "dim italic")
    return shown


def as_json(encoded: Encoded, tokenizer: Any, conversation: Conversation | None = None) -> dict[str, Any]:
    """JSON-able: ids and which are supervised, spans of the supervised turns, and the pieces with their text.

    With the conversation it came from, each turn has its prompt as served, see `served`.
    """
    prompts = served(encoded, tokenizer, conversation) if conversation else {}
    return {
        "ids": encoded.ids.tolist(),
        "supervised": encoded.supervised.tolist(),
        "turns": [
            {"message": message, "start": start, "end": end} | ({"served": prompts[message]} if prompts else {})
            for message, start, end in encoded.turns
        ],
        "pieces": [
            {"text": piece.text, "ids": list(piece.ids), "supervised": piece.supervised, "special": piece.special}
            for piece in pieces(encoded, tokenizer)
        ],
    }


def served(encoded: Encoded, tokenizer: Any, conversation: Conversation) -> dict[int, dict[str, Any]]:
    """Of each supervised message, the prompt that a server feeds the model before it, made anew by the template.

    ids and text: of the prompt. same: whether they are the tokens that stand before the turn in `encoded`; they are
    not where a conversation that was too long has lost its oldest turns. Empty for plain text, which is not served.
    """
    if conversation.is_text:
        return {}
    found = {}
    for message, start, _ in encoded.turns:
        ids = prompt_ids(conversation.messages[:message], tokenizer, conversation.tools or None)
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        found[message] = {"ids": ids, "text": text, "same": ids == encoded.ids[:start].tolist()}
    return found


def _whole_characters(ids: list[int], start: int, limit: int, tokenizer: Any) -> int:
    """Where the shortest run of tokens from `start` that decodes without a broken character ends.

    A single token if there is none before `limit`.
    """
    for end in range(start + 1, limit + 1):
        if _BROKEN not in tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False):
            return end
    return start + 1
