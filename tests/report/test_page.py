"""The whole page, read as a browser would read it: by an HTML parser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fake_run import fake_run

from tunesmith.base.errors import UserError
from tunesmith.report.load import load_run
from tunesmith.report.page import render, write_report

VOID = {"meta", "link", "input", "br", "hr", "img", "area", "base", "col", "embed", "source", "track", "wbr"}
FILES = (
    *("run.json", "recipe.yaml", "metrics.jsonl", "tokens/summary.json"),
    *("ledger/steps.json", "ledger/drops.parquet", "ledger/places.parquet", "ledger/mixture.json"),
    *("evaluation/summary.json", "evaluation/items.jsonl"),
)
HOSTILE = (
    "<script>alert(1)</script></style></title></textarea><!-- <img src=x onerror=alert(2)> <svg/onload=alert(3)> "
    "\"' onmouseover=alert(4) x=' javascript:alert(5) {{ 7 * 7 }} {% raw %} &lt;b&gt; \u202egpj.exe \x00\x07 \ud800"
)


class Page(HTMLParser):
    """Elements with their attributes, the text outside of style sheets, and everything that is not well nested."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.faults: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.faults.append(f"<{tag}> repeats an attribute")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-3:]} at line {self.getpos()[0]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_finished_run_says_everything(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path / "quickstart"))
    for said in (
        "Better on new items and new phrasings, unclear on new task clusters.",
        "On 400 new items the tuned model scores 78.1% (exact match) and its base at best 6.1%, with a plain prompt",
        "72.0 points more",
        "The price in forgetting: +1.4% bits per byte",
        "held out phrasing of a training item 1,204",
        "temperature strategy (temperature 2.0)",
        "Over 620 steps the loss went from",
        "300 of 600 evaluated items",
        "strategy: temperature, temperature: 2.0, max_repeats: 3",
        "AMD EPYC 7R13",
        "21 November 2026, 09:17 UTC",
        "tunesmith chat",
    ):
        assert said in " ".join(page.text.split()), said


def test_the_page_is_well_formed_and_its_references_resolve(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path / "run"))
    assert page.faults == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {link["href"][1:] for link in page.all("a")} | {
        label["for"] for label in page.all("label") if "for" in label
    }
    labelled = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert targets | labelled <= set(ids)
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(after - before <= 2 for before, after in pairwise(headings))
    charts = [attributes for attributes in page.all("svg") if attributes.get("class") == "area"]
    assert charts and all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert page.all("html")[0]["lang"] == "en" and page.all("title")


def test_the_policy_allows_this_style_sheet_and_nothing_else(tmp_path: Path) -> None:
    text = write_report(fake_run(tmp_path / "run")).read_text(encoding="utf-8")
    policies = [m for m in Page(text).all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policies[0]["content"].split(";"))
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules.pop("style-src") == f"'sha256-{digest}'"
    assert rules.pop("img-src") == "data:"  # the icon
    assert rules == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = page_of(fake_run(tmp_path / "run", items=60, text=HOSTILE))
    harmless = page_of(fake_run(tmp_path / "harmless", items=60))
    assert page.faults == []
    # Exactly the elements that a harmless run has, whatever the data says.
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in harmless.elements}
    assert not {"script", "img", "iframe", "object", "form", "base"} & {tag for tag, _ in page.elements}
    assert len(page.all("style")) == 1 and len(page.all("title")) >= 1
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "action")], tag
        assert attributes.get("href", "#").startswith(("#", "data:image/svg+xml,")), tag
    assert "<script>alert(1)</script></style>" in page.text and "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.text and "\x00" not in page.text


@pytest.mark.parametrize("missing", FILES)
def test_any_file_may_be_missing_or_broken(tmp_path: Path, missing: str) -> None:
    folder = fake_run(tmp_path / "run", steps=5, items=9, few=2)
    (folder / missing).unlink()
    assert page_of(folder).faults == []
    (folder / missing).write_bytes(b'\xff\xfe{"half": [1,\nnull')
    page = page_of(folder)
    assert page.faults == []
    assert missing == "recipe.yaml" or f"{missing} could not be read" in page.text


def test_a_prepared_run_says_that_nothing_was_measured(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run")
    for name in ("metrics.jsonl", "evaluation/summary.json", "evaluation/items.jsonl"):
        (folder / name).unlink()
    page = page_of(folder)
    assert "Not measured" in page.text and "was only prepared, or stopped before evaluation" in page.text
    assert "No training step was taken" in page.text and "What became of the rows" in page.text


def test_a_killed_run_keeps_its_whole_lines(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", steps=40, items=3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')
    assert "Over 40 steps" in page_of(folder).text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_stage_that_does_not_add_up_is_an_alarm(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", items=3)
    assert "differ at" not in page_of(folder).text
    edit(folder / "ledger/steps.json", lambda steps: steps[1].update(kept=1))
    assert "differ at split" in page_of(folder).text


@pytest.mark.parametrize("junk", [None, "<b>", -1, [], {}, [1], float("nan"), True])
def test_unexpected_values_never_break_the_page(tmp_path: Path, junk: Any) -> None:
    folder = fake_run(tmp_path / "run", steps=3, items=3, few=1)
    small = ("run.json", "ledger/steps.json", "ledger/mixture.json", "tokens/summary.json")
    for name in small:
        original = (folder / name).read_text()
        value = json.loads(original)
        for key in list(value) if isinstance(value, dict) else list(value[0]):
            changed = json.loads(original)
            (changed if isinstance(changed, dict) else changed[0])[key] = junk
            (folder / name).write_text(json.dumps(changed))
            assert Page(render(load_run(folder))).faults == [], (name, key)
        (folder / name).write_text(original)
    original = (folder / "evaluation/summary.json").read_text()
    for path in (
        ("generation",),
        ("loss",),
        ("forgetting",),
        ("warnings",),
        ("generation", "levels"),
        ("generation", "metric"),
    ):
        _with_junk(folder / "evaluation/summary.json", original, path, junk)
        assert Page(render(load_run(folder))).faults == [], path
    for part in ("n", "base", "tuned", "difference"):
        _with_junk(
            folder / "evaluation/summary.json", original, ("generation", "levels", "new_items", "overall", part), junk
        )
        assert Page(render(load_run(folder))).faults == [], part


def _with_junk(file: Path, original: str, path: tuple[str, ...], junk: Any) -> None:
    value = inner = json.loads(original)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = junk
    file.write_text(json.dumps(value))


def test_a_huge_run_makes_a_small_page(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", steps=10_000, items=5_000, extra_clusters=400, text=" <&> " + "word " * 400)
    start = time.perf_counter()
    path = write_report(folder)
    assert time.perf_counter() - start < 20
    assert path.stat().st_size < 5_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert page.faults == [] and "of 5,000 evaluated items" in page.text
    assert "more between these are left out here" in page.text


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast(scheme: int) -> None:
    style = (Path(render.__code__.co_filename).parent / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", blocks[0]))
    colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})\b", blocks[1])) if scheme else {}
    for ground in ("paper", "band", "panel"):
        for ink in ("ink", "dim", "tuned", "worse"):
            assert _contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert _contrast(colours["base"], colours[ground]) >= 3
    assert _contrast(colours["ink"], colours["mark"]) >= 4.5


def _contrast(one: str, other: str) -> float:
    """WCAG 2.1's contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
