"""The view loses no token, shows what is supervised, and escapes what data bring along."""

import json

import pytest
from kinds import KINDS

from tunesmith import encode
from tunesmith.base.conversation import Conversation, Message
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.view import as_json, as_text, pieces, served


def one(kind, question="Hello\n", answer="<b>Hi</b> 你好🙂"):
    tokenizer = KINDS[kind].tokenizer()
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return encode(messages, tokenizer)[0], tokenizer


@pytest.mark.parametrize("kind", ["chatml", "llama3", "llama2"])
def test_pieces_are_the_sequence(kind):
    sequence, tokenizer = one(kind)
    found = list(pieces(sequence, tokenizer))
    assert [id for piece in found for id in piece.ids] == sequence.ids.tolist()
    assert [piece.supervised for piece in found for _ in piece.ids] == sequence.supervised.tolist()
    if kind != "llama2":  # its decoder drops the space before a word that comes first
        assert "".join(piece.text for piece in found) == tokenizer.decode(sequence.ids)
    assert not any("\ufffd" in piece.text for piece in found)


def test_terminal_shows_special_tokens_and_line_breaks():
    sequence, tokenizer = one("chatml")
    shown = as_text(sequence, tokenizer)
    assert shown.plain.startswith("<|im_start|>user⏎\nHello⏎\n<|im_end|>⏎\n")
    last = shown.spans[-1]
    assert shown.plain[last.start : last.end] == "<|im_end|>" and "yellow" in str(last.style)
    assert f"<|im_end|>{{{sequence.ids[-1]}}}" in as_text(sequence, tokenizer, with_ids=True).plain


def test_prompts_as_served_are_what_stands_before_each_turn():
    tokenizer = KINDS["qwen3"].tokenizer()
    turns = [Message("user", "Hello"), Message("assistant", "Hi", reasoning="Well."), Message("user", "And?")]
    row = Conversation("r:1", (*turns, Message("assistant", "Bye", reasoning="Now.")))
    seen = [found for sequence in encode(row.messages, tokenizer) for found in served(sequence, tokenizer, row).items()]
    assert [message for message, _ in seen] == [1, 3] and all(prompt["same"] for _, prompt in seen)
    assert seen[1][1]["text"].endswith("<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n")
    (shorter,) = encode(turns[:2], tokenizer)
    other = Conversation("r:1", (Message("system", "Be kind."), *turns))
    moved = Encoded(shorter.ids, shorter.supervised, ((2, *shorter.turns[0][1:]),))
    assert not served(moved, tokenizer, other)[2]["same"]
    assert served(shorter, tokenizer, Conversation.from_text("t:1", "Hello")) == {}


def test_json_says_it_all():
    sequence, tokenizer = one("chatml")
    shown = json.loads(json.dumps(as_json(sequence, tokenizer)))
    assert shown["ids"] == sequence.ids.tolist() and shown["supervised"] == sequence.supervised.tolist()
    assert shown["turns"] == [{"message": 1, "start": sequence.turns[0][1], "end": len(sequence)}]
    assert "".join(piece["text"] for piece in shown["pieces"] if piece["supervised"]) == "<b>Hi</b> 你好🙂<|im_end|>"


def test_broken_characters_do_not_end_the_view():
    sequence, tokenizer = one("chatml")
    cut = type(sequence)(sequence.ids[:-2], sequence.supervised[:-2], ())
    assert sum(len(piece.ids) for piece in pieces(cut, tokenizer)) == len(cut)
