"""The loss of a packed row: only where a supervised token is predicted, and never all logits at once.

Shapes: T tokens of the row, S supervised tokens, W hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.model.attention import Layout, on_device
from tunesmith.model.hidden import decode, hidden_states
from tunesmith.model.parts import causal_model as causal_model
from tunesmith.model.parts import decoder_of as decoder_of
from tunesmith.model.projection import SMALL_CHUNK, is_plain, projected_loss
from tunesmith.model.seq2seq import hidden_at_labels, is_encoder_decoder
from tunesmith.tokens.batches import Batch

CHUNK = 512  # supervised tokens whose logits exist at a time


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A `Batch` on the model's device. ids and positions (1, T); predicting and targets (S,): the token at
    `predicting` predicts the supervised token `targets`."""

    ids: Tensor
    positions: Tensor
    predicting: Tensor
    targets: Tensor
    layout: Layout

    @classmethod
    def of(cls, batch: Batch, device: torch.device | str, room: int = 0) -> PackedRow:
        """The row's tensors. Short of `room` tokens it is filled up with a document of which nothing is supervised,
        so that compiled models always see the same shape."""

        if len(batch.ids) < room:
            batch = _filled(batch, room)
        targets = batch.supervised.nonzero()[0]
        assert (batch.positions[targets] > 0).all(), "the first token of a document has nothing to be predicted from"
        layout = Layout.of(batch.lengths, device)
        arrays = batch.ids[None], batch.positions[None], targets - 1, batch.ids[targets]
        ids, positions, predicting, wanted = (on_device(array, device) for array in arrays)
        return cls(ids, positions, predicting, wanted, layout)


def _filled(batch: Batch, room: int) -> Batch:
    more = room - len(batch.ids)
    return Batch(
        ids=np.pad(batch.ids, (0, more)),
        positions=np.concatenate([batch.positions, np.arange(more)]),
        supervised=np.pad(batch.supervised, (0, more)),
        lengths=np.append(batch.lengths, more),
        sequences=batch.sequences,
    )


def supervised_loss(model: PreTrainedModel, row: PackedRow, *, chunk: int = CHUNK, compiled: bool = False) -> Tensor:
    """The sum of the losses (nats, fp32 scalar) of the row's supervised tokens. Gradients flow from it.

    The decoder runs over the whole row; the vocabulary projection runs only at the positions that predict supervised
    tokens, `chunk` of them at a time, and its gradient is taken in the same pass, so no logits outlive their chunk.
    compiled: run what `torch.compile` makes of both; rows of one length are compiled once.
    """
    head, hidden = head_of(model), hidden_of(model, row, compiled)
    if not compiled and head.scale == 1 and head.cap is None and is_plain(head.projection, hidden):
        return projected_loss(head.projection.weight, hidden, row.targets, min(chunk, SMALL_CHUNK))
    sum_of_losses = _compiled(_sum_of_losses, dynamic=True) if compiled else _sum_of_losses
    return chunked_loss(lambda part, here: sum_of_losses(head, part, row.targets[here]), head, hidden, chunk)


def chunked_loss(loss_of: Callable[[Tensor, slice], Tensor], head: nn.Module, hidden: Tensor, chunk: int) -> Tensor:
    """The sum (fp32 scalar) of `loss_of(hidden[here], here)` over chunks of `hidden` (S, W), of `chunk` rows each.

    The gradients into `hidden` and into the trained parameters of `head`, which `loss_of` uses, are taken in the same
    pass, so nothing that it computes outlives its chunk.
    """
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    loss: Tensor = _ChunkedLoss.apply(loss_of, hidden, chunk, *trained)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def token_losses(model: PreTrainedModel, row: PackedRow, *, chunk: int = CHUNK) -> Tensor:
    """(S,) the loss (nats, fp32) of each supervised token of the row, in the row's order, without gradients."""
    head, hidden = head_of(model), hidden_of(model, row)
    parts = zip(torch.split(hidden, chunk), torch.split(row.targets, chunk), strict=True)
    losses = [F.cross_entropy(head(part).float(), targets, reduction="none") for part, targets in parts]
    return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)


