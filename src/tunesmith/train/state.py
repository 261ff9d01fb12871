"""How far a run is: all that changes from step to step beside the weights, and all that a checkpoint says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tunesmith.train.feed import StepRows
from tunesmith.train.step import Gradient

GROWS_EVERY = 2000
"""Steps after which fp16 tries twice the scale."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run did, all of it, resumed parts included.

    tokens: without fill. losses: nats per supervised token. skipped: steps left out, their gradient not being finite.
    best_step, best_loss: where the held-out loss was lowest; None where it was not measured. worse: measurements since
    then. loss_scale: that of the next step (fp16).
    """

    step: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    loss_first: float = math.nan
    loss_last: float = math.nan
    skipped: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    worse: int = 0
    loss_scale: float = 1.0

    def after(self, rows: StepRows, gradient: Gradient, seconds: float) -> TrainResult:
        """One step later, which took so long."""
        finite = gradient.is_finite
        return replace(
            self,
            step=self.step + 1,
            tokens=self.tokens + rows.tokens,
            supervised_tokens=self.supervised_tokens + rows.supervised,
            seconds=self.seconds + seconds,
            loss_first=gradient.loss if finite and math.isnan(self.loss_first) else self.loss_first,
            loss_last=gradient.loss if finite else self.loss_last,
            skipped=self.skipped + (not finite),
            loss_scale=self._next_scale(gradient),
        )

    def _next_scale(self, gradient: Gradient) -> float:
        if not gradient.is_finite:  # no scale helped, so the step says nothing of what the next ones need
            return self.loss_scale
        return gradient.scale * (2 if gradient.scale > 1 and (self.step + 1) % GROWS_EVERY == 0 else 1)

    def measured(self, loss: float | None) -> TrainResult:
        """With a held-out loss measured now."""
        if loss is None:
            return self
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            return replace(self, best_step=self.step, best_loss=loss, worse=0)
        return replace(self, worse=self.worse + 1)
