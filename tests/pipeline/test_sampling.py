"""Samples that are answered while training: which they are, and what is kept of each."""

import json
from collections import Counter
from random import Random
from statistics import fmean

from tunesmith import pipeline
from tunesmith.base.conversation import Conversation, Message
from tunesmith.evaluate.metrics import scores
from tunesmith.pipeline.sampling import spread


def _row(name: str, cluster: str) -> Conversation:
    return Conversation(name, (Message("user", name), Message("assistant", "yes")), source="s", cluster=cluster)


def test_samples_are_spread_over_levels_and_clusters():
    for seed in range(20):
        draw = Random(seed)
        levels = {
            level: [_row(f"{level}{i}", draw.choice("abcdef")) for i in range(draw.randint(1, 40))] for level in "xyz"
        }
        chosen = spread(levels, 12)
        sizes = {level: len(chosen.get(level, [])) for level in levels}
        assert sum(sizes.values()) == min(12, sum(map(len, levels.values())))
        for level, rows in levels.items():  # no level has two more than another that has rows left
            assert sizes[level] >= min(len(rows), max(sizes.values()) - 1)
        seen = Counter(row.cluster for rows in chosen.values() for row in rows)
        if all(len({row.cluster for row in rows}) == 6 for rows in levels.values()):
            assert max(seen.values()) - min(seen.values()) <= 1 and len(seen) == 6
        assert len({row.id for rows in chosen.values() for row in rows}) == sum(sizes.values())


def test_rows_without_an_answer_are_no_samples():
    silent = Conversation("s", (Message("user", "a"), Message("assistant", " ")), source="s")
    assert spread({"x": [silent, _row("a", "c")], "y": [silent]}, 5) == {"x": [_row("a", "c")]}
    assert spread({}, 5) == spread({"x": [_row("a", "c")]}, 0) == {}


def test_a_run_scores_its_samples_from_the_base_on(recipe, tmp_path):
    loaded = recipe("train.evaluate_every=2", "train.samples=6", "evaluate={items: 0, losses: 4, max_new_tokens: 8}")
    pipeline.run(loaded, tmp_path / "run", until="train")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    sampled = [line for line in lines if "samples" in line]
    steps = max(line["step"] for line in lines)
    assert [line["step"] for line in sampled] == sorted({*range(0, steps + 1, 2), steps}) and len(sampled) > 2
    assert len({tuple(one["row"] for one in line["samples"]) for line in sampled}) == 1
    for line in sampled:
        assert len(line["samples"]) == 6 and len({one["cluster"] for one in line["samples"]}) > 3
        each = [scores(one["metric"], [("", one["expected"], one["answer"])])[0] for one in line["samples"]]
        assert [one["score"] for one in line["samples"]] == each and line["score"] == fmean(each)
