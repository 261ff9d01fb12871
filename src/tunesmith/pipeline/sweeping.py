"""Many runs of one recipe: a grid of values, or every task cluster held out in its turn; each a run of its own."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.base.errors import TunesmithError, UserError
from tunesmith.base.files import read_json, write_json
from tunesmith.base.progress import say
from tunesmith.base.stopping import Terminated, terminations_interrupt
from tunesmith.recipe import LoadedRecipe, load_recipe
from tunesmith.report.compare import write_comparison_page
from tunesmith.report.terminal import print_runs

LIMIT_BROKEN, INTERRUPTED = 3, 130
MOST = 200  # runs of a sweep; more is a mistyped list


@dataclass(frozen=True, slots=True)
class Variation:
    """One run of a sweep: what its folder is called, and the values that it overrides, as `key=value`."""

    name: str
    overrides: tuple[str, ...]


def grid(vary: Sequence[str]) -> list[Variation]:
    """Every combination of the values of `key=value,value,...`. Commas in [...] or {...} don't part values."""
    axes = [_axis(text) for text in vary]
    count = len(list(itertools.product(*axes))) if axes else 0
    if not 2 <= count <= MOST:
        raise UserError(
            f"a sweep of {count} runs: give 2 to {MOST} combinations, as in --vary train.method=full,lora "
            f"--vary train.learning_rate=1e-4,2e-4."
        )
    found = []
    for chosen in itertools.product(*axes):
        name = ",".join(f"{key.split('.')[-1]}={value}" for key, value in chosen)
        found.append(Variation(_safe(name), tuple(f"{key}={value}" for key, value in chosen)))
    if len({one.name for one in found}) < len(found):
        return [Variation(f"{number:03}-{one.name}"[:100], one.overrides) for number, one in enumerate(found, 1)]
    return found


def _axis(text: str) -> list[tuple[str, str]]:
    key, equals, listed = text.partition("=")
    values = [value.strip() for value in re.split(r",(?![^\[{]*[\]}])", listed)]
    if not equals or not key.strip() or not all(values):
        raise UserError(f"--vary {text}: give a key and its values, as in train.method=full,lora.")
    return [(key.strip(), value) for value in dict.fromkeys(values)]


def _safe(name: str) -> str:
    """A name without what can't be in a folder's."""
    return re.sub(r"[^\w.,=+-]+", "_", name)[:100]


def sweep(recipe: str, overrides: Sequence[str], variations: Sequence[Variation], into: Path, title: str) -> int:
    """Run every variation in its folder below `into`, those that are finished aside, and compare them.

    Each runs in a process of its own, so that its memory is its own and a crash ends no other. Returns the exit code:
    0, 1 if a run failed, 3 if one broke a limit. All recipes are checked before the first run.
    """
    for one in variations:
        load_recipe(recipe, [*overrides, *one.overrides])
    done: dict[str, int] = {}
    for number, one in enumerate(variations, 1):
        say(f"Run {number} of {len(variations)}: {', '.join(one.overrides)}")
        with terminations_interrupt():
            done[one.name] = _run(recipe, [*overrides, *one.overrides], into / one.name)
        write_json(into / "sweep.json", {"title": title, "exit_codes": done})
        if done[one.name] == INTERRUPTED:
            raise KeyboardInterrupt
    failed = [name for name, code in done.items() if code not in (0, LIMIT_BROKEN)]
    measured = [into / one.name for one in variations if one.name not in failed]
    if len(measured) > 1:
        print_runs(measured)
        say(f"Report: {write_comparison_page(measured, into / 'comparison.html', title)}")
    if failed:
        raise TunesmithError(
            f"{len(failed)} of {len(done)} runs failed: {', '.join(failed)}. What each said is above; the same command "
            f"goes on with these."
        )
    return LIMIT_BROKEN if LIMIT_BROKEN in done.values() else 0


def _run(recipe: str, overrides: Sequence[str], folder: Path) -> int:
    options = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "tunesmith", "run", recipe, *options, "--output", str(folder)]
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except Terminated:  # this process alone may have got it
                process.terminate()
            except KeyboardInterrupt:  # the run has got it too, and saves before it ends
                continue


def leave_one_out(loaded: LoadedRecipe, recipe: str, overrides: Sequence[str], folder: Path) -> int:
    """Every task cluster of a prepared run held out in its turn, with what leaks into it (`hold_out.relatives`).

    Writes leave_one_out/summary.json: of each cluster, base against tuned model that never saw it.
    """
    clusters = _clusters(folder)
    variations = [Variation(_safe(name), (f"data.hold_out.clusters={json.dumps([name])}",)) for name in clusters]
    into = folder / "leave_one_out"
    code = sweep(recipe, overrides, variations, into, f"{loaded.name}: each task cluster held out in its turn")
    found = dict(_held_out(clusters, variations, into))
    write_json(into / "summary.json", found)
    for name, row in found.items():
        tuned, change = row["tuned"], row["difference"]
        say(
            f"{name}, never trained: tuned {tuned['mean']:.1%}, {100 * change['mean']:+.1f} points to the base "
            f"[{100 * change['low']:+.1f}, {100 * change['high']:+.1f}], {row['n']} items."
        )
    return code


def _clusters(folder: Path) -> list[str]:
    counted: Mapping[str, Any] = read_json(folder / "tokens" / "summary.json")["clusters"]
    clusters = [name for name in counted if name and name != "replay"]
    if len(clusters) < 2:
        raise UserError(
            f"the data of {folder} has {len(clusters)} task cluster, and holding it out leaves nothing to train on. "
            f"Give sources a `cluster` each, or rows a column for it (`map`)."
        )
    return clusters


def _held_out(
    clusters: Sequence[str], variations: Sequence[Variation], into: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    for cluster, one in zip(clusters, variations, strict=True):
        path = into / one.name / "evaluation" / "summary.json"
        if path.is_file():
            level = read_json(path)["generation"]["levels"].get("new_clusters", {})
            if row := level.get("clusters", {}).get(cluster):
                yield cluster, row
