"""Base against tuned model on the same items: evaluation/summary.json and evaluation/items.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tunesmith.base.conversation import Conversation
from tunesmith.base.files import write_json, write_text
from tunesmith.evaluate.answers import Answer, case
from tunesmith.evaluate.intervals import Interval, paired_interval, ratio, ratio_interval, sums_interval
from tunesmith.evaluate.language import Losses, TextBits
from tunesmith.evaluate.overlap import CORPUS_SCORES, Counts

UNSTOPPED = 0.1  # share of the tuned model's answers without an end from which on it is said

FEW_ITEMS = 30  # below, an interval is rough
SEVERAL = "several"  # rows of several metrics

T = TypeVar("T")
Together = Mapping[str, Answer]  # all answers to one row, by who gave them: "base_chat", "base_plain", "tuned"
Filled = Mapping[str, int]  # of one prompt, the context that it fills, or 0, by who was asked; see `Answer.filled`


@dataclass(frozen=True, slots=True)
class RowLoss:
    """The loss of one row's response (nats, summed over its supervised tokens) before and after."""

    row: str
    item: str
    level: str
    cluster: str
    tokens: int
    base: float
    tuned: float


def loss_rows(levels: Mapping[str, Sequence[Conversation]], base: Losses, tuned: Losses) -> list[RowLoss]:
    """The losses of the rows of every level, in order, as `response_losses` measured them on the same sequences."""
    names = [name for name, level in levels.items() for _ in level]
    rows = [row for level in levels.values() for row in level]
    assert np.array_equal(base.tokens, tuned.tokens), "base and tuned model were measured on different tokens"
    columns = zip(names, rows, base.tokens.tolist(), base.nats.tolist(), tuned.nats.tolist(), strict=True)
    return [RowLoss(r.id, r.item or r.id, name, r.cluster or r.source, *numbers) for name, r, *numbers in columns]


