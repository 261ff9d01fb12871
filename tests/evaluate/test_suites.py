"""Guards and warnings of a suite."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

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


def test_prompts_without_room_for_an_answer_are_counted_and_said() -> None:
    full = given(0, 3, filled=512, stopped=False, tokens=0)
    base, tuned = Examined({"base_chat": full + given(80)[3:]}), Examined({"tuned": full + given(80)[3:]})
    found = compare_suite(base, tuned, kind="answers", guard=None)
    assert found["unanswered"] == 3
    assert found["warnings"] == [
        "3 of 100 prompts fill the context of 512 tokens and could not be answered; they score 0: shorten them or take "
        "a base with a longer context. One of them is s:0."
    ]


def test_turns_without_room_for_an_answer_are_said() -> None:
    def asked(*filled: list[int]) -> list[dict[str, object]]:
        return [
            {"question_id": f"q{n}", "turns": ["?"] * len(turns), "filled": turns} for n, turns in enumerate(filled)
        ]

    base = Examined(turns={"base_chat": asked([0, 512], [0]), "base_plain": asked([0, 0], [0])})
    tuned = Examined(turns={"tuned": asked([0, 512], [512])})
    (warning,) = compare_suite(base, tuned, kind="questions", guard=None)["warnings"]
    assert warning == (
        "2 of 3 turns fill the context of 512 tokens and could not be answered (base chat 1, base plain 0, tuned 2); "
        "they are kept without an answer: shorten them or take a base with a longer context. One of them is turn 2 of "
        "q0."
    )


def test_what_older_runs_examined_can_be_read(tmp_path: Path) -> None:
    """They say nothing of `filled`, neither of answers nor of turns."""
    turns = [{"question_id": "q", "category": "", "turns": ["?", "?"], "answers": ["a", "b"], "stopped": [True, True]}]
    Examined({"tuned": [ANSWER]}, {"tuned": turns}).write(tmp_path / "new.json")
    value = json.loads((tmp_path / "new.json").read_text())
    del value["answers"]["tuned"][0]["filled"]
    (tmp_path / "old.json").write_text(json.dumps(value))
    old = Examined.read(tmp_path / "old.json")
    assert old.answers == {"tuned": [ANSWER]}
    new = [turns[0] | {"filled": [0, 512]}]
    (warning,) = compare_suite(old, Examined(turns={"tuned_again": new}), kind="questions", guard=None)["warnings"]
    assert warning.startswith("1 of 2 turns fill the context of 512 tokens")
