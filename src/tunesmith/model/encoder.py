"""Models that read text and answer with vectors: one for each text, from a folder on this machine.

Shapes: B texts of a batch, T tokens of the longest, H hidden.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModel, AutoTokenizer

from tunesmith.base.errors import UserError
from tunesmith.base.progress import say, track

Pooling = Literal["mean", "cls"]

_POOLING = Path("1_Pooling") / "config.json"  # where sentence-transformers says how tokens become one vector
_POOLED_BY: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_READ = ("*.json", "*.safetensors", "*.txt", "*.model", str(_POOLING))
_TEXTS_READ, _TEXTS_AT_ONCE = 1_024, 32  # sorted by length among those read, so that little is padded


@dataclass(frozen=True, slots=True)
class Encoder:
    """longest: the most tokens that the model reads."""

    model: Any
    tokenizer: Any
    config: Any
    longest: int


def load_encoder(folder: Path, key: str, device: str = "auto") -> Encoder:
    """The model in a local folder, its encoder alone if it has a decoder too. key: of the recipe, that names it.

    device: "auto": CUDA if present. Raises UserError if the folder holds no model that can be loaded.
    """
    encoder_files(folder, key)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        loaded = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"{key} {folder} can't be loaded: {error}") from error
    encoder = loaded.get_encoder() if getattr(config, "is_encoder_decoder", False) else loaded
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    return Encoder(encoder.eval().to(chosen), tokenizer, config, _longest(tokenizer, config))


def encoder_files(folder: Path, key: str) -> list[Path]:
    """The files that vectors depend on. Raises UserError if the folder holds no model."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{key} is {folder}, and there is no config.json in it: it is no folder of a model. Download one that was "
            f"made for embeddings (roberta-large or all-MiniLM-L6-v2, say) and give its folder."
        )
    found = [file for pattern in _READ for file in folder.glob(pattern)]
    return sorted(file for file in found if file.is_file())


class TextEmbedding:
    """Vectors of texts: the mean of the last layer over a text's tokens, or its first token if the folder says so.

    That is what sentence-transformers computes of most models made for it; their vectors are compared by cosine, so
    that a last step which makes them of length 1 changes nothing.
    """

    def __init__(self, folder: str, key: str, device: str = "auto") -> None:
        """Raises UserError if the folder holds no such model, or one whose vectors are made in another way."""
        self._encoder = load_encoder(Path(folder), key, device)
        self._pooling = _pooling_of(Path(folder), key)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(texts, H). Texts are read in order, some at a time; those too long for the model are cut, and told of."""
        found = np.zeros((len(texts), int(self._encoder.config.hidden_size)), np.float32)
        cut = 0
        starts = range(0, len(texts), _TEXTS_READ)
        for start in track(starts, "Embedding", len(starts)):
            tokens, longer = self._encoded(texts[start : start + _TEXTS_READ])
            cut += longer
            order = np.argsort([-len(ids) for ids in tokens], kind="stable")
            for first in range(0, len(order), _TEXTS_AT_ONCE):
                places = order[first : first + _TEXTS_AT_ONCE]
                found[start + places] = self._pooled([tokens[place] for place in places.tolist()])
        if cut:
            say(f"Embedding: {cut:,} of {len(texts):,} texts are cut to the model's {self._encoder.longest:,} tokens.")
        return found

    def _encoded(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of each text, and how many texts were cut."""
        tokenizer, longest = self._encoder.tokenizer, self._encoder.longest
        options = {"return_attention_mask": False, "return_token_type_ids": False}
        whole = tokenizer(list(texts), **options, verbose=False)["input_ids"]
        longer = sum(len(ids) > longest for ids in whole)
        if longer:
            whole = tokenizer(list(texts), **options, truncation=True, max_length=longest)["input_ids"]
        return whole, longer

    @torch.inference_mode()
    def _pooled(self, tokens: Sequence[Sequence[int]]) -> Any:
        """(B, H); zeros for a text without tokens."""
        size = max(max(map(len, tokens)), 1)
        device, padding = self._encoder.model.device, self._encoder.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*text, *[padding] * (size - len(text))] for text in tokens], device=device)
        lengths = torch.tensor([len(text) for text in tokens], device=device)
        held = torch.arange(size, device=device) < lengths[:, None]
        hidden = self._encoder.model(input_ids=ids, attention_mask=held.long()).last_hidden_state
        if self._pooling == "cls":
            hidden, held = hidden[:, :1], held[:, :1]
        summed = hidden.masked_fill(~held[..., None], 0).sum(1)
        return (summed / held.sum(1, keepdim=True).clamp(min=1)).float().cpu().numpy()


def _pooling_of(folder: Path, key: str) -> Pooling:
    path = folder / _POOLING
    if not path.is_file():
        return "mean"
    said = json.loads(path.read_text(encoding="utf-8"))
    asked = [name for name, value in said.items() if name.startswith("pooling_mode_") and value]
    if len(asked) != 1 or asked[0] not in _POOLED_BY:
        raise UserError(
            f"{key} {folder} makes its vectors by {' and '.join(asked) or 'nothing named'} ({_POOLING}), and Tunesmith "
            f"by the mean of tokens or the first token, so they would be others. Use a model with one of these."
        )
    return _POOLED_BY[asked[0]]


def _longest(tokenizer: Any, config: Any) -> int:
    """The most tokens that the model reads; tokenizers that know no limit give a huge number."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 512)
    offset = 2 if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert", "longformer") else 0
    return min(int(tokenizer.model_max_length), positions - offset)
