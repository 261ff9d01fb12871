"""The summary's numbers by hand, and that the files hold them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sacrebleu import corpus_bleu

from tunesmith.base.conversation import Conversation, Message
from tunesmith.evaluate.answers import Answer
from tunesmith.evaluate.compare import compare, loss_rows, write_evaluation
from tunesmith.evaluate.language import Losses, TextBits


def answers(scores: list[float], *, stopped: bool = True) -> list[Answer]:
    """Rows 0, 1, ... : the last two are a new cluster, tasks alternate, two rows share each item."""
    size = len(scores)
    return [
        Answer(
            row=f"s:{index}",
            item=f"item {index // 2}",
            level="new_items" if index < size - 2 else "new_clusters",
            cluster="facts" if index < size - 2 else "jokes",
            task=("red", "blue")[index % 2],
            metric="exact_match",
            prompt="<b>?</b>\u2028",
            expected="yes",
            response="yes" if score else "no",
            score=score,
            stopped=stopped,
            tokens=1,
        )
        for index, score in enumerate(scores)
    ]


GIVEN = {
    "base_chat": answers([0, 0, 0, 0, 0, 0]),
    "base_plain": answers([1, 0, 0, 0, 0, 0]),
    "tuned": answers([1, 1, 1, 0, 1, 0]),
}


def test_scores_by_level_cluster_and_task() -> None:
    generation = compare(GIVEN)["generation"]
    assert generation["metric"] == "exact_match" and set(generation["levels"]) == {"new_items", "new_clusters"}
    level = generation["levels"]["new_items"]
    row = level["overall"]
    assert row["n"] == 4 and row["tuned"]["mean"] == 0.75
    assert row["base"]["chat"]["mean"] == 0 and row["base"]["plain"]["mean"] == 0.25
    assert row["difference"]["mean"] == 0.5, "against the better of the base's prompt styles"
    assert row["tuned"]["low"] <= 0.75 <= row["tuned"]["high"]
    assert set(level["clusters"]) == {"facts"} and set(level["tasks"]) == {"red", "blue"}
    assert level["tasks"]["red"]["difference"]["mean"] == 0.5
    assert compare(GIVEN) == compare(GIVEN)


def test_losses_weigh_by_tokens() -> None:
    rows = [Conversation(f"s:{i}", (Message("user", "q"), Message("assistant", "a")), cluster="c") for i in range(2)]
    tokens = np.array([1, 3])
    base, tuned = Losses(np.array([4.0, 4.0]), tokens), Losses(np.array([2.0, 2.0]), tokens)
    row = compare({}, loss_rows({"new_items": rows}, base, tuned))["loss"]["new_items"]["overall"]
    assert (row["n"], row["tokens"], row["base"], row["tuned"]) == (2, 4, 2.0, 1.0)
    assert row["difference"]["mean"] == -1.0
    with pytest.raises(AssertionError, match="different tokens"):
        loss_rows({"new_items": rows}, base, Losses(np.ones(2), np.array([1, 2])))


def test_forgetting_against_its_limit() -> None:
    size = np.array([100, 300])
    text = TextBits(np.array([200.0, 600.0]), size), TextBits(np.array([204.0, 612.0]), size)
    found = compare({}, text=text, max_rise=0.03)["forgetting"]
    assert (found["documents"], found["bytes"], found["base"]) == (2, 400, 2.0)
    assert found["rise"] == pytest.approx(0.02) and found["held"]
    assert not compare({}, text=text, max_rise=0.01)["forgetting"]["held"]
    assert compare({}, text=text)["forgetting"]["held"] and compare({})["forgetting"] is None


def test_few_losses_and_texts_are_said_without_answers() -> None:
    rows = [Conversation("s:1", (Message("user", "q"), Message("assistant", "a")))]
    losses = Losses(np.ones(1), np.ones(1, dtype=np.int64))
    text = TextBits(np.ones(2), np.array([100, 300]))
    (warning,) = compare({}, loss_rows({"new_items": rows}, losses, losses), (text, text))["warnings"]
    assert "losses of new items (1 items), plain text (2 documents)." in warning


def test_answers_that_do_not_stop_are_said() -> None:
    endless = {**GIVEN, "tuned": answers([1, 1, 1, 0, 1, 0], stopped=False)}
    assert not any("did not end" in warning for warning in compare(GIVEN)["warnings"])
    assert "6 of the tuned model's 6 answers did not end" in compare(endless)["warnings"][0]


def test_prompts_without_room_for_an_answer_are_counted_and_said() -> None:
    """Rows 1 and 4 can't be answered by chat, row 4 not by the plain prompt either."""

    def full(who: str, rows: set[int]) -> list[Answer]:
        changes = {"filled": 2048, "stopped": False, "tokens": 0, "score": 0.0}
        return [replace(one, **changes) if place in rows else one for place, one in enumerate(GIVEN[who])]

    found = compare(
        {"base_chat": full("base_chat", {1, 4}), "base_plain": full("base_plain", {4}), "tuned": full("tuned", {1, 4})}
    )
    levels = found["generation"]["levels"]
    assert {name: level["overall"]["unanswered"] for name, level in levels.items()} == {
        "new_items": 1,
        "new_clusters": 1,
    }
    assert {name: task["unanswered"] for name, task in levels["new_items"]["tasks"].items()} == {"blue": 1, "red": 0}
    assert found["warnings"][0] == (
        "1 of 4 prompts of new items and 1 of 2 prompts of new clusters fill the context of 2,048 tokens and could not "
        "be answered (base chat 2, base plain 1, tuned 2); they score 0: shorten them or take a base with a longer "
        "context. One of them is s:1."
    ), "and that is not told as answers without an end"
    alike = compare({who: full(who, {0}) for who in GIVEN})
    assert "could not be answered; they score 0" in alike["warnings"][0]


