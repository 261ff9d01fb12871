"""Losses, bits per byte and answers of an encoder-decoder, against its own forward pass, one pair at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_t5

from tunesmith.base.conversation import Conversation, Message
from tunesmith.evaluate.answers import answer
from tunesmith.evaluate.language import response_losses, text_bits
from tunesmith.model.generate import generate
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.rendering import shipped_template


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = byte_tokenizer()
    tokenizer.bos_token, tokenizer.chat_template = None, shipped_template("seq2seq")
    return tokenizer


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return tiny_t5(len(tokenizer))


def nats(model: Any, read: list[int], produced: list[int]) -> float:
    with torch.no_grad():
        found = model(input_ids=torch.tensor([read]), labels=torch.tensor([produced]))
    return float(found.loss) * len(produced)


def test_losses_of_rows_with_several_turns_and_sequences(model: Any) -> None:
    rows = [
        [Encoded.from_spans(list(range(5, 25)), ((1, 4, 9), (3, 15, 20)))],
        [Encoded.from_spans([9, 8, 7], ((1, 1, 3),)), Encoded.from_spans([30, 31, 32, 33], ((3, 3, 4),))],
    ]
    losses = response_losses(model, rows, batch_tokens=24)
    expected = [
        sum(nats(model, one.ids[:s].tolist(), one.ids[s:e].tolist()) for one in row for _, s, e in one.turns)
        for row in rows
    ]
    assert losses.nats == pytest.approx(expected, rel=1e-5) and losses.tokens.tolist() == [10, 3]


def test_bits_of_a_texts_second_half_from_its_first(model: Any, tokenizer: Any) -> None:
    texts = ["Das Maß ist voll, € 5.", "", "abcdef", "x"]
    halves = [("Das Maß ist", " voll, € 5."), ("abc", "def"), ("", "x")]
    measured = text_bits(model, tokenizer, texts, max_length=64)
    assert measured.bytes.tolist() == [len(rest.encode()) for _, rest in halves]
    for (first, rest), bits in zip(halves, measured.bits, strict=True):
        ids = tokenizer(rest, add_special_tokens=False)["input_ids"]
        read = [*tokenizer(first, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert bits == pytest.approx(nats(model, read, ids) / math.log(2), rel=1e-4)


def test_long_texts_are_windowed_without_loss(model: Any, tokenizer: Any) -> None:
    text, eos = "abcdefghijklmnopqrstuvwxyz", tokenizer.eos_token_id
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    expected = sum(
        nats(model, [*ids[max(0, start - 5) : start], eos], ids[start : start + 5]) for start in range(13, 26, 5)
    )
    measured = text_bits(model, tokenizer, [text], max_length=11)
    assert measured.bits[0] == pytest.approx(expected / math.log(2), rel=1e-4)
    assert text_bits(model, tokenizer, [], max_length=11).bits.shape == (0,)


def test_a_plain_prompt_ends_with_eos_as_what_the_encoder_was_pretrained_on(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def spy(model: Any, prompts: Any, **options: Any) -> Any:
        asked.extend(prompts)
        return generate(model, prompts, **options)

    monkeypatch.setattr("tunesmith.evaluate.answers.generate", spy)
    row = Conversation(id="a:1", messages=(Message("user", "Who?"), Message("assistant", "I")))
    for style in ("plain", "chat"):
        assert len(answer(model, tokenizer, {"new": [row]}, style=style, max_new_tokens=4)) == 1
    assert [tokenizer.decode(prompt) for prompt in asked] == ["Who?\n\nAnswer:</s>", "Who?</s>"]
