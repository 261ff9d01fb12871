"""NEFTune: noise on the token embeddings while training (arXiv:2310.05914)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.model.parts import embeddings_of

_lengths: Tensor | None = None


@contextmanager
def embedding_noise(model: Any, alpha: float) -> Iterator[None]:
    """Inside, the embedding of a document of L tokens, d wide, gets noise that is uniform in +-alpha / sqrt(L * d).

    It is drawn from PyTorch's global generator, and only while the embedding is in training mode. alpha 0 is none.
    """
    if alpha == 0:
        yield
        return
    handles = [embedding.register_forward_hook(_Noise(alpha)) for embedding in embeddings_of(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def documents_of(lengths: Tensor | None) -> Iterator[None]:
    """Inside, `lengths` says for each token that is embedded how long its document is; its shape broadcasts to that of
    the token ids. Without it every row of token ids is one document."""
    global _lengths
    before, _lengths = _lengths, lengths
    try:
        yield
    finally:
        _lengths = before


def is_noisy(embedding: nn.Module) -> bool:
    """Whether this embedding gets noise now."""
    return embedding.training and any(isinstance(hook, _Noise) for hook in embedding._forward_hooks.values())


class _Noise:
    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def __call__(self, embedding: nn.Module, inputs: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        """embedded (..., L, d) -> the same with noise."""
        if not embedding.training:
            return None
        tokens, width = embedded.shape[-2:]
        lengths = torch.tensor(tokens, device=embedded.device) if _lengths is None else _lengths
        most = self._alpha / torch.sqrt(lengths.float() * width)
        noise = torch.rand(embedded.shape, device=embedded.device) * 2 - 1
        return embedded + (noise * most[..., None]).to(embedded.dtype)
