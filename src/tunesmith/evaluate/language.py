"""How well a model predicts: the loss of held-out responses, and bits per byte of plain text.

Bits per byte count the text's UTF-8 bytes, not tokens, so models with different tokenizers compare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.errors import UserError
from tunesmith.base.progress import progress
from tunesmith.model.generate import evaluating
from tunesmith.model.losses import PackedRow, causal_model, token_losses
from tunesmith.model.seq2seq import is_encoder_decoder
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.seq2seq import continuations, halved
from tunesmith.tokens.tokenise import tokenise

BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums of token losses (nats) and the supervised tokens they are over, both float64/int64 (rows,)."""

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TextBits:
    """What each text costs the model: bits float64 (texts,), of that many UTF-8 bytes int64 (texts,).

    Of an encoder-decoder, bits and bytes are those of each text's second half, which it produces from the first.
    """

    bits: NDArray[np.float64]
    bytes: NDArray[np.int64]

    @property
    def per_byte(self) -> float:
        return float(self.bits.sum() / self.bytes.sum())


def response_losses(model: Any, rows: Sequence[Sequence[Encoded]], *, batch_tokens: int = BATCH_TOKENS) -> Losses:
    """The loss of each row's supervised tokens. A row is one sequence, or several where its history is rewritten."""
    owners = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    flat = _sequence_losses(model, [sequence for row in rows for sequence in row], batch_tokens, "Measuring losses")
    nats, tokens = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    np.add.at(nats, owners, flat.nats)
    np.add.at(tokens, owners, flat.tokens)
    return Losses(nats, tokens)


def text_bits(
    model: Any, tokenizer: Any, texts: Iterable[str], *, max_length: int, batch_tokens: int = BATCH_TOKENS
) -> TextBits:
    """The bits of each non-empty text, predicted from the start of a document (BOS, or EOS where there is no BOS).

    Texts longer than `max_length` tokens are cut into windows; each starts with the last token of the one before, so
    that every token is predicted exactly once. Bring the same tokenizer for base and tuned model: the start must not
    change between them. An encoder-decoder reads the first half of each text and predicts the second, see
    `tokens.seq2seq.continuations`; only that half is counted.

    Raises UserError if the tokenizer has neither BOS nor EOS.
    """
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if start is None:
        raise UserError(
            "the tokenizer has neither a BOS nor an EOS token, so the first token of a text can't be predicted and "
            "bits per byte can't be measured. Set one in the tokenizer, or remove evaluate.forgetting from the recipe."
        )
    texts = [text for text in texts if text]
    if is_encoder_decoder(causal_model(model)):
        first, texts = zip(*map(halved, texts), strict=True) if texts else ((), ())
        rows = _continuations(tokenizer, first, texts, max_length)
    else:
        rows = [_windows([start, *ids], max_length) for ids in tokenise(tokenizer, texts)]
    nats = response_losses(model, rows, batch_tokens=batch_tokens).nats
    return TextBits(
        nats / math.log(2), np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts], np.int64)
    )


def _windows(ids: Sequence[int], max_length: int) -> list[Encoded]:
    """Windows of at most `max_length` tokens that share one token with the next; all but the first token supervised."""
    starts = range(0, max(len(ids) - 1, 1), max_length - 1)
    parts = (ids[start : start + max_length] for start in starts)
    return [Encoded.from_spans(list(part), ((0, 1, len(part)),)) for part in parts]


def _continuations(tokenizer: Any, first: Sequence[str], rest: Sequence[str], max_length: int) -> list[list[Encoded]]:
    """Of each text, what an encoder-decoder reads and produces: `rest`, each token once, from what stands before it."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    starts = [[*([] if bos is None else [bos]), *ids] for ids in tokenise(tokenizer, first)]
    pairs = zip(starts, tokenise(tokenizer, rest), strict=True)
    return [continuations([*before, *ids], len(before), eos, max_length) for before, ids in pairs]


def _sequence_losses(model: Any, sequences: Sequence[Encoded], batch_tokens: int, title: str) -> Losses:
    """Losses of single sequences (rows = sequences), by packed rows of about `batch_tokens` tokens."""
    nats = np.zeros(len(sequences))
    counts = np.array([int(sequence.supervised.sum()) for sequence in sequences], dtype=np.int64)
    with evaluating(model), progress(title, total=len(sequences)) as bar:
        for members in _packed_rows([len(sequence) for sequence in sequences], batch_tokens):
            row = PackedRow.of(make_batch(sequences, members), model.device)
            losses = token_losses(model, row).double().cpu().numpy()
            nats[members] = np.bincount(np.repeat(np.arange(len(members)), counts[members]), losses, len(members))
            bar.advance(len(members))
    return Losses(nats, counts)


def _packed_rows(lengths: Sequence[int], budget: int) -> Iterable[list[int]]:
    """Sequences of similar length together, longest first, at most `budget` tokens a row or one longer sequence."""
    row: list[int] = []
    room = budget
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if row and lengths[index] > room:
            yield row
            row, room = [], budget
        row.append(index)
        room -= lengths[index]
    if row:
        yield row
