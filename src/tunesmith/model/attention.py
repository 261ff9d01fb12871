"""Attention inside the documents of a packed row: no token sees another document, and no mask is ever built.

A packed row lays documents end to end. Inside `packed(layout)`, models loaded with the implementation `NAME` attend
document by document: on CUDA by the variable-length kernel of PyTorch itself, elsewhere by one causal call for each,
on views of the row. Outside of `packed` the same name is ordinary SDPA with ordinary masks, so generation, caches and
left padding work as ever.

Shapes: T tokens of the row, H query heads, K key and value heads, D size of a head, N documents, L longest length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tunesmith"
_PADDING = 0.25  # a group of documents may grow by this share of padding before another group is opened
_SHORT = 512  # up to this length a document's attention weights are kept for the backward pass, as bf16 (H, L, L)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the documents of a packed row lie, and how they are gathered into groups of similar length.

    Groups are for models that can't attend within documents (`model.hidden`).
    take (P,): the row's token for each place of the groups laid end to end; padding repeats a real token.
    place (T,): the place of each of the row's tokens.
    shapes: documents and padded length (N, L) of each group; their products add up to P.
    boundaries (N + 1,): first token of each document, then the row's length, int32. longest: the longest length.
    lengths (N,): of the documents, kept off the device so that whoever asks need not wait for it.
    """

    take: Tensor
    place: Tensor
    shapes: tuple[tuple[int, int], ...]
    boundaries: Tensor
    longest: int
    lengths: tuple[int, ...]

    @classmethod
    def of(
        cls, lengths: Sequence[int] | np.ndarray, device: torch.device | str = "cpu", *, together: bool = False
    ) -> Layout:
        """The layout of documents of these lengths (N,), in the order they lie in the row.

        together: all in one group, whatever the padding.
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        takes, reals, shapes = [], [], []
        for members in [np.arange(len(lengths))] if together else _similar(lengths):
            column = np.arange(lengths[members].max())
            real = column < lengths[members][:, None]
            takes.append((starts[members][:, None] + np.where(real, column, 0)).ravel())
            reals.append(real.ravel())
            shapes.append((len(members), len(column)))
        take, real = np.concatenate(takes), np.concatenate(reals)
        place = np.empty(starts[-1], dtype=np.int64)
        place[take[real]] = np.flatnonzero(real)
        arrays = take, place, starts.astype(np.int32)
        take_, place_, boundaries = (on_device(array, device) for array in arrays)
        return cls(take_, place_, tuple(shapes), boundaries, int(lengths.max()), tuple(map(int, lengths)))


def on_device(array: np.ndarray, device: torch.device | str) -> Tensor:
    """The array as a tensor there; copied to a GPU beside what that computes, for which its memory has to be pinned."""
    tensor = torch.from_numpy(array)
    pinned = tensor.pin_memory() if torch.device(device).type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


def _similar(lengths: np.ndarray) -> list[np.ndarray]:
    """Indices of documents in groups, longest first, such that padding stays below its share of each group."""
    groups: list[list[int]] = []
    for index in np.argsort(-lengths, kind="stable"):
        if not groups or lengths[index] < (1 - _PADDING) * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(int(index))
    return [np.array(group) for group in groups]


_current: Layout | None = None


@contextmanager
def packed(layout: Layout | None) -> Iterator[None]:
    """Inside, attention of models loaded with `NAME` stays within the documents of `layout`; None is as outside.

    What a backward pass computes a second time (activation checkpointing) must run inside too: see `within`.
    """
    global _current
    before, _current = _current, layout
    try:
        yield
    finally:
        _current = before


def within(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it is here and now, inside `packed` or not, wherever and whenever it is called."""
    layout = _current

    def inside(*args: Any, **kwargs: Any) -> Any:
        with packed(layout):
            return function(*args, **kwargs)

    return inside


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_packed(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, dropout: float, window: int | None
) -> Tensor:
    """Causal attention within documents: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D)."""
    layout = _current
    assert layout is not None and len(query) == 1 and query.shape[2] == sum(layout.lengths), "not the packed row"
    device = query.device.type
    if torch.is_autocast_enabled(device):  # rotary embeddings have made queries and keys fp32
        query, key, value = (x.to(torch.get_autocast_dtype(device)) for x in (query, key, value))
    if device == "cuda" and query.dtype != torch.float32 and not dropout:
        return _attend_on_cuda(query, key, value, layout, scale, window)
    lengths = list(layout.lengths)
    queries, keys, values = (torch.split(x, lengths, dim=2) for x in (query, key, value))
    documents = zip(queries, keys, values, strict=True)
    results = [_attend_document(q, k, v, scale, dropout, window).transpose(1, 2) for q, k, v in documents]
    return torch.cat(results, dim=1)


def _attend_document(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, dropout: float, window: int | None
) -> Tensor:
    """Causal attention of a document of L tokens: q (1, H, L, D), k and v (1, K, L, D) -> (1, H, L, D)."""
    (_, heads, length, size), shared = q.shape, k.shape[1]
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and length <= _SHORT and not dropout:
        # PyTorch's fused kernel for CPUs is 4 times slower in bf16 than these products, backward included.
        seen = _band(length, window or length, q.device)
        bias = torch.zeros(length, length, dtype=q.dtype).masked_fill_(~seen, -torch.inf).repeat(heads // shared, 1)
        q = (q * (size**-0.5 if scale is None else scale)).reshape(shared, -1, size)
        weights = torch.softmax(torch.baddbmm(bias, q, k[0].transpose(1, 2)), dim=-1)
        return torch.bmm(weights, v[0]).view(1, heads, length, -1)
    band = _band(length, window, q.device) if window and window < length else None
    return F.scaled_dot_product_attention(
        q, k, v, band, dropout, is_causal=band is None, scale=scale, enable_gqa=heads != shared
    )


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """(L, L), True where sliding-window attention looks: at the token itself and the `window` - 1 before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)


def _attend_on_cuda(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # imported here: it needs a build with CUDA

    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    ends, longest = layout.boundaries, layout.longest
    reach = (window - 1 if window else -1, 0)
    gqa = q.shape[1] != k.shape[1]
    result = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=reach, enable_gqa=gqa)
    return cast(Tensor, result)[None]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention function that Transformers calls."""
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if unknown:
        raise NotImplementedError(f"attention with {unknown[0]}")
    if _current is None:
        result, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
        return result, None
    return _attend_packed(query, key, value, scaling, dropout, sliding_window), None


def mask(*args: Any, **options: Any) -> Tensor | None:
    """The mask function that Transformers calls: none inside `packed`."""
    return None if _current is not None else sdpa_mask(*args, **options)


def packs(model: PreTrainedModel) -> bool:
    """Whether the model was loaded so that it attends within documents."""
    return bool(model.config._attn_implementation == NAME)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, mask)
