"""ROUGE beside rouge-score and BLEU and chrF beside sacrebleu: largest difference of the scores, and the speed.

Pairs are documents of the pocket world and edited copies of them or other documents, 20 to 300 words long. Both score
the same pairs one after the other in each round, on one thread; the ratio is the median over rounds of the processor
time. Scores of ROUGE are compared pair by pair, those of BLEU and chrF by corpora of 50 pairs.

    python benchmarks/metrics.py [--pairs N] [--rounds N]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence

import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from tunesmith.evaluate.overlap import CORPUS_SCORES
from tunesmith.evaluate.rouge import rouge_l, rouge_n, stemmed_words, words
from tunesmith.pocket.corpus import documents

CORPUS = 50

Pair = tuple[str, str]
Scores = Callable[[Sequence[Pair]], list[float]]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=5_000)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    pairs = made(given.pairs)
    length = sum(len(text.split()) for pair in pairs for text in pair) / (2 * len(pairs))
    print(f"{len(pairs):,} pairs, {length:.0f} words a text")
    print("                     largest difference   times as fast")
    for name, ours, theirs in contests():
        found = compare(ours, theirs, pairs, given.rounds)
        print(f"{name:20} {found[0]:18.1e} {found[1]:15.1f}")


def made(count: int) -> list[Pair]:
    draw = random.Random(3)
    texts = [" ".join(text.split()[:300]) for text in documents(3, 3 * count) if len(text.split()) >= 20]
    out = []
    for _ in range(count):
        text = draw.choice(texts)
        out.append((text, edited(draw, text) if draw.random() < 0.7 else draw.choice(texts)))
    return out


def edited(draw: random.Random, text: str) -> str:
    kept = [word for word in text.split() if draw.random() < 0.85]
    cut = draw.randint(0, len(kept))
    return " ".join(kept[cut:] + kept[:cut])


def contests() -> list[tuple[str, Scores, Scores]]:
    out: list[tuple[str, Scores, Scores]] = []
    for n in (1, 2):
        out.append((f"ROUGE-{n}", rouge(lambda e, r, n=n: rouge_n(e, r, n, words)), peer(f"rouge{n}", False)))
    out.append(("ROUGE-L", rouge(lambda e, r: rouge_l(e, r, words)), peer("rougeL", False)))
    out.append(("ROUGE-L, stemmed", rouge(lambda e, r: rouge_l(e, r, stemmed_words)), peer("rougeL", True)))
    out.append(("BLEU", corpora("bleu"), sacre(sacrebleu.corpus_bleu)))
    out.append(("chrF", corpora("chrf"), sacre(sacrebleu.corpus_chrf)))
    return out


def rouge(score: Callable[[str, str], float]) -> Scores:
    return lambda pairs: [score(*pair) for pair in pairs]


def peer(kind: str, stemmed: bool) -> Scores:
    scorer = RougeScorer([kind], use_stemmer=stemmed)
    return lambda pairs: [scorer.score(*pair)[kind].fmeasure for pair in pairs]


def corpora(name: str) -> Scores:
    corpus = CORPUS_SCORES[name]

    def scores(pairs: Sequence[Pair]) -> list[float]:
        counts = corpus.counts([("", *pair) for pair in pairs])
        return [float(corpus.score(counts[start : start + CORPUS].sum(0))) for start in range(0, len(pairs), CORPUS)]

    return scores


def sacre(score: Callable[..., sacrebleu.metrics.base.Score]) -> Scores:
    def scores(pairs: Sequence[Pair]) -> list[float]:
        parts = [pairs[start : start + CORPUS] for start in range(0, len(pairs), CORPUS)]
        return [score([r for _, r in part], [[e for e, _ in part]]).score / 100 for part in parts]

    return scores


def compare(ours: Scores, theirs: Scores, pairs: Sequence[Pair], rounds: int) -> tuple[float, float]:
    """The largest difference, and the median over rounds, each of other pairs, of their time over ours."""
    size = max(CORPUS, len(pairs) // rounds)
    parts = [pairs[start : start + size] for start in range(0, size * rounds, size)]
    ratios = [seconds(theirs, part) / seconds(ours, part) for part in parts if part]
    difference = max(abs(a - b) for a, b in zip(ours(pairs), theirs(pairs), strict=True))
    return difference, statistics.median(ratios)


def seconds(scores: Scores, pairs: Sequence[Pair]) -> float:
    begin = time.process_time()
    scores(pairs)
    return time.process_time() - begin


if __name__ == "__main__":
    main()
