"""Several runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

from fake_run import fake_run

from tunesmith.report.compare import compare_runs, write_comparison_page

CHANGE = {"mean": -0.25, "low": -0.3, "high": -0.2}
SUITES = {
    "exam": {"kind": "choice", "n": 40, "base": {"chat": {"mean": 0.5}}, "tuned": {"mean": 0.25}, "difference": CHANGE},
    "maths": {"kind": "loss", "n": 40, "tokens": 90, "base": 2.0, "tuned": 1.75, "difference": CHANGE},
}


def test_a_difference_on_a_suite_is_told_in_its_own_unit(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / name, steps=12, items=6, few=2) for name in "ab"]
    path = runs[1] / "evaluation/summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"suites": SUITES}))
    first, second = compare_runs(runs).costs
    assert first.suites == {} and second.suites == {"exam": "−25.0 points", "maths": "−0.250 nats"}
    page = write_comparison_page(runs, tmp_path / "page.html", "two").read_text()
    assert "−25.0 points" in page and "−0.250 nats" in page


def test_nats_of_different_bases_are_said_not_to_compare(tmp_path: Path) -> None:
    runs = [fake_run(tmp_path / name, steps=12, items=6, few=2) for name in "ab"]
    assert "nats don't compare" not in write_comparison_page(runs, tmp_path / "page.html", "two").read_text()
    recipe = runs[1] / "recipe.yaml"
    recipe.write_text(
        "".join("base: other\n" if line.startswith("base:") else line for line in recipe.read_text().splitlines(True))
    )
    assert "nats don't compare" in write_comparison_page(runs, tmp_path / "page.html", "two").read_text()
