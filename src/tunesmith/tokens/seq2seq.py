"""What the encoder of an encoder-decoder reads and what its decoder has to produce, out of the sequences of the store.

A supervised turn makes a pair: the encoder reads all tokens of the sequence before the turn, the decoder produces the
turn's tokens, its stop token included. Several turns of a sequence make several pairs. As everywhere, the sequence says
which tokens are supervised, and the loss is over these and no others.

Shapes: S supervised tokens of a packed row; N pairs of a group, E and D their longest encoder and decoder lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.tokens.encoded import Encoded

Places = NDArray[np.int64]
_PADDING = 0.1  # a group of pairs may hold this share of padding before another group is opened


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs by their places in a packed row: the encoder reads [start, middle), the decoder produces [middle, end).

    starts, middles, ends: int64 (pairs,), in the order of the row.
    """

    starts: Places
    middles: Places
    ends: Places

    @classmethod
    def of(cls, supervised: Places, boundaries: NDArray[np.integer]) -> Pairs:
        """The pairs of a packed row.

        supervised (S,): places of the supervised tokens, rising. boundaries (documents + 1,): first token of each
        document, then the row's length.
        """
        opens = np.diff(supervised, prepend=-2) != 1
        closes = np.diff(supervised, append=-2) != 1
        middles, ends = supervised[opens], supervised[closes] + 1
        documents = np.searchsorted(boundaries, middles, side="right") - 1
        return cls(np.asarray(boundaries, dtype=np.int64)[documents], middles, ends)

    @property
    def encoder_lengths(self) -> Places:
        return self.middles - self.starts

    @property
    def decoder_lengths(self) -> Places:
        return self.ends - self.middles


@dataclass(frozen=True, slots=True)
class Group:
    """Pairs that are computed together, padded at their ends.

    read (N, E): places in the row of the tokens that the encoder reads; padding repeats the pair's last.
    seen (N, E): False at padding.
    given (N, D - 1): places of the tokens that the decoder is given after the start token, the turn without its last.
    produced (N,): how many tokens the decoder produces of each.
    flat: of the pairs' supervised tokens, one pair after another, where each is predicted in the group's (N * D) rows.
    tokens: the places in the packed row of these supervised tokens.
    """

    read: Places
    seen: NDArray[np.bool_]
    given: Places
    produced: Places
    flat: Places
    tokens: Places


def groups_of(pairs: Pairs, *, together: bool = False) -> list[Group]:
    """All pairs, in groups of similar length such that padding stays below its share of each group.

    together: all in one group, whatever the padding; of a row without pairs there is none either way.
    """
    if together and len(pairs.starts):
        return [_group(pairs, np.arange(len(pairs.starts)))]
    return [_group(pairs, members) for members in _similar(pairs.encoder_lengths, pairs.decoder_lengths)]


def _group(pairs: Pairs, members: Places) -> Group:
    starts, middles, ends = pairs.starts[members], pairs.middles[members], pairs.ends[members]
    read, seen = _rows(starts, middles)
    labels, real = _rows(middles, ends)
    return Group(read, seen, labels[:, :-1], ends - middles, np.flatnonzero(real.ravel()), labels[real])


def _rows(starts: Places, ends: Places) -> tuple[Places, NDArray[np.bool_]]:
    """The places [start, end) of each pair as a row, padded by repeating the last; and which are no padding."""
    places = starts[:, None] + np.arange((ends - starts).max())
    return np.minimum(places, ends[:, None] - 1), places < ends[:, None]


def _similar(encoder: Places, decoder: Places) -> list[Places]:
    """Indices of pairs in groups, longest first; a group's padded rows hold at most a share `_PADDING` of nothing."""
    groups: list[list[int]] = []
    used = widest = 0
    for index in np.lexsort((-decoder, -encoder)):
        own = int(encoder[index] + decoder[index])
        if groups:
            longest = max(widest, int(decoder[index]))
            room = (len(groups[-1]) + 1) * (int(encoder[groups[-1][0]]) + longest)
            if (1 - _PADDING) * room <= used + own:
                groups[-1].append(int(index))
                used, widest = used + own, longest
                continue
        groups.append([int(index)])
        used, widest = own, int(decoder[index])
    return [np.array(group) for group in groups]


def continuations(ids: Sequence[int], first: int, eos: int | None, max_length: int | None) -> list[Encoded]:
    """Plain text for an encoder-decoder: ids[first:] are to be produced, each token once, from the text before it.

    This is the prefix language modelling by which T5 models are adapted to go on with text (arXiv:2104.08691, section
    3.2). Each sequence is [text before] EOS [text to produce], of at most `max_length` tokens, with the longest part
    before that half of them leaves room for.
    """
    mark = [] if eos is None else [eos]
    before = len(ids) if max_length is None else max(1, (max_length - len(mark)) // 2)
    step = len(ids) if max_length is None else max(1, max_length - len(mark) - before)
    sequences = []
    for start in range(first, len(ids), step):
        context = [*ids[max(0, start - before) : start], *mark]
        part = ids[start : start + step]
        assert context, "the encoder has nothing to read"
        sequences.append(Encoded.from_spans([*context, *part], ((0, len(context), len(context) + len(part)),)))
    return sequences


def halved(text: str) -> tuple[str, str]:
    """A text in two: what is read, and what is to be produced, from the first white space past the middle on."""
    middle = len(text) // 2
    at = next((place for place in range(middle, len(text)) if text[place].isspace()), middle)
    return text[:at], text[at:]
