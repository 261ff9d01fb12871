"""Memory and time of a training, before any of it is spent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunesmith.base.errors import TunesmithError
from tunesmith.model.adapters import prepare_method
from tunesmith.model.attention import NAME
from tunesmith.model.blank import empty_base
from tunesmith.model.memory import Memory, Rehearsal, quantized, rehearse, step_memory
from tunesmith.model.recompute import checkpoint_activations
from tunesmith.pipeline.gpus import Device, watch_memory
from tunesmith.pipeline.preparing import Prepared
from tunesmith.pipeline.training import HELD, method_of, settings_of, untrained
from tunesmith.recipe.models import Recipe
from tunesmith.tokens.batches import DataPlan, plan_epochs
from tunesmith.train.loop import train
from tunesmith.train.settings import TrainSettings

UTILISATION = 0.4
"""Part of a GPU's peak that a training is taken to reach: between the 30% of small models and the 50% of large ones."""
TRIAL_SECONDS = 90.0
"""A step of the trial that would take longer is not tried."""
TRIAL_STEPS = 3


@dataclass(frozen=True, slots=True)
class RowShape:
    """What a packed row holds. lengths: tokens of each document. supervised: their part that is."""

    lengths: tuple[int, ...]
    supervised: float

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class Estimate:
    """found: what going through a row showed. memory: of one process, without what the process itself takes."""

    found: Rehearsal
    memory: Memory


