"""Tokenising: as transformers does, and in bulk the same."""

import random
import sys

import numpy as np
import pytest
from kinds import KINDS

from tunesmith.base.errors import TunesmithError
from tunesmith.tokens import tokenise as module
from tunesmith.tokens.tokenise import bulk, tokenise

READ_BY_FASTOKENS = [name for name, kind in KINDS.items() if kind.split != "llama2"]
PARTS = (
    *(
        "a",
        "The",
        "'s",
        "'S",
        "ſ",
        "İ",
        "é",
        "e\u0301",
        "👩\u200d👩\u200d👧",
        "1234",
        "...",
        "你好",
        "\u00a0",
        "▁",
        "Ġ",
        "\x00",
    ),
    *(" ", "  ", "\n", "\r\n", "\t", "<think", "\u3000", "\u2028", "\ufeff", "\U0001fae9"),
)


def texts(tokenizer, count, seed=0):
    chance = random.Random(seed)
    marks = list(tokenizer.get_added_vocab())
    for _ in range(count):
        parts = [chance.choice(PARTS) for _ in range(chance.randrange(30))]
        strange = [
            chr(chance.choice((chance.randrange(32, 0xD800), chance.randrange(0xE000, 0x110000)))) for _ in "abc"
        ]
        parts += strange + [chance.choice(marks)] * 2
        chance.shuffle(parts)
        yield "".join(parts)


@pytest.mark.parametrize("split", ["chatml", "chatml-qwen", "llama2"])
def test_tokenise_is_what_transformers_does(split):
    tokenizer = KINDS[split].tokenizer()
    given = ["Hello there", " a\n\n b", "", "🙂é<|im_end|></s>x"]
    assert tokenise(tokenizer, given) == tokenizer(given, add_special_tokens=False)["input_ids"]
    assert tokenise(tokenizer, []) == []


@pytest.mark.parametrize("name", KINDS)
def test_bulk_is_what_transformers_does(name):
    tokenizer = KINDS[name].tokenizer()
    given = list(texts(tokenizer, 500))
    of_many = bulk(tokenizer, given[:10])
    found = of_many(given)
    assert all(ids.dtype == np.int32 for ids in found)
    assert [ids.tolist() for ids in found] == tokenizer(given, add_special_tokens=False)["input_ids"]
    assert (type(of_many) is module._Compared) == (name in READ_BY_FASTOKENS)
    assert list(of_many([])) == []


def test_another_tokenizer_is_not_taken(monkeypatch):
    """If the two differ on what they are tried with, the model's own is used; if they do later, it is an error."""
    tokenizer, other = KINDS["chatml"].tokenizer(), KINDS["chatml-qwen"].tokenizer()
    reading = module._fastokens(other)
    monkeypatch.setattr(module, "_fastokens", lambda _: reading)
    given = list(texts(tokenizer, 5))
    assert [ids.tolist() for ids in bulk(tokenizer, [])(given)] == tokenise(tokenizer, given)
    monkeypatch.setattr(module, "_HARD", ("plain",))
    monkeypatch.setattr(module, "_around_added", lambda _: [])
    monkeypatch.setattr(module, "_fastokens", lambda _: _ReadsUntil("strange"))
    monkeypatch.setattr(module, "_flat", lambda reading: lambda given: reading(given, tokenizer))
    of_many = bulk(tokenizer, ["plain"])
    assert [ids.tolist() for ids in of_many(["plain"] * 3)] == tokenise(tokenizer, ["plain"] * 3)
    with pytest.raises(TunesmithError, match=r"different tokens of 'strange'.*pip uninstall fastokens"):
        of_many(["strange"])


class _ReadsUntil:
    def __init__(self, text):
        self.text = text

    def __call__(self, given, tokenizer):
        return [np.array([0] if text == self.text else tokenise(tokenizer, [text])[0], np.int32) for text in given]


def test_without_fastokens(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastokens", None)
    tokenizer = KINDS["chatml"].tokenizer()
    assert [ids.tolist() for ids in bulk(tokenizer, [])(["Hello"])] == tokenise(tokenizer, ["Hello"])
