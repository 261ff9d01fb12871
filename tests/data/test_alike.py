"""Near-duplicates and lengths of rows as a split sees them."""

import numpy as np

from tunesmith.base.conversation import Conversation, Message
from tunesmith.data.duplicates.alike import lengths_of, near_groups

PASSAGE = "The ship left the harbour at dawn and sailed along the northern coast until the captain saw the lighthouse"


def row(number, asked, answer="They saw a lighthouse and turned around before it was night."):
    return Conversation(f"s:{number}", (Message("user", asked), Message("assistant", answer)), "s")


def test_one_item_in_other_words_is_one_group_and_another_answer_is_not():
    rows = [
        row(0, f"{PASSAGE}. What did they see there?"),
        row(1, "How many apples are left when two of five are eaten by the crew?"),
        row(2, f"{PASSAGE}. What did they see?"),
        row(3, f"{PASSAGE}. What did they see there?", "It was early in the morning, as it says in the beginning."),
    ]
    groups = near_groups(rows, np.array([0, 1, 2, 3]), near=0.7)
    assert groups[0] == groups[2] and len(set(groups.tolist())) == 3
    assert len(set(near_groups(rows, np.array([2, 1]), near=0.7).tolist())) == 2


def test_lengths_are_characters_of_all_messages():
    rows = [row(n, "a" * n, "é" * 3) for n in range(2500)]
    places = np.arange(0, 2500, 2)
    assert lengths_of(rows, places, workers=2).tolist() == [n + 3.0 for n in range(0, 2500, 2)]
    assert lengths_of(rows, places[:0]).tolist() == []
