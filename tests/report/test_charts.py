from __future__ import annotations

import math
from xml.etree import ElementTree

from hypothesis import example, given
from hypothesis import strategies as st

from tunesmith.report import charts
from tunesmith.report.charts import Mark, Point

finite = st.floats(-1e9, 1e9, allow_nan=False)


@given(finite, finite)
@example(5e-324, 0.0)
@example(3e-323, 2e-323)
@example(1e9, 1e9 + 1e-6)
def test_ticks_cover_the_range_with_few_even_steps(a: float, b: float) -> None:
    low, high = sorted((a, b))
    ticks = charts.nice_ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-9)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 7


def test_ticks_are_round() -> None:
    assert charts.nice_ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert charts.nice_ticks(0.55, 3.4) == [0, 1, 2, 3, 4]
    assert charts.nice_ticks(0, 10_000) == [0, 2500, 5000, 7500, 10_000]
    assert charts.nice_ticks(2, 2)[0] < 2 < charts.nice_ticks(2, 2)[-1]


def test_compact_labels() -> None:
    assert [charts.compact(v) for v in (0.0, 0.25, 2e-4, 7.5e-4, 34_000.0, -3.0)] == [
        "0",
        "0.25",
        "2e−4",
        "7.5e−4",
        "34,000",
        "−3",
    ]


@given(st.lists(finite, min_size=1, max_size=3000))
def test_downsampling_keeps_extremes_and_the_mean(values: list[float]) -> None:
    points = charts.downsample(range(len(values)), values, most=50)
    assert len(points) <= 50
    assert max(p.high for p in points) == max(values) and min(p.low for p in points) == min(values)
    assert all(p.low - 1e-3 <= p.mean <= p.high + 1e-3 for p in points)


def test_a_spike_of_one_step_among_ten_thousand_is_drawn() -> None:
    values = [1.0] * 10_000
    values[6_123] = 40.0
    points = charts.downsample(range(10_000), values)
    chart = ElementTree.fromstring(charts.curve(points, "Loss"))
    band = next(e for e in chart.iter("polygon"))
    heights = [float(pair.split(",")[1]) for pair in band.attrib["points"].split()]
    assert min(heights) < 1 and len(points) == 400  # 0 is the top of the plot


def test_marks_sit_where_their_values_say() -> None:
    row = charts.line_of_marks([Mark("chat", 0.1), Mark("tuned", 0.8, 0.75, 0.9, "<tuned>")], 0, 1)
    svg = ElementTree.fromstring(row)
    dots = {e.attrib["class"]: e.attrib["cx"] for e in svg.iter("circle")}
    assert dots == {"mark chat": "10.00%", "mark tuned": "80.00%"}
    whisker = next(e for e in svg.iter("line") if e.attrib["class"] == "whisker tuned")
    assert (whisker.attrib["x1"], whisker.attrib["x2"]) == ("75.00%", "90.00%")
    assert "&lt;tuned&gt;" in row


def test_curves_end_at_the_edges_of_the_plot() -> None:
    chart = ElementTree.fromstring(
        charts.curve([Point(1, 4, 4, 4), Point(100, 0, 0, 0)], "Loss", [(50, 2, "held out")])
    )
    line = next(e for e in chart.iter("polyline")).attrib["points"].split()
    assert line == ["10.0,0.0", "1000.0,1000.0"]
    assert next(e for e in chart.iter("circle")).attrib["cx"] == "50.00%"


def test_histogram_columns_are_proportional() -> None:
    chart = ElementTree.fromstring(charts.histogram([0, 10, 20, 40], [1, 4, 2], "Lengths"))
    heights = [float(e.attrib["height"]) for e in chart.iter("rect")]
    assert math.isclose(heights[0] * 4, heights[1], rel_tol=0.01) and math.isclose(
        heights[2] * 2, heights[1], rel_tol=0.01
    )


def test_bars_split_their_total() -> None:
    widths = [
        e.attrib["width"] for e in ElementTree.fromstring(charts.bar([("kept", 30), ("dropped", 10)], 80)).iter("rect")
    ]
    assert widths == ["37.50%", "12.50%"]
