"""The data pages: rows as a river, what they cover against what is wanted, lengths, verbs, wordings, duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tunesmith.report import charts
from tunesmith.report.comparison import Table, shortened
from tunesmith.report.flow import river
from tunesmith.report.load import Fields, RunFiles, at, count, fields_at, number
from tunesmith.report.words import percent, spaced, whole

NAMES = {"open_qa": "open questions", "closed_qa": "questions on a text"}
QUANTILES = ("5", "25", "50", "75", "95")


@dataclass(frozen=True)
class Covered:
    """A category: how many rows it has, whether these are enough, and a bar with the line of what is wanted."""

    name: str
    family: str
    rows: int
    enough: bool
    plot: Markup


@dataclass(frozen=True)
class Share:
    """A share with what is wanted of it: `held` is None where nothing is."""

    name: str
    value: float | None
    wanted: str
    held: bool | None


@dataclass(frozen=True)
class Coverage:
    """What coverage.json holds, as the page shows it."""

    rows: int
    sampled: int
    categories: list[Covered]
    wanted: int
    reached: int
    least: int
    shares: list[Share]
    warnings: list[tuple[str, str]]
    lengths: list[tuple[str, str, Markup]]
    verbs: list[tuple[str, int, str, Markup]]
    verb_share: float | None
    distinct: str
    shapes: list[tuple[str, int, Markup]]
    wordings: Table[Fields]


def coverage(found: Fields) -> Coverage | None:
    """None where nothing was measured."""
    if not count(found, "sampled"):
        return None
    target = fields_at(found, "target")
    rows = _dicts(at(found, "categories"))
    least = count(target, "rows")
    shapes = [(str(name), n) for name, n in fields_at(found, "shapes").items() if isinstance(n, int)]
    top = max([n for _, n in shapes], default=0)
    return Coverage(
        rows=count(found, "rows"),
        sampled=count(found, "sampled"),
        categories=_categories(rows, least),
        wanted=count(target, "categories"),
        reached=len(listed) if isinstance(listed := at(found, "reached"), list) else 0,
        least=least,
        shares=_shares(found, target),
        warnings=[(str(at(each, "what")), str(at(each, "remedy"))) for each in _dicts(at(found, "warnings"))],
        lengths=_lengths(found),
        verbs=_verbs(_dicts(at(found, "verbs", "top"))),
        verb_share=number(found, "verbs", "share"),
        distinct=_distinct(fields_at(found, "verbs")),
        shapes=[(name, n, charts.bar([("kept", n)], top)) for name, n in shapes],
        wordings=shortened(_dicts(at(found, "wordings"))),
    )


def _categories(rows: Sequence[Fields], least: int) -> list[Covered]:
    """On a scale of square roots, so that a category of some hundred rows shows beside one of many thousand."""
    most = max([count(row, "rows") for row in rows] + [least, 1])
    return [
        Covered(
            name=NAMES.get(name := str(at(row, "category")), spaced(name)),
            family=spaced(at(row, "family")),
            rows=count(row, "rows"),
            enough=count(row, "rows") >= least,
            plot=_against(count(row, "rows"), least, most),
        )
        for row in rows
        if count(row, "rows") or at(row, "category") != "other"
    ]


def _against(rows: int, least: int, most: int) -> Markup:
    """A bar with a line where enough begins."""

    def x(value: int) -> str:
        return f"{100 * (value / most) ** 0.5:.2f}%"

    drawn = [charts.element("rect", class_="kept" if rows >= least else "short", x="0%", y=2, width=x(rows), height=10)]
    if least:
        drawn.append(charts.element("line", class_="wanted", x1=x(least), x2=x(least), y1=-1, y2=15))
    return charts.element("svg", *drawn, class_="bar", width="100%", height=14, aria_hidden="true")


def _shares(found: Fields, target: Fields) -> list[Share]:
    turns, low, high = number(found, "multi_turn"), number(target, "min_multi_turn"), number(target, "max_multi_turn")
    worked, least = number(found, "worked"), number(target, "min_worked")
    shares = [
        Share(
            "Several turns",
            turns,
            f"{percent(low, 0)} to {percent(high, 0)} wanted" if low is not None and high is not None else "",
            low <= turns <= high if turns is not None and low is not None and high is not None else None,
        ),
        Share(
            "Worked reasoning",
            worked,
            f"{percent(least, 0)} or more wanted" if least else "",
            worked >= least if worked is not None and least else None,
        ),
        Share("Near-duplicates", number(found, "near_duplicates"), "of the rows looked at", None),
    ]
    for part in ("instruction", "response"):
        value = number(found, "vocabulary", part, "distinct_2")
        on = f"distinct in {whole(number(found, 'vocabulary', 'words'))} words of {part}s"
        shares.append(Share("Pairs of words", value, on, None))
    return [share for share in shares if share.value is not None]


def _lengths(found: Fields) -> list[tuple[str, str, Markup]]:
    """Histograms of the words of instructions and responses: (title, quantiles in words, chart)."""
    made = []
    for part, title in (("instruction", "Instructions"), ("response", "Responses")):
        words = fields_at(found, "words", part)
        edges, counts = at(words, "edges"), at(words, "counts")
        if not (isinstance(edges, list) and isinstance(counts, list) and 0 < len(counts) == len(edges) - 1):
            continue
        if not all(isinstance(value, int | float) for value in edges + counts):
            continue
        said = [whole(number(words, "quantiles", quantile)) for quantile in QUANTILES]
        text = f"half have {said[1]} to {said[3]} words, nine of ten {said[0]} to {said[4]}"
        made.append((title, text, charts.histogram(edges, counts, f"{title} by their length in words: {text}.")))
    return made


def _verbs(top: Sequence[Fields]) -> list[tuple[str, int, str, Markup]]:
    """(verb, rows, its objects, bar)."""
    most = max([count(verb, "rows") for verb in top], default=0)
    made = []
    for verb in top:
        objects = at(verb, "objects")
        pairs = (
            [pair for pair in objects if isinstance(pair, list) and len(pair) == 2] if isinstance(objects, list) else []
        )
        said = ", ".join(f"{noun} {whole(n)}" for noun, n in pairs if isinstance(n, int))
        made.append(
            (str(at(verb, "verb")), count(verb, "rows"), said, charts.bar([("kept", count(verb, "rows"))], most))
        )
    return made


def _distinct(verbs: Fields) -> str:
    distinct = number(verbs, "distinct")
    return "" if distinct is None else f"{whole(distinct)} of {whole(number(verbs, 'pairs'))} are distinct"


def _dicts(value: Any) -> list[Fields]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def duplicates(groups: Sequence[Fields]) -> list[Fields]:
    """The largest groups of duplicates that have what the page shows of them."""
    return [group for group in groups if at(group, "kept", "row") is not None and isinstance(at(group, "others"), list)]


def pages_of(run: RunFiles) -> dict[str, Any]:
    """Everything the data pages show beside `provenance.data_of`."""
    return {
        "river": river(run.steps, run.places),
        "coverage": coverage(run.coverage),
        "duplicates": duplicates(run.duplicates),
    }
