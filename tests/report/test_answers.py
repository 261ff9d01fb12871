from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.report import answers, words


def item(i: int, level: str = "new_items", tuned: float = 1.0, base: float = 0.0, text: str = "yes") -> dict[str, Any]:
    return {
        "row": f"r:{i}",
        "level": level,
        "cluster": "c",
        "task": "t",
        "prompt": "Is it?",
        "expected": "yes",
        "answers": {"base_plain": "no", "tuned": text},
        "scores": {"base_plain": base, "tuned": tuned},
        "stopped": {"base_plain": False, "tuned": True},
    }


def test_outcomes() -> None:
    assert answers.outcome(item(0)) == "better"
    assert answers.outcome(item(0, tuned=0.0, base=1.0)) == "worse"
    assert answers.outcome(item(0, tuned=1.0, base=1.0)) == "both"
    assert answers.outcome(item(0, tuned=0.4, base=0.4)) == "neither"
    assert answers.outcome({"scores": {}}) == "neither"


def test_a_sample_covers_rare_outcomes_and_levels() -> None:
    many = [item(i) for i in range(3000)]
    rare = [item(i, tuned=0.0, base=1.0) for i in range(3000, 3004)] + [
        item(i, level="new_clusters") for i in range(4000, 4009)
    ]
    shown = answers.side_by_side(many + rare)
    assert shown is not None and shown.total == 3013 and len(shown.items) == answers.ITEMS_SHOWN
    seen = Counter((i.level, i.outcome) for i in shown.items)
    assert seen["new_items", "worse"] == 4 and seen["new_clusters", "better"] == 9
    assert [i.outcome for i in shown.items][:4] == ["worse"] * 4
    assert shown.outcomes == {"worse": 4, "better": 3009, "neither": 0, "both": 0}


def test_long_answers_are_cut_and_it_is_said() -> None:
    shown = answers.side_by_side([item(0, text="word " * 4000)])
    assert shown is not None
    text = shown.items[0].answers[-1].words[0][0]
    assert len(text) < 1300 and text.endswith("(18,800 more characters)")


def test_the_page_budget_counts_escaped_text() -> None:
    shown = answers.side_by_side([{**item(i, text="<" * 2000), "prompt": "&" * 3000} for i in range(400)])
    assert shown is not None and 50 < len(shown.items) < 300


def test_prompts_may_be_messages() -> None:
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
    shown = answers.side_by_side([{**item(0), "prompt": messages}])
    assert shown is not None and shown.items[0].prompt == "user: Hello\n\nassistant: Yes?"


def test_habits_of_answering() -> None:
    shown = answers.side_by_side([item(i, text="x" * i) for i in range(11)])
    assert shown is not None
    assert [(h.who, h.stopped, h.length) for h in shown.habits] == [("base_plain", 0.0, 2), ("tuned", 1.0, 5)]


def test_differing_words() -> None:
    assert answers.differing_words("it is 52 crowns", "It is 53 crowns") == [
        ("it is", False),
        ("52", True),
        ("crowns", False),
    ]


@given(st.text(), st.text())
def test_marking_words_changes_no_text(answer: str, expected: str) -> None:
    assert " ".join(run for run, _ in answers.differing_words(answer, expected)) == answer


@given(st.text())
def test_printable_text_is_safe_to_print(text: str) -> None:
    shown = words.printable(text)
    shown.encode()
    assert len(shown) == len(text) and not set(shown) & set(words.DIRECTIONS + "\x00\x1b\x7f\r")


def test_numbers_as_words() -> None:
    assert [words.short(v) for v in (None, 999.0, 12_345.0, 26_100_000.0, 7e9)] == ["–", "999", "12.3k", "26.1M", "7B"]
    assert [words.duration(v) for v in (4.24, 59.0, 208.0, 7_322.0)] == ["4.2 s", "59 s", "3 min 28 s", "2 h 02 min"]
    assert [words.points(v) for v in (0.72, -0.004, -0.0001, None)] == ["+72.0", "−0.4", "+0.0", "–"]
    assert words.listed(["a", "b", "c"]) == "a, b and c" and words.counted(1, "row") == "1 row"
