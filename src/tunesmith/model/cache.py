"""Keys and values of rows that are generated together, in memory that is set aside once.

Transformers' own growing cache copies all of itself at every token and whenever a row ends. Here a token is written to
its place, what attention reads is a view, and of rows that change places only those that do are copied.

Shapes: R rows, C columns, T tokens of a packed row, n new tokens of each row; K key and value heads, D size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class RowCache(Cache):  # type: ignore[misc]  # Transformers is not typed here
    """A cache of all layers. Every row's next token is written to the same column, `length`.

    rows: how many are in use. places: while set, what comes is one packed row (1, K, T, D), whose tokens have their
    (row, column) there, two tensors (T,); attention is then handed that row itself. See `attention.packed`.
    blank: as many columns may be seen before they are written, by rows that are padded there.
    """

    def __init__(self, layers: int, rows: int, columns: int, blank: int) -> None:
        self.rows, self.columns, self.blank, self.length = rows, columns, blank, 0
        self.places: tuple[Tensor, Tensor] | None = None
        super().__init__(layers=[_Layer(self) for _ in range(layers)])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i becomes a copy of what row beam_idx[i] was; (new rows,). May be fewer rows, or more, as set aside."""
        moved = (beam_idx != torch.arange(len(beam_idx), device=beam_idx.device)).nonzero()[:, 0]
        if len(moved):
            for layer in self.layers:
                layer.copy_rows(beam_idx[moved], moved, self.length)
        self.rows = len(beam_idx)


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values (R, K, C, D) of one layer."""

    is_sliding = False  # windows are the attention mask's matter, so all columns stay

    def __init__(self, cache: RowCache) -> None:
        super().__init__()
        self._cache, self._capacity = cache, cache.rows

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (
            x.new_empty(self._capacity, x.shape[1], self._cache.columns, x.shape[3]) for x in (key_states, value_states)
        )
        for held in (self.keys, self.values):  # padding weighs nothing, but 0 times what memory may hold need not be 0
            held[:, :, : self._cache.blank] = 0
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._written(self.keys, key_states), self._written(self.values, value_states)

    def _written(self, held: Tensor, new: Tensor) -> Tensor:
        if self._cache.places is not None:
            row, column = self._cache.places
            held[row, :, column] = new[0].transpose(0, 1)
            return new
        start, end = self._cache.length, self._cache.length + new.shape[2]
        held[: self._cache.rows, :, start:end] = new
        return held[: self._cache.rows, :, :end]

    def copy_rows(self, source: Tensor, target: Tensor, length: int) -> None:
        if self.is_initialized:
            for held in (self.keys, self.values):
                held[target, :, :length] = held[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._cache.length + query_length, 0

    def get_seq_length(self) -> int:
        return self._cache.length

    def get_max_length(self) -> int:
        return self._cache.columns
