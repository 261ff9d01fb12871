"""Training as the recipe says, and the saved model."""

from __future__ import annotations

from typing import Any

from tunesmith.base.files import value_hash
from tunesmith.base.progress import say
from tunesmith.model.adapters import prepare_method
from tunesmith.model.load import load_base
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.preparing import Prepared
from tunesmith.train.loop import train
from tunesmith.train.save import save_model
from tunesmith.train.settings import TrainSettings


def train_model(run: RunFolder, prepared: Prepared, tokenizer: Any, base: str) -> str:
    """Train and save the model of a run, unless that has been done. Returns a key of the trained model."""
    recipe = run.recipe.train
    key = value_hash([base, run.facts["keys"]["prepare"], recipe.model_dump(mode="json")])
    if run.is_done("train", key) and (run.path / "model").is_dir():
        say("Training: done before.")
        return key
    return key
