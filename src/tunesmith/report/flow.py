"""Rows through the stages as a river: sources join it, drops leave it, and it ends where rows are used.

Down the page runs the order of the stages, across goes the number of rows. The picture has a band of fixed height for
each stage; what each means stands beside it as text of the page, so that it wraps, and is read aloud.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tunesmith.report.charts import element
from tunesmith.report.load import Fields, at, count, fields_at
from tunesmith.report.words import counted, spaced, whole

HEIGHT = 64  # pixels of a stage, as style.css has it
MOST = 40  # stages that are drawn
_WIDEST = 860  # of the 1,000 units across, for the most rows that there are at once
_PLAIN = ("replay", "forgetting")  # plain text: it joins where it is supervised
_REASONS = 3


@dataclass(frozen=True)
class Reach:
    """A stage of the river. rows: those that flow on. left: how many leave, and why, most first. kind: a class."""

    stage: str
    kind: str
    rows: int
    joined: int
    left: int
    reasons: list[tuple[str, int]]

    @property
    def why(self) -> str:
        """The reasons for which rows leave, in words; all but the first few are summed up."""
        some = [f"{spaced(reason)} {whole(rows)}" for reason, rows in self.reasons[:_REASONS]]
        others = sum(rows for _, rows in self.reasons[_REASONS:])
        return ", ".join(some + ([f"others {whole(others)}"] if others else []))


@dataclass(frozen=True)
class River:
    """The picture, its stages, and where the rows end: (place, rows)."""

    picture: Markup
    reaches: list[Reach]
    ends: list[tuple[str, int]]


def river(steps: Sequence[Fields], places: Mapping[str, int]) -> River | None:
    """The river of a ledger's steps; None where no source was read."""
    reaches = list(_reaches(steps))[:MOST]
    if not reaches:
        return None
    ends = sorted(((name, rows) for name, rows in places.items() if name != "forgetting"), key=lambda end: -end[1])
    return River(_picture(reaches, ends), reaches, ends)


def _reaches(steps: Sequence[Fields]) -> list[Reach]:
    found: list[Reach] = []
    flowing = 0
    for step in steps:
        name, read, kept = str(at(step, "stage")), count(step, "read"), count(step, "kept")
        source = name.removeprefix("read ") if name.startswith("read ") else None
        if source in _PLAIN or (source is None and read < flowing) or name in _PLAIN:
            continue  # what happens to plain text before it joins, and what looks at some of the rows only
        joined = kept if source is not None else read - flowing
        left = [(str(reason), int(n)) for reason, n in fields_at(step, "reasons").items() if isinstance(n, int)]
        flowing = flowing + kept if source is not None else kept
        kind = "source" if source is not None else "stage"
        reasons = sorted(left, key=lambda pair: -pair[1])
        found.append(Reach(source or name, kind, flowing, joined, count(step, "dropped"), reasons))
    return found


def _picture(reaches: Sequence[Reach], ends: Sequence[tuple[str, int]]) -> Markup:
    """Bands of the stages one below the other; text stands beside it, so that it is hidden from what reads aloud."""
    most = max([reach.rows + (reach.left if reach.kind == "stage" else 0) for reach in reaches], default=1) or 1
    unit = _WIDEST / most
    drawn: list[Markup] = []
    before, top = 0.0, 0
    for reach in reaches:
        after = reach.rows * unit
        if reach.kind == "source":
            drawn += _source(before, after, top)
        else:
            wide = before + reach.joined * unit
            drawn += _stage(before, wide, after, top)
        before, top = after, top + HEIGHT
    drawn += _ends(ends, before, top)
    height = top + HEIGHT
    return element(
        "svg",
        *drawn,
        class_="river",
        width="100%",
        height=height,
        viewBox=f"0 0 1000 {height}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _source(before: float, after: float, top: int) -> list[Markup]:
    """What is there flows on, and a source springs up beside it."""
    spring = f"M{before:.1f} {top + HEIGHT}V{top + 14}H{max(after, before + 1):.1f}V{top + HEIGHT}Z"
    parts = [element("path", class_="spring", d=spring)]
    return [_band(0, before, before, top), *parts] if before else parts


def _stage(before: float, wide: float, after: float, top: int) -> list[Markup]:
    """A stage: plain text may join at the right, and what is dropped leaves to the right, as wide as it is much."""
    middle, bottom = top + HEIGHT / 2, top + HEIGHT
    drawn = [_band(0, min(before, after), after, top)]
    if wide > before:
        drawn.append(
            element(
                "path", class_="spring", d=f"M{before:.1f} {bottom}V{top + 14}H{max(wide, before + 1):.1f}V{bottom}Z"
            )
        )
    if wide > after:
        lost = max(wide - after, 1.5)
        thick = min(lost, HEIGHT / 2)
        # From the top of the stage down and out to the right edge; its mouth is at most half a stage high.
        path = (
            f"M{after:.1f} {top}C{after:.1f} {middle + thick / 2:.1f} {after + lost:.1f} {middle + thick / 2:.1f} "
            f"1000 {middle + thick / 2:.1f}V{middle - thick / 2:.1f}"
            f"C{after + lost + 40:.1f} {middle - thick / 2:.1f} {after + lost:.1f} {middle - thick / 2:.1f} "
            f"{after + lost:.1f} {top}Z"
        )
        drawn.append(element("path", class_="leaving", d=path))
    return drawn


def _ends(ends: Sequence[tuple[str, int]], width: float, top: int) -> list[Markup]:
    """The river parts into the places where rows are used."""
    total = sum(rows for _, rows in ends) or 1
    drawn, x, gap = [], 0.0, 14.0
    for number, (name, rows) in enumerate(ends):
        wide = max(width * rows / total, 1.5)
        shifted = x + gap * number
        right, moved = x + wide, shifted + wide
        path = (
            f"M{x:.1f} {top}C{x:.1f} {top + 24} {shifted:.1f} {top + 10} {shifted:.1f} {top + 34}V{top + HEIGHT - 8}"
            f"H{moved:.1f}V{top + 34}C{moved:.1f} {top + 10} {right:.1f} {top + 24} {right:.1f} {top}Z"
        )
        title = element("title", f"{spaced(name)}: {counted(rows, 'row')}")
        drawn.append(element("path", title, class_="ends train" if name == "train" else "ends", d=path))
        x += wide
    return drawn


def _band(left: float, right: float, below: float, top: int) -> Markup:
    return element("path", class_="stream", d=f"M{left:.1f} {top}H{right:.1f}L{below:.1f} {top + HEIGHT}H{left:.1f}Z")
