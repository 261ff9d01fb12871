"""The coloured view of a sequence: which tokens are supervised, with special tokens and white space made visible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from rich.text import Text

from tunesmith.tokens.encoded import Encoded

STYLES = {
    (False, False): "dim",
    (False, True): "dim cyan",
    (True, False): "black on green",
    (True, True): "bold black on bright_yellow",
}
"""Of the terminal, by (supervised, special)."""

CSS = """.tokens { white-space: pre-wrap; overflow-wrap: anywhere; }
.tokens .supervised { background: #b9e6c0; color: #05240b; }
.tokens .special { font-weight: 600; opacity: .75; }
.tokens .supervised.special { background: #ffd977; color: #2b1d00; opacity: 1; }"""
"""For `as_html`; both colours of a supervised token are given, so it reads the same on light and dark pages."""

_VISIBLE = str.maketrans({"\n": "⏎\n", "\t": "→\t", "\r": "␍"})
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
        shown.append(piece.text.translate(_VISIBLE), STYLES[piece.supervised, piece.special])
        if with_ids:
            shown.append(f"{{{' '.join(map(str, piece.ids))}}}", "dim italic")
    return shown


def as_html(encoded: Encoded, tokenizer: Any) -> str:
    """An HTML fragment, all text escaped; `CSS` styles it. The token ids are titles."""
    spans = []
    for piece in pieces(encoded, tokenizer):
        names = [name for name, is_so in (("supervised", piece.supervised), ("special", piece.special)) if is_so]
        kind = f' class="{" ".join(names)}"' if names else ""
        title = " ".join(map(str, piece.ids))
        spans.append(f'<span{kind} title="{title}">{escape(piece.text.translate(_VISIBLE))}</span>')
    return f'<pre class="tokens">{"".join(spans)}</pre>'


def as_json(encoded: Encoded, tokenizer: Any) -> dict[str, Any]:
    """JSON-able: ids and which are supervised, spans of the supervised turns, and the pieces with their text."""
    return {
        "ids": encoded.ids.tolist(),
        "supervised": encoded.supervised.tolist(),
        "turns": [{"message": message, "start": start, "end": end} for message, start, end in encoded.turns],
        "pieces": [
            {"text": piece.text, "ids": list(piece.ids), "supervised": piece.supervised, "special": piece.special}
            for piece in pieces(encoded, tokenizer)
        ],
    }


def _whole_characters(ids: list[int], start: int, limit: int, tokenizer: Any) -> int:
    """Where the shortest run of tokens from `start` that decodes without a broken character ends.

    A single token if there is none before `limit`.
    """
    for end in range(start + 1, limit + 1):
        if _BROKEN not in tokenizer.decode(ids[start:end], clean_up_tokenization_spaces=False):
            return end
    return start + 1
