"""Texts as sequences of hashed words and word n-grams, many texts at once and without a loop over words.

A word is a run of letters, digits and underscores after NFKC and case folding; punctuation and white space only
separate. With `symbols`, signs that carry meaning in mathematics and code (+ - * / = < > and others) are words of their
own. A character of a script that writes no spaces (Chinese, Japanese, Thai ...) is a word.

A word is hashed by eight bytes at a time, an n-gram as a polynomial over its words modulo 2^64, by differences of
running sums, so that it costs the same whatever its length (Karp and Rabin 1987). Two texts of a thousand words share
an n-gram by chance of hashing with a probability below 1 in 10^13.

Shapes: W words, G n-grams, D texts.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

SEPARATOR, WORD, SYMBOL = 0, 1, 2
SYMBOLS = "+-*/=<>^%|&~$#@\\"

# Scripts without spaces: kana, CJK ideographs and their extension A and compatibility block, Thai, Lao, Khmer, Myanmar.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
# Of other characters beyond ASCII, those that are no part of a word separate; what stays is told from ASCII by a byte.
_NO_WORD = re.compile(r"[^\w\x00-\x7f]")
_SIGNS = (("\u2212", "-"), ("\u00d7", "*"), ("\u00f7", "/"))


def normalised(text: str) -> str:
    """NFKC and case folding: full-width forms, ligatures and case make no other text of it."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True, slots=True)
class Words:
    """The words of D texts, one after the other.

    hashes (W): of each word. starts, ends (W): its bytes in `text`. first (D + 1): where each text's words begin.
    text: all texts, normalised, as UTF-8.
    """

    hashes: Hashes
    starts: Indices
    ends: Indices
    first: Indices
    text: bytes

    def __len__(self) -> int:
        return len(self.first) - 1

    def span(self, start: int, end: int) -> str:
        """The text from word `start` to before word `end`, punctuation included, with single spaces."""
        return " ".join(self.text[self.starts[start] : self.ends[end - 1]].decode("utf-8", "replace").split())


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of D texts, repeated ones too.

    hashes (G). starts (G): the first word of each. first (D + 1): where each text's n-grams begin. A text of fewer
    than n words has one, all of it; a text without words has none.
    """

    hashes: Hashes
    starts: Indices
    first: Indices


def words_of(texts: Sequence[str], symbols: bool = False) -> Words:
    """The words of each text. Fastest with some fifty texts at a time: what it works on stays in the cache."""
    parts = _plain(texts)
    begins = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)) + 1, out=begins[1:])
    joined = b"\n".join((*parts, b""))
    kinds = np.frombuffer(joined.translate(_WITH_SYMBOLS if symbols else _WITHOUT_SYMBOLS), np.uint8)
    # At an edge one side is inside a word, and the other is not; a text ends with a separator.
    inside = np.zeros(len(kinds) + 1, np.bool_)
    np.equal(kinds, WORD, out=inside[1:])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[0::2], edges[1::2]
    if symbols and len(alone := np.flatnonzero(kinds == SYMBOL)):
        starts = np.sort(np.concatenate((starts, alone)), kind="stable")
        ends = np.sort(np.concatenate((ends, alone + 1)), kind="stable")
    return Words(_word_hashes(joined, starts, ends), starts, ends, np.searchsorted(starts, begins), joined)


def grams_of(words: Words, size: int) -> Grams:
    """All n-grams of `size` words of each text; none goes from one text into the next."""
    counts = np.diff(words.first)
    numbers = np.where(counts > 0, np.maximum(counts - size + 1, 1), 0)
    first = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(numbers, out=first[1:])
    starts = np.arange(first[-1]) + np.repeat(words.first[:-1] - first[:-1], numbers)
    ends = np.minimum(starts + size, np.repeat(words.first[1:], numbers))
    return Grams(_windows(words.hashes, starts, ends), starts, first)


def mixed(values: Hashes) -> Hashes:
    """Every bit of the result depends on all of a value's bits (the finaliser of MurmurHash3). Changes `values`."""
    for factor in (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)):
        values ^= values >> np.uint64(33)
        values *= factor
    values ^= values >> np.uint64(33)
    return values


def fixed(name: str, count: int) -> Hashes:
    """Numbers that look random and are the same everywhere and always."""
    made = hashlib.shake_256(f"tunesmith {name}".encode()).digest(8 * count)
    return np.frombuffer(made, "<u8").astype(np.uint64)


def _plain(texts: Sequence[str]) -> list[bytes]:
    if all(map(str.isascii, texts)):
        return [text.lower().encode() for text in texts]
    return [_only_words(normalised(text)).encode("utf-8", "surrogatepass") for text in texts]


def _only_words(text: str) -> str:
    if text.isascii():
        return text
    for sign, ascii_sign in _SIGNS:
        text = text.replace(sign, ascii_sign)  # translate() would take twenty times as long
    return _NO_WORD.sub(" ", _UNSPACED.sub(r" \g<0> ", text))


def _word_hashes(text: bytes, starts: Indices, ends: Indices) -> Hashes:
    """A hash of the bytes from each start to before its end, by eights."""
    eights = np.ndarray((len(text),), "<u8", text + bytes(8), strides=(1,))
    left = ends - starts
    hashes = mixed((eights[starts] & _FIRST[np.minimum(left, 8)]) + left.astype(np.uint64))
    longer, at = np.flatnonzero(left > 8), 8
    while len(longer):
        more = eights[starts[longer] + at] & _FIRST[np.minimum(left[longer] - at, 8)]
        hashes[longer] = mixed(hashes[longer] * _FACTOR + more)
        at += 8
        longer = longer[left[longer] > at]
    return hashes


def _windows(values: Hashes, starts: Indices, ends: Indices) -> Hashes:
    """sum of values[k] * base^(k - start) for k from start to before end, modulo 2^64, for each window."""
    global _powers_known
    if len(values) > len(_powers_known[0]):
        count = 1 << len(values).bit_length()
        _powers_known = _powers(_BASE, count), _powers(pow(_BASE, -1, 1 << 64), count)
    powers, inverses = _powers_known
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    found: Hashes = sums[ends] - sums[starts]
    found *= inverses[starts]
    return found


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    powers: Hashes = np.cumprod(factors)
    return powers


def _kinds(symbols: str) -> bytes:
    kinds = bytearray(256)
    for code in range(256):
        letter = code >= 128 or chr(code).isalnum() or chr(code) == "_"
        kinds[code] = WORD if letter else SYMBOL if chr(code) in symbols else SEPARATOR
    return bytes(kinds)


_WITHOUT_SYMBOLS, _WITH_SYMBOLS = _kinds(""), _kinds(SYMBOLS)
_FIRST = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # masks of a number's first bytes
_FACTOR, _BASE = fixed("words", 1)[0], int(fixed("n-grams", 1)[0]) | 1
_powers_known = _powers(_BASE, 1), _powers(_BASE, 1)  # of the base and of its inverse, as many as were needed so far
