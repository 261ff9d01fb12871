"""Why a model that does well on its held-out rows does badly in production: its log against what it was trained on."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.curation.filter import is_copy
from tunesmith.data.curation.phrases import is_refusal
from tunesmith.data.curation.repetition import repetition
from tunesmith.data.duplicates.semantic import tfidf, unit_vectors
from tunesmith.evaluate.metrics import answer_number, token_f1

MOST_COMPARED = 20_000  # rows of either side that are looked at, drawn at random
FOREIGN = 0.05  # the part of trained rows that is further from all others than a foreign row has to be
WORDS, EXAMPLES, MOST_CLUSTERS = 6, 3, 12
Kind = Literal["not following", "missing knowledge", "unclear"]


@dataclass(frozen=True, slots=True)
class Logged:
    """A row of a log. expected: the right response, "" where the log has none. failed: whether it went wrong."""

    id: str
    instruction: str
    response: str
    expected: str = ""
    failed: bool = True


@dataclass(frozen=True, slots=True)
class Near:
    """A row of the log and the trained instruction that is most like it, with their cosine."""

    id: str
    instruction: str
    trained: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the log's instructions are from those that were trained.

    auc: how well a classifier that has seen neither row tells a log's from a trained one; 0.5 not at all, 1 always.
    foreign: the part of the log's that is further from all trained ones than 95% of these are from each other.
    examples: the most foreign ones.
    """

    auc: float
    low: float
    high: float
    foreign: float
    threshold: float
    examples: list[Near]


@dataclass(frozen=True, slots=True)
class FailureCluster:
    """Failures that are alike. words: what sets them apart. rate: the part of the log's rows like these that failed.

    coverage: the part of them that is not foreign to training. symptoms: (kind, what) and how many show it.
    examples: failures in the middle of the cluster, with the nearest trained instruction.
    """

    words: list[str]
    size: int
    rate: float
    coverage: float
    symptoms: list[tuple[Kind, str, int]]
    examples: list[Near]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """rows, failures: of the log. kinds: how many failures look like what."""

    rows: int
    failures: int
    trained: int
    shift: Shift
    clusters: list[FailureCluster]
    kinds: dict[Kind, int]


def diagnose(log: Sequence[Logged], trained: Sequence[str], *, seed: int = 0) -> Diagnosis:
    """Compare a log with the instructions that were trained. Both at least two; more than MOST_COMPARED are sampled."""
    random = np.random.default_rng(seed)
    trained = [trained[place] for place in _some(len(trained), random)]
    log = [log[place] for place in _some(len(log), random)]
    vectors = unit_vectors(tfidf, [*trained, *(row.instruction for row in log)])
    known, asked = vectors[: len(trained)], vectors[len(trained) :]
    similarity, nearest = _nearest(asked, known)
    own, _ = _nearest(known, known, apart=True)
    threshold = float(np.quantile(own, FOREIGN))

    def near(place: int) -> Near:
        row = log[place]
        return Near(row.id, row.instruction, trained[nearest[place]], float(similarity[place]))

    auc, low, high = _told_apart(known, asked, random)
    most_foreign = np.argsort(similarity, kind="stable")[: 2 * EXAMPLES + 4]
    shift = Shift(
        auc, low, high, float((similarity < threshold).mean()), threshold, [near(place) for place in most_foreign]
    )
    failed = np.flatnonzero([row.failed for row in log])
    symptoms = {place: symptom(log[place]) for place in failed.tolist()}
    clusters = []
    for members, of in _clustered(asked, failed):
        told = Counter(symptoms[place] for place in members.tolist()).most_common()
        middle = members[np.argsort(-(asked[members] @ asked[members].mean(0)), kind="stable")][:EXAMPLES]
        clusters.append(
            FailureCluster(
                _words([log[place].instruction for place in members], [row.instruction for row in log]),
                len(members),
                len(members) / max(of, 1),
                float((similarity[members] >= threshold).mean()),
                [(kind, what, count) for (kind, what), count in told],
                [near(place) for place in middle],
            )
        )
    kinds = Counter(kind for kind, _ in symptoms.values())
    return Diagnosis(len(log), len(failed), len(trained), shift, clusters, dict(kinds.most_common()))


