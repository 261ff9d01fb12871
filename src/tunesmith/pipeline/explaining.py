"""Why: what became of a row from its line in a source to the optimizer steps that train on it, or to its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tunesmith.base.errors import DataError, UserError
from tunesmith.data.ledger import Drop, Fate, Ledger
from tunesmith.data.sources.origin import Origin, excerpts, origin_of
from tunesmith.data.sources.read import source_files
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.inputs import changed_since
from tunesmith.pipeline.preparing import planned
from tunesmith.pipeline.splitting import HELD_OUT
from tunesmith.recipe import load_recipe
from tunesmith.recipe.models import Recipe
from tunesmith.tokens.batches import DataPlan
from tunesmith.tokens.store import TokenStore

OK = 0


def explain(folder: Path, row: str | None, reason: str | None, sample: int, as_json: bool) -> int:
    """Tell of a row, of rows that were dropped for a reason, or (neither) of all reasons. Returns the exit code.

    Raises UserError if there is no such row or reason.
    """
    ledger = Ledger.load(folder / "ledger")
    run = RunFolder(folder, load_recipe(str(folder / "recipe.yaml")))
    if row is not None:
        found: Any = _story(run, ledger, row)
        lines = [f"{row}: {sentence}" for sentence in _told(found)]
    elif reason is not None:
        found = _examples(run, ledger, ledger.examples(reason, sample))
        lines = [line for one in found for line in _example_told(one)]
    else:
        found, lines = _reasons(ledger), []
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif not lines:
        _print_reasons(found)
    for line in () if as_json else lines:
        print(line)
    return OK


# One row


def _story(run: RunFolder, ledger: Ledger, row: str) -> dict[str, Any]:
    fate = ledger.fate(row)
    if not fate.is_known:
        raise UserError(
            f"the run has no row {row}. A row's id is the name of its source and its line, as in alpaca:17."
        )
    origin = _shown(run, ledger, [row])[row]
    return {"row": row, "origin": origin, **asdict(fate), **_in_training(run, ledger, row, fate)}


def _in_training(run: RunFolder, ledger: Ledger, row: str, fate: Fate) -> dict[str, Any]:
    """The sequences of a row, and the packed rows of the first epoch that hold them; `step` as in metrics.jsonl."""
    if fate.drop or not (run.path / "tokens" / "store").is_dir():
        return {"sequences": [], "packed": []}
    store = TokenStore.open(run.path / "tokens" / "store")
    indices = np.flatnonzero(pc.equal(store.rows["row"], row).to_numpy())
    sequences = [
        {"sequence": int(i), "tokens": int(store.lengths[i]), "supervised": int(store.supervised_counts[i])}
        for i in indices
    ]
    if not fate.times:
        return {"sequences": sequences, "packed": []}
    places = ledger.places()
    held_out = places.filter(pc.is_in(places["place"], value_set=pa.array(HELD_OUT)))["row"].to_pylist()
    _, _, plan = planned(run, store, held_out)
    return {"sequences": sequences, "packed": packed_rows(plan, indices)}


def packed_rows(plan: DataPlan, sequences: Sequence[int] | np.ndarray[Any, Any]) -> list[dict[str, int]]:
    """Where the first epoch trains on these sequences: the optimizer step, which packed row of it (both from 1), and
    the place among the row's documents."""
    if not plan.epochs:
        return []
    packing, order = plan.epochs[0]
    at = np.flatnonzero(np.isin(order[packing.order], sequences))
    rows = np.searchsorted(packing.starts, at, side="right") - 1
    return [
        {
            "step": row // plan.batches_per_step + 1,
            "packed_row": row % plan.batches_per_step + 1,
            "document": place - int(packing.starts[row]) + 1,
            "sequence": int(order[packing.order[place]]),
        }
        for place, row in zip(at.tolist(), rows.tolist(), strict=True)
    ]


