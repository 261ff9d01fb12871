"""Duplicates: of rows that say the same, one is kept, and each that is dropped names it.

Three ways, each over what the one before it left: exact (the same text but for Unicode form, case and white space),
near (`near`) and semantic (`semantic`). All compare the instruction, the response, or both; of both, each has to be
alike, so that two answers to one question, and two questions about one passage, both stay.

Rows that pairs of duplicates link are one group, and one row of it is kept. In a long chain the ends may be less
similar than the threshold; the detail of such a drop says so. What is kept does not depend on the order of the rows or
on the number of processes. No text is held: rows are read again where they have to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import DataError
from tunesmith.data.duplicates.near import NearDuplicates
from tunesmith.data.duplicates.ngrams import Indices
from tunesmith.data.duplicates.parts import Over, parts_of
from tunesmith.data.duplicates.semantic import (
    Embed,
    Vectors,
    cosines,
    semantic_matches,
    semantic_roots,
    tfidf,
    unit_vectors,
)
from tunesmith.data.duplicates.survey import Keep, Survey, survey
from tunesmith.data.ledger import Drop

STAGE = "dedup"
NEAR = 0.8
NGRAM = 5
_EXCERPT = 240  # characters of a text that is shown

_Similarity = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@dataclass(slots=True)
class Deduplicated:
    """kept: places of the rows that stay, in their order. drops: the others. notes: what else a person should know.

    instead (drops): the place of the row that was kept for each, where rows were compared with each other.
    groups: for each reason, how many groups of duplicates of each size there were, the kept row counted.
    """

    kept: Indices
    drops: list[Drop] = field(default_factory=list)
    instead: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    groups: dict[str, Counter[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def deduplicate(
    rows: Sequence[Conversation],
    *,
    exact: bool = True,
    near: float | None = NEAR,
    ngram: int = NGRAM,
    semantic: float | None = None,
    embed: Embed = tfidf,
    over: Over = "both",
    keep: Keep = "longest",
    score: str = "",
    sources: Sequence[str] = (),
    workers: int = 1,
) -> Deduplicated:
    """Keep one row of each group of duplicates.

    near: least Jaccard similarity of the sets of word n-grams, `ngram` words each; None leaves it out.
    semantic: least cosine of the vectors that `embed` makes; None leaves it out.
    keep, score: which row of a group is kept, see `survey`; of equals the first, by `sources` (names in their order).
    Raises DataError for thresholds outside of (0, 1], and when no row has a `score`.
    """
    _refuse(near, ngram, semantic)
    found = survey(rows, over=over, keep=keep, score=score, workers=workers)
    result = Deduplicated(np.zeros(0, np.int64))
    links = _Links(found, len(rows))
    places = found.best_first(sources)
    places = places[~found.blank[places]]
    if exact:
        roots = _exact_roots(found.texts[places])
        places = links.add("exact_duplicate", places, roots, None, 1.0, result)
    if near is not None:
        compared = NearDuplicates(rows, places, threshold=near, size=ngram, over=over, workers=workers)
        places = links.add("near_duplicate", places, compared.roots(), compared.similarities, near, result)
        result.notes += _crowd_note(compared.crowded)
    if semantic is not None and len(places):
        vectors = _vectors(rows, places, over, embed)
        some = ~_nothing(vectors)
        vectors = [part[some] for part in vectors]
        roots = semantic_roots(vectors, semantic)
        links.add("semantic_duplicate", places[some], roots, lambda pairs: cosines(vectors, pairs), semantic, result)
    result.drops, result.instead = links.drops()
    result.kept = np.flatnonzero(links.instead < 0)
    return result


def remove_known(
    rows: Sequence[Conversation],
    reference: Sequence[Conversation],
    *,
    exact: bool = True,
    near: float | None = NEAR,
    ngram: int = NGRAM,
    semantic: float | None = None,
    embed: Embed = tfidf,
    over: Over = "both",
    workers: int = 1,
) -> Deduplicated:
    """Drop the rows that `reference` has a duplicate of; see `deduplicate`. What is only linked by other rows stays."""
    _refuse(near, ngram, semantic)
    both, count = _Joined(reference, rows), len(reference)
    found = survey(both, over=over, keep="first", workers=workers)
    match, similarity = np.full(len(rows), -1), np.zeros(len(rows))
    result = Deduplicated(np.zeros(0, np.int64))
    left = np.flatnonzero(~found.blank[count:])

    def matched(matches: Indices, how_similar: NDArray[Any]) -> Indices:
        match[left], similarity[left] = matches, how_similar
        return left[matches < 0]

    places = np.flatnonzero(~found.blank[:count])
    if exact:
        left = matched(*_exact_matches(found.texts[places], found.texts[count + left]))
    if near is not None:
        joined = np.concatenate((places, count + left))
        compared = NearDuplicates(both, joined, threshold=near, size=ngram, over=over, workers=workers)
        left = matched(*compared.matches(len(places)))
        result.notes += _crowd_note(compared.crowded)
    if semantic is not None and len(places) and len(left):
        vectors = _vectors(both, np.concatenate((places, count + left)), over, embed)
        matches, how_similar = semantic_matches(vectors, len(places), semantic)
        matches[_nothing(vectors)[len(places) :]] = -1
        left = matched(matches, how_similar)
    for row in np.flatnonzero(match >= 0).tolist():
        known, how = found.id(int(places[match[row]])), _how(float(similarity[row]))
        result.drops.append(Drop(found.id(count + row), STAGE, "in_reference", f"{known} of the reference, {how}"))
    result.kept = np.flatnonzero(match < 0)
    return result


def largest_groups(rows: Sequence[Conversation], found: Deduplicated, groups: int = 12, shown: int = 3) -> list[Any]:
    """The largest groups of duplicates: size, the id and the text of the row that was kept, and some of the others."""
    dropped = np.setdiff1d(np.arange(len(rows)), found.kept)
    places, first, counts = np.unique(found.instead, return_index=True, return_counts=True)
    largest = np.lexsort((first, -counts))[:groups]
    return [
        {
            "size": int(counts[group]) + 1,
            "kept": _excerpt(rows[int(places[group])]),
            "others": [
                _excerpt(rows[int(dropped[number])]) | {"reason": found.drops[number].reason}
                for number in np.flatnonzero(found.instead == places[group])[:shown].tolist()
            ],
        }
        for group in largest.tolist()
    ]


def _excerpt(row: Conversation) -> dict[str, str]:
    asked, answered = (text[:_EXCERPT] + "…" * (len(text) > _EXCERPT) for text in parts_of(row, "both"))
    return {"row": row.id, "instruction": asked, "response": answered}


class _Links:
    """Which row each dropped one was dropped for."""

    def __init__(self, found: Survey, count: int) -> None:
        self.instead = np.full(count, -1)
        self._similarity = np.ones(count)
        self._chained = np.zeros(count, np.bool_)
        self._reason = np.zeros(count, np.int8)
        self._reasons: list[str] = []
        self._survey = found

    def add(
        self,
        reason: str,
        places: Indices,
        roots: Indices,
        similarities: _Similarity | None,
        threshold: float,
        result: Deduplicated,
    ) -> Indices:
        """Rows whose root is another are dropped for it; the places that are left."""
        gone = np.flatnonzero(roots != np.arange(len(roots)))
        dropped = places[gone]
        self.instead[dropped] = places[roots[gone]]
        self._reason[dropped] = len(self._reasons)
        self._reasons.append(reason)
        if similarities and len(gone):
            self._similarity[dropped] = similarities(np.stack((gone, roots[gone]), axis=1))
            self._chained[dropped] = self._similarity[dropped] < threshold - 1e-6
        sizes = np.bincount(roots, minlength=1)
        result.groups[reason] = Counter(sizes[sizes > 1].tolist())
        left: Indices = places[roots == np.arange(len(roots))]
        return left

    def drops(self) -> tuple[list[Drop], Indices]:
        """The rows that are dropped, in their order, and the place of the row that each is dropped for."""
        final = self.instead.copy()  # what a row was dropped for may have been dropped for another later
        while len(further := np.flatnonzero((final >= 0) & (self.instead[final] >= 0))):
            final[further] = self.instead[final[further]]
        dropped = np.flatnonzero(final >= 0)
        return [self._drop(place, int(final[place])) for place in dropped.tolist()], final[dropped]

    def _drop(self, place: int, final: int) -> Drop:
        row, instead = self._survey.id, int(self.instead[place])
        reason = self._reasons[self._reason[place]]
        exact = reason == "exact_duplicate"
        how = "the same text" if exact else _how(float(self._similarity[place]))
        other = "" if instead == final else f" {'as' if exact else 'to'} {row(instead)}, which went for it too"
        other += ", linked by rows between them" if self._chained[place] else ""
        return Drop(row(place), STAGE, reason, f"{row(final)} was kept instead: {how}{other}")


class _Joined(Sequence[Conversation]):
    """Two sequences as one, neither held in memory."""

    def __init__(self, first: Sequence[Conversation], second: Sequence[Conversation]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._first[index] if index < len(self._first) else self._second[index - len(self._first)]


class _Texts(Sequence[str]):
    """One part of the rows at some places, each read when it is asked for."""

    def __init__(self, rows: Sequence[Conversation], places: Indices, over: Over, part: int) -> None:
        self._rows, self._places, self._over, self._part = rows, places, over, part

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return parts_of(self._rows[int(self._places[index])], self._over)[self._part]


def _exact_roots(texts: NDArray[np.uint64]) -> Indices:
    _, first, inverse = np.unique(texts, axis=0, return_index=True, return_inverse=True)
    roots: Indices = first[inverse.ravel()]
    return roots


def _exact_matches(known: NDArray[np.uint64], texts: NDArray[np.uint64]) -> tuple[Indices, NDArray[np.float64]]:
    roots = _exact_roots(np.concatenate((known, texts)))[len(known) :]
    match = np.where(roots < len(known), roots, -1)
    return match, (match >= 0).astype(np.float64)


def _vectors(rows: Sequence[Conversation], places: Indices, over: Over, embed: Embed) -> list[Vectors]:
    return [unit_vectors(embed, _Texts(rows, places, over, part)) for part in range(2 if over == "both" else 1)]


def _nothing(vectors: Sequence[Vectors]) -> NDArray[np.bool_]:
    """Rows of which no part has a word: the last dimension says so of a part."""
    return np.asarray(np.logical_and.reduce([part[:, -1] > 0 for part in vectors]))


def _how(similarity: float) -> str:
    return f"similarity {similarity:.3f}"


def _crowd_note(crowded: int) -> list[str]:
    if not crowded:
        return []
    return [f"{crowded:,} rows have very many half-similar ones, and were compared with the nearest of these only"]


def _refuse(near: float | None, ngram: int, semantic: float | None) -> None:
    for name, threshold in (("near", near), ("semantic", semantic)):
        if threshold is not None and not 0 < threshold <= 1:
            raise DataError(
                f"dedup: the threshold `{name}` is {threshold:g}; a similarity lies between 0 and 1, so nothing or "
                f"everything would be a duplicate. Give a number above 0 and up to 1, such as 0.8."
            )
    if ngram < 1:
        raise DataError(f"dedup: n-grams of {ngram} words can't be counted. Give 1 or more, such as 5.")
