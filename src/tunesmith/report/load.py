"""Reading a run folder. Every file may be absent (the run stopped early); a broken one is named, never fatal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.base.runs import is_left

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """What a run folder holds. A missing file is an empty value; `unreadable` has a sentence for each broken one."""

    folder: Path
    run: Fields = field(default_factory=dict)
    recipe: str = ""
    steps: list[Fields] = field(default_factory=list)
    drops: list[Fields] = field(default_factory=list)
    coverage: Fields = field(default_factory=dict)
    duplicates: list[Fields] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    mixture: Fields = field(default_factory=dict)
    tokens: Fields = field(default_factory=dict)
    samples: list[Fields] = field(default_factory=list)
    metrics: list[Fields] = field(default_factory=list)
    evaluation: Fields = field(default_factory=dict)
    items: list[Fields] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def load_run(folder: Path) -> RunFiles:
    """Read what there is in `folder`."""
    unreadable: list[str] = []

    def read(name: str, reader: Callable[[Path], Any], empty: Any) -> Any:
        if not (folder / name).exists():
            return empty
        try:
            value = reader(folder / name)
            if not isinstance(value, type(empty)):
                raise ValueError(f"it holds {type(value).__name__}, not {type(empty).__name__}")
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            unreadable.append(f"{name} could not be read ({error}), so its part is missing below.")
            return empty
        return value

    return RunFiles(
        folder=folder,
        run=_as_it_is(folder, read("run.json", _json, {})),
        recipe=read("recipe.yaml", _text, ""),
        steps=[step for step in read("ledger/steps.json", _json, []) if isinstance(step, dict)],
        drops=read("ledger/drops.parquet", _rows, []),
        coverage=read("data/coverage.json", _json, {}),
        duplicates=[group for group in read("data/duplicates.json", _json, []) if isinstance(group, dict)],
        places=read("ledger/places.parquet", _place_counts, {}),
        mixture=read("ledger/mixture.json", _json, {}),
        tokens=read("tokens/summary.json", _json, {}),
        samples=[row for row in read("tokens/samples.json", _json, []) if isinstance(row, dict)],
        metrics=read("metrics.jsonl", _json_lines, []),
        evaluation=read("evaluation/summary.json", _json, {}),
        items=read("evaluation/items.jsonl", _json_lines, []),
        unreadable=unreadable,
    )


def _as_it_is(folder: Path, run: Fields) -> Fields:
    """What run.json says, with one correction: a process that was killed could not write that it ended."""
    if at(run, "status") != "running" or not is_left(folder):
        return run
    return {**run, "status": "stopped"}


def at(value: Any, *path: str) -> Any:
    """`value[path[0]][path[1]]...`, or None where the path ends early."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def fields_at(value: Any, *path: str) -> Fields:
    """The mapping at `path`, or an empty one."""
    found = at(value, *path)
    return found if isinstance(found, Mapping) else {}


def number(value: Any, *path: str) -> float | None:
    """The finite number at `path`, or None."""
    found = at(value, *path)
    return float(found) if isinstance(found, int | float) and math.isfinite(found) else None


def count(value: Any, *path: str) -> int:
    """The whole number at `path`, or 0."""
    return int(number(value, *path) or 0)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _json(path: Path) -> Any:
    return json.loads(_text(path))


def _json_lines(path: Path) -> list[Fields]:
    """The objects of a JSONL file. A half-written last line (the run was killed) is left out."""
    lines = _text(path).split("\n")  # `splitlines` would also break at separators inside a string
    rows = []
    for index, line in enumerate(lines):
        try:
            rows.append(json.loads(line) if line else None)
        except ValueError:
            if index < len(lines) - 1:
                raise
    return [row for row in rows if isinstance(row, dict)]


def _rows(path: Path) -> list[Fields]:
    rows: list[Fields] = pq.read_table(path).to_pylist()
    return rows


def _place_counts(path: Path) -> dict[str, int]:
    counted = pq.read_table(path, columns=["place"])["place"].value_counts().to_pylist()
    return {str(pair["values"]): pair["counts"] for pair in counted}
