"""BERTScore (Zhang et al. 2020, arXiv:1904.09675): texts compared word by word in a model's contextual embeddings.

Each token of one text is matched with the most similar token of the other, by cosine. Precision is the mean over the
response's tokens, recall over the expected ones, and the score their F1, without a baseline taken off. As in the
bert-score package, tokens that only mark start and end can be matched but have no weight.

Shapes: B pairs, R and E tokens of the longest response and expected text, H hidden.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tunesmith.base.errors import UserError
from tunesmith.base.progress import say, track
from tunesmith.model.encoder import load_encoder

# The layer whose scores agree best with people's, as the paper's authors measured it for each model.
BEST_LAYERS = {
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "bert-base-chinese": 8,
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
    "distilroberta-base": 5,
    "distilbert-base-uncased": 5,
    "distilbert-base-multilingual-cased": 5,
    "scibert_scivocab_uncased": 8,
    "scibert_scivocab_cased": 9,
}
_PAIRS = 32  # compared at a time
_UNSEEN = -1  # in place of a token that no expected text holds


class BertScore:
    """Scores pairs of texts by the model in a local folder; `metrics.scores` takes it for "bertscore"."""

    def __init__(self, model: str, *, layer: int | None = None, idf: bool = False, device: str = "auto") -> None:
        """model: a local folder. layer: whose output is compared, 0 being the embeddings; None: the best, for a model
        in `BEST_LAYERS`. idf: weigh tokens by how few of the expected texts hold them. device: "auto": CUDA if present.

        Raises UserError if the folder holds no such model, or the layer is not among its layers.
        """
        folder = Path(model)
        encoder = load_encoder(folder, "evaluate.bertscore.model", device)
        self._model, self._tokenizer, self._longest = encoder.model, encoder.tokenizer, encoder.longest
        self._layer = _checked_layer(layer, folder, encoder.config)
        self._idf = idf

    def __call__(self, expected: Sequence[str], responses: Sequence[str]) -> list[float]:
        """The F1 of each pair; 0 where a text has no token. With `idf`, all expected texts at once decide weights."""
        wanted, got = self._encoded(expected), self._encoded(responses)
        weights = _rarity([ids for ids, _ in wanted]) if self._idf else None
        sizes = [len(a[0]) + len(b[0]) for a, b in zip(wanted, got, strict=True)]
        order = sorted(range(len(sizes)), key=lambda place: -sizes[place])
        found = np.zeros(len(sizes))
        starts = range(0, len(order), _PAIRS)
        for start in track(starts, "BERTScore", len(starts)):
            places = order[start : start + _PAIRS]
            pair = [self._embedded([texts[place] for place in places], weights) for texts in (got, wanted)]
            found[places] = _greedy_f1(*pair[0], *pair[1])
        # Opposite directions can make a cosine negative; a score of a scale that ends at 0 is 0 then.
        return [float(score) for score in np.clip(found, 0, 1)]

    def _encoded(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Token ids of each text, and 1 for those that only mark start and end."""
        if not texts:
            return []
        options = {"return_special_tokens_mask": True, "return_attention_mask": False}
        whole = self._tokenizer(list(texts), **options, verbose=False)
        cut = sum(len(ids) > self._longest for ids in whole["input_ids"])
        if cut:
            say(f"BERTScore: {cut:,} of {len(texts):,} texts are cut to the model's {self._longest:,} tokens.")
            whole = self._tokenizer(list(texts), **options, truncation=True, max_length=self._longest)
        return list(zip(whole["input_ids"], whole["special_tokens_mask"], strict=True))

    @torch.inference_mode()
    def _embedded(
        self, texts: Sequence[tuple[list[int], list[int]]], rarity: Mapping[int, float] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Unit embeddings (B, T, H), which positions hold a token (B, T), and each position's weight (B, T)."""
        size = max(max(len(ids) for ids, _ in texts), 1)
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([[*ids, *[padding] * (size - len(ids))] for ids, _ in texts])
        held = torch.tensor([[*[True] * len(ids), *[False] * (size - len(ids))] for ids, _ in texts])
        weight = torch.tensor([[*_weights(*text, rarity), *[0.0] * (size - len(text[0]))] for text in texts])
        device = self._model.device
        found = self._model(ids.to(device), attention_mask=held.long().to(device), output_hidden_states=True)
        return normalize(found.hidden_states[self._layer], dim=-1), held.to(device), weight.to(device)


def _greedy_f1(
    got: Tensor, got_held: Tensor, got_weight: Tensor, wanted: Tensor, wanted_held: Tensor, wanted_weight: Tensor
) -> Any:
    """F1 of each pair, (B,), from embeddings (B, R, H) and (B, E, H)."""
    nothing = -torch.inf
    similar = got @ wanted.transpose(1, 2)
    best_got = similar.masked_fill(~wanted_held[:, None, :], nothing).amax(2)
    best_wanted = similar.masked_fill(~got_held[:, :, None], nothing).amax(1)
    precision, recall = _mean(best_got, got_weight), _mean(best_wanted, wanted_weight)
    both = precision + recall
    return torch.where(both > 0, 2 * precision * recall / both.clamp(min=1e-12), 0.0).double().cpu().numpy()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean of each row, (B, T) to (B,); 0 where nothing has weight."""
    total = weight.sum(1)
    return torch.where(weight > 0, values * weight, 0.0).sum(1) / torch.where(total > 0, total, 1.0)


def _weights(ids: Sequence[int], marks: Sequence[int], rarity: Mapping[int, float] | None) -> list[float]:
    """The weight of each token of a text; none for those that only mark start and end."""
    if rarity is None:
        return [0.0 if mark else 1.0 for mark in marks]
    return [0.0 if mark else rarity.get(token, rarity[_UNSEEN]) for token, mark in zip(ids, marks, strict=True)]


def _rarity(texts: Sequence[Sequence[int]]) -> dict[int, float]:
    """log((N + 1) / (n + 1)) of each token that n of N texts hold."""
    holders = Counter(token for ids in texts for token in set(ids))
    return {_UNSEEN: math.log(len(texts) + 1)} | {
        token: math.log((len(texts) + 1) / (count + 1)) for token, count in holders.items()
    }


def _checked_layer(layer: int | None, folder: Path, config: Any) -> int:
    # A folder of the Hub's cache is .../models--OWNER--NAME/snapshots/COMMIT.
    names = [part.rsplit("--", 1)[-1] for part in folder.absolute().parts[-3:]]
    chosen = next((BEST_LAYERS[name] for name in names if name in BEST_LAYERS), None) if layer is None else layer
    layers = int(getattr(config, "num_hidden_layers", 0) or getattr(config, "num_layers", 0))
    if chosen is None:
        raise UserError(
            f"which layer of {folder} BERTScore compares is not known: its name is none of {', '.join(BEST_LAYERS)}. "
            f"Give evaluate.bertscore.layer, 1 to {layers}; about two thirds of the layers is usual."
        )
    if not 0 <= chosen <= layers:
        raise UserError(f"evaluate.bertscore.layer is {chosen}, but {folder} has layers 0 to {layers}.")
    return chosen
