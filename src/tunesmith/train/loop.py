"""The training loop: one for every method. A method is a way of preparing the model, see `model.adapters`.

Every random choice of a step is seeded by its number, and what a step trains on is a function of its number, so the
number of steps done is all that a resumed run has to know.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from tunesmith.base.ranks import Ranks
from tunesmith.tokens.batches import DataPlan, Sequences
from tunesmith.train.optimizer import learning_rate, set_learning_rate, update
from tunesmith.train.settings import TrainSettings
from tunesmith.train.state import TrainResult
from tunesmith.train.step import Objective, gradient_of
from tunesmith.train.trainer import Trainer
from tunesmith.train.watching import Evaluator, Watching

__all__ = ["Evaluator", "TrainResult", "Watching", "train"]


def train(
    model: PreTrainedModel,
    store: Sequences,
    plan: DataPlan,
    settings: TrainSettings,
    folder: Path,
    *,
    objective: Objective | None = None,
    watching: Watching | None = None,
    owner: str = "",
    about: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train the parameters of `model` that require gradients on every step of `plan`; the model is changed in place.

    Goes on from the newest checkpoint in `folder`/checkpoints. Writes `folder`/metrics.jsonl, a line a step.
    objective: what is to become small, by default `supervised_loss`.
    watching: what is measured before the first step, every `evaluate_every` steps and at the end, and who is told
        besides metrics.jsonl. With `patience`, training ends once the held-out loss has stopped falling, and the model
        is that of the best step.
    owner: anything that names the data and the base model; a checkpoint of another owner is refused.
    about: what checkpoints say of themselves besides. ranks: the processes that train together.
    Raises TunesmithError, leaving the weights as they were, if a loss or gradient is not finite; Interrupted, with a
    checkpoint written, if asked to stop.
    """
    trainer = Trainer(model, store, plan, settings, folder, objective, watching, owner, about, ranks)
    with trainer.running() as stop_requested:
        if not trainer.done.step and settings.evaluate_every:
            trainer.evaluate_if_due()
        for rows in trainer.steps():
            started = time.perf_counter()
            gradient = gradient_of(model, rows, settings, trainer.objective, trainer.ranks, trainer.done.loss_scale)
            rate = learning_rate(rows.step, plan.steps, settings)
            if gradient.is_finite:
                set_learning_rate(trainer.optimizer, rate)
                update(trainer.optimizer)
            else:
                trainer.skip(rows, gradient)
            trainer.optimizer.zero_grad(set_to_none=len(rows.rows) < 2)  # of several rows they stay where they lie
            trainer.step_done(rows, gradient, rate, time.perf_counter() - started)
            trainer.evaluate_if_due()
            stopping = stop_requested()
            trainer.save_if_due(now=stopping)
            if stopping:
                raise trainer.interrupted()
    trainer.optimizer.zero_grad()
    trainer.take_best()
    return trainer.done
