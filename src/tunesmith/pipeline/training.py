"""Training as the recipe says, and the saved model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import nn

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import UserError
from tunesmith.base.files import value_hash
from tunesmith.base.progress import say
from tunesmith.base.random import seed_of
from tunesmith.base.ranks import Ranks
from tunesmith.evaluate.language import response_losses
from tunesmith.model.adapters import Method, prepare_method
from tunesmith.model.device import device_peak
from tunesmith.model.distill import load_distillation
from tunesmith.model.flops import training_flops
from tunesmith.model.load import load_base, parameter_counts
from tunesmith.model.losses import causal_model
from tunesmith.model.seq2seq import is_encoder_decoder
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.measuring import scored
from tunesmith.pipeline.preparing import Prepared, supervised_rows
from tunesmith.pipeline.sampling import sampler, spread
from tunesmith.pipeline.splitting import VALIDATION
from tunesmith.recipe.models import Recipe
from tunesmith.tokens.templates import stop_token_ids
from tunesmith.train.loop import Evaluator, Watching, train
from tunesmith.train.monitor import Meter
from tunesmith.train.save import save_model
from tunesmith.train.settings import TrainSettings
from tunesmith.train.sharding import is_sharded, put_back, trained_weights
from tunesmith.train.step import AUTOCAST, Objective
from tunesmith.train.trackers import tracking

WATCHED = 64  # held-out rows of each level whose loss is measured while training
VALIDATED = 256  # validation rows instead, where there are any
DIVERGED = 1.5  # times the first loss
HELD = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # what frozen weights are held in, by precision


def train_model(run: RunFolder, prepared: Prepared, tokenizer: Any, base: str, ranks: Ranks) -> str:
    """Train and save the model of a run, unless that has been done. Returns a key of the trained model.

    base: a key of the base model and its chat template. ranks: the processes that train together; each calls this.
    """
    key = value_hash([base, run.facts["keys"]["prepare"], decisive(run.recipe)])
    if run.is_done("train", key) and (run.path / "model").is_dir():
        say("Training: done before.")
    elif ranks.is_main:
        with run.stage("train", key):
            _train(run, prepared, tokenizer, key, ranks)
    else:
        _train(run, prepared, tokenizer, key, ranks)
    ranks.meet("trained")
    return key


def _train(run: RunFolder, prepared: Prepared, tokenizer: Any, key: str, ranks: Ranks) -> None:
    recipe, plan, settings = run.recipe.train, prepared.plan, settings_of(run.recipe)
    model = untrained(run.recipe, tokenizer)
    total, trained = parameter_counts(model)
    if ranks.is_main:
        run.save(parameters=total, trainable=trained, steps=plan.steps, tokens=plan.tokens, processes=ranks.size)
    say(
        f"Training: {recipe.method}, {trained:,} of {total:,} parameters, {plan.steps:,} steps, "
        f"{plan.tokens:,} tokens, packed rows {plan.efficiency:.1%} full."
        + (f" {ranks.size} processes." if ranks.size > 1 else "")
    )
    result = train(
        model,
        prepared.store,
        plan,
        settings,
        run.path,
        objective=_objective(run.recipe, model, tokenizer),
        watching=_watching(run, prepared, model, tokenizer, ranks),
        owner=key,
        about={"recipe": run.recipe_text, "recipe_sha256": value_hash(run.recipe_text)},
        ranks=ranks,
    )
    say(
        f"Trained: loss {result.loss_first:.3f} -> {result.loss_last:.3f}, "
        f"{result.tokens / max(result.seconds, 1e-9):,.0f} tokens/s."
    )
    if result.loss_last > DIVERGED * result.loss_first:
        say(
            f"Warning: training ended with a loss of {result.loss_last:.3f}, having begun with "
            f"{result.loss_first:.3f}: it diverged. Lower train.learning_rate (now {recipe.learning_rate:g}), or raise "
            f"train.warmup."
        )
    if is_sharded(model):
        weights = trained_weights(model)
        model = untrained(run.recipe, tokenizer) if ranks.is_main else None
        if model is not None:
            put_back(model, weights)
    if ranks.is_main:
        save_model(
            model,
            tokenizer,
            run.path / "model",
            base=run.recipe.base,
            stop_ids=stop_token_ids(tokenizer),
            trust_remote_code=run.recipe.trust_remote_code,
        )


def untrained(recipe: Recipe, tokenizer: Any) -> Any:
    """The base model, prepared for the method of the recipe."""
    train = recipe.train
    loaded = load_base(
        recipe.base,
        dtype="float32" if train.method == "full" else HELD[train.precision],
        quantized=train.method == "qlora",
        trust_remote_code=recipe.trust_remote_code,
    )
    return prepare_method(loaded.model, method_of(recipe), seed=recipe.seed, tokenizer=tokenizer)


def method_of(recipe: Recipe) -> Method:
    """The plain values that prepare a model."""
    train = recipe.train
    lora, prompt = train.lora, train.prompt
    return Method(
        train.method,
        freeze_embeddings=train.freeze.embeddings,
        freeze_layers=train.freeze.layers,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=train.bottleneck.dropout if train.method == "bottleneck" else lora.dropout,
        targets=lora.targets,
        rslora=lora.rslora,
        dora=lora.dora,
        size=train.bottleneck.size,
        tokens=prompt.tokens,
        start=prompt.start,
        width=prompt.width,
    )


def decisive(recipe: Recipe) -> dict[str, Any]:
    """What of the recipe decides the trained weights, given data and base: all but what only watches or saves, and
    without what is as it is by default (see `TrainSettings.identity`)."""
    prepared = {"method", "freeze", "lora", "bottleneck", "prompt", "distill", "epochs", "max_length"}
    method = recipe.train.model_dump(include=prepared, mode="json", exclude_defaults=True)
    return method | settings_of(recipe).identity()


def settings_of(recipe: Recipe) -> TrainSettings:
    """The plain values that the loop takes."""
    names = {field.name for field in fields(TrainSettings)} - {"seed"}
    return TrainSettings(**recipe.train.model_dump(include=names), seed=recipe.seed)


def _objective(recipe: Recipe, model: Any, tokenizer: Any) -> Objective | None:
    """What is to become small, if it is not the loss on the data alone."""
    distill = recipe.train.distill
    if distill is None:
        return None
    distillation = load_distillation(
        distill.teacher,
        model,
        tokenizer,
        temperature=distill.temperature,
        share=distill.share,
        dtype=distill.dtype,
        trust_remote_code=recipe.trust_remote_code,
    )
    compiled = recipe.train.compile
    return lambda student, row: distillation(student, row, compiled=compiled)


def _watching(run: RunFolder, prepared: Prepared, model: Any, tokenizer: Any, ranks: Ranks) -> Watching:
    train = run.recipe.train
    watched = _watched(prepared, run.recipe.seed)
    if train.patience and not prepared.validation:
        say(
            "Note: train.patience chooses the step by rows that are reported in the end too, so their figures come out "
            "a little too good. Rows of their own for it: data.hold_out.validation, as 0.02."
        )
    prompts = spread(watched, train.samples)
    meter = _meter(model, run.recipe, ranks)
    answers = sampler(prompts, prepared, run.recipe.evaluate, tokenizer) if prompts and train.evaluate_every else None
    name, facts = run.path.absolute().name, {"base": run.recipe.base, **train.model_dump(mode="json")}
    return Watching(
        _evaluators(prepared, run.recipe),
        answers,
        meter,
        lambda step: tracking(train.track, run.path, name, step=step, facts=facts),
    )


def _watched(prepared: Prepared, seed: int) -> dict[str, list[Conversation]]:
    """The rows that are looked at while training: those of validation, so that what is reported chooses no step.

    Without any, of each level of generalisation the first of the rows that are measured after training.
    """
    if prepared.validation:
        by_hash = sorted(prepared.validation, key=lambda row: seed_of(seed, "losses", row.id))
        return {VALIDATION: by_hash[:VALIDATED]}
    return scored(prepared, WATCHED, seed)


def _evaluators(prepared: Prepared, recipe: Recipe) -> dict[str, Evaluator]:
    """What measures the response loss of the rows that are looked at."""
    watched = _watched(prepared, recipe.seed)
    return {name: _evaluator(rows, prepared, recipe.train.tokens_per_batch) for name, rows in watched.items()}


def _evaluator(rows: Sequence[Conversation], prepared: Prepared, batch_tokens: int) -> Evaluator:
    """The response loss of held-out rows: of all, and by cluster."""
    sequences, clusters = supervised_rows(rows, prepared.store), np.array([row.cluster or row.source for row in rows])

    def evaluate(model: nn.Module) -> Mapping[str, Any]:
        found = response_losses(model, sequences, batch_tokens=batch_tokens)
        by_cluster = {name: found.nats[clusters == name].sum() / found.tokens[clusters == name].sum() for name in names}
        return {
            "loss": float(found.nats.sum() / found.tokens.sum()),
            "tokens": int(found.tokens.sum()),
            "clusters": {name: float(loss) for name, loss in by_cluster.items()},
        }

    names = sorted(set(clusters.tolist()))
    return evaluate


def _meter(model: Any, recipe: Recipe, ranks: Ranks) -> Meter:
    device = next(model.parameters()).device
    flops = None if is_encoder_decoder(causal_model(model)) or recipe.train.distill else training_flops(model)
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.train.threads or threads)
    peak = device_peak(device, AUTOCAST.get(recipe.train.precision, torch.float32))
    torch.set_num_threads(threads)
    return Meter(flops, peak * ranks.size, device)


def check_processes(recipe: Recipe, ranks: Ranks) -> None:
    """Raises UserError if the packed rows of a step can't be dealt out evenly to the processes."""
    train = recipe.train
    rows, size = train.tokens_per_step // train.tokens_per_batch, ranks.size
    if rows % size:
        near = sorted({max(1, rows // size) * size, -(-rows // size) * size})
        steps = " or ".join(str(rows * train.tokens_per_batch) for rows in near)
        raise UserError(
            f"train.tokens_per_step is {train.tokens_per_step}: {rows} packed rows of {train.tokens_per_batch} tokens, "
            f"which {size} processes can't share evenly, so some would idle. Nearest that they can: {steps}; or choose "
            f"another tokens_per_batch, or another number of processes."
        )
