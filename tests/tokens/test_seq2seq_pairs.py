"""Pairs of encoder and decoder, against slicing each sequence by its spans."""

import numpy as np
import pytest
from tiny import byte_tokenizer
from transformers import T5Tokenizer

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import SupervisionError
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.rendering import shipped_template
from tunesmith.tokens.seq2seq import Pairs, continuations, groups_of, halved
from tunesmith.tokens.supervise import Rules, encode, encode_conversation
from tunesmith.tokens.templates import chat_template_of, prompt_ids, stop_token_ids


def drawn(seed, count=12):
    """Sequences of one to three turns, each with at least one token between them."""
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(count):
        spans, at = [], 0
        for turn in range(rng.integers(1, 4)):
            start = at + rng.integers(1, 40)
            at = start + rng.integers(1, 20)
            spans.append((2 * turn + 1, int(start), int(at)))
        sequences.append(Encoded.from_spans(rng.integers(0, 999, at).astype(np.int32), tuple(spans)))
    return sequences


def packed_pairs(sequences):
    batch = make_batch(sequences, range(len(sequences)))
    return batch, Pairs.of(batch.supervised.nonzero()[0], np.concatenate([[0], np.cumsum(batch.lengths)]))


def test_a_pair_for_each_turn_with_all_that_stands_before_it():
    sequences = drawn(0)
    batch, pairs = packed_pairs(sequences)
    found = [
        (batch.ids[start:middle].tolist(), batch.ids[middle:end].tolist())
        for start, middle, end in zip(pairs.starts, pairs.middles, pairs.ends, strict=True)
    ]
    assert found == [
        (one.ids[:start].tolist(), one.ids[start:end].tolist()) for one in sequences for _, start, end in one.turns
    ]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_groups_hold_every_pair_once_and_little_padding(seed, together):
    _, pairs = packed_pairs(drawn(seed, 40))
    groups, seen = groups_of(pairs, together=together), []
    for group in groups:
        width = group.given.shape[1] + 1
        rows, columns = np.divmod(group.flat, width)
        for row in range(len(group.read)):
            labels = group.tokens[rows == row]
            read = group.read[row][group.seen[row]]
            given = group.given[row][: len(labels) - 1]
            assert given.tolist() == labels[:-1].tolist() and columns[rows == row].tolist() == [*range(len(labels))]
            seen.append((read.tolist(), labels.tolist()))
        cells = group.seen.size + len(group.read) * width
        assert together or group.seen.sum() + len(group.flat) >= 0.9 * cells
    expected = [
        ([*range(start, middle)], [*range(middle, end)])
        for start, middle, end in zip(pairs.starts, pairs.middles, pairs.ends, strict=True)
    ]
    assert sorted(seen) == sorted(expected)
    assert len(groups) == 1 if together else len(groups) < 0.75 * len(expected)


def test_a_row_without_supervised_tokens_has_no_pairs():
    _, pairs = packed_pairs([Encoded.from_spans([1, 2, 3], ())])
    assert groups_of(pairs) == []


@pytest.mark.parametrize(("length", "first", "most"), [(30, 15, None), (100, 7, 16), (101, 50, 17), (5, 0, 3)])
def test_continuations_produce_each_token_once_from_what_stands_before_it(length, first, most):
    ids, eos = [*range(1, length + 1)], 0
    produced = []
    for one in continuations(ids, first, eos, most):
        ((_, start, end),) = one.turns
        context, part = one.ids[: start - 1].tolist(), one.ids[start:end].tolist()
        assert one.ids[start - 1] == eos and end == len(one) and (most is None or len(one) <= most)
        place = ids.index(part[0])
        assert context == ids[place - len(context) : place]
        produced += part
    assert produced == ids[first:]


def test_texts_are_halved_at_white_space():
    assert halved("one two three four") == ("one two three", " four")
    assert halved("abcdef") == ("abc", "def") and halved("a") == ("", "a")


WORDS = "what is the capital of France Paris it and Spain Madrid be kind".split()


def t5_tokenizer():
    """The T5 tokenizer's own class: white space collapses, no line breaks, EOS but no BOS."""
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters = [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyzFPSM?.:#"]
    return T5Tokenizer(vocab=[*vocab, *letters, *((f"▁{word}", -1.0) for word in WORDS)], extra_ids=2)


@pytest.mark.parametrize("build", [byte_tokenizer, t5_tokenizer])
def test_the_template_gives_the_encoder_what_a_server_does_and_ends_turns_with_eos(build):
    tokenizer = build()
    tokenizer.chat_template = shipped_template("seq2seq")
    assert stop_token_ids(tokenizer)[0] == tokenizer.eos_token_id
    messages = [
        Message("system", "be kind"),
        Message("user", "what is the capital of France"),
        Message("assistant", "Paris"),
        Message("user", "and of Spain"),
        Message("assistant", "it is Madrid"),
    ]
    (one,) = encode(messages, tokenizer)
    for message, start, end in one.turns:
        assert one.ids[:start].tolist() == prompt_ids(messages[:message], tokenizer)
        answer = tokenizer(messages[message].content, add_special_tokens=False)["input_ids"]
        assert one.ids[start:end].tolist() == [*answer, tokenizer.eos_token_id]
        assert one.ids[start - 1] == tokenizer.eos_token_id
    assert [message for message, _, _ in one.turns] == [2, 4]


def test_answers_that_follow_each_other_stay_two_pairs():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = shipped_template("seq2seq")
    (one,) = encode([Message("user", "a"), Message("assistant", "b"), Message("assistant", "c")], tokenizer)
    _, pairs = packed_pairs([one])
    assert len(pairs.middles) == 2


def test_turns_without_a_token_between_them_are_refused():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    )
    row = Conversation(id="x:1", messages=(Message("user", "a"), Message("assistant", "b"), Message("assistant", "c")))
    assert encode_conversation(row, tokenizer)
    with pytest.raises(SupervisionError, match="nothing between them") as caught:
        encode_conversation(row, tokenizer, Rules(encoder_decoder=True))
    assert caught.value.reason == "turns_not_separated"


def test_plain_text_is_read_up_to_its_middle_and_produced_from_there():
    tokenizer = byte_tokenizer()
    text = Conversation.from_text("t", "abcdefgh")
    (one,) = encode_conversation(text, tokenizer, Rules(encoder_decoder=True))
    assert tokenizer.decode(one.ids) == "<s>abcd</s>efgh</s>"
    assert tokenizer.decode(one.ids[one.supervised]) == "efgh</s>"
    many = encode_conversation(
        Conversation.from_text("t", "xyz" * 40), tokenizer, Rules(encoder_decoder=True, max_length=31)
    )
    assert max(map(len, many)) <= 31
    assert sum(int(part.supervised.sum()) for part in many) == 120 + 2 - 15  # all but the first half sequence


def test_an_encoder_decoder_without_a_template_gets_one_of_its_kind():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    assert chat_template_of(tokenizer, encoder_decoder=True).text == shipped_template("seq2seq")
    assert chat_template_of(tokenizer).text == shipped_template("alpaca")
    assert chat_template_of(tokenizer, "plain", encoder_decoder=True).text == shipped_template("plain")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    assert chat_template_of(tokenizer, encoder_decoder=True).text == tokenizer.chat_template
