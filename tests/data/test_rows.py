"""Rows that spill to a file are the rows that were given."""

import random

import pytest

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.parallel import map_chunks
from tunesmith.data.rows import Rows
from tunesmith.pocket import tasks


def made(count):
    rows = list(tasks.conversations(0, count - 2))
    rows.append(
        Conversation("x:1", (Message("user", "lone \ud800\n\u2028"), Message("assistant", "Ünïcödé 🙂")), "x", "c")
    )
    return [*rows, Conversation.from_text("t:1", "Plain text.", "t")]


@pytest.mark.parametrize("in_memory", [0, 7, 1000])
def test_rows_are_what_was_given(tmp_path, in_memory):
    given = made(50)
    with Rows(tmp_path / "deep" / "rows", in_memory) as rows:
        labels = [rows.append(row) for row in given]
        assert list(rows) == given and rows[3:20:4] == given[3:20:4] and len(rows) == 50
        names = ("id", "source", "cluster", "task", "phrasing", "item", "prompt_key", "is_text")
        for label, row in zip(labels, given, strict=True):
            assert [getattr(label, name) for name in names] == [getattr(row, name) for name in names]
            assert rows[label.place] == row
        places = random.Random(0).sample(range(50), 30)
        picked = rows.picked(places)
        assert len(picked) == 30 and picked[4] == given[places[4]]
        assert list(map_chunks(list, picked, 3, 2)) == [
            [given[place] for place in places[start : start + 3]] for start in range(0, 30, 3)
        ]
    assert not (tmp_path / "deep" / "rows").exists()
