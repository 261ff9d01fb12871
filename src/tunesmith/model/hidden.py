"""From a packed row to hidden states: each document as if it were alone, whatever the model and its method.

Models that attend within documents compute the row as it lies. For others, and for trained prefixes, documents of
similar length are gathered into batches, padded at their ends: a causal model never looks there.

Shapes: T tokens of the row, S places asked for, W hidden size; n documents and L padded length of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.model.attention import Layout, on_device, packed, packs
from tunesmith.model.last_layer import last_layer, only_at
from tunesmith.model.noise import documents_of, is_noisy
from tunesmith.model.parts import decoder_of, gathers_layers
from tunesmith.model.prompts import before_documents, is_prefix, prefix, virtual_embeddings, virtual_tokens


def decode(
    decoder: PreTrainedModel, ids: Tensor | None, positions: Tensor | None, embedded: Tensor | None = None
) -> Tensor:
    """(n, L, W) hidden states of token ids or embeddings."""
    given = {"input_ids": ids} if embedded is None else {"inputs_embeds": embedded}
    hidden: Tensor = decoder(**given, position_ids=positions, use_cache=False).last_hidden_state
    return hidden


def hidden_states(
    model: Any,
    ids: Tensor,
    positions: Tensor,
    layout: Layout,
    wanted: Tensor,
    compute: Callable[..., Tensor] = decode,
) -> Tensor:
    """(S, W) what the decoder says at the places `wanted` (S,) of the packed row `ids` (1, T) with `positions` (1, T).

    compute: `decode`, or what the compiler makes of it. Rows with virtual tokens have a length for every number of
    documents and would be compiled for each, so they are not compiled, and neither are groups of documents.
    """
    decoder = decoder_of(model)
    if not packs(decoder) or is_prefix(model):
        if gathers_layers(decoder):
            layout = Layout.of(layout.lengths, ids.device, together=True)
        return _in_groups(model, decoder, ids[0], layout, layout.place.index_select(0, wanted))
    embedding = decoder.get_input_embeddings()
    if not virtual_tokens(model) and not is_noisy(embedding):
        return _at(wanted, layout, compute, decoder, ids, positions)
    # Outside of what may be compiled: noise is drawn anew for every row.
    with documents_of(_lengths(layout, ids.device)[None] if is_noisy(embedding) else None):
        embedded = embedding(ids)
    if virtual_tokens(model):
        compute = decode
        embedded, positions, layout, wanted = before_documents(virtual_embeddings(model), embedded, layout, wanted)
    return _at(wanted, layout, compute, decoder, None, positions, embedded)


def _at(wanted: Tensor, layout: Layout, compute: Callable[..., Tensor], decoder: PreTrainedModel, *row: Any) -> Tensor:
    """(S, W) at `wanted` (S,) of what `compute` makes of the packed row. What is compiled is of one shape: T tokens."""
    layer = last_layer(decoder) if compute is decode else None
    with packed(layout), only_at(layer, wanted) if layer is not None else nullcontext():
        hidden = compute(decoder, *row)[0]
    return hidden if layer is not None else hidden.index_select(0, wanted)


def _in_groups(model: Any, decoder: PreTrainedModel, ids: Tensor, layout: Layout, places: Tensor) -> Tensor:
    """(S, W) at `places` of the layout's groups laid end to end. ids (T,)."""
    sizes = [n * length for n, length in layout.shapes]
    groups = torch.split(ids.index_select(0, layout.take), sizes)
    lengths = torch.split(_lengths(layout, ids.device).index_select(0, layout.take), sizes)
    found = []
    for shape, group, length in zip(layout.shapes, groups, lengths, strict=True):
        with documents_of(length.view(shape)):
            found.append(decode_padded(model, decoder, group.view(shape)).flatten(0, 1))
    return torch.cat(found).index_select(0, places)


def decode_padded(model: Any, decoder: PreTrainedModel, ids: Tensor) -> Tensor:
    """(n, L, W) of documents `ids` (n, L) that are padded at their ends, without what stands at virtual tokens.

    Positions are left to the model, since not every architecture takes them.
    """
    if not virtual_tokens(model):
        hidden = decoder(input_ids=ids, use_cache=False)
    elif is_prefix(model):
        hidden = decoder(input_ids=ids, past_key_values=prefix(model, len(ids)), use_cache=False)
    else:
        embedded = decoder.get_input_embeddings()(ids)
        prompts = virtual_embeddings(model).to(embedded.dtype).expand(len(ids), -1, -1)
        hidden = decoder(inputs_embeds=torch.cat([prompts, embedded], dim=1), use_cache=False)
    result: Tensor = hidden.last_hidden_state[:, -ids.shape[1] :]
    return result


def _lengths(layout: Layout, device: torch.device) -> Tensor:
    """(T,) the length of each token's document."""
    lengths = np.repeat(layout.lengths, layout.lengths)
    return on_device(lengths, device)
