"""Charts as inline SVG. Across, positions are percentages, so that a chart fits any width and its text keeps its size.

Colours and strokes are classes of style.css: the page's security policy forbids inline styles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from tunesmith.report.words import printable, whole

ROW_HEIGHT = 30
CURVE_HEIGHT, CURVE_TOP, CURVE_BOTTOM = 220, 12, 24  # pixels; room for half a label above, for the axis below
LINES = 4  # kinds of line that style.css has
SPAN = 1000  # units of the stretched drawing inside a curve's plot


@dataclass(frozen=True)
class Mark:
    """A value on a line, with its interval: `kind` is its class ("tuned", "chat", "plain", "planned", "drawn")."""

    kind: str
    value: float
    low: float | None = None
    high: float | None = None
    title: str = ""


@dataclass(frozen=True)
class Point:
    """One downsampled point of a curve: the mean of its steps, and their lowest and highest value."""

    step: float
    mean: float
    low: float
    high: float


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """An SVG element; text is escaped, `Markup` is not, and `_` in attribute names is `-` (a final one is dropped)."""
    parts = [f' {name.rstrip("_").replace("_", "-")}="{escape(_attribute(v))}"' for name, v in attributes.items()]
    inside = "".join(child if isinstance(child, Markup) else escape(printable(child)) for child in children)
    return Markup(f"<{tag}{''.join(parts)}>{inside}</{tag}>")


def line_of_marks(marks: Sequence[Mark], low: float, high: float, ticks: Sequence[float] = ()) -> Markup:
    """One row of a dot-and-whisker chart: marks on a string from `low` to `high`, with faint lines at `ticks`."""
    middle = ROW_HEIGHT / 2
    scale = (high - low) or 1.0

    def x(value: float) -> str:
        return f"{100 * min(max((value - low) / scale, 0), 1):.2f}%"

    drawn = [element("line", class_="grid", x1=x(t), x2=x(t), y1=0, y2=ROW_HEIGHT) for t in ticks]
    drawn.append(element("line", class_="string", x1="0%", x2="100%", y1=middle, y2=middle))
    if len(marks) > 1:
        values = [mark.value for mark in marks]
        drawn.append(element("line", class_="way", x1=x(min(values)), x2=x(max(values)), y1=middle, y2=middle))
    for mark in marks:
        if mark.low is not None and mark.high is not None:
            ends = {"x1": x(mark.low), "x2": x(mark.high)}
            drawn.append(element("line", class_=f"whisker {mark.kind}", **ends, y1=middle, y2=middle))
            for end in (mark.low, mark.high):
                drawn.append(
                    element("line", class_=f"whisker {mark.kind}", x1=x(end), x2=x(end), y1=middle - 4, y2=middle + 4)
                )
    drawn += [_symbol(mark, x(mark.value), middle) for mark in marks]
    return element("svg", *drawn, class_="marks", width="100%", height=ROW_HEIGHT, aria_hidden="true")


def _symbol(mark: Mark, x: str, y: float) -> Markup:
    """Shapes differ as well as colours: base chat is a ring, base plain a hollow square, the tuned model a full dot."""
    title = element("title", mark.title)
    if mark.kind in ("plain", "planned"):
        # A nested svg moves the origin to the mark, since x="42%" minus half a width can't be written in SVG.
        box = element("rect", title, class_=f"mark {mark.kind}", x=-4, y=-4, width=8, height=8)
        return element("svg", box, x=x, y=y, overflow="visible")
    return element("circle", title, class_=f"mark {mark.kind}", cx=x, cy=y, r=5.5 if mark.kind == "tuned" else 4.5)


def scale_labels(labels: Sequence[str]) -> Markup:
    """Evenly spaced labels of the axis above rows of marks."""
    last = max(len(labels) - 1, 1)
    texts = [
        element("text", text, x=f"{100 * i / last:g}%", y=12, text_anchor=_anchor(i, len(labels)))
        for i, text in enumerate(labels)
    ]
    return element("svg", *texts, class_="scale", width="100%", height=16, aria_hidden="true")


def bar(parts: Sequence[tuple[str, float]], total: float) -> Markup:
    """A horizontal bar of (class, amount) parts, out of `total`."""
    x, drawn = 0.0, []
    for kind, amount in parts:
        width = 100 * amount / total if total > 0 else 0.0
        if width > 0:
            drawn.append(element("rect", class_=kind, x=f"{x:.2f}%", y=2, width=f"{width:.2f}%", height=10))
        x += width
    return element("svg", *drawn, class_="bar", width="100%", height=14, aria_hidden="true")


def histogram(edges: Sequence[float], counts: Sequence[float], label: str) -> Markup:
    """Bars of equal width for bins that may not be; the edges below say what each holds."""
    width, top = 100 / len(counts), max(counts) or 1
    height, drawn = CURVE_HEIGHT - CURVE_BOTTOM, []
    for i, amount in enumerate(counts):
        tall = (height - CURVE_TOP - 8) * amount / top
        title = element("title", f"{whole(edges[i])} to {whole(edges[i + 1])}: {whole(amount)}")
        box = {"x": f"{i * width + 0.06 * width:.2f}%", "width": f"{0.88 * width:.2f}%"}
        drawn.append(element("rect", title, class_="column", **box, y=round(height - tall, 1), height=round(tall, 1)))
    drawn.append(element("line", class_="base-line", x1="0%", x2="100%", y1=height, y2=height))
    every = max(1, math.ceil(len(edges) / 6))
    for i in range(0, len(edges), every):
        anchor = _anchor(i, len(edges))
        drawn.append(element("text", whole(edges[i]), x=f"{i * width:.2f}%", y=CURVE_HEIGHT - 6, text_anchor=anchor))
    area = element("svg", *drawn, class_="area", width="100%", height=CURVE_HEIGHT, role="img", aria_label=label)
    return _beside(_y_labels([(0.0, "0"), (1.0, whole(top))], CURVE_TOP + 8), area)


def curve(
    points: Sequence[Point],
    label: str,
    dots: Sequence[tuple[float, float, str]] = (),
    smooth: Sequence[tuple[float, float]] = (),
) -> Markup:
    """A line through `points` with the band of their lowest and highest values; `dots` are (step, value, title).

    smooth: (step, value) of a second line, beside which the first one steps back.
    """
    values = [v for p in points for v in (p.low, p.high)] + [value for _, value, _ in dots]
    frame = _Frame(points[-1].step, nice_ticks(min(values), max(values)))
    band = [(p.step, p.high) for p in points] + [(p.step, p.low) for p in reversed(points)]
    drawn = [element("polygon", class_="band", points=frame.path(band))]
    drawn.append(frame.line([(p.step, p.mean) for p in points], "raw" if smooth else "curve"))
    if smooth:
        drawn.append(frame.line(smooth, "curve"))
    return frame.chart(drawn, dots, label)


def lines(series: Sequence[tuple[str, int, Sequence[tuple[float, float]]]], label: str, last: float) -> Markup:
    """Several lines, each a name, the kind of its stroke and (step, value) pairs, which dots show as well.

    last: step at the right end.
    """
    values = [value for *_, line in series for _, value in line]
    ticks = nice_ticks(min(values), max(values))
    frame = _Frame(last, ticks)
    drawn = [frame.line(line, f"curve line-{kind % LINES}") for _, kind, line in series]
    dots = [(s, v, f"{name} {compact(v)} at step {whole(s)}") for name, _, line in series for s, v in line]
    return frame.chart(drawn, dots, label)


@dataclass(frozen=True)
class _Frame:
    """The plot that curves are drawn into: steps from 0 to `last`, values from the first to the last of `ticks`."""

    last: float
    ticks: Sequence[float]

    def x(self, step: float) -> float:
        return step / max(self.last, 1.0)

    def y(self, value: float) -> float:
        return (self.ticks[-1] - value) / (self.ticks[-1] - self.ticks[0])

    def path(self, corners: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{SPAN * self.x(step):.1f},{SPAN * self.y(value):.1f}" for step, value in corners)

    def line(self, corners: Sequence[tuple[float, float]], kind: str) -> Markup:
        return element("polyline", class_=kind, points=self.path(corners), vector_effect="non-scaling-stroke")

    def chart(self, drawn: Sequence[Markup], dots: Sequence[tuple[float, float, str]], label: str) -> Markup:
        """What was drawn stretched to the width there is, with dots, axes and grid around it."""
        inner = CURVE_HEIGHT - CURVE_TOP - CURVE_BOTTOM
        box = {"y": CURVE_TOP, "width": "100%", "height": inner, "viewBox": f"0 0 {SPAN} {SPAN}"}
        stretched = element("svg", *drawn, **box, preserveAspectRatio="none")
        grid = [_level_line(CURVE_TOP + inner * self.y(tick)) for tick in self.ticks]
        marks = []
        for step, value, title in dots:
            place = {"cx": f"{100 * self.x(step):.2f}%", "cy": CURVE_TOP + inner * self.y(value)}
            marks.append(element("circle", element("title", title), class_="seen", **place, r=4))
        below = []
        for step in (tick for tick in nice_ticks(0.0, max(self.last, 1.0)) if 0 <= tick <= max(self.last, 1.0)):
            place = {"x": f"{100 * self.x(step):.2f}%", "y": CURVE_HEIGHT - 6, "text_anchor": _anchor_at(self.x(step))}
            below.append(element("text", whole(step), **place))
        size = {"class_": "area", "width": "100%", "height": CURVE_HEIGHT, "role": "img", "aria_label": label}
        area = element("svg", *grid, stretched, *marks, *below, **size)
        return _beside(_y_labels([(1 - self.y(tick), compact(tick)) for tick in self.ticks], CURVE_TOP), area)


_NOTHING = 1e-290  # below it numbers lose their digits


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `about` of them."""
    size = max(abs(low), abs(high))
    if size < _NOTHING or high - low <= 1e-12 * size:  # no room for steps between numbers so near each other
        around = 0.1 * size if size >= _NOTHING else 1.0
        low, high = low - around, high + around
    rough = (high - low) / (about - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def downsample(steps: Sequence[float], values: Sequence[float], most: int = 400) -> list[Point]:
    """At most `most` points. Each stands for consecutive steps, and keeps their extremes so that no spike is hidden."""
    size = max(1, math.ceil(len(steps) / most))
    starts = [*range(0, len(steps), size), len(steps)]
    return [
        Point(sum(steps[a:b]) / (b - a), sum(values[a:b]) / (b - a), min(values[a:b]), max(values[a:b]))
        for a, b in pairwise(starts)
    ]


def compact(value: float) -> str:
    """A tick's label: 0.25, 1,500, 2e-4."""
    if value and (abs(value) < 1e-2 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    return f"{value:,.4g}".replace("-", "−") if abs(value) < 1000 else whole(value)


def _level_line(y: float) -> Markup:
    return element("line", class_="grid", x1="0%", x2="100%", y1=round(y, 1), y2=round(y, 1))


def _y_labels(labels: Sequence[tuple[float, str]], top: float) -> Markup:
    """Labels at heights from 0 (the bottom line) to 1, in a column of their own left of the plot."""
    inner = CURVE_HEIGHT - top - CURVE_BOTTOM
    texts = [
        element("text", text, x="100%", y=round(top + inner * (1 - h) + 4, 1), text_anchor="end") for h, text in labels
    ]
    return element("svg", *texts, class_="heights", width=48, height=CURVE_HEIGHT, aria_hidden="true")


def _beside(left: Markup, right: Markup) -> Markup:
    return element("div", left, right, class_="plot")


def _anchor(index: int, of: int) -> str:
    return "start" if index == 0 else "end" if index == of - 1 else "middle"


def _anchor_at(share: float) -> str:
    return "start" if share < 0.01 else "end" if share > 0.985 else "middle"


def _attribute(value: object) -> object:
    return printable(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else value
