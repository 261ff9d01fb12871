"""How likely a model holds continuations of prompts: what choosing among options, and lm-evaluation-harness, ask.

A prompt with several continuations is read once: each continuation is read behind its cache, which then forgets it.
Models that can't (see `shares_prompts`) read every continuation behind its prompt in packed rows.

Shapes: R rows, n tokens, S places, W hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.model.cached import Cached, shares_prompts
from tunesmith.model.generate import CACHE_TOKENS, batches, evaluating
from tunesmith.model.losses import CHUNK, PackedRow, head_of, hidden_of
from tunesmith.model.parts import causal_model
from tunesmith.model.seq2seq import is_encoder_decoder
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded

BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Of one continuation: the sum of its tokens' log-probabilities (nats), how many tokens, and whether each of them
    is the one that greedy decoding takes."""

    log: float
    tokens: int
    greedy: bool


def likelihoods(
    model: Any,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    *,
    batch_rows: int = BATCH_ROWS,
    batch_tokens: int = CACHE_TOKENS,
    advance: Callable[[int], None] | None = None,
) -> list[list[Likelihood]]:
    """The likelihood of each prompt's continuations, in their order. None may be empty, prompts neither.

    batch_rows, batch_tokens: the most prompts, and tokens of them with their longest continuation, read at one time.
    advance: called with the number of prompts that are done.
    """
    assert all(prompts) and all(all(some) for some in continuations), "nothing can be predicted from nothing"
    longest = [max(map(len, some), default=0) for some in continuations]
    lengths = [len(prompt) + more for prompt, more in zip(prompts, longest, strict=True)]
    found: list[list[Likelihood]] = [[] for _ in prompts]
    shared = not is_encoder_decoder(causal_model(model)) and shares_prompts(model)
    read = _behind_shared if shared else _behind_each
    with evaluating(model):
        for rows in batches(model, lengths, longest, batch_rows, batch_tokens):
            given = [prompts[row] for row in rows], [continuations[row] for row in rows]
            for row, likely in zip(rows, read(model, *given), strict=True):
                found[row] = likely
            if advance is not None:
                advance(len(rows))
    return found


def _behind_shared(
    model: Any, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
) -> list[list[Likelihood]]:
    room = max(len(one) for some in continuations for one in some)
    head, batch = head_of(model), Cached(model, prompts, 0, room)
    sums = [[0.0] * len(some) for some in continuations]
    greedy = [[True] * len(some) for some in continuations]

    def add(places: Sequence[tuple[int, int]], logs: Tensor, best: Tensor) -> None:
        for (row, option), log, is_best in zip(places, logs.tolist(), best.tolist(), strict=True):
            sums[row][option] += log
            greedy[row][option] &= is_best

    firsts = [(row, option) for row, some in enumerate(continuations) for option in range(len(some))]
    add(firsts, *_first_tokens(batch.logits, continuations))
    for chosen in _by_length(continuations):
        parts = [
            some[option][:-1] if option is not None else () for some, option in zip(continuations, chosen, strict=True)
        ]
        width = max(map(len, parts))
        if not width:
            break
        ids = np.zeros((len(parts), width), dtype=np.int64)
        for row, part in enumerate(parts):
            ids[row, : len(part)] = part
        hidden = batch.after(torch.from_numpy(ids).to(batch.logits.device))
        real = torch.from_numpy(np.arange(width) < np.array([len(part) for part in parts])[:, None]).to(hidden.device)
        targets = [
            token
            for some, option in zip(continuations, chosen, strict=True)
            if option is not None
            for token in some[option][1:]
        ]
        places = [(row, option) for row, option in enumerate(chosen) if option is not None for _ in parts[row]]
        add(places, *_scored(head, hidden[real], torch.tensor(targets, device=hidden.device)))
    return [
        [Likelihood(log, len(one), best) for log, one, best in zip(*columns, strict=True)]
        for columns in zip(sums, continuations, greedy, strict=True)
    ]


def _first_tokens(logits: Tensor, continuations: Sequence[Sequence[Sequence[int]]]) -> tuple[Tensor, Tensor]:
    """What `_scored` gives for the first token of every continuation. logits (R, V)."""
    device = logits.device
    rows = torch.tensor([row for row, some in enumerate(continuations) for _ in some], device=device)
    tokens = torch.tensor([one[0] for some in continuations for one in some], device=device)
    logs = logits.float().log_softmax(-1)
    return logs[rows, tokens], logs.argmax(-1)[rows] == tokens


def _by_length(continuations: Sequence[Sequence[Sequence[int]]]) -> Iterator[list[int | None]]:
    """One continuation of each row at a time, every row's longest first; None where a row has no more."""
    orders = [sorted(range(len(some)), key=lambda option: -len(some[option])) for some in continuations]
    for place in range(max(map(len, orders))):
        yield [order[place] if place < len(order) else None for order in orders]


def _behind_each(
    model: Any, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[Sequence[int]]]
) -> list[list[Likelihood]]:
    pairs = [(prompt, one) for prompt, some in zip(prompts, continuations, strict=True) for one in some]
    likely = iter(
        [one for start in range(0, len(pairs), BATCH_ROWS) for one in _packed(model, pairs[start : start + BATCH_ROWS])]
    )
    return [[next(likely) for _ in some] for some in continuations]


def _packed(model: Any, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Likelihood]:
    sequences = [
        Encoded.from_spans([*prompt, *after], ((0, len(prompt), len(prompt) + len(after)),)) for prompt, after in pairs
    ]
    row = PackedRow.of(make_batch(sequences, range(len(sequences))), model.device)
    logs, best = _scored(head_of(model), hidden_of(model, row), row.targets)
    ends = np.cumsum([len(after) for _, after in pairs])[:-1].tolist()
    parts = zip(logs.tensor_split(ends), best.tensor_split(ends), strict=True)
    return [Likelihood(float(log.double().sum()), len(log), bool(is_best.all())) for log, is_best in parts]


def _scored(head: nn.Module, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(S,) the log-probability of each target, and whether it is the likeliest token. hidden (S, W)."""
    logs, best = [], []
    for part, wanted in zip(torch.split(hidden, CHUNK), torch.split(targets, CHUNK), strict=True):
        likely = head(part).float().log_softmax(-1)
        logs.append(likely.gather(1, wanted[:, None])[:, 0])
        best.append(likely.argmax(-1) == wanted)
    return torch.cat(logs), torch.cat(best)
