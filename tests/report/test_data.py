"""The data pages: the river adds up, coverage stands against its target, and nothing in them is taken for markup."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_run import fake_run

from tunesmith.data.coverage.category import CATEGORIES
from tunesmith.data.coverage.coverage import measure
from tunesmith.data.coverage.targets import Target, reached, warnings_of
from tunesmith.pocket import tasks
from tunesmith.report.data import coverage, duplicates
from tunesmith.report.flow import HEIGHT, river
from tunesmith.report.load import load_run
from tunesmith.report.page import write_report

EVIL = "</code><script>alert(1)</script>&\"'"


def step(stage: str, read: int, kept: int, **reasons: int) -> dict[str, Any]:
    return {"stage": stage, "read": read, "kept": kept, "dropped": read - kept, "reasons": reasons, "changed": 0}


STEPS = [
    step("read a", 120, 100, not_sampled=20),
    step("read b", 50, 50),
    step("read replay", 9, 9),
    step("read forgetting", 5, 5),
    step("replay", 9, 8, measured_for_forgetting=1),
    step("filter", 150, 110, short=10, refusal=25, blank=4, copy=1),
    step("split", 110, 110),
    step("supervise", 118, 116, too_long=2),
]
PLACES = {"train": 100, "new_items": 8, "replay": 8, "forgetting": 5}


def measured(cluster: str = "") -> dict[str, Any]:
    rows = list(tasks.conversations(0, 400, "pocket"))
    found = measure(rows, sample=1_000, clusters={})
    target = Target(rows=20)
    warned = [{"kind": each.kind, "what": each.what, "remedy": each.remedy} for each in warnings_of(found, target)]
    kept = {"categories": 10, "rows": 20, "min_multi_turn": 0.1, "max_multi_turn": 0.15, "min_worked": 0.03}
    if cluster:
        found["wordings"][0]["cluster"] = cluster
        found["verbs"]["top"][0]["verb"] = cluster
        warned.append({"kind": "k", "what": cluster, "remedy": cluster})
    return json.loads(json.dumps(found | {"target": kept, "reached": reached(found, target), "warnings": warned}))


def test_the_river_is_the_rows_of_the_steps():
    found = river(STEPS, PLACES)
    assert found
    assert [(reach.stage, reach.rows, reach.joined, reach.left) for reach in found.reaches] == [
        ("a", 100, 100, 20),
        ("b", 150, 50, 0),
        ("filter", 110, 0, 40),
        ("split", 110, 0, 0),
        ("supervise", 116, 8, 2),
    ]
    assert found.reaches[2].why == "refusal 25, short 10, blank 4, others 1"
    assert found.ends == [("train", 100), ("new_items", 8), ("replay", 8)]
    assert sum(rows for _, rows in found.ends) == found.reaches[-1].rows
    assert f'height="{HEIGHT * 6}"' in found.picture
    assert 'aria-hidden="true"' in found.picture


def test_widths_are_in_proportion_to_rows():
    picture = str(river(STEPS, PLACES).picture)  # type: ignore[union-attr]
    streams = re.findall(r'class="stream" d="M0.0 \d+H([\d.]+)L([\d.]+)', picture)
    widths = [float(below) for _, below in streams]
    assert widths == pytest.approx([860 / 150 * rows for rows in (100, 110, 110, 116)], abs=0.1)
    numbers = [float(each) for each in re.findall(r"-?\d+\.?\d*", " ".join(re.findall(r' d="([^"]*)"', picture)))]
    assert all(0 <= number <= 1_000 for number in numbers)


@pytest.mark.parametrize("steps", [[], [{}], [{"stage": None, "read": "x"}], [step("split", 0, 0)]])
def test_a_river_of_little_is_no_error(steps):
    river(steps, {})


def test_categories_stand_against_the_target():
    found = measured()
    shown = coverage(found)
    assert shown
    assert [(each.rows, each.enough) for each in shown.categories] == [
        (each["rows"], each["rows"] >= 20)
        for each in found["categories"]
        if each["rows"] or each["category"] != "other"
    ]
    assert (shown.wanted, shown.least, shown.reached) == (10, 20, len(found["reached"]))
    assert {each.family for each in shown.categories} >= {"generation", "extraction", "reasoning"}
    assert len(shown.categories) >= len(CATEGORIES) - 1
    turns = next(share for share in shown.shares if share.name == "Several turns")
    assert turns.held == (0.1 <= found["multi_turn"] <= 0.15)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"sampled": 0},
        {"sampled": 3},
        {"sampled": 3, "categories": "x", "words": {"instruction": {"edges": [0, "a"]}}},
    ],
)
def test_broken_measures_are_left_out(broken):
    coverage(broken)
    assert duplicates([{}, {"kept": {"row": "a:1"}, "others": None}, {"kept": 3}]) == []


def test_the_page_shows_them_and_escapes_all_text(tmp_path: Path):
    folder = fake_run(tmp_path)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/coverage.json").write_text(json.dumps(measured(EVIL)), encoding="utf-8")
    text = {"row": EVIL, "instruction": EVIL, "response": EVIL}
    groups = [{"size": 9, "kept": text, "others": [text | {"reason": EVIL}]}]
    (folder / "data/duplicates.json").write_text(json.dumps(groups), encoding="utf-8")
    steps = json.loads((folder / "ledger/steps.json").read_text())
    steps[0]["stage"] = f"read {EVIL}"
    (folder / "ledger/steps.json").write_text(json.dumps(steps), encoding="utf-8")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<script" not in page and "alert(1)" in page
    assert "Rows through the stages" in page and "What the training rows cover" in page
    assert "The largest groups of duplicates" in page and "and 7 more rows" in page
    assert " style=" not in page  # the security policy would leave it without effect


def test_a_run_without_them_says_so(tmp_path: Path):
    folder = fake_run(tmp_path)
    assert load_run(folder).coverage == {} and load_run(folder).duplicates == []
    assert "Coverage was not measured in this run." in write_report(folder).read_text(encoding="utf-8")
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/coverage.json").write_text("{", encoding="utf-8")
    assert "data/coverage.json could not be read" in write_report(folder).read_text(encoding="utf-8")
