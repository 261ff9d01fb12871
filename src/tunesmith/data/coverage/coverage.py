"""What the rows that are trained on cover: kinds of task, turns, worked reasoning, lengths, words, wordings.

All of it is measured on a sample of rows, drawn by the seed, so that it takes seconds whatever there is; counts of all
rows are estimated from their share in the sample, and are exact where the sample holds every row. Measures of
diversity depend on how much is looked at, so each is taken on a fixed amount: 10,000 words, 1,000 instructions.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from tunesmith.base.conversation import Conversation
from tunesmith.base.parallel import map_chunks
from tunesmith.base.random import stream
from tunesmith.data.coverage.category import CATEGORIES, FAMILIES, category_of
from tunesmith.data.coverage.verbs import verb_object
from tunesmith.data.coverage.worked import is_worked
from tunesmith.data.duplicates.near import NearDuplicates
from tunesmith.data.duplicates.ngrams import grams_of, words_of
from tunesmith.data.duplicates.parts import parts_of
from tunesmith.data.rows import PickedRows

VOCABULARY_WORDS = 10_000  # on which the shares of distinct words and pairs of words are taken
WORDS_A_ROW = 25  # of each row at most, so that no long text stands for all
PAIRS = 1_000  # instructions with a verb and an object, of which the distinct are counted
NEAR, NGRAM = 0.8, 5  # of near-duplicates, as those of `dedup`
EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # of lengths in words
_OPENING = 4  # words that a wording is known by
_TOP = 20
_ROWS_AT_ONCE = 500

Shape = Literal["a word or two", "a sentence", "a paragraph", "several paragraphs", "a list", "code", "a tool call"]


@dataclass(frozen=True, slots=True)
class Wording:
    """How the rows of a cluster ask and answer.

    rows: of the sample. phrasings: how many prompt templates they name. opening: the words that most requests begin or
    end with, and the share of rows that do. shape: the form that most responses have, and their share.
    """

    cluster: str
    rows: int
    phrasings: int
    opening: str
    opening_share: float
    shape: str
    shape_share: float


@dataclass(slots=True)
class _Tally:
    """What is counted of some rows."""

    rows: int = 0
    several_turns: int = 0
    worked: int = 0
    reasoned: int = 0
    reasoned_worked: int = 0
    categories: Counter[tuple[str, bool]] = field(default_factory=Counter)
    asked_words: list[int] = field(default_factory=list)
    answered_words: list[int] = field(default_factory=list)
    pairs: list[tuple[str, str] | None] = field(default_factory=list)
    openings: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    endings: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    shapes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    phrasings: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, other: _Tally) -> None:
        for name in ("rows", "several_turns", "worked", "reasoned", "reasoned_worked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.categories += other.categories
        for name in ("asked_words", "answered_words", "pairs"):
            getattr(self, name).extend(getattr(other, name))
        for name in ("openings", "endings", "shapes", "phrasings"):
            for cluster, found in getattr(other, name).items():
                getattr(self, name)[cluster].update(found)


def measure(
    rows: Sequence[Conversation],
    *,
    sample: int,
    clusters: Mapping[str, str] | None = None,
    seed: int = 0,
    workers: int = 1,
) -> dict[str, Any]:
    """What the rows cover, as coverage.json has it (docs/coverage.md says what each entry is).

    sample: how many rows are looked at, at most. clusters: the categories of clusters, by their names.
    """
    random = stream(seed, "coverage")
    places = np.arange(len(rows))
    if len(rows) > sample:
        places = np.sort(random.choice(len(rows), sample, replace=False))
    seen = PickedRows(rows, array("q", places.tolist()))
    if len(seen):
        rows[len(rows) - 1]  # what is not yet written to the rows' file is, before processes are forked
    tally = _Tally()
    for part in map_chunks(lambda some: _looked_at(some, clusters or {}), seen, _ROWS_AT_ONCE, workers):
        tally.add(part)
    order = random.permutation(len(seen)).tolist()
    near = NearDuplicates(seen, np.arange(len(seen)), threshold=NEAR, size=NGRAM, over="both", workers=workers)
    roots = near.roots()
    count = max(tally.rows, 1)
    return {
        "rows": len(rows),
        "sampled": len(seen),
        "categories": _categories(tally, len(rows)),
        "multi_turn": tally.several_turns / count,
        "worked": tally.worked / count,
        "worked_of_reasoning": tally.reasoned_worked / tally.reasoned if tally.reasoned else None,
        "words": {"instruction": _lengths(tally.asked_words), "response": _lengths(tally.answered_words)},
        "vocabulary": _vocabulary(seen, order),
        "verbs": _verbs([tally.pairs[place] for place in order]),
        "near_duplicates": float((roots != np.arange(len(roots))).mean()) if len(roots) else 0.0,
        "shapes": dict(sum(tally.shapes.values(), Counter()).most_common()),
        "wordings": [asdict(wording) for wording in _wordings(tally)],
    }


def _looked_at(rows: Sequence[Conversation], clusters: Mapping[str, str]) -> _Tally:
    tally = _Tally()
    asked_and_answered: list[str] = []
    for row in rows:
        kind = category_of(row, clusters)
        worked, request = is_worked(row), _request(row)
        reasons = FAMILIES.get(kind.category, kind.category) == "reasoning"
        tally.rows += 1
        tally.several_turns += sum(message.role == "user" for message in row.messages) > 1
        tally.worked += worked
        tally.reasoned += reasons
        tally.reasoned_worked += reasons and worked
        tally.categories[kind.category, kind.given] += 1
        tally.pairs.append(verb_object(request))
        asked_and_answered += parts_of(row, "both")
        words = request[:200].split()
        tally.openings[row.cluster][" ".join(words[:_OPENING])] += 1
        tally.endings[row.cluster][" ".join(request[-200:].split()[-_OPENING:])] += 1
        tally.shapes[row.cluster][shape_of(row)] += 1
        tally.phrasings[row.cluster].update([row.phrasing] if row.phrasing else [])
    lengths = np.diff(words_of(asked_and_answered).first).tolist()
    tally.asked_words, tally.answered_words = lengths[0::2], lengths[1::2]
    return tally


def _request(row: Conversation) -> str:
    return next((message.content for message in row.messages if message.role == "user"), "")


def shape_of(row: Conversation) -> Shape:
    """The form of a row's last response."""
    message, text = row.messages[-1], row.response.strip()
    if message.tool_calls:
        return "a tool call"
    if "```" in text:
        return "code"
    lines = [line.lstrip() for line in text[:4000].split("\n") if line.strip()]
    marked = sum(line[0] in "-*•" or (line[:3].rstrip(" )").endswith(".") and line[0].isdigit()) for line in lines)
    if marked >= 2 and 2 * marked >= len(lines):
        return "a list"
    if "\n\n" in text:
        return "several paragraphs"
    if len(text) < 60 and len(text.split()) <= 3:
        return "a word or two"
    return "a sentence" if len(text) < 250 and ". " not in text and len(lines) < 2 else "a paragraph"


