"""Virtual tokens before every document: prompt tuning, p-tuning and prefix tuning, as PEFT computes them.

Prompt tuning and p-tuning put V trained embeddings before the document's own; prefix tuning puts V trained keys and
values before those of every layer. Either way the document's first token stands at position V.

Shapes: V virtual tokens, W hidden size, T tokens of a packed row, N documents, S tokens asked for; P layers,
K key and value heads, D size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tunesmith.model.attention import Layout


def virtual_tokens(model: Any) -> int:
    """How many virtual tokens stand before every document; they take room in the model's context."""
    config = _config(model)
    return 0 if config is None else int(config.num_virtual_tokens)


def is_prefix(model: Any) -> bool:
    """Whether the virtual tokens are keys and values of every layer, not embeddings."""
    config = _config(model)
    return config is not None and config.peft_type == "PREFIX_TUNING"


def _config(model: Any) -> Any:
    config = getattr(model, "active_peft_config", None)
    return config if config is not None and config.is_prompt_learning else None


def virtual_embeddings(model: Any) -> Tensor:
    """(V, W) of a model with prompt tuning or p-tuning."""
    prompts: Tensor = model.get_prompt(batch_size=1)[0]
    return prompts


def before_documents(
    prompts: Tensor, embedded: Tensor, layout: Layout, wanted: Tensor
) -> tuple[Tensor, Tensor, Layout, Tensor]:
    """A packed row with `prompts` (V, W) before each of its documents.

    embedded (1, T, W). Returns the row's embeddings (1, T + N * V, W), positions (1, T + N * V) and layout, and where
    the tokens `wanted` (S,) of the row stand now.
    """
    device, count = embedded.device, len(prompts)
    starts = layout.boundaries[:-1].long()
    number = torch.arange(len(starts), device=device)
    tokens = torch.arange(embedded.shape[1], device=device)
    moved = tokens + (torch.searchsorted(layout.boundaries[1:].long(), tokens, right=True) + 1) * count
    virtual = (starts + number * count)[:, None] + torch.arange(count, device=device)
    source = torch.empty(embedded.shape[1] + virtual.numel(), dtype=torch.long, device=device)
    source[moved] = tokens + count
    source[virtual] = torch.arange(count, device=device).expand_as(virtual)
    row = torch.cat([prompts.to(embedded.dtype), embedded[0]]).index_select(0, source)
    longer = Layout.of([length + count for length in layout.lengths], device)
    first = torch.repeat_interleave(longer.boundaries[:-1].long(), longer.boundaries.diff(), output_size=len(source))
    positions = torch.arange(len(source), device=device) - first
    return row[None], positions[None], longer, moved.index_select(0, wanted)


class Prefix(DynamicCache):  # type: ignore[misc]  # Transformers is not typed here
    """Trained keys and values that are read before a document's own, which are not kept: so layers may be computed
    twice (activation checkpointing), and any number of times."""

    def __init__(self, cache: DynamicCache) -> None:
        super().__init__()
        self.layers = cache.layers

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        layer = self.layers[layer_idx]
        keys, values = layer.keys.to(key_states.dtype), layer.values.to(value_states.dtype)
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def prefix(model: Any, rows: int) -> Prefix:
    """The keys and values before each of `rows` documents of a model with prefix tuning."""
    return Prefix(model.get_prompt(batch_size=rows))


def start_embeddings(model: Any, ids: Tensor) -> None:
    """Let the virtual tokens of prompt tuning start as the embeddings of the tokens `ids` (V,)."""
    weight = model.prompt_encoder[model.active_adapter].embedding.weight
    with torch.no_grad():
        weight.copy_(model.word_embeddings(ids.to(weight.device)))


def start_prefix(model: Any, ids: Tensor) -> None:
    """Let the prefix start as the keys and values of the tokens `ids` (V,), so that the model begins as if that text
    stood before each document. Random ones, PEFT's default, drown what a base model knows.

    Where the model's keys and values have another shape than PEFT's, PEFT's own start stays.
    """
    weight, config = model.prompt_encoder[model.active_adapter].embedding.weight, _config(model)
    with torch.no_grad():
        cache = model.get_base_model()(input_ids=ids[None].to(weight.device), use_cache=True).past_key_values
    if not isinstance(cache, DynamicCache):
        return
    pairs = [state for layer in cache.layers for state in (layer.keys, layer.values)]
    size = config.token_dim // config.num_attention_heads
    shape = (1, config.num_attention_heads, len(ids), size)
    if len(pairs) != 2 * config.num_layers or any(state is None or state.shape != shape for state in pairs):
        return
    with torch.no_grad():
        weight.copy_(torch.cat(pairs).permute(2, 0, 1, 3).reshape(len(ids), -1))  # (2P, K, V, D) -> (V, 2PKD)
