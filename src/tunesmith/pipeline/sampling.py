"""Some held-out prompts, always the same, that a model answers while it trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tunesmith.base.conversation import Conversation
from tunesmith.evaluate.answers import answer, answerable, metrics_of
from tunesmith.evaluate.bertscore import BertScore
from tunesmith.pipeline.preparing import Prepared
from tunesmith.recipe.evaluation import Evaluate
from tunesmith.train.watching import Sampler


def spread(levels: Mapping[str, Sequence[Conversation]], count: int) -> dict[str, list[Conversation]]:
    """`count` answerable rows (all, if there are fewer), one of each level in turn and of the cluster seen least so
    far, so that few rows show many kinds."""
    left = {level: list(filter(answerable, rows)) for level, rows in levels.items()}
    chosen: dict[str, list[Conversation]] = {level: [] for level in levels}
    seen: Counter[str] = Counter()
    while seen.total() < count and any(left.values()):
        for level, rows in left.items():
            if rows and seen.total() < count:
                place = min(range(len(rows)), key=lambda place: seen[_cluster(rows[place])])
                row = rows.pop(place)
                seen[_cluster(row)] += 1
                chosen[level].append(row)
    return {level: rows for level, rows in chosen.items() if rows}


def sampler(
    levels: Mapping[str, Sequence[Conversation]], prepared: Prepared, evaluate: Evaluate, tokenizer: Any
) -> Sampler:
    """Greedy answers to these rows, each with its score by the metric that measures its task after training."""
    held_out = [*(row for rows in prepared.held_out.values() for row in rows), *prepared.validation]
    metrics_of(held_out, evaluate.metric)  # a fault is told before anything is spent
    given = evaluate.bertscore
    models = {"bertscore": BertScore(**given.model_dump())} if given else None

    def answers(model: nn.Module) -> list[dict[str, Any]]:
        found = answer(
            model,
            tokenizer,
            levels,
            style="chat",
            max_new_tokens=evaluate.max_new_tokens,
            metric=evaluate.metric,
            among=held_out,
            models=models,
            title="Answering samples",
        )
        return [
            {
                "row": one.row,
                "level": one.level,
                "cluster": one.cluster,
                "prompt": one.prompt,
                "expected": one.expected,
                "answer": one.response,
                "metric": one.metric,
                "score": one.score,
            }
            for one in found
        ]

    return answers


def _cluster(row: Conversation) -> str:
    return row.cluster or row.source
