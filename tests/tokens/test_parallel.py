"""Chunks in several processes: the same results in the same order, and errors that arrive."""

import os
import signal

import pytest
from kinds import KINDS

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import TunesmithError
from tunesmith.tokens import many
from tunesmith.tokens.many import encode_many
from tunesmith.tokens.parallel import map_chunks
from tunesmith.tokens.store import FILES, TokenStore
from tunesmith.tokens.supervise import Rules


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_in_order(workers):
    seen = []

    def squares(chunk):
        seen.append(chunk)
        return [number * number for number in chunk], os.getpid()

    results = list(map_chunks(squares, range(1000), 37, workers))
    assert [square for squares, _ in results for square in squares] == [number * number for number in range(1000)]
    processes = {process for _, process in results}
    assert (os.getpid() in processes) == (workers == 1) and 1 <= len(processes) <= workers
    assert bool(seen) == (workers == 1)


def test_errors_and_ended_processes_are_told():
    def fails(chunk):
        if 300 in chunk:
            raise KeyError("mine")
        return len(chunk)

    with pytest.raises(KeyError, match="mine"):
        list(map_chunks(fails, range(1000), 10, 2))

    def ends(chunk):
        if 300 in chunk:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(chunk)

    with pytest.raises(TunesmithError, match="ended from outside"):
        list(map_chunks(ends, range(1000), 10, 2))


def test_results_may_be_left_behind():
    found = map_chunks(len, range(10_000), 10, 2)
    assert next(found) == 10
    found.close()


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
