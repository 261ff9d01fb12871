"""What is looked at while a model trains, and who is told. None of it changes the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from tunesmith.train.monitor import Meter
from tunesmith.train.trackers import Trackers

Evaluator = Callable[[Any], Mapping[str, Any]]
"""Measures a model on held-out rows. "loss", the mean of "tokens" supervised tokens, decides which step is best."""
Sampler = Callable[[Any], Sequence[Mapping[str, Any]]]
"""Lets a model answer some prompts, always the same: "prompt" and "answer" of each, and its "score", if it has one."""


@dataclass(frozen=True, slots=True)
class Watching:
    """evaluators, sampler: called before the first step and at every measurement. meter: of memory and of the share of
    the device's peak. trackers: opens, with the number of steps done before, where metrics go besides metrics.jsonl.
    """

    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    sampler: Sampler | None = None
    meter: Meter | None = None
    trackers: Callable[[int], AbstractContextManager[Trackers]] = lambda step: nullcontext(Trackers({}))
