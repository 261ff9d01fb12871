"""Answering prompts: batched, greedy or sampled, with a key-value cache.

Rows of similar prompt length share a batch, so little of it is padding; rows that finish leave it. Moving the last long
answers of a batch to the next one was measured to cost more (their prompts are read again) than it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.base.random import stream as random_stream
from tunesmith.model import seq2seq
from tunesmith.model.cached import Cached
from tunesmith.model.parts import causal_model
from tunesmith.model.prompts import virtual_tokens
from tunesmith.model.uncached import Uncached, keeps_cache

BATCH_ROWS = 64  # beyond this a CPU step costs in proportion to its rows
CACHE_TOKENS = 65_536
_STARTING = {"cpu": 4e6, "cuda": 1e9}  # bytes that memory moves while the operations of one layer are started


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop: Collection[int],
    max_new_tokens: int,
    pad_id: int = 0,
    finished: Callable[[int, list[int]], bool] | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    batch_rows: int = BATCH_ROWS,
    batch_tokens: int = CACHE_TOKENS,
    advance: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """The new tokens of every prompt, in the order of the prompts, without the stop token.

    A row ends at a stop token, after `max_new_tokens`, where the model's context is full, or when
    `finished(index, tokens)` says so. So a list shorter than its limit (`new_tokens_limit`) was ended by the model.
    temperature 0 is greedy. Otherwise the draws of row i depend on (seed, i) only, not on how rows are batched;
    top_k 0 and top_p 1 leave the distribution whole.
    batch_rows, batch_tokens: the most rows, and the most tokens of cache (rows x (prompt + new)), at one time.
    advance: called with the number of rows that just ended.
    """
    choose = _Choice(temperature, top_p, top_k, seed)
    limits = [new_tokens_limit(model, len(prompt), max_new_tokens) for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    stop = frozenset(stop)

    def ended(row: int, token: int) -> bool:
        if token in stop:
            return True
        answers[row].append(token)
        return len(answers[row]) >= limits[row] or (finished is not None and finished(row, answers[row]))

    if advance is not None:
        advance(limits.count(0))
    with evaluating(model):
        for rows in batches(model, [len(prompt) for prompt in prompts], limits, batch_rows, batch_tokens):
            batch = begin(model, [prompts[row] for row in rows], pad_id, max(limits[row] for row in rows))
            while rows:
                tokens = choose(batch.logits, rows, batch.steps)
                going = [place for place, token in enumerate(tokens.tolist()) if not ended(rows[place], token)]
                if advance is not None:
                    advance(len(rows) - len(going))
                going = _closed_up(going)
                rows = [rows[place] for place in going]
                if rows:
                    batch.step(tokens[torch.tensor(going, device=tokens.device)], going)
    return answers


def stream(
    model: PreTrainedModel,
    prompt: Sequence[int],
    *,
    stop: Collection[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
) -> Iterator[int]:
    """The tokens that `generate` gives for this one prompt, each as soon as it is there."""
    limit = new_tokens_limit(model, len(prompt), max_new_tokens)
    if limit == 0:
        return
    choose = _Choice(temperature, top_p, top_k, seed)
    with evaluating(model):
        batch = begin(model, [prompt], 0, limit)
    while True:
        token = choose(batch.logits, [0], batch.steps)
        if int(token) in stop:
            return
        yield int(token)  # outside of `evaluating`, which would else reach into the caller's code
        if batch.steps + 1 == limit:
            return
        with evaluating(model):
            batch.step(token, [0])


def new_tokens_limit(model: PreTrainedModel, prompt_tokens: int, max_new_tokens: int) -> int:
    """How many tokens may follow a prompt: `max_new_tokens`, or fewer where the model's context ends before."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if seq2seq.is_encoder_decoder(causal_model(model)):
        prompt_tokens = 0  # the encoder has it; the answer has the decoder's context to itself
    prompt_tokens += virtual_tokens(model)
    return max_new_tokens if context is None else max(0, min(max_new_tokens, context - prompt_tokens))


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """The model without dropout and gradients; afterwards in the mode it was in.

    Not `inference_mode`: a buffer that a model makes on its way (rotary tables) must stay usable in training.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def batches(
    model: PreTrainedModel, lengths: Sequence[int], limits: Sequence[int], most_rows: int, most_tokens: int
) -> Iterator[list[int]]:
    """Rows that may generate anything, in batches of similar prompt length.

    A step reads all weights once, and of each row as many columns of the cache as the longest has. So short prompts
    stay with long ones as long as their padding costs less than another reading of the weights: the cuts are those for
    which the sum of both is least. The longest come first: if memory does not suffice, that shows at once.

    lengths, limits: each row's prompt and new tokens at most. most_rows, most_tokens: as `generate` takes them.
    """
    waiting = sorted((row for row, limit in enumerate(limits) if limit > 0), key=lambda row: lengths[row])
    widths = [lengths[row] + max(limits) for row in waiting]
    step = _step_columns(model)
    least, starts = [0.0], []  # the cost of the shortest rows, and where the last batch of them starts
    for end, width in enumerate(widths, 1):
        count = max(1, min(most_rows, most_tokens // width, end))
        cost, start = min((least[start] + step + (end - start) * width, start) for start in range(end - count, end))
        least.append(cost)
        starts.append(start)
    end = len(waiting)
    while end:
        yield waiting[starts[end - 1] : end]
        end = starts[end - 1]


def _step_columns(model: PreTrainedModel) -> float:
    """How many columns of the cache can be read in the time that a step takes beside them, by the bytes of both."""
    inner = causal_model(model)
    config, width = inner.config.get_text_config(), inner.get_input_embeddings().weight.shape[-1]

    def known(name: str, otherwise: int) -> int:
        """What the configuration says, if it says one number for all layers; there are others, and Mamba's."""
        value = getattr(config, name, None)
        return value if isinstance(value, int) else otherwise

    layers, heads = known("num_hidden_layers", 1), known("num_attention_heads", 1)
    size, shared = known("head_dim", width // heads), known("num_key_value_heads", heads)
    column: float = 2 * layers * shared * size * model.dtype.itemsize
    weights: int = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    starting: float = layers * _STARTING.get(model.device.type, _STARTING["cuda"])
    return (weights + starting) / column


def begin(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int, room: int, copies: int = 1
) -> Cached | Uncached | seq2seq.Generation:
    """The prompts read, as rows that can be continued by up to `room` tokens. copies: see `Cached`."""
    inner = causal_model(model)
    if seq2seq.is_encoder_decoder(inner):
        return seq2seq.Generation(inner, prompts, pad_id)
    return Cached(model, prompts, pad_id, room, copies=copies) if keeps_cache(inner) else Uncached(model, prompts)


def _closed_up(places: list[int]) -> list[int]:
    """The places (ascending) that go on, the last ones in the gaps of those that don't, so that few rows move."""
    count, kept = len(places), set(places)
    behind = iter([place for place in places if place >= count])
    return [place if place in kept else next(behind) for place in range(count)]


@dataclass(frozen=True, slots=True)
class _Choice:
    """The next token of each row: the most likely one, or drawn by inverting the cumulative distribution."""

    temperature: float
    top_p: float
    top_k: int
    seed: int

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        if self.temperature == 0:
            return logits.argmax(-1)
        draws = [random_stream(self.seed, "token", row, step).random() for row in rows]
        likely = (logits.float() / self.temperature).softmax(-1)
        if self.top_p < 1 or self.top_k > 0:
            likely = self._cut(likely)
        reached = likely.cumsum(-1)
        total = reached[:, -1:]
        draw = torch.tensor(draws, dtype=total.dtype, device=total.device)[:, None] * total
        draw = draw.minimum(torch.nextafter(total, torch.zeros_like(total)))  # rounding must not reach past the last
        return torch.searchsorted(reached, draw, right=True)[:, 0]

    def _cut(self, likely: Tensor) -> Tensor:
        """Zero for all but the `top_k` most likely tokens, and of these all that follow a share of `top_p`."""
        ranked, order = likely.sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(-1) - ranked  # nothing comes before the first token, so it always stays
        ranked = ranked.masked_fill(before >= self.top_p, 0.0)
        ranked[:, self.top_k or ranked.shape[-1] :] = 0.0
        return torch.zeros_like(likely).scatter_(-1, order, ranked)
