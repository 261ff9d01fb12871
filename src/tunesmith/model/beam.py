"""Beam search: of the answers that several paths through the model find, the one of the highest score.

A score is the sum of the tokens' log-probabilities over the length (stop token included) to the power of
`length_penalty`. Which paths go on, and when none can win any more, follows the search of Transformers (`num_beams`,
early_stopping=False), so that its answers are the same: of the best beams x (1 + stop tokens) continuations, those
that stop among the best `beams` are kept as answers, and the best `beams` that don't stop go on; it ends when the best
path, at its present length, scores no more than the worst of `beams` answers.

Shapes: P prompts, B beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.model.generate import BATCH_ROWS, CACHE_TOKENS, batches, begin, evaluating, new_tokens_limit


def beam_search(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    stop: Collection[int],
    max_new_tokens: int,
    length_penalty: float = 1.0,
    pad_id: int = 0,
    finished: Callable[[int, list[int]], bool] | None = None,
    batch_rows: int = BATCH_ROWS,
    batch_tokens: int = CACHE_TOKENS,
    advance: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """The best answer to every prompt, in their order, without the stop token; the other arguments as in `generate`.

    length_penalty: above 0 favours long answers, below short ones. A row of a batch is one beam.
    """
    limits = [new_tokens_limit(model, len(prompt), max_new_tokens) for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    if advance is not None:
        advance(limits.count(0))
    most_rows, most_tokens = max(1, batch_rows // beams), max(1, batch_tokens // beams)
    with evaluating(model):
        for members in batches(model, [len(prompt) for prompt in prompts], limits, most_rows, most_tokens):
            searches = {
                row: _Search(beams, frozenset(stop), limits[row], length_penalty, finished and partial(finished, row))
                for row in members
            }
            room = max(limits[row] for row in members)
            batch = begin(model, [prompts[row] for row in members], pad_id, room, copies=beams)
            going = list(members)
            while going:
                continued = [searches[row] for row in going]
                tokens, origins = _continue(continued, batch.logits)
                ended = [row for row in going if searches[row].ended]
                for row in ended:
                    answers[row] = searches[row].best()
                if advance is not None:
                    advance(len(ended))
                going = [row for row in going if not searches[row].ended]
                if going:
                    batch.step(torch.tensor(tokens, device=batch.logits.device), origins)
    return answers


def _continue(searches: Sequence[_Search], logits: Tensor) -> tuple[list[int], list[int]]:
    """Let every search take one step. logits (rows, V): of its paths, search after search.

    Returns the next tokens of the paths of searches that go on, and the rows that they continue.
    """
    counts = [len(search.paths) for search in searches]
    scores = torch.tensor([path.score for search in searches for path in search.paths], device=logits.device)
    likely = logits.float().log_softmax(-1).add_(scores[:, None])
    tokens, origins, first = [], [], 0
    for search, count in zip(searches, counts, strict=True):
        wanted = min(search.candidates, count * likely.shape[1])
        best, places = likely[first : first + count].flatten().topk(wanted)
        search.step(best.tolist(), places.tolist(), likely.shape[1])
        if not search.ended:
            tokens += [path.tokens[-1] for path in search.paths]
            origins += [first + path.origin for path in search.paths]
        first += count
    return tokens, origins


@dataclass(frozen=True, slots=True)
class _Path:
    """Tokens with the sum of their log-probabilities, and which path of the step before they continue."""

    tokens: tuple[int, ...] = ()
    score: float = 0.0
    origin: int = 0


@dataclass(slots=True)
class _Search:
    """The search for one prompt: paths that go on, best first, and answers found, as (score, tokens)."""

    beams: int
    stop: frozenset[int]
    limit: int
    length_penalty: float
    finished: Callable[[list[int]], bool] | None
    paths: list[_Path] = field(default_factory=lambda: [_Path()])
    answers: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    ended: bool = False

    @property
    def candidates(self) -> int:
        """As many continuations leave `beams` that don't stop, even if every path's stop tokens come first."""
        return max(2, 1 + len(self.stop)) * self.beams

    def step(self, scores: Sequence[float], places: Sequence[int], vocabulary: int) -> None:
        """Take the best continuations: their scores, best first, and places in the paths' (paths x V) logits."""
        length = len(self.paths[0].tokens) + 1
        going: list[_Path] = []
        for rank, (score, place) in enumerate(zip(scores, places, strict=True)):
            origin, token = divmod(place, vocabulary)
            path = _Path((*self.paths[origin].tokens, token), score, origin)
            whole = length == self.limit or (self.finished is not None and self.finished(list(path.tokens)))
            if token not in self.stop and not whole:
                going.append(path)
            elif rank < self.beams:
                kept = path.tokens[:-1] if token in self.stop else path.tokens
                self.answers.append((score / length**self.length_penalty, kept))
        self.answers = sorted(self.answers, key=lambda answer: -answer[0])[: self.beams]
        self.paths = going[: self.beams]
        full = len(self.answers) == self.beams
        self.ended = not self.paths or (full and self._best_possible(length) <= self.answers[-1][0])

    def _best_possible(self, length: int) -> float:
        return self.paths[0].score / float(length**self.length_penalty)

    def best(self) -> list[int]:
        return list(self.answers[0][1])
