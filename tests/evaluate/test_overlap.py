"""Corpus scores against sacrebleu and scikit-learn, on whole corpora and on samples of their rows."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from sklearn.metrics import accuracy_score, f1_score

from tunesmith.base.random import python_stream, stream
from tunesmith.evaluate.overlap import (
    CORPUS_SCORES,
    bleu,
    bleu_counts,
    chrf,
    chrf_counts,
    label_counts,
    label_of,
    macro_f1,
    rightly_labelled,
    sentence_bleu,
)
from tunesmith.pocket.corpus import documents

REAL = Path(__file__).parents[3] / "shared/data/alpaca_1k.json"
Pair = tuple[str, str]


def edited(draw: random.Random, text: str) -> str:
    """A text with words left out, doubled, cased and moved; now and then empty."""
    words = [word for word in text.split() if draw.random() < 0.85]
    words = [draw.choice([word, word, word.upper(), f"{word}, {word}"]) for word in words]
    cut = draw.randint(0, len(words))
    return " ".join(draw.choice([words, words[cut:] + words[:cut], words[: cut // 4]]))


def corpora(draw: random.Random, texts: list[str], pairs: int) -> list[list[Pair]]:
    """Corpora of 1 to 40 pairs, `pairs` in all; some responses belong to another text."""
    out: list[list[Pair]] = []
    while pairs > 0:
        size = min(pairs, draw.randint(1, 40))
        chosen = [draw.choice(texts)[: draw.choice([12, 60, 600])] for _ in range(size)]
        out.append([(text, edited(draw, text if draw.random() < 0.8 else draw.choice(texts))) for text in chosen])
        pairs -= size
    return out


def assert_as_sacrebleu(found: list[list[Pair]]) -> None:
    for corpus in found:
        wanted, got = [list(side) for side in zip(*corpus, strict=True)]
        cases = [("", *pair) for pair in corpus]
        theirs = sacrebleu.corpus_bleu(got, [wanted], force=True).score, sacrebleu.corpus_chrf(got, [wanted]).score
        ours = bleu(bleu_counts(cases).sum(0)), chrf(chrf_counts(cases).sum(0))
        assert [100 * float(score) for score in ours] == pytest.approx(theirs, abs=1e-6)
        rows = [sacrebleu.sentence_bleu(response, [expected]).score for expected, response in corpus]
        assert 100 * sentence_bleu(bleu_counts(cases)) == pytest.approx(np.array(rows), abs=1e-6)


def test_bleu_and_chrf_are_sacrebleus_on_random_pairs() -> None:
    texts = [*documents(0, 300), "", ".", "x", "東京の天気はいい。", "Ärger & <b>Mühe</b>: 3,5 - it's 1.000!"]
    assert_as_sacrebleu(corpora(python_stream(0, "corpora"), texts, 1500))


@pytest.mark.slow
def test_bleu_and_chrf_are_sacrebleus_on_5000_pairs() -> None:
    if not REAL.exists():
        pytest.skip("needs the shared data folder")
    texts = [row["output"] for row in json.loads(REAL.read_text())]
    assert_as_sacrebleu(corpora(python_stream(1, "corpora"), texts, 5000))


def test_macro_f1_is_scikit_learns_on_any_sample() -> None:
    draw = stream(0, "labels")
    labels = np.array(["red", "green", "blue", "rare"])
    wanted = labels[draw.choice(4, 300, p=[0.5, 0.3, 0.18, 0.02])]
    got = np.where(draw.random(300) < 0.6, wanted, draw.choice([*labels, "no colour"], 300))
    counts = label_counts([("t", w, f"It is {g}.") for w, g in zip(wanted, got, strict=True)])
    for _ in range(50):
        rows = draw.integers(300, size=draw.integers(1, 60))
        present = sorted((set(wanted[rows]) | set(got[rows])) - {"no colour"})
        theirs = f1_score(wanted[rows], got[rows], labels=present, average="macro", zero_division=0)
        assert macro_f1(counts[rows].sum(0)) == pytest.approx(theirs, abs=1e-12)
        assert rightly_labelled(counts[rows].sum(0)) == pytest.approx(accuracy_score(wanted[rows], got[rows]))


def test_labels_of_different_tasks_are_different_labels() -> None:
    cases = [("a", "yes", "yes"), ("a", "no", "no"), ("b", "yes", "no"), ("b", "no", "no")]
    # a: both 1. b: yes 0, no 2 * 1 / (1 + 2).
    assert macro_f1(label_counts(cases).sum(0)) == pytest.approx((1 + 1 + 0 + 2 / 3) / 4)


def test_label_of() -> None:
    labels = ("entailment", "no", "not entailment")
    assert label_of(" Entailment.\n", labels) == "entailment"
    assert label_of("I'd say it is not entailment!", labels) == "not entailment"
    assert label_of("entailment, no doubt", labels) == "" and label_of("nothing", labels) == ""


def test_scores_of_many_sums_are_those_of_each() -> None:
    cases = [("t", "the cat sat on the mat", "the cat sat on a mat"), ("t", "a b c d e", "a b c d"), ("t", "x", "")]
    for corpus in CORPUS_SCORES.values():
        counts = corpus.counts(cases)
        sums = np.stack([counts[:2].sum(0), counts.sum(0), counts[2]])
        assert corpus.score(sums) == pytest.approx([float(corpus.score(one)) for one in sums])
        assert ((corpus.score(sums) >= 0) & (corpus.score(sums) <= 1)).all()
