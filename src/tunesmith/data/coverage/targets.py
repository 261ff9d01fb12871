"""What a data set is wanted to cover, and where it falls short: warnings in words, each with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.coverage.category import OTHER

# From where on something is told. As a yardstick, measured: Alpaca, T0 and GSM8K have 0.66 to 0.75 distinct pairs of
# words in instructions, generated programming tasks 0.37; Alpaca's instructions 500 distinct verbs with objects in a
# thousand, programming tasks 139, T0's templates 59.
LARGE_PART = 0.5
MUCH_UNKNOWN = 0.2
FEW_DISTINCT = 0.25
FEW_PAIRS = 100
MANY_NEAR = 0.05
FEW_WORKED_OF_REASONING = 0.3
ONE_WORDING, ONE_SHAPE = 0.8, 0.9
_NEAREST = 5  # missing categories that are named
_WORDING_ROWS = 100  # rows of a cluster, below which nothing is said of its wording


@dataclass(frozen=True, slots=True)
class Target:
    """categories, rows: so many categories with at least so many rows each. Others: shares of all rows."""

    categories: int = 10
    rows: int = 500
    min_multi_turn: float = 0.10
    max_multi_turn: float = 0.15
    min_worked: float = 0.03


@dataclass(frozen=True, slots=True)
class Warned:
    """kind: what it is about, in a word. what: what was found. remedy: what to do."""

    kind: str
    what: str
    remedy: str


def warnings_of(found: Mapping[str, Any], target: Target) -> list[Warned]:
    """Where what was measured (`coverage.measure`) falls short of the target, or is lopsided."""
    if not found["sampled"]:
        return []
    checks = (_on_categories, _on_balance, _on_turns, _on_reasoning)
    return [
        *(warned for check in checks for warned in check(found, target)),
        *_on_diversity(found),
        *_on_duplicates(found),
        *_on_wordings(found["wordings"]),
        *_on_shapes(found),
    ]


def reached(found: Mapping[str, Any], target: Target) -> list[str]:
    """The categories that have the rows that are wanted."""
    return [
        each["category"] for each in found["categories"] if each["rows"] >= target.rows and each["category"] != OTHER
    ]


def _on_categories(found: Mapping[str, Any], target: Target) -> Iterator[Warned]:
    there = reached(found, target)
    missing = target.categories - len(there)
    if missing <= 0:
        return
    short = [each for each in found["categories"] if each["category"] not in (*there, OTHER)]
    nearest = ", ".join(f"{_said(each['category'])} ({each['rows']:,})" for each in short[: min(missing, _NEAREST)])
    yield Warned(
        "categories",
        f"{target.categories} kinds of task with {target.rows:,} rows or more are wanted, and {len(there)} are there.",
        f"Add rows of further kinds, the nearest being {nearest}; or ask for fewer with data.coverage.categories.",
    )


def _on_balance(found: Mapping[str, Any], target: Target) -> Iterator[Warned]:
    total = max(found["rows"], 1)
    first = next(each for each in found["categories"] if each["category"] != OTHER)
    if first["rows"] > LARGE_PART * total and target.categories > 1:
        yield Warned(
            "balance",
            f"{first['rows'] / total:.0%} of the rows are of one kind of task, {_said(first['category'])}.",
            "Unless data.mix draws it less already, do that ({strategy: temperature, temperature: 2}), or add others.",
        )
    unknown = next(each for each in found["categories"] if each["category"] == OTHER)
    if unknown["rows"] > MUCH_UNKNOWN * total:
        yield Warned(
            "unrecognised",
            f"The kind of task of {unknown['rows'] / total:.0%} of the rows was not recognised.",
            "Give their clusters' categories in data.coverage.given, as {my_cluster: classification}.",
        )


def _on_turns(found: Mapping[str, Any], target: Target) -> Iterator[Warned]:
    share = found["multi_turn"]
    if share < target.min_multi_turn:
        yield Warned(
            "multi_turn",
            f"{share:.1%} of the rows have several turns; to chat, {target.min_multi_turn:.0%} or more are wanted.",
            "Add conversations, or set data.coverage.min_multi_turn to 0 if the model is not to chat.",
        )
    if share > target.max_multi_turn:
        yield Warned(
            "multi_turn",
            f"{share:.1%} of the rows have several turns: above {target.max_multi_turn:.0%} they take most tokens.",
            "Sample the conversations, add single requests, or raise data.coverage.max_multi_turn if this is wanted.",
        )


def _on_reasoning(found: Mapping[str, Any], target: Target) -> Iterator[Warned]:
    share, of_reasoning = found["worked"], found["worked_of_reasoning"]
    if share < target.min_worked:
        yield Warned(
            "worked",
            f"{share:.1%} of the rows show the reasoning that leads to the answer; {target.min_worked:.0%} are wanted.",
            "Add rows with worked reasoning, or set data.coverage.min_worked to 0 if answers are to be bare.",
        )
    elif target.min_worked and of_reasoning is not None and of_reasoning < FEW_WORKED_OF_REASONING:
        yield Warned(
            "worked",
            f"Of the rows on mathematics and reasoning {of_reasoning:.0%} show their steps: answers are learnt bare.",
            "Prefer sources whose answers show their steps.",
        )


def _on_diversity(found: Mapping[str, Any]) -> Iterator[Warned]:
    for part in ("instruction", "response"):
        vocabulary = found["vocabulary"][part]
        if vocabulary and vocabulary["distinct_2"] < FEW_DISTINCT:
            yield Warned(
                "vocabulary",
                f"{part.capitalize()}s use few words: {vocabulary['distinct_2']:.0%} of pairs of words are distinct "
                f"in {found['vocabulary']['words']:,} words, where varied data have 60% and more.",
                "Add sources on other subjects, or other phrasings (a source's templates).",
            )
    distinct = found["verbs"]["distinct"]
    if distinct is not None and distinct < FEW_PAIRS:
        top = found["verbs"]["top"][0]
        yield Warned(
            "verbs",
            f"Instructions ask for few things: {distinct} distinct verbs with objects in {found['verbs']['pairs']:,}, "
            f"most often {top['verb']} {top['objects'][0][0]}.",
            "Add other tasks; more rows of these teach little.",
        )


def _on_duplicates(found: Mapping[str, Any]) -> Iterator[Warned]:
    share = found["near_duplicates"]
    if share >= MANY_NEAR:
        least = "" if found["sampled"] == found["rows"] else "at least "
        yield Warned(
            "near_duplicates",
            f"{least}{share:.1%} of the rows are near-duplicates of others.".capitalize(),
            "Drop them with data.dedup: {near: 0.8}; phrasings of one item over a long text count among them.",
        )


def _on_wordings(wordings: Sequence[Mapping[str, Any]]) -> Iterator[Warned]:
    single = [
        each
        for each in wordings
        if each["rows"] >= _WORDING_ROWS and each["opening_share"] >= ONE_WORDING and each["phrasings"] < 2
    ]
    if single:
        names = ", ".join(f"{each['cluster'] or 'unnamed'} ({each['opening']!r})" for each in single[:4])
        more = f" and {len(single) - 4} more" if len(single) > 4 else ""
        yield Warned(
            "wording",
            f"Rows of {names}{more} are all asked in one wording: the model may follow that wording only.",
            "Ask in several phrasings (a source's templates).",
        )


def _on_shapes(found: Mapping[str, Any]) -> Iterator[Warned]:
    shape, rows = next(iter(found["shapes"].items()))
    if rows >= ONE_SHAPE * found["sampled"]:
        yield Warned(
            "shapes",
            f"{rows / found['sampled']:.0%} of the responses are {shape}: the model will answer anything so.",
            "Add rows with longer, shorter or otherwise formed responses.",
        )


def _said(category: str) -> str:
    return {"open_qa": "open questions", "closed_qa": "questions on a text"}.get(category, category.replace("_", " "))
