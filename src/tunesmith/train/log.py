"""metrics.jsonl: what happened in every step, a line each, and what of it gives reason to worry."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tunesmith.base.files import write_text
from tunesmith.base.progress import say
from tunesmith.train.monitor import Monitor
from tunesmith.train.trackers import Trackers


class MetricsLog:
    """Appends lines to metrics.jsonl, hands them on, and says aloud what a monitor makes of them."""

    def __init__(self, file: TextIO, monitor: Monitor, trackers: Trackers) -> None:
        self._file, self._monitor, self._trackers = file, monitor, trackers

    def write(self, line: Mapping[str, Any]) -> None:
        print(json.dumps(line), file=self._file)
        self._trackers.see(line)
        for warning in self._monitor.see(line):
            say(f"Warning, step {warning.step}: {warning.text}")
            print(json.dumps(warning.line), file=self._file)


class Silent:
    """The log of ranks that only compute: rank 0 writes for all."""

    def write(self, line: Mapping[str, Any]) -> None:
        return


@contextmanager
def metrics_log(path: Path, step: int, trackers: Trackers) -> Iterator[MetricsLog]:
    """The log of a run that goes on after `step`: the lines of steps that it does again are gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: list[str] = []
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step] if step else []  # the base is measured anew
        write_text(path, "".join(kept))
    if step:
        say(f"going on after step {step}")
    with path.open("a", encoding="utf-8", buffering=1) as file:
        yield MetricsLog(file, Monitor(map(json.loads, kept)), trackers)


def _step_of(line: str) -> float:
    """The step of a line; a line cut short by a kill counts as one to drop."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
