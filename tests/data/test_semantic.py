"""Rows by meaning, against cosines computed one by one."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError
from tunesmith.data.duplicates import semantic
from tunesmith.data.duplicates.dedup import deduplicate, remove_known
from tunesmith.data.duplicates.semantic import semantic_roots, tfidf, unit_vectors


def row(id, instruction, response):
    return Conversation(id, (Message("user", instruction), Message("assistant", response)))


def test_few_texts_have_the_cosines_of_plain_tfidf():
    texts = [
        "the cat sat on the mat",
        "a cat sat on a mat",
        "2 + 3",
        "2 - 3",
        "...",
        "Rivers run to the sea",
        "the cat",
    ]
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\w+|[+\-*/=<>^%]", ngram_range=(1, 2), sublinear_tf=True)
    expected = (found := vectorizer.fit_transform(texts)) @ found.T
    vectors = unit_vectors(tfidf, texts)
    products = vectors @ vectors.T
    assert products[4, 4] == 1 and not products[4, :4].any()
    expected = expected.toarray()
    expected[4, 4] = 1
    assert np.allclose(products, expected, atol=1e-5)


def test_many_texts_are_reduced_and_keep_their_neighbours():
    draw = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in draw.integers(0, 3000, 40)) for _ in range(400)]
    texts += [" ".join(reversed(text.split())) for text in texts[:20]]
    vectors = unit_vectors(lambda some: tfidf(some, 64), texts)
    assert vectors.shape == (420, 65)
    products = vectors @ vectors.T - np.eye(420)
    assert products[400:].argmax(axis=1).tolist() == list(range(20))


@pytest.mark.parametrize("limit", [1_000, 50])
def test_groups_are_those_of_brute_force(monkeypatch, limit):
    monkeypatch.setattr(semantic, "COMPARED_AT_ONCE", 37)
    monkeypatch.setattr(semantic, "ALL_COMPARED", limit)
    monkeypatch.setattr(semantic, "CELL", 30)
    draw = np.random.default_rng(1)
    parts = []
    for _ in range(2):
        centres = draw.normal(size=(60, 16))
        points = np.concatenate((centres, centres[:30] + 0.05 * draw.normal(size=(30, 16)))).astype(np.float32)
        parts.append(points / np.linalg.norm(points, axis=1, keepdims=True))
    parts[1][60:70] = -parts[1][60:70]  # alike in one part only
    roots = semantic_roots(parts, 0.95)
    expected = np.arange(90)
    for i, j in combinations(range(90), 2):
        if min(part[i] @ part[j] for part in parts) >= 0.95:
            expected[expected == expected[j]] = expected[i]
    assert roots.tolist() == expected.tolist() and len(set(roots)) == 70


def test_an_embedding_of_ones_own_decides():
    asked = []

    def embed(texts):
        asked.append(list(texts))
        return np.array([[1, 0] if "sum" in text or "add" in text else [0, 1] for text in texts], np.float32)

    rows = [row("a:1", "What is the sum?", "add it"), row("a:2", "Please add them.", "sum"), row("a:3", "Hello", "add")]
    found = deduplicate(rows, semantic=0.9, embed=embed)
    assert [(drop.row, drop.reason, drop.detail) for drop in found.drops] == [
        ("a:2", "semantic_duplicate", "a:1 was kept instead: similarity 1.000")
    ]
    assert len(asked) == 2 and "What is the sum?" in asked[0] and "add it" in asked[1]
    known = remove_known(rows, [row("r:1", "add", "add")], semantic=0.9, embed=embed)
    assert [drop.row for drop in known.drops] == ["a:1", "a:2"]
    with pytest.raises(DataError, match="one vector"):
        deduplicate(rows, semantic=0.9, embed=lambda texts: np.zeros((1, 3), np.float32))
