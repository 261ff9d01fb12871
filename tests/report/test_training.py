"""What the report says of a training run, from the lines of metrics.jsonl."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fake_run import fake_run

from tunesmith.report.page import write_report
from tunesmith.report.terminal import print_training
from tunesmith.report.training import held_out_losses, training

STEPS: list[dict[str, Any]] = [{"step": s, "loss": 3.0 / s, "memory": 2.0**30 * s, "mfu": 0.5} for s in range(1, 201)]


def test_held_out_losses_by_level_and_cluster() -> None:
    def line(step: int, loss: float) -> dict[str, Any]:
        clusters = {"summary": {"loss": loss + 1}, "extraction": loss + 2, "broken": {"loss": None}}
        return {"step": step, "evaluation": {"new_items": {"loss": loss, "clusters": clusters}, "text": {"bits": 1.0}}}

    levels, clusters = held_out_losses([line(5, 2.0), {"step": 7, "loss": 9.0}, line(10, 1.5)])
    assert levels == {"new items": [(5.0, 2.0), (10.0, 1.5)]}
    assert clusters == {
        "extraction": {"new items": [(5.0, 4.0), (10.0, 3.5)]},
        "summary": {"new items": [(5.0, 3.0), (10.0, 2.5)]},
    }


def test_lines_stand_where_they_were_measured_and_keep_their_stroke() -> None:
    clusters = {"paraphrase": 2.0}
    found = training(
        [
            *STEPS,
            {"step": 100, "evaluation": {"new_items": {"loss": 1.0}, "new_clusters": {"loss": 4.0}}},
            {
                "step": 200,
                "evaluation": {"new_items": {"loss": 2.0}, "new_clusters": {"loss": 3.0, "clusters": clusters}},
            },
        ]
    )
    assert found and found.held_out and found.held_out.names == (("new items", 0), ("new clusters", 1))
    chart = ElementTree.fromstring(found.held_out.chart)
    drawn = {e.attrib["class"]: e.attrib["points"] for e in chart.iter("polyline")}
    assert drawn == {"curve line-0": "500.0,1000.0 1000.0,666.7", "curve line-1": "500.0,0.0 1000.0,333.3"}
    assert found.clusters[0].names == (("new clusters", 1),)


def test_the_smoothed_line_has_no_lag_and_less_noise() -> None:
    noisy = [{"step": s, "loss": 2 - s / 1000 + 0.3 * (-1) ** s} for s in range(1, 1001)]
    found = training(noisy)
    assert found
    chart = ElementTree.fromstring(found.loss.chart)
    smooth = next(e for e in chart.iter("polyline") if e.attrib["class"] == "curve").attrib["points"].split()
    heights = [float(pair.split(",")[1]) for pair in smooth]
    ends = heights[len(heights) // 20], heights[-len(heights) // 20]
    middle = heights[len(heights) // 2]
    assert middle == pytest.approx(sum(ends) / 2, abs=15)  # of 1,000: a straight line stays where it was
    assert max(abs(b - a) for a, b in list(pairwise(heights))[20:-20]) < 20
    assert len(smooth) <= 400


def test_facts_and_warnings() -> None:
    lines = [*STEPS, {"step": 9, "skipped": {"loss": "nan"}}, {"step": 9, "warning": "look out", "cause": "x"}]
    found = training([*lines, {"step": 10, "evaluation": {"new_items": {"loss": 0.7}}}])
    assert found and found.warnings == [(9, "look out")] and found.not_finite == 1
    facts = {name: value for name, value, _ in found.facts}
    assert facts == {"Utilisation": "50.0%", "Memory": "200.00 GiB", "Best held-out loss": "0.700"}


def test_runs_of_older_versions_have_fewer_curves() -> None:
    found = training([{"step": s, "loss": 1.0} for s in range(1, 4)])
    assert found and not (found.others or found.held_out or found.clusters or found.samples or found.warnings)
    assert training([{"step": 1, "evaluation": {"new_items": {"loss": 1.0}}}]) is None


@pytest.mark.parametrize("junk", [None, "<b>", -1, [], {}, [1], math.nan, True, {"x": {"clusters": 3, "loss": "a"}}])
@pytest.mark.parametrize("key", ["loss", "evaluation", "samples", "warning", "memory", "mfu", "waiting", "step"])
def test_unexpected_lines_never_break_it(key: str, junk: Any) -> None:
    found = training([*STEPS, {"step": 201, key: junk}, {**STEPS[0], key: junk}])
    assert found and found.steps >= 200


def test_the_page_shows_it_and_text_from_the_model_stays_text(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", items=6, few=3)
    with (folder / "metrics.jsonl").open("a") as file:
        for line in (
            {"step": 620, "samples": [{"prompt": "<i>ask", "answer": "<script>alert(1)</script> {{ 7 * 7 }}"}]},
            {"step": 620, "warning": "the <loss> explodes", "cause": "loss explodes"},
        ):
            file.write(json.dumps(line) + "\n")
    page = write_report(folder).read_text(encoding="utf-8")
    section = page[page.index('<section id="training"') : page.index('<section id="data"')]
    for said in (
        "Warnings while training",
        "the &lt;loss&gt; explodes",
        "Held-out loss by task cluster (4)",
        "Utilisation",
        "Waiting for data",
        "Answers while training",
        "&lt;script&gt;alert(1)&lt;/script&gt; {{ 7 * 7 }}",
    ):
        assert said in section, said
    assert "<script" not in page and "<i>" not in section


def test_the_terminal_tells_it_in_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_training(fake_run(tmp_path / "run", items=3, few=2))
    said = capsys.readouterr()
    assert "620 steps" in said.out and "Utilisation" in said.out
    assert all(len(line) <= 80 for line in said.out.splitlines())
    assert "Warning at step 103: the device idles" in said.err