def _categories(tally: _Tally, rows: int) -> list[dict[str, Any]]:
    """Of each category how many rows there are, most first; given: the part of them whose cluster says it."""
    found = []
    for name in CATEGORIES:
        given, recognised = tally.categories[name, True], tally.categories[name, False]
        count = given + recognised
        found.append(
            {
                "category": name,
                "family": FAMILIES.get(name, name),
                "rows": round(count * rows / max(tally.rows, 1)),
                "given": given / count if count else 0.0,
            }
        )
    return sorted(found, key=lambda each: -each["rows"])


def _lengths(words: Sequence[int]) -> dict[str, Any]:
    """Quantiles and a histogram of lengths in words; the last edge is above the longest."""
    longest = max(words, default=0)
    edges = [*(edge for edge in EDGES if edge <= longest), longest + 1]
    quantiles = np.quantile(words, (0.05, 0.25, 0.5, 0.75, 0.95), method="nearest").tolist() if words else []
    return {
        "quantiles": dict(zip(("5", "25", "50", "75", "95"), map(int, quantiles), strict=False)),
        "edges": edges,
        "counts": np.histogram(words, bins=edges)[0].tolist(),
    }


def _vocabulary(rows: Sequence[Conversation], order: Sequence[int]) -> dict[str, Any]:
    """The part of VOCABULARY_WORDS words that are distinct, and of their pairs side by side (distinct-1 and -2, Li et
    al. 2016), of instructions and of responses; None where there are fewer words."""
    found: dict[str, Any] = {"words": VOCABULARY_WORDS}
    for part, name in enumerate(("instruction", "response")):
        words: list[Any] = []
        pairs: list[Any] = []
        for start in range(0, len(order), 50):
            if sum(map(len, words)) >= VOCABULARY_WORDS:
                break
            texts = [parts_of(rows[place], "both")[part] for place in order[start : start + 50]]
            said = words_of([" ".join(text[:2000].split()[:WORDS_A_ROW]) for text in texts])
            words.append(said.hashes)
            pairs.append(grams_of(said, 2).hashes)
        enough = sum(map(len, words)) >= VOCABULARY_WORDS
        measured = [np.concatenate(hashes)[:VOCABULARY_WORDS] for hashes in (words, pairs)] if enough else []
        shares = [len(np.unique(hashes)) / len(hashes) for hashes in measured]
        found[name] = {"distinct_1": shares[0], "distinct_2": shares[1]} if enough else None
    return found


def _verbs(pairs: Sequence[tuple[str, str] | None]) -> dict[str, Any]:
    """Verbs with objects, of instructions in random order.

    share: of instructions that have both. distinct: pairs among PAIRS of these, None where there are fewer.
    top: the verbs met most, with how often, and their objects.
    """
    there = [pair for pair in pairs if pair]
    by_verb: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for verb, noun in there:
        by_verb[verb][noun] += 1
    verbs = sorted(by_verb, key=lambda verb: (-by_verb[verb].total(), verb))[:_TOP]
    return {
        "share": len(there) / max(len(pairs), 1),
        "pairs": PAIRS,
        "distinct": len(set(there[:PAIRS])) if len(there) >= PAIRS else None,
        "top": [
            {"verb": verb, "rows": by_verb[verb].total(), "objects": by_verb[verb].most_common(4)} for verb in verbs
        ],
    }


def _wordings(tally: _Tally) -> list[Wording]:
    """Of each cluster, the largest first."""
    found = []
    for cluster in tally.openings:
        shape, shaped = tally.shapes[cluster].most_common(1)[0]
        rows = tally.shapes[cluster].total()
        ends = [tally.openings[cluster].most_common(1)[0], tally.endings[cluster].most_common(1)[0]]
        text, count = max(ends, key=lambda end: end[1])
        phrasings = len(tally.phrasings[cluster])
        found.append(Wording(cluster, rows, phrasings, text, count / rows, shape, shaped / rows))
    return sorted(found, key=lambda wording: (-wording.rows, wording.cluster))
