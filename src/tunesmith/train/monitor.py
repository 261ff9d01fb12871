"""Watching a run: what its metrics.jsonl shows of trouble, said in words with the usual remedies.

A `Monitor` sees each line of metrics.jsonl as it is written, and knows nothing else; given the earlier lines again, a
resumed run watches on as if it had never stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.model.device import peak_memory
from tunesmith.model.flops import TrainingFlops
from tunesmith.train.watches import Line, Watch, all_watches

COOL_DOWN = 200  # steps before a cause is named again; twice as many after each time


@dataclass(frozen=True, slots=True)
class RunWarning:
    """What looks wrong at a step. cause: a short name of it."""

    step: int
    cause: str
    text: str

    @property
    def line(self) -> dict[str, Any]:
        """Its line of metrics.jsonl."""
        return {"step": self.step, "warning": self.text, "cause": self.cause}


class Monitor:
    """Sees every line of metrics.jsonl, in order, and says what looks wrong.

    Read of a step's line: loss, grad_norm, learning_rate, waiting (share of the step's time), seconds (since the start)
    and memory (bytes), each of which may be missing; of others, "evaluation" and "skipped".
    earlier: the lines so far of a run that goes on.
    """

    def __init__(self, earlier: Iterable[Line] = ()) -> None:
        self.warnings: list[RunWarning] = []
        self._watches: list[Watch] = all_watches()
        self._next: dict[str, tuple[int, int]] = {}
        for line in earlier:
            self.see(line)

    def see(self, line: Line) -> list[RunWarning]:
        """What this line gives reason to say, for the first time or after a cool-down; mostly nothing."""
        step, found = int(line["step"]), []
        for watch in self._watches:
            text = watch.see(line)
            due, cool_down = self._next.get(watch.cause, (0, COOL_DOWN))
            if text and step >= due:
                self._next[watch.cause] = step + cool_down, 2 * cool_down
                found.append(RunWarning(step, watch.cause, text))
        self.warnings += found
        return found


@dataclass(frozen=True, slots=True)
class Meter:
    """How much of a device's peak is used, and how much memory.

    flops: of the model, None where they are not known. peak: FLOP/s of all devices together.
    """

    flops: TrainingFlops | None
    peak: float
    device: torch.device

    def of(self, lengths: Sequence[int] | Any, supervised: int, seconds: float) -> dict[str, float]:
        """Of a step that trained documents of these lengths: `memory` in bytes, and `mfu`, the share of the peak."""
        found: dict[str, float] = {"memory": peak_memory(self.device)}
        if self.flops and self.peak and seconds:
            found["mfu"] = round(self.flops.of(lengths, supervised) / seconds / self.peak, 4)
        return found
