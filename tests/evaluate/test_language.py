"""Losses and bits per byte against the plain definition: one sequence at a time, all logits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.base.errors import UserError
from tunesmith.base.random import python_stream
from tunesmith.evaluate.language import response_losses, text_bits
from tunesmith.tokens.encoded import Encoded


def nats(model: Any, sequence: Encoded) -> float:
    ids = torch.from_numpy(sequence.ids.astype(np.int64))
    with torch.no_grad():
        logs = model(ids[None]).logits[0].log_softmax(-1)
    return -sum(float(logs[at - 1, ids[at]]) for at in np.flatnonzero(sequence.supervised))


def sequence(draw: Any) -> Encoded:
    ids = [draw.randrange(2, 250) for _ in range(draw.randint(2, 60))]
    start = draw.randint(1, len(ids) - 1)
    return Encoded.from_spans(ids, ((1, start, len(ids)),))


def test_response_losses_are_those_of_single_sequences(model: Any) -> None:
    draw = python_stream(0, "sequences")
    rows = [[sequence(draw) for _ in range(draw.choice([1, 1, 2]))] for _ in range(25)]
    losses = response_losses(model, rows, batch_tokens=100)
    assert losses.nats == pytest.approx([sum(nats(model, s) for s in row) for row in rows], rel=1e-4)
    assert losses.tokens.tolist() == [sum(int(s.supervised.sum()) for s in row) for row in rows]
    assert response_losses(model, []).nats.shape == (0,)


def test_bits_count_every_token_once_and_every_byte(model: Any, tokenizer: Any) -> None:
    texts = ["A cat.", "Straße 5 € 🙂", "", "x"]
    measured = text_bits(model, tokenizer, texts, max_length=64)
    kept = [text for text in texts if text]
    assert measured.bytes.tolist() == [len(text.encode()) for text in kept]
    for text, bits in zip(kept, measured.bits, strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        whole = Encoded.from_spans(ids, ((0, 1, len(ids)),))
        assert bits == pytest.approx(nats(model, whole) / math.log(2), rel=1e-4)
    assert measured.per_byte == pytest.approx(measured.bits.sum() / measured.bytes.sum())


def test_long_texts_are_windowed_without_loss(model: Any, tokenizer: Any) -> None:
    text = "abcdefghijklmnopqrstuvwxyz" * 3
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    expected = 0.0
    for start in range(0, len(ids) - 1, 9):
        part = ids[start : start + 10]
        expected += nats(model, Encoded.from_spans(part, ((0, 1, len(part)),)))
    measured = text_bits(model, tokenizer, [text], max_length=10)
    assert measured.bits[0] == pytest.approx(expected / math.log(2), rel=1e-4)


def test_tokenizer_without_a_start_is_refused(model: Any) -> None:
    class Bare:
        bos_token_id = eos_token_id = None

    with pytest.raises(UserError, match="neither a BOS nor an EOS"):
        text_bits(model, Bare(), ["text"], max_length=8)
