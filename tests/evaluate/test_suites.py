"""Guards and warnings of a suite."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.evaluate.answers import Answer
from tunesmith.evaluate.suites import Examined, compare_suite

ANSWER = Answer("s:0", "s:0", "s", "s", "", "exact_match", "?", "yes", "yes", 1.0, stopped=True, tokens=1)


def given(right: int, of: int = 100, **changes: object) -> list[Answer]:
    return [
        replace(ANSWER, row=f"s:{place}", item=f"s:{place}", score=float(place < right), **changes)
        for place in range(of)
    ]


@pytest.mark.parametrize(("right", "held"), [(75, True), (74, False), (85, True)])
def test_a_guard_holds_at_its_limit_and_breaks_beyond(right: int, held: bool) -> None:
    base, tuned = Examined({"base_chat": given(80)}), Examined({"tuned": given(right)})
    assert compare_suite(base, tuned, kind="answers", guard=0.05)["held"] is held


def test_answers_without_an_end_and_few_items_are_said() -> None:
    base, tuned = Examined({"base_chat": given(80)}), Examined({"tuned": given(80, stopped=False)})
    (warning,) = compare_suite(base, tuned, kind="answers", guard=None)["warnings"]
    assert "100 of the tuned model's 100 answers did not end" in warning
    same = {who: [replace(one, item="one") for one in given(80)] for who in ("base_chat", "tuned")}
    (warning,) = compare_suite(Examined(same), Examined(), kind="answers", guard=None)["warnings"]
    assert "Only 1 items" in warning, "a hundred rows of one item are one"
