"""Warnings: each comes when it should, and none when a data set is as it is wanted."""

import copy
from typing import Any

import pytest

from tunesmith.data.coverage.category import CATEGORIES
from tunesmith.data.coverage.coverage import measure
from tunesmith.data.coverage.targets import Target, reached, warnings_of

SOUND: dict[str, Any] = {
    "rows": 8_000,
    "sampled": 8_000,
    "categories": [{"category": name, "rows": 500, "given": 0.0, "family": ""} for name in CATEGORIES],
    "multi_turn": 0.12,
    "worked": 0.1,
    "worked_of_reasoning": 0.6,
    "vocabulary": {
        "words": 10_000,
        "instruction": {"distinct_1": 0.2, "distinct_2": 0.6},
        "response": {"distinct_1": 0.2, "distinct_2": 0.6},
    },
    "verbs": {
        "share": 0.7,
        "pairs": 1_000,
        "distinct": 400,
        "top": [{"verb": "write", "rows": 9, "objects": [["poem", 4]]}],
    },
    "near_duplicates": 0.0,
    "shapes": {"a list": 4_000, "a sentence": 4_000},
    "wordings": [{"cluster": "c", "rows": 500, "phrasings": 3, "opening": "Say it", "opening_share": 0.9}],
}


def kinds(target: Target | None = None, **changes: Any) -> list[str]:
    return [each.kind for each in warnings_of(copy.deepcopy(SOUND) | changes, target or Target())]


def of(**rows: int) -> list[dict[str, Any]]:
    return sorted(
        ({"category": name, "rows": rows.get(name, 0), "given": 0.0} for name in CATEGORIES),
        key=lambda each: -each["rows"],
    )


def test_data_as_wanted_bring_no_warning():
    assert kinds() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"categories": of(math=3_000, coding=3_000, other=1_000)}, ["categories"]),
        ({"categories": of(**dict.fromkeys(CATEGORIES[:9], 600)), "rows": 9_000}, ["categories"]),
        ({"categories": of(**dict.fromkeys(CATEGORIES[:9], 600), role_play=499)}, ["categories"]),
        ({"categories": of(**dict.fromkeys(CATEGORIES[:9], 500), math=9_000), "rows": 13_500}, ["balance"]),
        ({"categories": of(**dict.fromkeys(CATEGORIES[:10], 500), other=5_000), "rows": 10_000}, ["unrecognised"]),
        ({"multi_turn": 0.099}, ["multi_turn"]),
        ({"multi_turn": 0.151}, ["multi_turn"]),
        ({"worked": 0.029}, ["worked"]),
        ({"worked_of_reasoning": 0.29}, ["worked"]),
        ({"worked_of_reasoning": None}, []),
        ({"vocabulary": SOUND["vocabulary"] | {"response": {"distinct_1": 0.1, "distinct_2": 0.24}}}, ["vocabulary"]),
        ({"vocabulary": SOUND["vocabulary"] | {"response": None}}, []),
        ({"verbs": SOUND["verbs"] | {"distinct": 99}}, ["verbs"]),
        ({"verbs": SOUND["verbs"] | {"distinct": None}}, []),
        ({"near_duplicates": 0.05}, ["near_duplicates"]),
        ({"shapes": {"a list": 7_200, "code": 800}}, ["shapes"]),
        ({"wordings": [SOUND["wordings"][0] | {"phrasings": 1}]}, ["wording"]),
        ({"wordings": [SOUND["wordings"][0] | {"phrasings": 0, "rows": 99}]}, []),
    ],
)
def test_each_shortfall_is_told(changes, expected):
    assert kinds(**changes) == expected


def test_targets_are_what_is_asked():
    lenient = Target(categories=0, min_multi_turn=0.0, max_multi_turn=1.0, min_worked=0.0)
    assert kinds(lenient, multi_turn=0.9, worked=0.0, worked_of_reasoning=0.0, categories=of(math=10)) == []
    assert reached(SOUND, Target(rows=501)) == []
    assert "other" not in reached(SOUND, Target(rows=500))


def test_each_warning_says_what_to_do():
    changes = {"multi_turn": 0.0, "worked": 0.0, "near_duplicates": 0.5, "categories": of(coding=8_000)}
    found = warnings_of(copy.deepcopy(SOUND) | changes, Target())
    assert len(found) == 5
    for each in found:
        assert each.what.endswith(".") and each.remedy.endswith(".") and each.remedy[0].isupper()


def test_nothing_is_said_of_no_rows():
    assert warnings_of(measure([], sample=100), Target()) == []
