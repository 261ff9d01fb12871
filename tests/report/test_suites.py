"""Suites on the page: what each one measures, base beside tuned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_run import fake_run
from test_page import Page

from tunesmith.evaluate.answers import Answer
from tunesmith.evaluate.instructions import RATES, InstructionItem, instruction_rates
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
    assert "Instructions verified by program (strict, by prompt)." in text and "On follow: Few of them." in text
    assert "25.0% 50.0% +25.0 +15.0 to +35.0 ▲ better" in text
    for said in (
        "loose, by prompt of follow 40 (.*) 30.0% 52.5% [+]22.5 [+]12.5 to [+]32.5 ▲ better",
        "strict, by instruction of follow 66 (.*) 41.0% 62.0% [+]21.0 [+]11.0 to [+]31.0 ▲ better",
        "loose, by instruction of follow 66 (.*) 43.0% 35.0% −8.0 −18.0 to [+]2.0 ◇ unclear",
    ):
        assert re.search(said, text), said


ITEMS = [
    InstructionItem("a", "?", ("punctuation:no_comma",), ({},)),
    InstructionItem("b", "?", ("punctuation:no_comma", "change_case:english_lowercase"), ({}, {})),
    InstructionItem("c", "?", ("detectable_format:title",), ({},)),
]


def by_kind() -> dict[str, Any]:
    """What an evaluation writes: no comma is followed 1, 2 and 2 times of two, lower case 0, 1 and 0 of one."""

    def answers(*texts: str) -> list[Answer]:
        given = zip(ITEMS, texts, strict=True)
        return [Answer(item.key, item.key, "s", "", "", "", "?", "", text, 0.0, True, 1) for item, text in given]

    return instruction_rates(
        ITEMS,
        {
            "base_chat": answers("no, no", "A Finch", "none"),
            "base_plain": answers("no", "a finch", "<<One>>"),
            "tuned": answers("no", "A Finch", "<<One>>"),
        },
        seed=0,
    )


def test_each_kind_of_instruction_is_told_worst_first(tmp_path: Path) -> None:
    found = FOLLOWED | by_kind()
    (row,) = suite_rows({"suites": {"follow": found}})
    shown = [(k.name, k.n, k.base["chat"].mean, k.base["plain"].mean, k.tuned and k.tuned.mean) for k in row.kinds]
    assert shown == [
        ("change case: english lowercase", 1, 0.0, 1.0, 0.0),
        ("detectable format: title", 1, 0.0, 1.0, 1.0),
        ("punctuation: no comma", 2, 0.5, 1.0, 1.0),
    ]
    text = page_with(tmp_path / "run", follow=found)
    assert "follow by kind of instruction (3)" in text
    assert re.search(r"change case: english lowercase 1 .* 0\.0% ?100\.0% 0\.0% −100\.0 detectable", text)
    assert re.search(r"punctuation: no comma 2 .* 50\.0% ?100\.0% 100\.0% \+0\.0 Response loss", text)


def test_many_kinds_are_folded_and_their_names_are_text(tmp_path: Path) -> None:
    one = {"n": 4, "base_chat": 0.25, "tuned": 0.5}

    def folds(**kinds: Any) -> list[dict[str, str]]:
        folder = fake_run(tmp_path / str(len(kinds)), steps=3, items=3, few=1)
        path = folder / "evaluation/summary.json"
        suites = {"follow": FOLLOWED | {"instructions": kinds}}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"suites": suites}))
        page = Page(write_report(folder).read_text(encoding="utf-8"))
        assert page.faults == [] and all(kind.replace("_", " ") in page.text for kind in kinds)
        assert "Base, plain" not in page.text.split("by kind of instruction")[1].split("Response loss")[0]
        section = page.elements.index(("section", {"id": "suites", "aria-labelledby": "h-suites"}))
        return next(attributes for tag, attributes in page.elements[section:] if tag == "details")

    assert folds(**{f"kind_{n}": one for n in range(8)}) == {"open": ""}
    assert folds(**{"<script>alert(1)</script>": one}, **{f"kind_{n}": one for n in range(8)}) == {}


@pytest.mark.parametrize("kinds", [None, [], {}, {"a:b": None}, {"a:b": {"n": 1, "tuned": "x"}}, {"a:b": {"tuned": 1}}])
def test_kinds_in_another_shape_break_no_page(tmp_path: Path, kinds: Any) -> None:
    text = page_with(tmp_path / "run", follow=FOLLOWED | {"instructions": kinds})
    assert ("follow by kind of instruction (1)" in text) == bool(kinds)


def test_a_long_warning_is_shown_whole(tmp_path: Path) -> None:
    long = "3 of 43 prompts fill the context of 1,024 tokens and could not be answered; they score 0: shorten them."
    assert long in page_with(tmp_path / "run", follow=FOLLOWED | {"warnings": [long]})


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
