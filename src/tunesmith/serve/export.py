"""The tuned model as one plain folder for other tools."""

from __future__ import annotations

from pathlib import Path

from tunesmith.base.errors import UserError
from tunesmith.model.adapters import merge
from tunesmith.model.load import load_trained
from tunesmith.tokens.templates import stop_token_ids
from tunesmith.train.save import save_model


def export_merged(trained: Path, folder: Path, *, base: str | None = None, trust_remote_code: bool = False) -> Path:
    """Write the model in `trained` to `folder`, its adapter (if it has one) merged into the weights; returns `folder`.

    base: the base it was trained on, as its recipe names it; by default the one that an adapter names.
    An adapter on a quantised base is merged into the weights that it was trained on, written out in fp32.
    Raises UserError when nothing has been trained yet, when `folder` holds something already, or when the method's
    part can't be merged (virtual tokens, bottleneck adapters).
    """
    if not trained.is_dir():
        raise UserError(f"{trained.parent} has no trained model yet. Finish it: tunesmith run {trained.parent}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty, and export overwrites nothing. Name a new folder.")
    loaded = load_trained(trained, base=base, trust_remote_code=trust_remote_code, whole=True)
    return save_model(
        merge(loaded.model),
        loaded.tokenizer,
        folder,
        base=base or str(trained),
        stop_ids=stop_token_ids(loaded.tokenizer),
        trust_remote_code=trust_remote_code,
    )
