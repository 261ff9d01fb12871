"""Exact supervision from one tokenisation of each conversation, where that is proven to be what `supervise` defines.

It rests on one property of tokenizers: text is split at added tokens before anything else, so what stands before one
and what follows it don't touch each other's tokens. So a prompt is proven by tokenising its end, from its last added
token on, which in most templates is the same few characters.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tunesmith.tokens.encoded import Encoded, Span
from tunesmith.tokens.rendering import any_of
from tunesmith.tokens.tokenise import Ids, Tokenise
from tunesmith.tokens.turns import Turn

LONGEST_KEPT_HEAD = 128
"""Characters. The tokens of longer heads are not worth remembering: they hold a user's text."""


class _Chain(NamedTuple):
    """Turns of one conversation that share a sequence, as text; the text is that of the last.

    marks: the added tokens in it, (text, end). heads: each turn's prompt from the last of its added tokens on, or from
        the beginning if it has none.
    """

    turns: list[Turn]
    marks: list[tuple[str, int]]
    heads: list[str]

    @property
    def text(self) -> str:
        return self.turns[-1].text

    def marks_before(self, end: int) -> int:
        return bisect_right(self.marks, end, key=lambda mark: mark[1])


class OnePass:
    """Encodes the supervised turns of conversations; what it has to know about the tokenizer is found once."""

    def __init__(self, tokenizer: Any, tokenise: Tokenise) -> None:
        added = tokenizer.added_tokens_decoder
        self._tokenise = tokenise
        self._added = any_of(token.content for token in added.values())
        self._id_of = {token.content: id for id, token in added.items()}
        self._is_added = np.zeros(max(len(tokenizer), *added, 0) + 1, dtype=np.bool_)
        self._is_added[list(added)] = True
        self._splits = _splits_text_as_written(tokenizer, added.values())
        self._known_heads: dict[str, Ids] = {}

    def encode(self, conversations: Iterable[list[Turn]]) -> list[tuple[Encoded, ...] | None]:
        """The sequences of each conversation from one tokenisation of it; None where that proves nothing."""
        rows = [self._chains(turns) if self._splits else [] for turns in conversations]
        chains = [chain for row in rows for chain in row]
        fresh = list({head: None for chain in chains for head in chain.heads if head not in self._known_heads})
        ids = self._tokenise([chain.text for chain in chains] + fresh)
        heads = self._known_heads | dict(zip(fresh, ids[len(chains) :], strict=True))
        self._known_heads = {text: head for text, head in heads.items() if len(text) <= LONGEST_KEPT_HEAD}
        done = iter([self._sequence(chain, tokens, heads) for chain, tokens in zip(chains, ids, strict=False)])
        sequences = [[next(done) for _ in row] for row in rows]
        return [None if None in row else tuple(filter(None, row)) for row in sequences]

    def _chains(self, turns: list[Turn]) -> list[_Chain]:
        shared: list[list[Turn]] = []
        for turn in turns:
            if shared and turn.follows(shared[-1][-1]):
                shared[-1].append(turn)
            else:
                shared.append([turn])
        return [self._chain(turns) for turns in shared]

    def _chain(self, turns: list[Turn]) -> _Chain:
        chain = _Chain(turns, [(mark[0], mark.end()) for mark in self._added.finditer(turns[-1].text)], [])
        for turn in turns:
            before = chain.marks_before(turn.start)
            token, end = chain.marks[before - 1] if before else ("", 0)
            chain.heads.append(turn.text[end - len(token) : turn.start])
        return chain

    def _sequence(self, chain: _Chain, ids: Ids, heads: Mapping[str, Ids]) -> Encoded | None:
        """The sequence of a chain, or None if it is not proven to start with each prompt's own tokens."""
        marks = np.flatnonzero(self._is_added[ids])
        if ids[marks].tolist() != [self._id_of[token] for token, _ in chain.marks]:
            return None
        spans: list[Span] = []
        for turn, text in zip(chain.turns, chain.heads, strict=True):
            before, head = chain.marks_before(turn.start), heads[text]
            last = marks[before - 1] if before else 0
            start, end = last + len(head), marks[chain.marks_before(len(turn.text)) - 1] + 1
            if not 0 < start < end or not np.array_equal(ids[last:start], head):
                return None
            spans.append((turn.message, int(start), int(end)))
        return Encoded.from_spans(ids, tuple(spans)) if spans[-1][2] == len(ids) else None


def _splits_text_as_written(tokenizer: Any, added: Iterable[Any]) -> bool:
    """Whether added tokens are found in the text as it stands, not in normalised text and not as whole words only."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normalises = backend is None or backend.normalizer is not None
    return not any(token.single_word or (token.normalized and normalises) for token in added)
