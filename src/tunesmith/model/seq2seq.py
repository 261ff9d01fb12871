"""Encoder-decoders (T5, BART and their kin): hidden states at the labels of a packed row, and generation step by step.

The pairs of a packed row (see `tokens.seq2seq`) are gathered into groups of similar length, padded at their ends. The
encoder's mask hides padding from it and from the decoder's cross-attention; in the decoder causality does. So a pair's
hidden states and gradients are those it has alone.

Shapes: S supervised tokens of a row, W hidden size, V vocabulary; N pairs, E and D encoder and decoder lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from tunesmith.base.errors import UserError
from tunesmith.model.noise import documents_of
from tunesmith.model.parts import gathers_layers
from tunesmith.tokens.seq2seq import Group, Pairs, groups_of


def is_encoder_decoder(model: PreTrainedModel) -> bool:
    return bool(getattr(model.config, "is_encoder_decoder", False))


def start_token(model: PreTrainedModel) -> int:
    """The token that the decoder is given first. Raises UserError if the model names none."""
    for config in (model.config, model.generation_config):
        token = getattr(config, "decoder_start_token_id", None)
        if isinstance(token, int):
            return token
    raise UserError(
        f"base {model.config.name_or_path} is an encoder-decoder, and its config.json names no decoder_start_token_id, "
        f"so it is not known what its decoder starts from. Add it there; for T5 models it is the padding token, 0."
    )


def hidden_at_labels(model: PreTrainedModel, ids: Tensor, predicting: Tensor, boundaries: Tensor) -> Tensor:
    """(S, W) what the decoder says where it predicts the supervised tokens of a packed row, in the row's order.

    model: of Transformers, without a wrapper. ids (1, T); predicting (S,) places before the supervised tokens;
    boundaries (documents + 1,).
    """
    supervised, together = predicting.cpu().numpy() + 1, gathers_layers(model)
    count = len(supervised)
    if not count and not together:
        nothing = torch.zeros(0, _width(model), dtype=model.dtype, device=ids.device)
        return nothing.requires_grad_(torch.is_grad_enabled())  # so that a loss of 0 has its gradients of 0
    if not count:  # a pair is computed for nothing, so that no other rank waits for this one
        supervised = np.array([1])
    groups = groups_of(Pairs.of(supervised, boundaries.cpu().numpy()), together=together)
    start = start_token(model)
    hidden = torch.cat([_group_hidden(model, ids[0], group, start) for group in groups])
    order = np.argsort(np.concatenate([group.tokens for group in groups]))
    return hidden.index_select(0, torch.from_numpy(order[:count]).to(ids.device))


def _group_hidden(model: PreTrainedModel, ids: Tensor, group: Group, start: int) -> Tensor:
    """(labels, W) of one group, pair after pair."""
    arrays = group.read, group.seen.astype(np.int64), group.given, group.produced, group.flat
    read, seen, given, produced, flat = (torch.from_numpy(array).to(ids.device) for array in arrays)
    with documents_of(seen.sum(1, keepdim=True)):
        encoded = model.get_encoder()(input_ids=ids[read], attention_mask=seen).last_hidden_state
    first = ids.new_full((len(read), 1), start)
    with documents_of(produced[:, None]):
        decoded = model.get_decoder()(
            input_ids=torch.cat([first, ids[given]], dim=1),
            encoder_hidden_states=encoded,
            encoder_attention_mask=seen,
            use_cache=False,
        ).last_hidden_state
    hidden: Tensor = decoded.flatten(0, 1).index_select(0, flat)
    return hidden


def _width(model: PreTrainedModel) -> int:
    return int(model.get_output_embeddings().weight.shape[1])


@torch.no_grad()
def computes_exactly(model: PreTrainedModel, head: Callable[[Tensor], Tensor]) -> bool:
    """Whether pairs of unequal lengths in one packed row have the losses that the model itself gives each alone.

    It is tried, because some models do more to the hidden states than `head` does, or see padding. model: without a
    wrapper, not training.
    """
    lengths, middles = [7, 12, 9], [4, 10, 3]
    ids = torch.arange(sum(lengths), device=model.device)[None] % model.config.get_text_config().vocab_size
    boundaries = torch.tensor([0, *np.cumsum(lengths)])
    places = [torch.arange(m, n) + at for m, n, at in zip(middles, lengths, boundaries.tolist(), strict=False)]
    predicting = torch.cat(places).to(model.device) - 1
    targets = ids[0, predicting + 1]
    packed = F.cross_entropy(
        head(hidden_at_labels(model, ids, predicting, boundaries)).float(), targets, reduction="none"
    )
    alone = []
    for document, middle in zip(torch.split(ids, lengths, 1), middles, strict=True):
        labels = document[:, middle:]
        given = torch.cat([labels.new_full((1, 1), start_token(model)), labels[:, :-1]], dim=1)
        logits = model(input_ids=document[:, :middle], decoder_input_ids=given, use_cache=False).logits
        alone.append(F.cross_entropy(logits[0].float(), labels[0], reduction="none"))
    expected = torch.cat(alone)
    return bool((packed - expected).abs().max() <= 100 * torch.finfo(model.dtype).eps * expected.abs().max())


class Generation:
    """Rows being generated together: their caches and the logits (rows, V) of each row's next token.

    steps: how many tokens each row has got so far. The prompts are read by the encoder once, padded at their ends.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_id: int) -> None:
        width = max(map(len, prompts))
        ids = np.full((len(prompts), width), pad_id, dtype=np.int64)
        seen = np.zeros((len(prompts), width), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
            seen[row, : len(prompt)] = 1
        self._model = model
        self._seen = torch.from_numpy(seen).to(model.device)
        encoder = model.get_encoder()
        self._encoded = encoder(input_ids=torch.from_numpy(ids).to(model.device), attention_mask=self._seen)
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.steps = 0
        self.logits = self._forward(torch.full((len(prompts),), start_token(model), device=model.device))

    def step(self, tokens: Tensor, origins: Sequence[int]) -> None:
        """Go on with `tokens` (new rows,), each behind what the row `origins[i]` was until now."""
        if list(origins) != list(range(len(self.logits))):
            places = torch.tensor(origins, device=tokens.device)
            self._seen = self._seen[places]
            self._encoded.last_hidden_state = self._encoded.last_hidden_state[places]
            self._cache.reorder_cache(places)
        self.steps += 1
        self.logits = self._forward(tokens)

    def _forward(self, tokens: Tensor) -> Tensor:
        output = self._model(
            encoder_outputs=self._encoded,
            attention_mask=self._seen,
            decoder_input_ids=tokens[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits
