"""Answering without a cache, for architectures that keep their past in another form than keys and values by position.

Every step reads all tokens again, padded at their ends, so what a row says is what it says alone: slow, and exact.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.model.hidden import decode_padded
from tunesmith.model.losses import head_of
from tunesmith.model.parts import decoder_of

_NEEDED = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")


def keeps_cache(model: PreTrainedModel) -> bool:
    """Whether a model (without a wrapper) can be given positions, padding and a cache of keys and values.

    Recurrent models can't: their past is a state.
    """
    taken = inspect.signature(model.forward).parameters
    return not getattr(model, "_is_stateful", False) and all(name in taken for name in _NEEDED)


class Uncached:
    """Rows being generated together, and the logits (rows, vocabulary) of each row's next token.

    steps: how many tokens each row has got so far.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._rows = [list(prompt) for prompt in prompts]
        self.steps = 0
        self.logits = self._forward()

    def step(self, tokens: Tensor, origins: Sequence[int]) -> None:
        """Go on with `tokens` (new rows,), each behind what the row `origins[i]` was until now."""
        self._rows = [[*self._rows[row], token] for row, token in zip(origins, tokens.tolist(), strict=True)]
        self.steps += 1
        self.logits = self._forward()

    def _forward(self) -> Tensor:
        decoder = decoder_of(self._model)
        longest = max(map(len, self._rows))
        # Padding repeats a real token: some models see a token of their own for padding as nothing at all.
        ids = torch.tensor([row + row[:1] * (longest - len(row)) for row in self._rows], device=decoder.device)
        last = torch.tensor([len(row) - 1 for row in self._rows], device=decoder.device)
        hidden = decode_padded(self._model, decoder, ids)
        logits: Tensor = head_of(self._model)(hidden[torch.arange(len(last), device=decoder.device), last])
        return logits
