"""Suites on the page: what each one measures, base beside tuned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_run import fake_run
from test_page import Page

from tunesmith.evaluate.instructions import RATES
from tunesmith.report import suites
from tunesmith.report.page import write_report
from tunesmith.report.suites import suite_rows
from tunesmith.report.words import sentence


def scored(n: int, base: float, tuned: float) -> dict[str, Any]:
    change = tuned - base
    return {
        "n": n,
        "base": {"chat": {"mean": base / 2}, "plain": {"mean": base, "low": base - 0.05, "high": base + 0.05}},
        "tuned": {"mean": tuned, "low": tuned - 0.05, "high": tuned + 0.05},
        "difference": {"mean": change, "low": change - 0.1, "high": change + 0.1},
    }


FOLLOWED = {
    "kind": "instructions",
    "metric": "instructions_followed",
    **scored(40, 0.25, 0.5),
    "rates": {
        "prompt_strict": scored(40, 0.25, 0.5),
        "prompt_loose": scored(40, 0.3, 0.525),
        "instruction_strict": scored(66, 0.41, 0.62),
        "instruction_loose": scored(66, 0.43, 0.35),
    },
    "warnings": ["few of them"],
}


def page_with(folder: Path, **found: Any) -> str:
    path = fake_run(folder, steps=3, items=3, few=1) / "evaluation/summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"suites": found}))
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert page.faults == []
    return " ".join(page.text.split())


def test_verified_instructions_show_all_four_rates(tmp_path: Path) -> None:
    text = page_with(tmp_path / "run", follow=FOLLOWED)
    assert "Instructions verified by program (strict, by prompt). Few of them." in text
    assert "25.0% 50.0% +25.0 +15.0 to +35.0 ▲ better" in text
    for said in (
        "loose, by prompt of follow 40 (.*) 30.0% 52.5% [+]22.5 [+]12.5 to [+]32.5 ▲ better",
        "strict, by instruction of follow 66 (.*) 41.0% 62.0% [+]21.0 [+]11.0 to [+]31.0 ▲ better",
        "loose, by instruction of follow 66 (.*) 43.0% 35.0% −8.0 −18.0 to [+]2.0 ◇ unclear",
    ):
        assert re.search(said, text), said


def test_every_rate_has_a_name() -> None:
    assert tuple(suites.RATES) == RATES


@pytest.mark.parametrize("rates", [None, {}, [], {"prompt_strict": 1}, {"other": scored(1, 0.1, 0.2)}])
def test_a_suite_without_rates_is_one_row(tmp_path: Path, rates: Any) -> None:
    found = FOLLOWED | {"rates": rates}
    (row,) = suite_rows({"suites": {"follow": found}})
    assert (row.rate, row.rates, row.metric) == ("", [], "instructions followed")
    assert "(instructions followed)" in page_with(tmp_path / "run", follow=found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("an interval is rough", "An interval is rough."),
        ("10 of 20 did not end.", "10 of 20 did not end."),
        ("data.hold_out is empty", "data.hold_out is empty."),
        ("new_items: few", "new_items: few."),
        ("", ""),
    ],
)
def test_a_warning_is_a_sentence(text: str, said: str) -> None:
    assert sentence(text) == said
