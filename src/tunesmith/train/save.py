"""The trained model as plain Transformers or PEFT load it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunesmith.base.files import written_aside
from tunesmith.model.losses import causal_model


def save_model(model: Any, tokenizer: Any, folder: Path, *, stop_ids: Sequence[int]) -> Path:
    """Write weights (or the adapter alone), tokenizer with chat template, and generation config to `folder`.

    stop_ids: the tokens that end an answer; they become the generation config's end-of-sequence tokens, so that what
    serves the model stops where training taught it to.
    Raises TunesmithError when it can't be written; a folder that was there before is then as it was.
    """
    inner = causal_model(model)
    stops = list(dict.fromkeys([*stop_ids, *_own_stops(inner)]))
    inner.generation_config.eos_token_id = stops[0] if len(stops) == 1 else stops
    if tokenizer.pad_token_id is not None:
        inner.generation_config.pad_token_id = tokenizer.pad_token_id
    with written_aside(folder) as aside:
        aside.mkdir()
        _write(model, tokenizer, aside)
    return folder


def _own_stops(model: Any) -> list[int]:
    own = model.generation_config.eos_token_id
    return own if isinstance(own, list) else [] if own is None else [own]


def _write(model: Any, tokenizer: Any, folder: Path) -> None:
    if causal_model(model) is model:
        model.save_pretrained(folder)
    else:
        model.save_pretrained(folder, save_embedding_layers=False)  # or it would ask the Hub for the vocabulary size
        causal_model(model).generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