def hidden_of(model: PreTrainedModel, row: PackedRow, compiled: bool = False) -> Tensor:
    """(S, W) what the decoder says at the positions that predict supervised tokens."""
    if is_encoder_decoder(causal_model(model)):
        return hidden_at_labels(causal_model(model), row.ids, row.predicting, row.layout.boundaries)
    compute = _compiled(decode, dynamic=False) if compiled else decode
    return hidden_states(model, row.ids, row.positions, row.layout, row.predicting, compute)


def _sum_of_losses(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


@cache
def _compiled(function: Callable[..., Tensor], dynamic: bool) -> Callable[..., Tensor]:
    """Compiled when first asked for: the compiler alone takes seconds to import."""
    return torch.compile(function, dynamic=dynamic)


class _ChunkedLoss(torch.autograd.Function):
    """Sum of losses and, in the same pass, its gradients; what flows in from above only scales them."""

    @staticmethod
    def forward(
        ctx: Any, loss_of: Callable[[Tensor, slice], Tensor], hidden: Tensor, chunk: int, *trained: Tensor
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        into_hidden, into_trained = torch.empty_like(hidden), list[Tensor]()
        for start in range(0, len(hidden), chunk):
            here = slice(start, start + chunk)
            part = hidden[here].detach().requires_grad_()
            with torch.enable_grad():
                loss = loss_of(part, here)
            into_hidden[here], *gradients = torch.autograd.grad(loss, [part, *trained])
            into_trained = into_trained or gradients  # of the first chunk: as large as the head, so never copied
            if gradients is not into_trained:
                for gathered, gradient in zip(into_trained, gradients, strict=True):
                    gathered += gradient
            total += loss.detach()
        ctx.gradients = into_hidden, into_trained or [torch.zeros_like(weight) for weight in trained]
        return total

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        assert ctx.gradients is not None, "this loss can be differentiated once"
        (into_hidden, into_trained), ctx.gradients = ctx.gradients, None
        return None, into_hidden.mul_(above), None, *(gradient.mul_(above) for gradient in into_trained)


class Head(nn.Module):
    """From hidden states to logits, as the model itself does it: projection, then its scaling and soft cap."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        config = model.config.get_text_config()
        self.projection = model.get_output_embeddings()
        self.scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
        if getattr(config, "scale_decoder_outputs", False):  # T5, with one matrix for embeddings and projection
            self.scale *= config.d_model**-0.5
        self.cap = getattr(config, "final_logit_softcapping", None)

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.projection(hidden)
        if self.scale != 1:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


@torch.no_grad()
def computes_exactly(model: PreTrainedModel) -> bool:
    """Whether the documents of a packed row have the losses that the model itself gives each of them alone.

    It is tried, because some architectures mix tokens outside of attention (convolutions, recurrences), attend in
    their own way, or do more to the hidden states than projecting them.
    """
    lengths = np.array([5, 7, 6])  # the last two are gathered into one group, with padding
    ids = np.arange(lengths.sum()) % model.config.get_text_config().vocab_size
    positions = np.concatenate([np.arange(length) for length in lengths])
    row = PackedRow.of(Batch(ids, positions, positions > 0, lengths, np.arange(len(lengths))), model.device)
    training = model.training
    model.eval()
    packed_ = token_losses(model, row)
    alone = []
    for part in torch.split(row.ids, lengths.tolist(), 1):
        logits = model(input_ids=part, use_cache=False).logits[0, -part.shape[1] : -1].float()  # of no virtual token
        alone.append(F.cross_entropy(logits, part[0, 1:], reduction="none"))
    model.train(training)
    expected = torch.cat(alone)
    return bool((packed_ - expected).abs().max() <= 100 * torch.finfo(model.dtype).eps * expected.abs().max())


def head_of(model: PreTrainedModel) -> Head:
    return Head(causal_model(model))
