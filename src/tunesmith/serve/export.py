"""The tuned model as one plain folder for other tools."""

from __future__ import annotations

from pathlib import Path

from tunesmith.base.errors import UserError
from tunesmith.base.files import written_aside
from tunesmith.model.adapters import merge
from tunesmith.model.load import load_trained


def export_merged(trained: Path, folder: Path, *, trust_remote_code: bool = False) -> Path:
    """Write the model in `trained` to `folder`, its adapter (if it has one) merged into the weights; returns `folder`.

    Raises UserError when nothing has been trained yet, or when `folder` holds something already.
    """
    if not trained.is_dir():
        raise UserError(f"{trained.parent} has no trained model yet. Finish it: tunesmith run {trained.parent}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty, and export overwrites nothing. Name a new folder.")
    loaded = load_trained(trained, trust_remote_code=trust_remote_code)
    model = merge(loaded.model)
    with written_aside(folder) as aside:
        model.save_pretrained(aside)
        loaded.tokenizer.save_pretrained(aside)
    return folder
