"""Rows that say nearly the same in other words: texts as vectors, compared by the cosine between them.

By default the vectors are TF-IDF reduced by a truncated SVD (latent semantic analysis, Deerwester et al. 1990). Any
other embedding fits in its place: a function from texts to an array with one vector each, see `Embed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.base.errors import DataError
from tunesmith.base.random import seed_of
from tunesmith.data.duplicates.groups import Groups
from tunesmith.data.duplicates.ngrams import Indices

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
"""Vectors (texts, dimensions) of texts. These may be read as they are asked for: go through them once, in order."""

DIMENSIONS = 256
COMPARED_AT_ONCE = 2_048
ALL_COMPARED = 100_000  # rows up to which each is compared with each; more are first divided into cells
CELL = 10_000  # rows of a cell, on average

_Portions = Iterator[tuple[Indices, Indices, Vectors]]


def tfidf(texts: Sequence[str], dimensions: int = DIMENSIONS) -> Vectors:
    """TF-IDF vectors of words and pairs of words, by truncated SVD where there are more features than `dimensions`.

    Single characters count as words, so that numbers and names of variables are told apart. A text without words
    becomes a vector of zeros.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    # Hashed words need no second pass over the texts and no dictionary of all pairs of words.
    counts = HashingVectorizer(
        token_pattern=r"(?u)\w+|[+\-*/=<>^%]", ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
    )
    found = TfidfTransformer(sublinear_tf=True).fit_transform(counts.transform(texts))
    used = np.flatnonzero(np.bincount(found.indices, minlength=found.shape[1]))
    found = found[:, used]
    if found.shape[1] <= dimensions:
        return np.asarray(found.toarray(), np.float32)
    if found.shape[0] <= dimensions:
        return _of_few(found)
    return np.asarray(TruncatedSVD(dimensions, random_state=0).fit_transform(found), np.float32)


def _of_few(found: Any) -> Vectors:
    """Few rows of many features, as coordinates in the space of the rows: the same cosines."""
    values, vectors = np.linalg.eigh((found @ found.T).toarray().astype(np.float64))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)), np.float32)


def unit_vectors(embed: Embed, texts: Sequence[str]) -> Vectors:
    """Vectors of length 1. Those of zeros get a dimension of their own: they are alike, and unlike all others.

    Raises DataError when `embed` gives something else than a vector for each text.
    """
    vectors = np.asarray(embed(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise DataError(
            f"the embedding gave an array of shape {vectors.shape} for {len(texts):,} texts, or one with values that "
            f"are no numbers, so they can't be compared. It has to give one vector of finite numbers for each text."
        )
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    nothing = lengths < 1e-6
    return np.concatenate((vectors / np.where(nothing, np.inf, lengths), nothing), axis=1, dtype=np.float32)


def semantic_roots(parts: Sequence[Vectors], threshold: float) -> Indices:
    """For each row the first of its group. parts: unit vectors of each part; the least similar part decides.

    Up to ALL_COMPARED rows are compared each with each. More are divided by k-means into cells of about CELL rows, and
    compared within these only (SemDeDup, Abbas et al. 2023), so that cost grows with their number and not its square.
    """
    groups = Groups(len(parts[0]))
    for rows in _cells(parts):
        for i, j, _ in _similar([part[rows] for part in parts], [part[rows] for part in parts], threshold, upper=True):
            left, right = rows[i], rows[j]
            new = groups.apart(left, right)
            groups.join(zip(left[new].tolist(), right[new].tolist(), strict=True))
    return groups.all_roots()


def semantic_matches(parts: Sequence[Vectors], references: int, threshold: float) -> tuple[Indices, Vectors]:
    """For each row that follows the first `references`, the most similar of these, or -1; and how similar."""
    match = np.full(len(parts[0]) - references, -1)
    similarity = np.zeros(len(match), np.float32)
    known, rows = [part[:references] for part in parts], [part[references:] for part in parts]
    for i, j, found in _similar(rows, known, threshold, upper=False):
        order = np.lexsort((-j, found))  # the last that is written stays: the most similar, then the first
        better = order[found[order] > similarity[i[order]]]
        match[i[better]], similarity[i[better]] = j[better], found[better]
    return match, similarity


def cosines(parts: Sequence[Vectors], pairs: Indices) -> NDArray[np.float64]:
    """The similarity of each pair (P, 2): of the less similar part."""
    each = [np.einsum("pd,pd->p", part[pairs[:, 0]], part[pairs[:, 1]]) for part in parts]
    return np.asarray(np.min(each, axis=0), np.float64)


def _similar(left: Sequence[Vectors], right: Sequence[Vectors], threshold: float, upper: bool) -> _Portions:
    """Places (i, j) with their similarity, block by block. upper: only i < j."""
    count = len(right[0])
    for top in range(0, len(left[0]), COMPARED_AT_ONCE):
        for begin in range(top if upper else 0, count, COMPARED_AT_ONCE):
            products = [
                a[top : top + COMPARED_AT_ONCE] @ b[begin : begin + COMPARED_AT_ONCE].T
                for a, b in zip(left, right, strict=True)
            ]
            least = np.minimum.reduce(products)
            i, j = np.nonzero(least >= threshold)
            found = least[i, j]
            if upper and begin == top:
                i, j, found = i[i < j], j[i < j], found[i < j]
            if len(i):
                yield i + top, j + begin, found


def _cells(parts: Sequence[Vectors]) -> Iterator[Indices]:
    count = len(parts[0])
    if count <= ALL_COMPARED:
        yield np.arange(count)
        return
    from sklearn.cluster import MiniBatchKMeans

    together = np.concatenate(parts, axis=1)
    means = MiniBatchKMeans(count // CELL, random_state=seed_of(0, "cells") % 2**32, n_init=1, batch_size=4_096)
    cells = means.fit_predict(together)
    order = np.argsort(cells, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(cells[order])) + 1)