def test_few_items_are_said() -> None:
    (warning,) = compare(GIVEN)["warnings"]
    assert "fewer than 30 items" in warning and "new items (2 items), new clusters (1 items)." in warning
    many = answers([0.0, 1.0] * 31)[:-2]  # 60 rows are 30 items, of one cluster
    few = [replace(answer, cluster="rare", item=f"rare {place}") for place, answer in enumerate(many[:2])]
    assert compare({"base_chat": many, "tuned": many})["warnings"] == []
    (warning,) = compare({"base_chat": many + few, "tuned": many + few})["warnings"]
    assert "1 of 2 clusters of new items." in warning


def test_corpus_metrics_are_of_all_rows_together() -> None:
    texts = ["the cat sat on the mat", "a dog ran over the hill today", "it is late", "we will go home now"]
    said = ["the cat sat on a mat", "a dog ran over a hill", "it was late", "we will go home now"]
    tuned = [
        replace(answer, metric="bleu", expected=wanted, response=got, score=0.5)
        for answer, wanted, got in zip(answers([1, 1, 1, 1, 1, 1])[:4], texts, said, strict=True)
    ]
    base = [replace(answer, response="the the") for answer in tuned]
    summary = compare({"base_chat": base, "tuned": tuned})["generation"]
    row = summary["levels"]["new_items"]["overall"]
    assert summary["metric"] == row["metric"] == "bleu" and row["items"] == 2
    assert 100 * row["tuned"]["mean"] == pytest.approx(corpus_bleu(said, [texts]).score)
    assert 100 * row["base"]["chat"]["mean"] == pytest.approx(corpus_bleu(["the the"] * 4, [texts]).score)
    assert row["difference"]["mean"] == pytest.approx(row["tuned"]["mean"] - row["base"]["chat"]["mean"])
    mixed = [tuned[0], *[replace(answer, metric="chrf") for answer in tuned[1:]]]
    found = compare({"base_chat": mixed, "tuned": mixed})["generation"]["levels"]["new_items"]["overall"]
    assert found["metric"] == "several" and found["tuned"]["mean"] == 0.5


def test_different_rows_are_never_compared() -> None:
    with pytest.raises(AssertionError, match="different rows"):
        compare({"base_chat": GIVEN["base_chat"], "tuned": GIVEN["tuned"][::-1]})


def test_files_hold_one_line_for_each_row(tmp_path: Path) -> None:
    summary = compare(GIVEN)
    write_evaluation(tmp_path / "evaluation", summary, GIVEN)
    assert json.loads((tmp_path / "evaluation/summary.json").read_text()) == summary
    items = [json.loads(line) for line in (tmp_path / "evaluation/items.jsonl").read_text().splitlines()]
    assert [item["row"] for item in items] == [f"s:{index}" for index in range(6)]
    assert items[0]["answers"] == {"base_chat": "no", "base_plain": "yes", "tuned": "yes"}
    assert items[0]["scores"]["tuned"] == 1 and items[0]["stopped"]["base_chat"] and items[0]["prompt"][-1] == "\u2028"