def _told(story: Mapping[str, Any]) -> list[str]:
    """A row's story as sentences, in the order in which it happened."""
    origin = story["origin"]
    told = [f"from {origin['from']}"] + ([f"there it reads: {origin['text']}"] if origin.get("text") else [])
    told += [f"the source is not shown: {origin['not_shown']}"] if origin.get("not_shown") else []
    drop = Drop(**story["drop"]) if story["drop"] else None
    *sentences, last = Fate(story["changes"], story["flags"], drop, story["place"], story["times"]).told()
    for one in story["sequences"]:
        sentences.append(
            f"sequence {one['sequence']} of the token store: {one['tokens']} tokens, {one['supervised']} supervised"
        )
    sentences += [
        f"epoch 1 trains on sequence {one['sequence']} in optimizer step {one['step']}: document {one['document']} of "
        f"packed row {one['packed_row']}"
        for one in story["packed"]
    ]
    return [*told, *sentences, last]


# Where rows came from


def _shown(run: RunFolder, ledger: Ledger, rows: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each row where it came from, in words, and the text there, or why it can't be shown."""
    found: dict[str, dict[str, Any]] = {}
    by_file: dict[Path, dict[str, Origin]] = {}
    for row in rows:
        place = _place(run.recipe, row)
        if isinstance(place, Origin):
            found[row] = {"from": place.said, "file": str(place.file), "number": place.number, "part": place.part}
            by_file.setdefault(place.file, {})[row] = place
        else:
            found[row] = {"from": place}
    for file, origins in by_file.items():
        why_not = changed_since(ledger.folder, file)
        texts = {} if why_not else excerpts(file, set(origins.values()))
        for row, origin in origins.items():
            text = texts.get(origin)
            found[row] |= {"text": text} if text else {"not_shown": why_not or f"{file} has no such row"}
    return found


def _place(recipe: Recipe, row: str) -> Origin | str:
    """Where a row is, or in words why there is no file to look at."""
    data = recipe.data
    places: list[tuple[str, Any]] = [(source.name, source) for source in data.sources]
    places += [("replay", data.replay), ("forgetting", recipe.evaluate.forgetting)]
    gone = ""
    for name, place in sorted(places, key=lambda pair: -len(pair[0])):
        if place is None or not row.startswith(f"{name}:"):
            continue
        if not place.path:
            return f"the pocket world, of which source {name} has {place.pocket:,} rows"
        try:
            files = source_files(place.path)
        except DataError as error:
            gone = f"source {name}, which can't be read now: {error}"
            continue
        if origin := origin_of(row, name, files):
            return origin
    return gone or "a source that the recipe does not name any more"


# Reasons


def _examples(run: RunFolder, ledger: Ledger, drops: Iterable[Drop]) -> list[dict[str, Any]]:
    drops = list(drops)
    shown = _shown(run, ledger, [drop.row for drop in drops])
    return [{**asdict(drop), "origin": shown[drop.row]} for drop in drops]


def _example_told(one: Mapping[str, Any]) -> list[str]:
    origin = one["origin"]
    why = f"{one['row']}: dropped by stage {one['stage']}" + (f": {one['detail']}" if one["detail"] else "")
    return [why, f"  {origin.get('text') or 'not shown: ' + origin.get('not_shown', origin['from'])}"]


def _reasons(ledger: Ledger) -> dict[str, Any]:
    places = {entry["values"]: entry["counts"] for entry in pc.value_counts(_plain(ledger)).to_pylist()}
    return {"steps": ledger.summary(), "places": places}


def _print_reasons(found: Mapping[str, Any]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("stage", "reason"):
        table.add_column(name)
    table.add_column("rows", justify="right")
    for step in found["steps"]:
        for reason, count in step["reasons"].items():
            table.add_row(Text(step["stage"]), Text(reason), f"{count:,}")
    for place, count in found["places"].items():
        table.add_row("", Text(f"kept: {place}"), f"{count:,}")
    Console().print(table)
    if any(step["reasons"] for step in found["steps"]):
        print("Examples of a reason: tunesmith why RUN --reason REASON. The story of a row: tunesmith why RUN ROW")


def _plain(ledger: Ledger) -> Any:
    return ledger.places()["place"].cast("string")
