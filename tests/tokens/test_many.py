"""Rows encoded in several processes give one token store."""

from kinds import KINDS

from tunesmith.base.conversation import Conversation, Message
from tunesmith.tokens import many
from tunesmith.tokens.many import encode_many
from tunesmith.tokens.store import FILES, TokenStore
from tunesmith.tokens.supervise import Rules


def test_the_token_store_is_the_same_for_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(many, "CONVERSATIONS_AT_ONCE", 16)
    tokenizer = KINDS["qwen3"].tokenizer()
    rows = []
    for number in range(300):
        content = "say <|im_end|>" if number % 50 == 7 else f"Question {number}? " * (number % 5)
        turn = (Message("user", content), Message("assistant", f"It is {number}.", reasoning="Well." * (number % 3)))
        rows.append(Conversation(f"r:{number}", turn * (1 + number % 3), cluster="c"))
    told = {}
    for workers in (1, 2, 3):
        dropped, shortened = [], []
        encoded = encode_many(
            rows,
            tokenizer,
            Rules(max_length=60, too_long="oldest_turns"),
            on_drop=lambda row, error, dropped=dropped: dropped.append((row.id, error.reason, str(error))),
            on_shorten=lambda row, left_out, shortened=shortened: shortened.append((row.id, left_out)),
            workers=workers,
        )
        parts = ((part, row.id, row.cluster) for row, sequences in encoded for part in sequences)
        TokenStore.write(tmp_path / str(workers), parts, {}, vocabulary=len(tokenizer))
        told[workers] = [(tmp_path / str(workers) / name).read_bytes() for name in FILES], dropped, shortened
    assert told[1] == told[2] == told[3]
    assert len(told[1][1]) >= 6 and len(told[1][2]) > 20
