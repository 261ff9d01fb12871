"""The rows of a run for other programs: Parquet and JSONL in messages format, with a card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from tunesmith import __version__
from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import TunesmithError, UserError
from tunesmith.base.files import read_json, write_json, write_text, written_aside
from tunesmith.base.progress import say
from tunesmith.data.card import CardFacts, SourceFacts, card
from tunesmith.data.engine import Table, rows_of
from tunesmith.data.export import Exported, dataset_info, export_rows
from tunesmith.data.ledger import Ledger
from tunesmith.data.sources.read import source_files
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.inputs import FILES

KEPT = Path("data") / "kept"  # in a run: the rows that were kept, in the order of the ledger's places
MARK = "export.json"  # by which a folder is known to be an export
# What others call the sides of a split. A split's name has letters, digits and underscores only.
SPLITS = {"new_items": "test", "new_phrasings": "test_new_phrasings", "new_clusters": "test_new_clusters"}
_NOT_ROWS = "forgetting"  # texts that are only measured


def refuse_other_folder(path: Path) -> None:
    """Raises UserError if an export to `path` would replace what isn't one."""
    if path.exists() and not (path / MARK).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(
            f"{path} holds something that is no export of Tunesmith, so it was left as it is. Give --export a new or "
            f"an empty folder, or one that it wrote before."
        )


def has_rows(run: RunFolder) -> bool:
    """Whether the run's rows are there to be exported; versions before 0.2 did not keep them."""
    return (run.path / KEPT).is_dir()


def export(run: RunFolder, path: Path) -> None:
    """Write the rows of a prepared run to the folder `path`, whole or not at all."""
    refuse_other_folder(path)
    ledger = Ledger.load(run.path / "ledger")
    with written_aside(path) as aside:
        aside.mkdir()
        done = export_rows(aside, placed_rows(run, ledger))
        write_json(aside / "dataset_info.json", dataset_info(done))
        write_text(aside / "README.md", card(_facts(run, ledger, done)))
        hashes = {file.path: file.sha256 for file in done.files}
        write_json(aside / MARK, {"tunesmith": __version__, "seed": run.recipe.seed, "sha256": hashes})
    counts = ", ".join(f"{file.split} {file.rows:,}" for file in done.files if file.path.endswith(".jsonl"))
    say(f"Export: {path} ({counts}). What is in it: {path / 'README.md'}")


def placed_rows(run: RunFolder, ledger: Ledger) -> Iterator[tuple[str, Conversation]]:
    """The rows with their splits, held against what the ledger says became of them."""
    places = ledger.places()
    places = places.filter(pc.not_equal(places["place"], _NOT_ROWS))
    table = Table.scan(sorted((run.path / KEPT).glob("*.parquet")))
    names = iter(zip(_strings(places, "row"), _strings(places, "place"), strict=True))
    if len(table) != len(places):
        raise TunesmithError(
            f"{run.path / KEPT} has {len(table):,} rows and the ledger {len(places):,}. Delete "
            f"{run.path / KEPT.parent} and prepare the data again."
        )
    for row, (name, place) in zip(rows_of(table), names, strict=True):
        if row.id.encode("utf-8", "backslashreplace").decode() != name:
            raise TunesmithError(f"{run.path / KEPT} has row {row.id} where the ledger has {name}. Prepare again.")
        yield SPLITS.get(place, "train" if place == "replay" else place), row


def _strings(table: Any, name: str) -> Iterator[str]:
    for batch in table.select([name]).to_batches(10_000):
        yield from batch[name].to_pylist()


def _facts(run: RunFolder, ledger: Ledger, done: Exported) -> CardFacts:
    recipe, steps = run.recipe, ledger.summary()
    by_stage = {step["stage"]: step for step in steps}
    hashes = {entry["path"]: entry for entry in read_json(ledger.folder / FILES)}
    places: Sequence[tuple[str, Any]] = [(source.name, source) for source in recipe.data.sources]
    if recipe.data.replay:
        places = [*places, ("replay", recipe.data.replay)]
    sources = [_source(name, place, by_stage, hashes) for name, place in places]
    return CardFacts(
        name=run.path.absolute().name,
        version=__version__,
        seed=recipe.seed,
        sources=sources,
        files=done.files,
        steps=steps,
        mixture=read_json(ledger.folder / "mixture.json"),
        fields=done.fields,
        halved=done.halved,
    )


def _source(name: str, place: Any, steps: Mapping[str, Any], hashes: Mapping[str, Any]) -> SourceFacts:
    """Folders of this machine are nobody's business: of a path the card has the name."""
    step = steps.get(f"read {name}", {})
    files = source_files(place.path) if place.path else ()
    known = [(file.name, hashes.get(str(file.absolute()))) for file in files]
    licence: str | None = place.licence
    if not place.path:
        origin = f"{place.pocket:,} rows generated from the pocket world"
    else:
        origin = place.path if place.path.startswith("hub:") else Path(place.path).name
    facts = tuple((file, entry["bytes"], entry["sha256"]) for file, entry in known if entry)
    return SourceFacts(name, origin, licence, step.get("read", 0), step.get("note", ""), facts)
