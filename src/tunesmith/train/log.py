"""metrics.jsonl: what happened in every step, a line each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tunesmith.base.files import write_text
from tunesmith.base.progress import say


class MetricsLog:
    """Appends lines to metrics.jsonl; without a file (ranks that only compute) it keeps silent."""

    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def write(self, line: Mapping[str, Any]) -> None:
        if self._file:
            print(json.dumps(line), file=self._file)


@contextmanager
def metrics_log(path: Path, step: int, is_main: bool = True) -> Iterator[MetricsLog]:
    """The log of a run that goes on after `step`: the lines of steps that it does again are gone."""
    if not is_main:
        yield MetricsLog(None)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(line for line in lines if _step_of(line) <= step))
    if step:
        say(f"going on after step {step}")
    with path.open("a", encoding="utf-8", buffering=1) as file:
        yield MetricsLog(file)


def _step_of(line: str) -> float:
    """The step of a line; a line cut short by a kill counts as one to drop."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
