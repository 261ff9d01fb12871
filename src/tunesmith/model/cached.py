"""Rows that are generated together by a decoder with a cache: prompts read once, then a token of each row at a time.

Where the model attends within documents, prompts are read as packed rows: no padding, no mask. Elsewhere, and behind
trained prefixes, they are padded on the left. Either way all rows' last tokens stand in one column, so that the next
ones do too.

Shapes: R rows, W hidden size, V vocabulary, n new tokens of each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tunesmith.model.attention import Layout, packed, packs
from tunesmith.model.cache import RowCache
from tunesmith.model.losses import head_of
from tunesmith.model.parts import causal_model, decoder_of
from tunesmith.model.prompts import before_documents, is_prefix, virtual_embeddings, virtual_tokens

READ_TOKENS = 2048  # of a packed row of prompts; longer ones outgrow a processor's cache and are slower


def shares_prompts(model: PreTrainedModel) -> bool:
    """Whether `Cached` can say what follows each prompt without forgetting it: see `Cached.after`."""
    return packs(decoder_of(model)) and not is_prefix(model)


class Cached:
    """The rows' cache and the logits (R, V) of each row's next token.

    room: how many tokens may follow. copies: how many rows may come from one prompt (beams).
    steps: how many tokens each row has got so far.
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, room: int, *, copies: int = 1
    ) -> None:
        self._decoder, self._head = decoder_of(model), head_of(model)
        virtual = virtual_tokens(model)
        cached = virtual if is_prefix(model) else 0
        self._width, self.steps = max(map(len, prompts)) + virtual, 0
        seen = np.ones((len(prompts), self._width + room), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            seen[row, cached : self._width - len(prompt) - virtual + cached] = 0
        self._seen = torch.from_numpy(seen).to(self._decoder.device)
        self._positions = (self._seen.cumsum(1) - 1).clamp_(min=0)
        self._cache: Any
        if shares_prompts(model):
            layers = self._decoder.config.get_text_config().num_hidden_layers
            blank = self._width - virtual - min(map(len, prompts))
            self._cache = RowCache(layers, len(prompts) * copies, self._width + room, blank)
            self.logits = self._head(self._read_packed(prompts, virtual_embeddings(model) if virtual else None))
            self._cache.rows, self._cache.length = len(prompts), self._width
        else:
            self.logits = self._read_padded(model, prompts, pad_id, cached)

    def step(self, tokens: Tensor, origins: Sequence[int]) -> None:
        """Go on with `tokens` (new rows,), each behind what the row `origins[i]` was until now."""
        if list(origins) != list(range(len(self.logits))):
            places = torch.tensor(origins, device=tokens.device)
            self._seen, self._positions = self._seen[places], self._positions[places]
            self._cache.reorder_cache(places)
        self.steps += 1
        hidden = self._forward(tokens[:, None])
        self._advance(1)
        self.logits = self._head(hidden[:, -1])

    def after(self, ids: Tensor) -> Tensor:
        """(R, n, W) hidden states at `ids` (R, n) behind each row, which the rows then forget."""
        assert isinstance(self._cache, RowCache), "only a cache that is written in place can forget"
        return self._forward(ids)

    def _advance(self, count: int) -> None:
        self._width += count
        if isinstance(self._cache, RowCache):
            self._cache.length += count

    def _forward(self, ids: Tensor | None = None, embedded: Tensor | None = None, past: int | None = None) -> Tensor:
        """(R, n, W) hidden states at token ids (R, n), or at embeddings (R, n, W), behind `past` columns."""
        given, name = (ids, "input_ids") if embedded is None else (embedded, "inputs_embeds")
        assert given is not None
        past = self._width if past is None else past
        end = past + given.shape[1]
        output = self._decoder(
            **{name: given},
            attention_mask=self._seen[:, :end],
            position_ids=self._positions[:, past:end],
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _read_packed(self, prompts: Sequence[Sequence[int]], virtual: Tensor | None) -> Tensor:
        """(R, W) hidden states of the prompts' last tokens; fills the cache. virtual: embeddings before each prompt."""
        device, found = self._decoder.device, []
        for rows in _readings([len(prompt) for prompt in prompts]):
            lengths = np.array([len(prompts[row]) for row in rows])
            layout = Layout.of(lengths, device)
            ids = torch.tensor([token for row in rows for token in prompts[row]], device=device)[None]
            positions = torch.cat([torch.arange(length, device=device) for length in lengths])[None]
            last = layout.boundaries[1:].long() - 1
            given: dict[str, Tensor] = {"input_ids": ids}
            if virtual is not None:
                embedded = self._decoder.get_input_embeddings()(ids)
                embedded, positions, layout, last = before_documents(virtual, embedded, layout, last)
                given = {"inputs_embeds": embedded}
            counts = torch.tensor(layout.lengths, device=device)
            row = torch.repeat_interleave(torch.tensor(rows, device=device), counts)
            self._cache.places = row, positions[0] + self._width - torch.repeat_interleave(counts, counts)
            with packed(layout):
                output = self._decoder(**given, position_ids=positions, past_key_values=self._cache, use_cache=True)
            self._cache.places = None
            found.append(output.last_hidden_state[0].index_select(0, last))
        return torch.cat(found)

    def _read_padded(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, cached: int) -> Tensor:
        """(R, V) logits behind the prompts; fills the cache. cached: trained keys and values before each prompt.

        Those come before the padding. Trained embeddings stand between the padding and the prompt.
        """
        device, virtual = self._decoder.device, virtual_tokens(model)
        ids = np.full((len(prompts), self._width - cached), pad_id, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, ids.shape[1] - len(prompt) :] = prompt
        given, embedded = torch.from_numpy(ids).to(device), None
        if cached:
            self._cache = model.get_prompt(batch_size=len(prompts))
        else:
            self._cache = DynamicCache(config=causal_model(model).config.get_text_config())
        if virtual and not cached:
            embedded = self._decoder.get_input_embeddings()(given)
            starts = self._width - virtual - torch.tensor([len(prompt) for prompt in prompts], device=device)
            places = starts[:, None] + torch.arange(virtual, device=device)
            rows = torch.arange(len(prompts), device=device)[:, None]
            embedded[rows, places] = virtual_embeddings(model).to(embedded)
        hidden = self._forward(given, embedded, past=cached)
        logits: Tensor = self._head(hidden[:, -1])
        return logits


def _readings(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows in their order, cut such that a packed row of them has at most READ_TOKENS, or is one longer prompt."""
    rows: list[int] = []
    for row, length in enumerate(lengths):
        if rows and sum(lengths[one] for one in rows) + length > READ_TOKENS:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
