"""What a run holds from step to step, and what is done around a step: logging, measuring, saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from tunesmith.base.errors import Interrupted, TunesmithError
from tunesmith.base.files import value_hash
from tunesmith.base.heap import keep_freed_memory, return_freed_memory
from tunesmith.base.progress import progress, say
from tunesmith.base.ranks import RankLost, Ranks, explained, is_of_communication
from tunesmith.model.embedding import gradient_in_place
from tunesmith.model.fused import fused
from tunesmith.model.losses import supervised_loss
from tunesmith.model.noise import embedding_noise
from tunesmith.model.recompute import checkpoint_activations
from tunesmith.tokens.batches import DataPlan, Sequences
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.feed import Feed, StepRows
from tunesmith.train.log import MetricsLog, Silent, metrics_log
from tunesmith.train.optimizer import build_optimizer
from tunesmith.train.settings import TrainSettings
from tunesmith.train.sharding import gathered, is_sharded, shard
from tunesmith.train.signals import stop_requests
from tunesmith.train.state import TrainResult
from tunesmith.train.step import LARGEST_SCALE, Gradient, Objective
from tunesmith.train.watches import held_out_loss
from tunesmith.train.watching import Watching

NAMED_ROWS = 20  # of a step that can't be used, in a message; the log has all


class Trainer:
    """One run: the model with its optimizer, what is still to be done, and `done`, what has been."""

    def __init__(
        self,
        model: Any,
        store: Sequences,
        plan: DataPlan,
        settings: TrainSettings,
        folder: Path,
        objective: Objective | None = None,
        watching: Watching | None = None,
        owner: str = "",
        about: Mapping[str, Any] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.plan, self.settings, self.folder = model, plan, settings, folder
        self.ranks = ranks or Ranks()
        if settings.activation_checkpointing:
            checkpoint_activations(model)
        self.objective = objective or (lambda model, row: supervised_loss(model, row, compiled=settings.compile))
        if settings.sharding == "fsdp" and self.ranks.size > 1:
            self.objective = shard(model, self.objective)
        self.optimizer = build_optimizer(model, settings)
        self._watching = watching or Watching()
        self._store = store
        self._device = next(model.parameters()).device
        room = settings.tokens_per_batch if settings.compile else 0
        self._feed = Feed(store, plan, self._device, self.ranks, room)
        self._checkpoints = Checkpoints(
            folder / "checkpoints",
            model,
            self.optimizer,
            owner=value_hash([settings.identity(), plan.steps, plan.rows, plan.tokens, owner]),
            keep=settings.keep_checkpoints,
            background=settings.background_checkpoints,
            about=about or {},
            ranks=self.ranks,
        )
        state = self._checkpoints.load_newest()
        fresh = TrainResult(loss_scale=LARGEST_SCALE if settings.precision == "fp16" else 1.0)
        self.done = TrainResult(**state) if state else fresh
        self._saved = self.done.step

    @property
    def is_finished(self) -> bool:
        """Whether the plan has been done, or the held-out loss has not fallen for too long."""
        patience = self.settings.patience
        return self.done.step >= self.plan.steps or (patience > 0 and self.done.worse >= patience)

    def steps(self) -> Iterator[StepRows]:
        """What is still to be done, step by step."""
        with closing(self._feed.steps(self.done.step)) as feed:
            while not self.is_finished:
                yield next(feed)

    @contextmanager
    def running(self) -> Iterator[Callable[[], bool]]:
        """Within, the model trains and requests to stop are heard; yields whether there was one, on any rank.

        Raises TunesmithError, with a checkpoint of the last whole step, if another rank is lost; Interrupted, if asked
        to stop since the last step.
        """
        with ExitStack() as stack:
            stack.enter_context(_training(self.model, self.settings))
            if not (self.settings.compile or is_sharded(self.model)):
                stack.enter_context(gradient_in_place(self.model))
                stack.enter_context(fused(self.model))
            stack.enter_context(embedding_noise(self.model, self.settings.neftune))
            asked = stack.enter_context(stop_requests())
            self._log: MetricsLog | Silent = Silent()
            if self.ranks.is_main:
                trackers = stack.enter_context(self._watching.trackers(self.done.step))
                log = metrics_log(self.folder / "metrics.jsonl", self.done.step, trackers)
                self._log = stack.enter_context(log)
            self._bar = stack.enter_context(progress("train", self.plan.steps, self.done.step))
            try:
                yield lambda: self._any_rank(asked())
                if self._any_rank(asked()):
                    self.save_if_due(now=True)
                    raise self.interrupted()
            except RankLost:
                self._rescue()
                raise
            except RuntimeError as error:
                if self.ranks.size == 1 or "memory" in str(error) or not is_of_communication(error):
                    raise  # it is this rank's own, and the weights may be in the middle of a step
                raise explained(self.ranks, error, self._rescue()) from error
            finally:
                self._checkpoints.finish()

    def interrupted(self) -> Interrupted:
        """What is raised once the last step is saved."""
        return Interrupted(f"stopped as asked after step {self.done.step} of {self.plan.steps}; run again to go on")

    def skip(self, rows: StepRows, gradient: Gradient) -> None:
        """Leave a step out whose gradient is not finite, naming its rows; raises TunesmithError if one too many."""
        names = getattr(self._store, "row_ids", range(len(self._store)))
        trained = [str(names[index]) for index in rows.sequences]
        found = {"loss": str(gradient.loss), "grad_norm": str(gradient.norm)}
        self._log.write({"step": rows.step + 1, "skipped": found | {"rows": trained}})
        if self.done.skipped < self.settings.skip_non_finite:
            say(f"step {rows.step + 1} left out: loss {gradient.loss}, gradient norm {gradient.norm}")
            return
        more = f" and {len(trained) - NAMED_ROWS} more" if len(trained) > NAMED_ROWS else ""
        before = f" {self.done.skipped} steps before it were left out for the same reason." if self.done.skipped else ""
        raise TunesmithError(
            f"step {rows.step + 1}: loss {gradient.loss}, gradient norm {gradient.norm}. The update was not applied: "
            f"the weights are those of step {rows.step}.{before} The step trained the rows "
            f"{', '.join(trained[:NAMED_ROWS])}{more}. Look at them (`tunesmith inspect`); if they are sound, lower "
            f"learning_rate, raise warmup or train in fp32."
        )

    def step_done(self, rows: StepRows, gradient: Gradient, rate: float, seconds: float) -> None:
        """Count a step in, and log it. seconds: that it took to compute."""
        self.done = self.done.after(rows, gradient, seconds + rows.waited)
        if not gradient.is_finite:
            self._bar.advance()
            return
        taken = seconds + rows.waited
        speed, meter = rows.tokens / taken, self._watching.meter
        self._log.write(
            {
                "step": self.done.step,
                "epoch": round(self.plan.epoch(rows.step), 4),
                "loss": gradient.loss,
                "learning_rate": rate,
                "grad_norm": gradient.norm,
                "tokens_per_second": round(speed, 1),
                "waiting": round(rows.waited / taken, 4),
                **(meter.of(rows.lengths, rows.supervised, taken) if meter else {}),
                "tokens": self.done.tokens,
                "supervised_tokens": self.done.supervised_tokens,
                "seconds": round(self.done.seconds, 3),
            }
        )
        self._bar.advance()
        self._bar.note(f"loss {gradient.loss:.3f}, {speed:,.0f} tokens/s")

    def evaluate_if_due(self) -> None:
        """Measure on held-out rows before the first step, every so many and at the end; remember which was best."""
        watching = self._watching
        if not (watching.evaluators or watching.sampler) or not _due(
            self.done.step, self.settings.evaluate_every, self.plan.steps
        ):
            return
        self.optimizer.zero_grad()  # room for answers
        found: dict[str, dict[str, Any]] = {}
        samples: list[dict[str, Any]] = []
        if self.ranks.is_main or is_sharded(self.model):  # a sharded model needs all ranks to be computed at all
            found, samples = self._measure()
        self.ranks.meet("measured")
        if watching.evaluators:
            self._log.write({"step": self.done.step, "evaluation": found})
        if watching.sampler:
            scores = [one["score"] for one in samples if "score" in one]
            mean = {"score": fmean(scores)} if scores else {}
            self._log.write({"step": self.done.step, "samples": samples, **mean})
        if self.done.step:  # the base is there to be seen, not to be chosen
            self.done = self.done.measured(self._shared(held_out_loss(found)))

    def save_if_due(self, now: bool = False) -> None:
        """Write a checkpoint if one is due: every so many steps, at the end, at a new best step, or `now`."""
        step, every = self.done.step, self.settings.checkpoint_every
        due = every > 0 and (_due(step, every, self.plan.steps) or self.done.best_step == step or self.is_finished)
        if (due or now or (self.settings.patience and self.done.best_step == step)) and self._saved != step:
            self._checkpoints.save(asdict(self.done), best=self.done.best_step)
            self.ranks.meet("saved")  # in the next step the others would wait for rank 0 for seconds only
            self._saved = step

    def take_best(self) -> None:
        """With `patience`, the model of the step whose held-out loss was lowest."""
        best = self.done.best_step
        if self.settings.patience and best is not None and best != self.done.step:
            self.ranks.meet("the best is written")
            self._checkpoints.load_weights(best)
            if self.ranks.is_main:
                say(f"the model is that of step {best}, whose held-out loss was lowest ({self.done.best_loss:.4f})")

    def _measure(self) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
        self.model.eval()
        with torch.no_grad(), gathered(self.model):
            found = {name: dict(evaluator(self.model)) for name, evaluator in self._watching.evaluators.items()}
            samples = [dict(one) for one in self._watching.sampler(self.model)] if self._watching.sampler else []
        self.model.train()
        return found, samples

    def _shared(self, value: float | None) -> float | None:
        """What rank 0 found, for all of them."""
        if self.ranks.size == 1:
            return value
        own = value if self.ranks.is_main and value is not None else 0.0
        shared = torch.tensor([own, float(value is not None and self.ranks.is_main)], dtype=torch.float64)
        shared = shared.to(self._device)
        self.ranks.sum(shared)
        found, given = shared.tolist()
        return found if given else None

    def _any_rank(self, asked: bool) -> bool:
        if self.ranks.size == 1:
            return asked
        flag = torch.tensor(float(asked), device=self._device)
        self.ranks.sum(flag)
        return bool(flag.item())

    def _rescue(self) -> str:
        """Save the last whole step after another rank was lost; returns what there is to go on from."""
        with suppress(TunesmithError):  # what was being written beside may have failed for the same reason
            self._checkpoints.finish()
        whole = not is_sharded(self.model)  # else the lost rank has taken its part along
        if whole and not self.ranks.is_main:
            return "rank 0 writes a checkpoint"
        if whole and self.done.step > self._saved:
            self._checkpoints.save(asdict(self.done), best=self.done.best_step)
            self._checkpoints.finish()
        newest = self._checkpoints.newest_step()
        return f"the newest checkpoint is that of step {newest}" if newest else "there is no checkpoint yet"


def _due(step: int, every: int, steps: int) -> bool:
    return step == steps or (every > 0 and step % every == 0)


@contextmanager
def _training(model: Any, settings: TrainSettings) -> Iterator[None]:
    """The model in training mode, with the wanted number of threads; both as before afterwards."""
    before, threads = model.training, torch.get_num_threads()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    if next(model.parameters()).device.type == "cpu":
        return_freed_memory() if settings.low_memory else keep_freed_memory()
    model.train()
    try:
        yield
    finally:
        model.train(before)
        torch.set_num_threads(threads)