def estimate(recipe: Recipe, row: RowShape, processes: int = 1, *, on_gpu: bool = False) -> Estimate:
    """Parameters, memory and FLOPs of a recipe's training, from its base's configuration alone.

    row: the largest packed row. Raises TunesmithError for an architecture that can't be gone through.
    """
    settings = recipe.train
    rows = max(1, settings.tokens_per_step // settings.tokens_per_batch // processes)
    plain = on_gpu or settings.compile or (settings.sharding == "fsdp" and processes > 1)  # no forms for CPUs
    try:
        found = _rehearsed(recipe, row, rows, NAME, plain)
    except NotImplementedError:  # can't attend within documents: then they are computed side by side
        found = _rehearsed(recipe, row, rows, "eager", plain)
    memory = step_memory(found, settings.optimizer, rows=rows, processes=processes, sharding=settings.sharding)
    if settings.distill:
        memory = replace(memory, weights=memory.weights + _teacher(recipe))
    return Estimate(found, memory)


def _rehearsed(recipe: Recipe, row: RowShape, rows: int, attention: str, plain: bool) -> Rehearsal:
    settings, method = recipe.train, method_of(recipe)
    dtype = torch.float32 if settings.method == "full" else getattr(torch, HELD[settings.precision])

    def base() -> Any:
        return empty_base(recipe.base, dtype=dtype, trust_remote_code=recipe.trust_remote_code, attention=attention)

    def build() -> Any:
        unpacked = replace(method, name="lora") if method.name == "qlora" else method
        model = prepare_method(base(), unpacked, seed=recipe.seed)
        return checkpoint_activations(model) if settings.activation_checkpointing else model

    found = rehearse(build, row.lengths, row.supervised, precision=settings.precision, rows=rows, on_cpu=not plain)
    if settings.method == "qlora":
        with torch.device("meta"):
            found = quantized(found, base(), adapters=4 * found.trainable, dtype=dtype)
    return found


def _teacher(recipe: Recipe) -> int:
    """Bytes of the weights of the model that is learned from."""
    distill = recipe.train.distill
    assert distill
    dtype = torch.bfloat16 if distill.dtype == "auto" else getattr(torch, distill.dtype)  # most are saved so
    with torch.device("meta"):
        teacher = empty_base(distill.teacher, dtype=dtype, trust_remote_code=recipe.trust_remote_code)
    return sum(parameter.numel() * parameter.element_size() for parameter in teacher.parameters())


def largest_row(plan: DataPlan, prepared: Prepared) -> RowShape:
    """The packed row of the first epoch with most tokens in its largest documents: attention takes most there."""
    packing, order = plan.epochs[0]
    lengths, supervised = prepared.store.lengths, prepared.store.supervised_counts
    totals = np.add.reduceat(lengths[order[packing.order]], packing.starts[:-1])
    fullest = order[packing[int(totals.argmax())]]
    part = supervised[fullest].sum() / lengths[fullest].sum()
    return RowShape(tuple(int(length) for length in lengths[fullest]), float(part))


def row_of_lengths(recipe: Recipe, supervised: float) -> RowShape:
    """A packed row full of the longest documents, where no data is known."""
    room, longest = recipe.train.tokens_per_batch, recipe.train.max_length
    rest = [room % longest] if room % longest > 1 else []
    return RowShape((*[longest] * (room // longest), *rest), supervised)


# Time


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second, all processes together, and in words how that is known.

    taken: bytes of main memory that this process took while it was measured, at the worst moment; None if not told.
    """

    tokens_per_second: float
    how: str
    taken: int | None = None


def tried_speed(recipe: Recipe, prepared: Prepared, tokenizer: Any, flops: float) -> Speed | None:
    """Speed of this machine, from a few real steps with a throw-away copy of the model; None if one takes too long.

    flops: of a packed row, by which steps are kept small where the machine is slow.
    """
    if flops / _matmul_speed() > TRIAL_SECONDS:
        return None
    most = (lambda: None) if torch.cuda.is_available() else watch_memory()
    model, settings = untrained(recipe, tokenizer), settings_of(recipe)
    settings = replace(settings, checkpoint_every=0, evaluate_every=0, patience=0, sharding="none")
    first = _tried(model, prepared, settings, rows=1, steps=1)
    taken = settings.tokens_per_batch / first
    if taken * TRIAL_STEPS > TRIAL_SECONDS:
        return Speed(first, "measured here: 1 packed row", most())
    rows = min(settings.batches_per_step, 4, int(TRIAL_SECONDS / TRIAL_STEPS / taken))
    speed = _tried(model, prepared, settings, rows=rows, steps=TRIAL_STEPS)
    return Speed(speed, f"measured here: up to {TRIAL_STEPS} steps of {rows} packed rows", most())


def _tried(model: Any, prepared: Prepared, settings: TrainSettings, *, rows: int, steps: int) -> float:
    """Tokens per second of some steps of so many packed rows."""
    chosen = [int(index) for row in _first_rows(prepared.plan, steps * rows) for index in row]
    store = [prepared.store[index] for index in chosen]
    plan = plan_epochs(
        lambda _: np.arange(len(store)),
        np.array([len(sequence) for sequence in store]),
        tokens_per_batch=settings.tokens_per_batch,
        batches_per_step=rows,
        epochs=1,
        seed=settings.seed,
    )
    smaller = replace(settings, tokens_per_step=settings.tokens_per_batch * rows)
    with tempfile.TemporaryDirectory() as folder:
        result = train(model, store, plan, smaller, Path(folder))
    return result.tokens / result.seconds


def _first_rows(plan: DataPlan, count: int) -> Iterator[np.ndarray]:
    for step in range(plan.steps):
        for row in plan.step(step):
            if count == 0:
                return
            count -= 1
            yield row


def _matmul_speed() -> float:
    from tunesmith.model.device import device_peak

    return device_peak("cuda" if torch.cuda.is_available() else "cpu")


def assumed_speed(found: Rehearsal, row: RowShape, device: Device, precision: str, processes: int) -> Speed:
    """Speed from a GPU's peak. Raises TunesmithError for a device whose peak is not known."""
    peak = device.peak(precision)
    if peak is None:
        raise TunesmithError(f"the peak of {device.name} is not known, so time can't be told without a trial.")
    speed = processes * UTILISATION * peak / (found.flops / row.tokens)
    return Speed(speed, f"{UTILISATION:.0%} of the peak of {peak / 1e12:,.0f} TFLOP/s assumed")
