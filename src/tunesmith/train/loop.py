"""The training loop: one for every method. A method is a way of preparing the model, see `model.adapters`.

The loss of a step is the sum over its supervised tokens divided once by their count, however the step is cut into
packed rows. Every random choice of a step is seeded by (seed, step), so the number of steps done is all that a
resumed run has to know.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tunesmith.base.errors import Interrupted, TunesmithError
from tunesmith.base.files import value_hash, write_text
from tunesmith.base.progress import progress, say
from tunesmith.base.random import seed_of
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.tokens.batches import Batch, DataPlan, Sequences, make_batch
from tunesmith.train.checkpoint import load_newest, save_checkpoint
from tunesmith.train.optimizer import build_optimizer, learning_rate, set_learning_rate
from tunesmith.train.settings import TrainSettings

Evaluator = Callable[[PreTrainedModel], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run did, all of it, resumed parts included. tokens: without fill. losses: nats per supervised token."""

    step: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    loss_first: float = math.nan
    loss_last: float = math.nan


def train(
    model: PreTrainedModel,
    store: Sequences,
    plan: DataPlan,
    settings: TrainSettings,
    folder: Path,
    *,
    evaluators: Mapping[str, Evaluator] | None = None,
    owner: str = "",
) -> TrainResult:
    """Train the parameters of `model` that require gradients on every step of `plan`; the model is changed in place.

    Goes on from the newest checkpoint in `folder`/checkpoints. Writes `folder`/metrics.jsonl, a line a step.
    evaluators: called every `evaluate_every` steps and at the end; what they return goes to metrics.jsonl.
    owner: anything that names the data and the base model; a checkpoint of another owner is refused.
    Raises TunesmithError, leaving the weights as they were, if a loss or gradient is not finite.
    """
    optimizer = build_optimizer(model, settings)
    owner = value_hash([settings.identity(), plan.steps, plan.rows, plan.tokens, owner])
    done = TrainResult(**(load_newest(folder / "checkpoints", model, optimizer, owner=owner) or {}))
    with (
        _training(model, settings),
        _stop_requests() as stop_requested,
        _log(folder / "metrics.jsonl", done) as log,
        progress("train", plan.steps, done.step) as bar,
    ):
        for step in range(done.step, plan.steps):
            started = time.perf_counter()
            torch.manual_seed(seed_of(settings.seed, "step", step))
            batches = [make_batch(store, indices) for indices in plan.step(step)]
            loss = _accumulate(model, batches, settings)
            norm = _clip(model, settings.clip)
            _refuse_non_finite(loss, norm, step, batches, store)
            rate = learning_rate(step, plan.steps, settings)
            set_learning_rate(optimizer, rate)
            optimizer.step()
            optimizer.zero_grad()
            before, done = done, _after(done, batches, loss, time.perf_counter() - started)
            speed = (done.tokens - before.tokens) / (done.seconds - before.seconds)
            log(_line(done, plan, loss=loss, learning_rate=rate, grad_norm=norm, tokens_per_second=round(speed, 1)))
            bar.advance()
            bar.note(f"loss {loss:.3f}, {speed:,.0f} tokens/s")
            if evaluators and _due(done.step, settings.evaluate_every, plan.steps):
                log({"step": done.step, "evaluation": _evaluate(model, evaluators)})
            stopping = stop_requested()
            if stopping or (settings.checkpoint_every and _due(done.step, settings.checkpoint_every, plan.steps)):
                keep = settings.keep_checkpoints
                save_checkpoint(folder / "checkpoints", model, optimizer, asdict(done), owner=owner, keep=keep)
            if stopping:
                raise Interrupted(f"stopped as asked after step {done.step} of {plan.steps}; run again to go on")
    return done


def _accumulate(model: PreTrainedModel, batches: Sequence[Batch], settings: TrainSettings) -> float:
    """Add the gradient of the step's mean loss over all its supervised tokens; return that loss."""
    device = next(model.parameters()).device
    count = sum(batch.supervised_count for batch in batches)
    assert count, "a step without a supervised token has no loss"
    room = settings.tokens_per_batch if settings.compile else 0
    total = torch.zeros((), device=device)
    for batch in batches:
        row = PackedRow.of(batch, device, room)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            loss = supervised_loss(model, row, compiled=settings.compile) / count
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return float(total)


def _clip(model: PreTrainedModel, largest: float) -> float:
    """Scale the gradient to a norm of at most `largest` (0: don't); return the norm it had."""
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    return float(nn.utils.clip_grad_norm_(trained, largest or math.inf, foreach=True))


def _refuse_non_finite(loss: float, norm: float, step: int, batches: Sequence[Batch], store: Sequences) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    names = getattr(store, "row_ids", range(len(store)))
    rows = [str(names[index]) for batch in batches for index in batch.sequences]
    more = f" and {len(rows) - 20} more" if len(rows) > 20 else ""
    raise TunesmithError(
        f"step {step + 1}: loss {loss}, gradient norm {norm}. The update was not applied: the weights are those of "
        f"step {step}. The step trained the rows {', '.join(rows[:20])}{more}. Look at them (`tunesmith inspect`); if "
        f"they are sound, lower learning_rate, raise warmup or train in fp32."
    )


def _after(done: TrainResult, batches: Sequence[Batch], loss: float, seconds: float) -> TrainResult:
    return replace(
        done,
        step=done.step + 1,
        tokens=done.tokens + sum(len(batch.ids) for batch in batches),
        supervised_tokens=done.supervised_tokens + sum(batch.supervised_count for batch in batches),
        seconds=done.seconds + seconds,
        loss_first=loss if done.step == 0 else done.loss_first,
        loss_last=loss,
    )


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


def _evaluate(model: PreTrainedModel, evaluators: Mapping[str, Evaluator]) -> dict[str, dict[str, float]]:
    model.eval()
    with torch.no_grad():
        found = {name: dict(evaluator(model)) for name, evaluator in evaluators.items()}
    model.train()
    return found


@contextmanager
def _training(model: PreTrainedModel, settings: TrainSettings) -> Iterator[None]:
    """The model in training mode, with the wanted number of threads; both as before afterwards."""
    before, threads = model.training, torch.get_num_threads()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    model.train()
    try:
        yield
    finally:
        model.train(before)
        torch.set_num_threads(threads)


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C or SIGTERM asked to stop; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    asked, before = [], {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        restore()
        say("stopping after this step; once more stops at once")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        restore()


def _line(done: TrainResult, plan: DataPlan, **measured: float) -> dict[str, float]:
    """A step's line of metrics.jsonl."""
    return {
        "step": done.step,
        "epoch": round(plan.epoch(done.step - 1), 4),
        **measured,
        "tokens": done.tokens,
        "supervised_tokens": done.supervised_tokens,
        "seconds": round(done.seconds, 3),
    }


@contextmanager
def _log(path: Path, done: TrainResult) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields what appends a line to metrics.jsonl, once the lines of steps that a resumed run does again are gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(line for line in lines if _step_of(line) <= done.step))
    if done.step:
        say(f"going on after step {done.step}")
    with path.open("a", encoding="utf-8", buffering=1) as file:
        yield lambda line: print(json.dumps(line), file=file)


def _step_of(line: str) -> float:
    """The step of a line; a line cut short by a kill counts as one to drop."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
