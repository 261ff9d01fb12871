"""Hashed words and n-grams are those that a loop over words finds."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.duplicates.ngrams import grams_of, words_of

TEXTS = st.lists(st.text(st.sampled_from("ab Z9_.,+-/=\n\té½ßﬁＡ中の’"), max_size=40), max_size=6)


def plain_words(text, symbols=False):
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    pattern = r"[中の]|[^\W中の]+" + (r"|[+\-/=]" if symbols else "")
    return re.findall(pattern, folded.replace("½", "1⁄2"))


@given(TEXTS, st.booleans())
def test_words_are_runs_of_letters_and_digits(texts, symbols):
    words = words_of(texts, symbols)
    assert len(words) == len(texts)
    spans = [
        [words.span(word, word + 1) for word in range(words.first[k], words.first[k + 1])] for k in range(len(texts))
    ]
    assert spans == [plain_words(text, symbols) for text in texts]
    by_hash = dict(zip(words.hashes.tolist(), (span for text in spans for span in text), strict=True))
    assert len(set(by_hash.values())) == len(by_hash) == len({span for text in spans for span in text})


@given(TEXTS, st.integers(1, 6))
def test_ngrams_are_windows_of_words(texts, size):
    words = words_of(texts)
    grams = grams_of(words, size)
    named = {}
    for number, text in enumerate(texts):
        plain = plain_words(text)
        expected = [tuple(plain[k : k + size]) for k in range(len(plain) - size + 1)] or (
            [tuple(plain)] if plain else []
        )
        hashes = grams.hashes[grams.first[number] : grams.first[number + 1]].tolist()
        assert len(hashes) == len(expected)
        for gram, value in zip(expected, hashes, strict=True):
            assert named.setdefault(gram, value) == value
    assert len(set(named.values())) == len(named)
    assert grams.starts.tolist() == sorted(grams.starts.tolist())


def test_long_words_differ_in_every_byte():
    base = "x" * 30
    texts = [base[:k] + "y" + base[k + 1 :] for k in range(30)] + ["x" * k for k in range(1, 31)]
    assert len(set(words_of(texts).hashes.tolist())) == 60


def test_a_hash_is_the_same_everywhere():
    # Printed once by this code; signatures of different machines have to fit together.
    words = words_of(["Tunesmith, at work."])
    assert [hex(value) for value in words.hashes] == ["0x2685acd844c4eb3b", "0x4c498792051acdaf", "0x1d64e2b7650dafd2"]
    assert [hex(value) for value in grams_of(words, 2).hashes] == ["0xd5918df99e3919c4", "0xa7e1e024c211baed"]


def test_texts_without_words():
    for texts in ([], [""], ["", "", "..."]):
        words = words_of(texts)
        assert len(words) == len(texts) and not len(words.hashes)
        assert grams_of(words, 3).first.tolist() == [0] * (len(texts) + 1)
    assert len(words_of(["\ud800 lone"]).hashes) == 1
