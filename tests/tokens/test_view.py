"""The view loses no token, shows what is supervised, and escapes what data bring along."""

import json

import pytest
from kinds import KINDS

from tunesmith import encode
from tunesmith.tokens.view import as_html, as_json, as_text, pieces


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


def test_html_is_escaped():
    sequence, tokenizer = one("chatml", question="<script>alert('x')</script>")
    html = as_html(sequence, tokenizer)
    assert "<script" not in html and "<b>" not in html
    assert f'<span class="supervised special" title="{sequence.ids[-1]}">&lt;|im_end|&gt;</span></pre>' in html


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