def compare(
    answers: Mapping[str, Sequence[Answer]],
    losses: Sequence[RowLoss] = (),
    text: tuple[TextBits, TextBits] | None = None,
    *,
    max_rise: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The summary of an evaluation, ready for JSON.

    answers: by who gave them, "tuned" and "base_chat" or "base_plain" or both, all to the same rows in the same order;
    empty if none were generated. losses: from `loss_rows`. text: the same texts under the base and the tuned model.
    max_rise: how much bits per byte may rise, relative to the base, for forgetting to be `held`; None: no limit.
    """
    rows_answered = together(answers)
    by_level = _grouped(rows_answered, lambda row: row["tuned"].level)
    metrics = {row["tuned"].metric for row in rows_answered}
    levels = {
        level: {
            "overall": score_row(rows, seed),
            "clusters": _by(rows, lambda row: row["tuned"].cluster, lambda part: score_row(part, seed)),
            "tasks": _by(rows, lambda row: row["tuned"].task, lambda part: score_row(part, seed)),
        }
        for level, rows in by_level.items()
    }
    loss = {
        level: {
            "overall": loss_row(rows, seed),
            "clusters": _by(rows, lambda row: row.cluster, lambda part: loss_row(part, seed)),
        }
        for level, rows in _grouped(losses, lambda row: row.level).items()
    }
    forgetting = None if text is None else forgetting_row(*text, max_rise, seed)
    return {
        "generation": {"metric": metrics.pop() if len(metrics) == 1 else "auto", "levels": levels},
        "loss": loss,
        "forgetting": forgetting,
        "warnings": [
            *unstopped(answers.get("tuned", ()), "evaluate.max_new_tokens"),
            *unanswered({f"prompts of {_spaced(level)}": filled(rows) for level, rows in by_level.items()}),
            *_few(levels, loss, forgetting),
        ],
    }


def write_evaluation(folder: Path, summary: Mapping[str, Any], answers: Mapping[str, Sequence[Answer]]) -> None:
    """Write summary.json and items.jsonl, one object for each answered row, to `folder`."""
    # ASCII only: some readers take Unicode's line separators for the end of a line.
    lines = [json.dumps(item_row(row)) + "\n" for row in together(answers)]
    write_text(folder / "items.jsonl", "".join(lines))
    write_json(folder / "summary.json", summary)


def together(answers: Mapping[str, Sequence[Answer]]) -> list[Together]:
    rows: list[Together] = [dict(zip(answers, row, strict=True)) for row in zip(*answers.values(), strict=True)]
    for row in rows:
        assert len({(a.row, a.level, a.metric) for a in row.values()}) == 1, "answers to different rows"
    return rows


def score_row(rows: Sequence[Together], seed: int) -> dict[str, Any]:
    """Scores and the difference to the better of the base's prompt styles, clustered by item.

    Rows of one metric have its score, BLEU say of all of them together; rows of several the mean of their own scores.
    """
    items, metrics = [row["tuned"].item for row in rows], {row["tuned"].metric for row in rows}
    metric = metrics.pop() if len(metrics) == 1 else SEVERAL
    score = CORPUS_SCORES[metric].score if metric in CORPUS_SCORES else ratio
    counts = {who: _counts([row[who] for row in rows], metric) for who in rows[0]}
    means = {who: sums_interval(values, score, items, seed=seed) for who, values in counts.items()}
    styles = [who for who in means if who != "tuned"]
    best = max(styles, key=lambda who: means[who].mean)
    return {
        "n": len(rows),
        "items": len(set(items)),
        "metric": metric,
        "unanswered": sum(any(prompt.values()) for _, prompt in filled(rows)),
        "base": {who.removeprefix("base_"): _fields(means[who]) for who in styles},
        "tuned": _fields(means["tuned"]),
        "difference": _fields(paired_interval(counts[best], counts["tuned"], score, items, seed=seed)),
    }


def _counts(answers: Sequence[Answer], metric: str) -> Counts:
    """What each answer adds to the score of many, (answers, k): its own score and 1, or a corpus score's counts."""
    if metric in CORPUS_SCORES:
        return CORPUS_SCORES[metric].counts([case(answer) for answer in answers])
    return np.array([[answer.score, 1.0] for answer in answers])


def loss_row(rows: Sequence[RowLoss], seed: int) -> dict[str, Any]:
    """Nats per response token before and after, each row weighing by its tokens."""
    tokens, items = [row.tokens for row in rows], [row.item for row in rows]
    difference = ratio_interval([row.tuned - row.base for row in rows], tokens, items, seed=seed)
    return {
        "n": len(rows),
        "items": len(set(items)),
        "tokens": sum(tokens),
        "base": sum(row.base for row in rows) / sum(tokens),
        "tuned": sum(row.tuned for row in rows) / sum(tokens),
        "difference": _fields(difference),
    }


def forgetting_row(base: TextBits, tuned: TextBits, max_rise: float | None, seed: int) -> dict[str, Any]:
    """Bits per byte before and after; `rise` is relative to the base, its interval over documents."""
    ratio = ratio_interval(tuned.bits, base.bits, seed=seed)
    rise, low, high = (value - 1 for value in ratio)
    return {
        "documents": len(base.bits),
        "bytes": int(base.bytes.sum()),
        "base": base.per_byte,
        "tuned": tuned.per_byte,
        "rise": rise,
        "low": low,
        "high": high,
        "limit": max_rise,
        "held": is_within(rise, max_rise),
    }


def is_within(worse: float, limit: float | None) -> bool:
    """Whether a limit holds. What is exactly at it does: 0.80 less 0.75 is a little above 0.05 in floating point."""
    return limit is None or worse <= limit + 1e-9


def unstopped(tuned: Sequence[Answer], key: str) -> list[str]:
    """A warning where many answers did not end. key: of the recipe, what limits them."""
    endless = sum(not answer.stopped and not answer.filled for answer in tuned)
    if endless <= UNSTOPPED * len(tuned):
        return []
    return [
        f"{endless} of the tuned model's {len(tuned)} answers did not end by themselves: they reached the limit of new "
        f"tokens or the end of the context. If answers may be that long, raise {key}."
    ]


def filled(rows: Sequence[Together]) -> list[tuple[str, Filled]]:
    """The context that each row's prompt fills, as `unanswered` takes it."""
    return [(row["tuned"].row, {who: answer.filled for who, answer in row.items()}) for row in rows]


def unanswered(asked: Mapping[str, Sequence[tuple[str, Filled]]], so: str = "score 0") -> list[str]:
    """A warning where prompts left no room for an answer.

    asked: prompts with their names, by what they are called together. so: what comes of no answer.
    """
    full = {what: [prompt for prompt in prompts if any(prompt[1].values())] for what, prompts in asked.items()}
    found = [prompt for prompts in full.values() for prompt in prompts]
    if not found:
        return []
    said = [f"{len(full[what]):,} of {len(prompts):,} {what}" for what, prompts in asked.items() if full[what]]
    counts = {who: sum(prompt[who] > 0 for _, prompt in found) for who in found[0][1]}
    differ = f" ({', '.join(f'{_spaced(who)} {count:,}' for who, count in counts.items())})"
    context = max(max(prompt.values()) for _, prompt in found)
    return [
        f"{' and '.join(said)} fill the context of {context:,} tokens and could not be answered"
        f"{differ if len(set(counts.values())) > 1 else ''}; they {so}: shorten them or take a base with a longer "
        f"context. One of them is {found[0][0]}."
    ]


def _few(
    levels: Mapping[str, Mapping[str, Any]], loss: Mapping[str, Mapping[str, Any]], forgetting: Mapping[str, Any] | None
) -> list[str]:
    """A warning that tells of levels, and of how many clusters of the others, whose intervals stand on few items."""
    said: list[str] = []
    for name, level in levels.items():
        words, items = _spaced(name), level["overall"]["items"]
        few = sum(row["items"] < FEW_ITEMS for row in level["clusters"].values())
        if items < FEW_ITEMS:
            said.append(f"{words} ({items:,} items)")
        elif few:
            said.append(f"{few:,} of {len(level['clusters']):,} clusters of {words}")
    few_rows = [(name, level["overall"]["items"]) for name, level in loss.items()]
    said += [f"losses of {_spaced(name)} ({items:,} items)" for name, items in few_rows if items < FEW_ITEMS]
    if forgetting and forgetting["documents"] < FEW_ITEMS:
        said.append(f"plain text ({forgetting['documents']:,} documents)")
    if not said:
        return []
    return [
        f"an interval of fewer than {FEW_ITEMS} items is rough and may miss the truth more often than once in twenty: "
        f"{', '.join(said)}. Hold out more (data.hold_out) or measure more (evaluate.items, losses, forgetting)."
    ]


def item_row(answers: Together) -> dict[str, Any]:
    row = answers["tuned"]
    shared = ("row", "item", "level", "cluster", "task", "metric", "prompt", "expected")
    return {
        **{name: getattr(row, name) for name in shared},
        "answers": {who: answer.response for who, answer in answers.items()},
        "scores": {who: answer.score for who, answer in answers.items()},
        "stopped": {who: answer.stopped for who, answer in answers.items()},
    }


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _grouped(rows: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _by(rows: Iterable[T], key: Callable[[T], str], summary: Callable[[list[T]], dict[str, Any]]) -> dict[str, Any]:
    """A summary of each named group, in order of name."""
    return {name: summary(part) for name, part in sorted(_grouped(rows, key).items()) if name}


def _fields(interval: Interval) -> dict[str, float]:
    return interval._asdict()