def _some(count: int, random: np.random.Generator) -> list[int]:
    return sorted(random.permutation(count)[:MOST_COMPARED].tolist())


# How far apart


def _nearest(
    rows: NDArray[np.float32], others: NDArray[np.float32], *, apart: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Of each row the cosine to the most similar of the others, and which that is. apart: not itself."""
    best, which = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), 1024):
        cosines = rows[start : start + 1024] @ others.T
        if apart:
            places = np.arange(len(cosines))
            cosines[places, start + places] = -1.0
        which[start : start + 1024] = cosines.argmax(1)
        best[start : start + 1024] = cosines.max(1)
    return best, which


def _told_apart(
    known: NDArray[np.float32], asked: NDArray[np.float32], random: np.random.Generator
) -> tuple[float, float, float]:
    """AUC of a logistic regression over five folds, as many rows of either side, and its 95% interval.

    The interval is that of Hanley and McNeil (Radiology 143, 1982). Equal texts are kept in one fold, so that a row
    of the log is not recognised by its twin.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict

    count = min(len(known), len(asked), 2_000)
    sides = [side[random.permutation(len(side))[:count]] for side in (known, asked)]
    rows, labels = np.concatenate(sides), np.repeat([0, 1], count)
    _, twins = np.unique(np.round(rows, 4), axis=0, return_inverse=True)
    folds = min(5, len(set(twins.ravel().tolist())))
    if folds < 2:
        return 0.5, 0.0, 1.0
    model = LogisticRegression(C=10.0, max_iter=500)
    scores = cross_val_predict(
        model, rows, labels, groups=twins.ravel(), cv=GroupKFold(folds), method="decision_function"
    )
    auc = float(roc_auc_score(labels, scores))
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (count - 1) * (q1 - auc * auc) + (count - 1) * (q2 - auc * auc)
    half = 1.96 * math.sqrt(max(spread, 0.0)) / count
    return auc, max(auc - half, 0.0), min(auc + half, 1.0)


# Which failures belong together


def _clustered(asked: NDArray[np.float32], failed: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], int]]:
    """The failures in clusters, the largest first, each with how many rows of the log lie nearest to it."""
    if not len(failed):
        return []
    if len(failed) < 6:
        return [(failed, len(asked))]
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    rows, best = asked[failed], None
    sample = min(len(rows), 2_000)
    for count in range(2, min(MOST_CLUSTERS, len(rows) // 3) + 1):
        model = KMeans(count, n_init=3, random_state=0).fit(rows)
        if len(set(model.labels_.tolist())) < 2:
            continue
        score = silhouette_score(rows, model.labels_, sample_size=sample, random_state=0)
        if best is None or score > best[0]:
            best = score, model
    if best is None:
        return [(failed, len(asked))]
    belongs = best[1].predict(asked)
    found = [(failed[best[1].labels_ == name], int((belongs == name).sum())) for name in set(best[1].labels_.tolist())]
    return sorted(found, key=lambda pair: (-len(pair[0]), int(pair[0][0])))


def _words(texts: Sequence[str], everything: Sequence[str]) -> list[str]:
    """The words that set some texts apart from all: by the log-odds ratio of the texts they stand in, with a prior of
    one half (Monroe et al. 2008, without its variance), among those in a tenth of the texts or more."""
    inside, all_ = (Counter(word for text in part for word in _content(text)) for part in (texts, everything))
    frequent = [word for word, count in inside.items() if count >= max(2, len(texts) / 10)] or list(inside)

    def odds(word: str) -> float:
        share, rest = inside[word], all_[word] - inside[word]
        others = len(everything) - len(texts)
        return share * math.log(((share + 0.5) / (len(texts) + 1)) / ((rest + 0.5) / (others + 1)))

    return sorted(frequent, key=lambda word: (-odds(word), word))[:WORDS]


def _content(text: str) -> set[str]:
    return {word for word in re.findall(r"[^\W\d_]{3,}", text.casefold()) if word not in _COMMON}


_COMMON = frozenset(
    "the and for are was were that this with from have has had not but you your our their his her its can will would"
    " what which who how when where why does did into than then them they she him all any each more most one"
    " two".split()
)


# What a failure looks like


def symptom(row: Logged) -> tuple[Kind, str]:
    """What a failed row looks like, the first that holds; a guess from its texts, and no more than that.

    Not following: no answer, a refusal, the instruction again, the same words over and over, or a form that was asked
    for and not given. Missing knowledge: the form is right and what it says is not, or the model says that it does
    not know.
    """
    for kind, what, shows in _SYMPTOMS:
        if shows(row):
            return kind, what
    return "unclear", "nothing that its texts show"


def _json_missing(row: Logged) -> bool:
    if not re.search(r"\bjson\b", row.instruction, re.I):
        return False
    fenced = re.search(r"```(?:json)?\s*(.*?)```", row.response, re.S)
    try:
        json.loads(fenced[1] if fenced else row.response)
    except ValueError:
        return True
    return False


def _list_missing(row: Logged) -> bool:
    asked = re.search(r"\b(bullet(?:ed| points?)?|numbered list|as a list)\b", row.instruction, re.I)
    return bool(asked) and len(re.findall(r"(?m)^\s*(?:[-*•]|\d+[.)])\s+\S", row.response)) < 2


def _too_long(row: Logged) -> bool:
    """Longer than a limit that the instruction gives in words or sentences."""
    words = re.search(
        r"\b(?:at most|under|within|no more than|less than|maximum of) (\d+) words", row.instruction, re.I
    )
    if words and len(row.response.split()) > 1.1 * int(words[1]):
        return True
    if re.search(r"\b(?:one|a single) word\b", row.instruction, re.I):
        return len(row.response.split()) > 2
    one = re.search(r"\b(?:one|a single) sentence\b", row.instruction, re.I)
    return bool(one) and len(re.findall(r"[.!?](?:\s|$)", row.response.strip())) > 1


def _hedges(row: Logged) -> bool:
    said = r"\bI (?:do not|don['’]t|am not|['’]m not) (?:know|sure|aware|familiar|certain)\b|\bno information\b"
    return bool(re.search(said, row.response, re.I))


def _other_number(row: Logged) -> bool:
    wanted, got = answer_number(row.expected), answer_number(row.response)
    return wanted is not None and got is not None and wanted != got


def _other_words(row: Logged) -> bool:
    """About as long as the expected response, and hardly a word of it."""
    wanted, got = len(row.expected.split()), len(row.response.split())
    return 0 < wanted <= 3 * got and got <= 3 * wanted + 5 and token_f1(row.expected, row.response) < 0.5


def _other_form(row: Logged) -> bool:
    """A response many times as long as the expected one, or a small part of it."""
    wanted, got = len(row.expected.split()), len(row.response.split())
    return wanted > 0 and (got > 3 * wanted + 5 or wanted > 3 * got + 5)


_Check = Callable[[Logged], Any]
_SYMPTOMS: tuple[tuple[Kind, str, _Check], ...] = (
    ("not following", "no answer", lambda row: not row.response.strip()),
    ("not following", "a refusal", lambda row: is_refusal(row.response)),
    ("not following", "the instruction again", lambda row: is_copy(row.response, row.instruction)),
    ("not following", "the same over and over", lambda row: repetition(row.response, 2.5)),
    ("not following", "JSON was asked for and not given", _json_missing),
    ("not following", "a list was asked for and not given", _list_missing),
    ("not following", "longer than was asked for", _too_long),
    ("missing knowledge", "says that it does not know", _hedges),
    ("not following", "another form than the expected response", _other_form),
    ("missing knowledge", "another number than expected", _other_number),
    ("missing knowledge", "other words than expected", _other_words),
)
