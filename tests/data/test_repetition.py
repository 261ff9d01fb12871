import random
from collections import Counter
from itertools import pairwise

from tunesmith.data.curation.repetition import MIN_WORDS, repetition

WORDS = [f"w{number}" for number in range(400)]


def prose(words: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).sample(WORDS, words)) + "."


def test_text_without_repetition_passes():
    assert repetition(prose(300)) == ""
    assert repetition("the " * (MIN_WORDS - 1)) == ""


def test_loops_are_found():
    assert "2-gram" in repetition("no no " * 40)
    assert "line" in repetition(prose(60) + "\n" + "\n".join(["This is it again."] * 30))
    assert "sentences" in repetition(prose(60) + " " + "It is as it is here. " * 8)
    assert repetition(prose(60) + " and so on it goes for ever and ever" * 6)


def test_shares_are_those_of_a_count_by_hand():
    words = prose(60).rstrip(".").split() + "a bb ccc d".split() * 4
    random.Random(1).shuffle(words)
    text = " ".join(words)
    counts = Counter(pairwise(words))
    most = max(counts.values())
    share = max(len(a + b) for (a, b), count in counts.items() if count == most) * most / len("".join(words))
    if most > 1:
        assert f"2-gram {share:.2f} above" in repetition(text, leniency=share / 0.20 - 1e-6)
    lines = [prose(12, seed) for seed in range(7)] + [prose(12, 0)] * 3
    assert repetition("\n".join(lines), leniency=0.99).startswith("lines 0.30 above")


def test_leniency_multiplies_the_thresholds():
    text = "\n".join([prose(12, seed) for seed in range(6)] + [prose(12, 0)] * 4)
    assert repetition(text, 1.0).startswith("lines 0.40 above 0.30")
    assert not repetition(text, 1.4).startswith("lines")
    assert repetition(text, 5.0) == ""
