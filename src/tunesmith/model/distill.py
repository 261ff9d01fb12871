"""Distillation: beside the data, the student learns a teacher's distribution over the next token (arXiv:1503.02531).

The loss of a supervised token y, with student logits s and teacher logits t over the vocabulary, temperature T:

    share * T^2 * KL(softmax(t / T) || softmax(s / T)) + (1 - share) * -log softmax(s)[y]

T^2 keeps the gradient of the soft part at the size it has without a temperature (section 2 there). Both run over the
same packed rows, only supervised positions reach a vocabulary projection, and a chunk of logits of each at a time is
all that ever exists.

Shapes: S supervised tokens of a row, n of a chunk; W hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.base.errors import UserError
from tunesmith.model.load import load_base
from tunesmith.model.losses import CHUNK, PackedRow, causal_model, chunked_loss, head_of, hidden_of
from tunesmith.model.seq2seq import is_encoder_decoder


@dataclass(frozen=True, slots=True)
class Distillation:
    """An objective for `train`, called as `supervised_loss` is.

    teacher: not trained, computed in its own precision, whatever the student is trained in. share: of the soft loss;
    0 is `supervised_loss`, 1 the soft loss alone. vocabulary: token ids below it mean the same to both, and only these
    count in the soft loss, since matrices may be padded beyond the tokenizer.
    """

    teacher: PreTrainedModel
    temperature: float
    share: float
    vocabulary: int

    def __call__(self, model: PreTrainedModel, row: PackedRow, *, chunk: int = CHUNK, compiled: bool = False) -> Tensor:
        """The sum of the losses (nats, fp32 scalar) of the row's supervised tokens. Gradients flow into `model`.

        compiled: of the student's decoder.
        """
        head, teacher_head = head_of(model), head_of(self.teacher)
        with torch.no_grad(), torch.autocast(row.ids.device.type, enabled=False):
            taught = hidden_of(self.teacher, row)

        def loss_of(hidden: Tensor, here: slice) -> Tensor:
            with torch.no_grad(), torch.autocast(row.ids.device.type, enabled=False):
                wanted = teacher_head(taught[here])
            return self._loss(head(hidden).float(), wanted.float(), row.targets[here])

        return chunked_loss(loss_of, head, hidden_of(model, row, compiled), chunk)

    def _loss(self, logits: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
        """The sum over a chunk: logits (n, V) of the student, wanted (n, V) of the teacher, fp32; targets (n,)."""
        hard = F.cross_entropy(logits, targets, reduction="sum")
        student, teacher = (
            (part[:, : self.vocabulary] / self.temperature).log_softmax(-1) for part in (logits, wanted)
        )
        soft = F.kl_div(student, teacher, reduction="sum", log_target=True)
        return self.share * self.temperature**2 * soft + (1 - self.share) * hard


def load_distillation(
    name: str,
    student: PreTrainedModel,
    tokenizer: Any,
    *,
    temperature: float,
    share: float,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Distillation:
    """The objective with the teacher `name`, loaded as a base is; dtype "auto" is what its weights were saved in.

    tokenizer: of the student. Raises UserError if there is no such teacher, if its vocabulary is another than the
    student's, or if one of the two is an encoder-decoder and the other is not.
    """
    loaded = load_base(name, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    teacher = loaded.model.requires_grad_(False)
    kinds = [is_encoder_decoder(causal_model(model)) for model in (student, teacher)]
    if kinds[0] != kinds[1]:
        words = ["an encoder-decoder" if kind else "a decoder" for kind in kinds]
        raise UserError(
            f"distill.teacher {name} is {words[1]}, and the base is {words[0]}: what they predict can't be compared. "
            f"Choose a teacher of the same kind."
        )
    check_vocabulary(tokenizer, loaded.tokenizer, name)
    rows = [_rows(model) for model in (student, teacher)]
    needed = max(tokenizer.get_vocab().values()) + 1
    if rows[1] < rows[0] and rows[1] < needed:
        raise UserError(
            f"distill.teacher {name} has embeddings for {rows[1]:,} tokens, and the tokenizer writes {needed:,}: it "
            f"can't read the data. Choose a teacher with the whole vocabulary."
        )
    return Distillation(teacher, temperature, share, min(needed, *rows))


def check_vocabulary(student: Any, teacher: Any, name: str) -> None:
    """Raises UserError, with the first difference, unless two tokenizers give every token the same id, and hold the
    same tokens for special. name: of the teacher."""
    ours, theirs = (_tokens(tokenizer) for tokenizer in (student, teacher))
    for id in sorted(ours.keys() | theirs.keys()):
        if ours.get(id) != theirs.get(id):
            raise UserError(
                f"distill.teacher {name} has another vocabulary than the base: token {id} is {_said(ours.get(id))} in "
                f"the base and {_said(theirs.get(id))} in the teacher ({len(ours):,} tokens against {len(theirs):,}), "
                f"so its distribution would teach other words. Choose a teacher of the same family, or leave `distill` "
                f"out."
            )


def _tokens(tokenizer: Any) -> dict[int, tuple[str, bool]]:
    """Of each id its token, and whether that is special."""
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {id: (token, id in special) for token, id in tokenizer.get_vocab().items()}


def _said(token: tuple[str, bool] | None) -> str:
    return "none" if token is None else f"{token[0]!r}{' (special)' if token[1] else ''}"


def _rows(model: PreTrainedModel) -> int:
    """Token ids that a model has a row of its output matrix for."""
    projection: nn.Module = causal_model(model).get_output_embeddings()
    weight = projection.weight
    assert isinstance(weight, Tensor)
    return int(getattr(projection, "out_features", weight.shape[0]))
