"""Training as the recipe says, and the saved model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from torch import nn

from tunesmith.base.conversation import Conversation
from tunesmith.base.files import value_hash
from tunesmith.base.progress import say
from tunesmith.evaluate.language import response_losses
from tunesmith.model.adapters import prepare_method
from tunesmith.model.load import load_base, parameter_counts
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.measuring import scored
from tunesmith.pipeline.preparing import Prepared, supervised_rows
from tunesmith.recipe.models import Recipe
from tunesmith.tokens.templates import stop_token_ids
from tunesmith.train.loop import Evaluator, Watching, train
from tunesmith.train.save import save_model
from tunesmith.train.settings import TrainSettings

WATCHED = 64  # held-out rows of each level whose loss is measured while training


def train_model(run: RunFolder, prepared: Prepared, tokenizer: Any, base: str) -> str:
    """Train and save the model of a run, unless that has been done. Returns a key of the trained model.

    base: a key of the base model and its chat template.
    """
    recipe = run.recipe.train
    key = value_hash([base, run.facts["keys"]["prepare"], decisive(run.recipe)])
    if run.is_done("train", key) and (run.path / "model").is_dir():
        say("Training: done before.")
        return key
    with run.stage("train", key):
        loaded = load_base(run.recipe.base, trust_remote_code=run.recipe.trust_remote_code)
        lora = recipe.lora
        model = prepare_method(
            loaded.model,
            recipe.method,
            rank=lora.rank,
            alpha=lora.alpha,
            dropout=lora.dropout,
            targets=lora.targets,
            seed=run.recipe.seed,
        )
        total, trained = parameter_counts(model)
        plan = prepared.plan
        run.save(parameters=total, trainable=trained, steps=plan.steps, tokens=plan.tokens)
        say(
            f"Training: {recipe.method}, {trained:,} of {total:,} parameters, {plan.steps:,} steps, "
            f"{plan.tokens:,} tokens, packed rows {plan.efficiency:.1%} full."
        )
        settings, watched = settings_of(run.recipe), _watched(prepared, run.recipe)
        result = train(model, prepared.store, plan, settings, run.path, watching=Watching(watched), owner=key)
        say(
            f"Trained: loss {result.loss_first:.3f} -> {result.loss_last:.3f}, "
            f"{result.tokens / max(result.seconds, 1e-9):,.0f} tokens/s."
        )
        save_model(
            model,
            tokenizer,
            run.path / "model",
            base=run.recipe.base,
            stop_ids=stop_token_ids(tokenizer),
            trust_remote_code=run.recipe.trust_remote_code,
        )
    return key


def decisive(recipe: Recipe) -> dict[str, Any]:
    """What of the recipe decides the trained weights, given the data: all but what only watches or saves."""
    prepared = {"method", "freeze", "lora", "bottleneck", "prompt", "distill", "epochs", "max_length"}
    method = recipe.train.model_dump(include=prepared, mode="json")
    return method | settings_of(recipe).identity()


def settings_of(recipe: Recipe) -> TrainSettings:
    """The plain values that the loop takes."""
    names = {field.name for field in fields(TrainSettings)} - {"seed"}
    return TrainSettings(**recipe.train.model_dump(include=names), seed=recipe.seed)


def _watched(prepared: Prepared, recipe: Recipe) -> Mapping[str, Evaluator]:
    """Held-out response loss of each level, to be watched while training: the first of the rows measured after it."""

    def watch(level: Sequence[Conversation]) -> Evaluator:
        rows = supervised_rows(level, prepared.store)

        def evaluate(model: nn.Module) -> Mapping[str, float]:
            losses = response_losses(model, rows, batch_tokens=recipe.train.tokens_per_batch)
            return {"loss": float(losses.nats.sum() / losses.tokens.sum())}

        return evaluate

    return {name: watch(level) for name, level in scored(prepared, WATCHED, recipe.seed).items()}
