"""How the report shows answers that changed while a model trained."""

from __future__ import annotations

from random import Random
from typing import Any

from markupsafe import escape

from tunesmith.report.history import ANSWERS_SHOWN, BYTES_SHOWN, changed_words, samples_of, scores_of


def _lines(said: list[str], **fields: Any) -> list[dict[str, Any]]:
    return [{"step": 10 * i, "samples": [{"prompt": "p", "answer": answer, **fields}]} for i, answer in enumerate(said)]


def test_an_answer_that_stays_the_same_is_shown_once() -> None:
    lines = [*_lines(["a", "b", "b", "c"]), {"step": 50, "samples": [None, {"prompt": 3}, "x"]}, {"samples": 7}]
    [sample] = samples_of(lines)
    assert sample.prompt == "p" and sample.omitted == 0
    assert [(given.first, given.last) for given in sample.answers] == [(0, 0), (10, 20), (30, 30)]
    assert [given.words for given in sample.answers] == [
        [("a", "same")],
        [("a", "gone"), ("b", "new")],
        [("b", "gone"), ("c", "new")],
    ]


def test_two_rows_with_one_prompt_are_two_samples() -> None:
    lines = [{"step": 1, "samples": [{"row": row, "prompt": "p", "answer": row} for row in "ab"]}]
    assert [sample.answers[0].words for sample in samples_of(lines)] == [[("a", "same")], [("b", "same")]]


def test_runs_of_changed_words_make_up_both_answers() -> None:
    draw = Random(3)
    for _ in range(500):
        before, after = (" ".join(draw.choices("abcd", k=draw.randint(0, 9))) for _ in range(2))
        runs = changed_words(before, after)
        assert "".join(text for text, kind in runs if kind != "gone") == after
        assert "".join(text for text, kind in runs if kind != "new").split() == before.split()
        assert (before == after) == all(kind == "same" for _, kind in runs)


def test_a_long_run_leaves_answers_out_but_never_the_first_or_last() -> None:
    [many] = samples_of(_lines([f"answer {i}" for i in range(500)]))
    assert len(many.answers) == ANSWERS_SHOWN and many.omitted == 500 - ANSWERS_SHOWN
    assert (many.answers[0].first, many.answers[-1].first) == (0, 4990)
    long = [f"{i} " + "<y> " * 3000 for i in range(500)]
    found = samples_of([line for row in "abcde" for line in _lines(long, row=row)])
    texts = ["".join(text for text, _ in given.words) for sample in found for given in sample.answers]
    assert all(2 <= len(sample.answers) < ANSWERS_SHOWN for sample in found) and max(map(len, texts)) < 4100
    assert sum(len(escape(text)) for text in texts) < BYTES_SHOWN


def test_scores_are_those_of_all_samples_at_a_step() -> None:
    lines = [{"step": s, "samples": [{}, {}], "score": s / 10} for s in (0, 5)]
    assert scores_of([{"step": 1, "loss": 2.0, "score": 9.0}, *lines]) == ([(0, 0.0), (5, 0.5)], 2)
    assert scores_of([{"step": 1, "loss": 2.0}]) == ([], 0)
