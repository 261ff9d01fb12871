"""ROUGE against the rouge-score package, the stemmer against NLTK's, both over random and real texts."""

from __future__ import annotations

import json
import random
import re
from functools import partial
from pathlib import Path

import pytest
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer

from tunesmith.base.random import python_stream
from tunesmith.evaluate.porter import stem
from tunesmith.evaluate.rouge import common_subsequence, rouge_l, rouge_n, stemmed_words, words
from tunesmith.pocket.corpus import documents

REAL = Path(__file__).parents[3] / "shared/data/alpaca_1k.json"
KINDS = ("rouge1", "rouge2", "rougeL")
ROOTS = "run happi relat hope connect fli die general feed plaster agree sens tie argu logi boil y skies all".split()
ENDINGS = """s es ies ed ied ing ingly ness fulness ational tional ization izer ations ator alism iveness ousness fully
ally ability biliti logy logi icate ative alize icity ical able ible ance ence ment ement ent ion sion tion er ism
ate ity ous ive ize y e ee ll ss l zz""".split()


@pytest.fixture(scope="module")
def pocket_texts() -> list[str]:
    return list(documents(0, 400))


def pairs(draw: random.Random, texts: list[str], count: int) -> list[tuple[str, str]]:
    """Random word soup, sentences of `texts`, and edited copies: from nothing in common to all of it."""
    out = []
    for _ in range(count):
        one = draw.choice(texts)
        other = draw.choice(texts) if draw.random() < 0.5 else edited(draw, one)
        soup = " ".join(draw.choice(ROOTS) + draw.choice(["", *ENDINGS]) for _ in range(draw.randint(0, 30)))
        again = " ".join(draw.choice(ROOTS) + draw.choice(["", *ENDINGS]) for _ in range(draw.randint(0, 30)))
        out.append(draw.choice([(one, other), (soup, again), (soup, edited(draw, soup))]))
    return out


def edited(draw: random.Random, text: str) -> str:
    kept = [word for word in text.split() if draw.random() < 0.8]
    draw.shuffle(kept) if draw.random() < 0.3 else None
    return " ".join(draw.choice([word, word.upper(), word + ",", word + "-x"]) for word in kept)


def assert_as_rouge_score(found: list[tuple[str, str]]) -> None:
    plain, stemmer = RougeScorer(KINDS), RougeScorer(KINDS, use_stemmer=True)
    for expected, response in found:
        for oracle, kind in ((plain, words), (stemmer, stemmed_words)):
            if kind is words and not (expected + response).isascii():
                continue
            theirs = oracle.score(expected, response)
            ours = [rouge_n(expected, response, n, kind) for n in (1, 2)] + [rouge_l(expected, response, kind)]
            assert ours == pytest.approx([theirs[name].fmeasure for name in KINDS], abs=1e-6), (expected, response)


def test_equals_rouge_score_on_random_pairs(pocket_texts: list[str]) -> None:
    assert_as_rouge_score(pairs(python_stream(0, "rouge"), pocket_texts, 3000))


def test_equals_rouge_score_on_real_pairs() -> None:
    if not REAL.exists():
        pytest.skip("needs the shared data folder")
    texts = [row["output"] for row in json.loads(REAL.read_text())]
    assert_as_rouge_score(pairs(python_stream(1, "rouge"), texts, 2000))


def test_stems_are_nltks(pocket_texts: list[str]) -> None:
    theirs = PorterStemmer()
    made = {root + a + b for root in ROOTS for a in ENDINGS for b in ("", "s", "ed", "ing", "li", "y", "e")}
    real = set(re.findall("[a-z]+", " ".join(pocket_texts).lower()))
    if REAL.exists():
        real |= set(re.findall("[a-z]+", REAL.read_text().lower()))
    assert len(made) > 4000 and len(real) > 200
    for word in made | real:
        assert stem(word) == theirs.stem(word), word


def test_words_of_any_script_count() -> None:
    assert words("Der Ärger-um_die Straße: 東京 2024!") == ["der", "ärger", "um", "die", "straße", "東京", "2024"]
    assert rouge_l("Большой дом", "большой дом.") == 1
    assert rouge_l("the houses", "the house") == 0.5 and rouge_l("the houses", "the house", stemmed_words) == 1


def test_nothing_to_overlap_is_zero() -> None:
    bigrams = partial(rouge_n, n=2)
    assert bigrams("yes", "yes") == bigrams("yes", "no") == rouge_l("", "") == rouge_l("!", "a") == 0


def test_known_value() -> None:
    # The example of the rouge-score package: 5 common words of 9 and 8.
    target, prediction = "The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."
    assert rouge_l(target, prediction) == pytest.approx(2 * 5 / 17)


def test_common_subsequence_equals_the_textbook_algorithm() -> None:
    draw = python_stream(0, "subsequences")
    for _ in range(300):
        a, b = ([draw.choice("abcde") for _ in range(draw.randint(0, 80))] for _ in range(2))
        assert common_subsequence(a, b) == textbook_subsequence(a, b)


def textbook_subsequence(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for j, y in enumerate(b):
            row[j + 1] = before[j] + 1 if x == y else max(before[j + 1], row[j])
    return row[-1]
