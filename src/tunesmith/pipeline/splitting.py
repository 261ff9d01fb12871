"""Which rows are trained on, which the choice of a checkpoint is made by, and which are measured in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tunesmith.base.errors import UserError
from tunesmith.base.files import written_aside
from tunesmith.base.parallel import cores, map_chunks
from tunesmith.base.progress import say
from tunesmith.data.coverage.worked import is_worked
from tunesmith.data.duplicates.alike import NGRAM, lengths_of, near_groups
from tunesmith.data.engine import StoredRows
from tunesmith.data.ledger import Ledger
from tunesmith.data.rows import RowLabel, Rows
from tunesmith.data.split import split
from tunesmith.pipeline.folder import RunFolder
from tunesmith.recipe.data import Data
from tunesmith.recipe.models import Recipe

VALIDATION = "validation"
LEVELS = ("new_items", "new_phrasings", "new_clusters")  # what is measured in the end: the test
HELD_OUT = (*LEVELS, VALIDATION)
WORKED_ROWS = "data/worked.parquet"
_ROWS_AT_ONCE = 1_000


def split_rows(
    rows: Rows | StoredRows, labels: Sequence[RowLabel], recipe: Recipe, ledger: Ledger
) -> dict[str, tuple[RowLabel, ...]]:
    """The rows of each side. Plain text is trained on, never held out: it has no question to be asked."""
    held = recipe.data.hold_out
    texts = tuple(row for row in labels if row.is_text)
    asked = [row for row in labels if not row.is_text]
    if not asked:
        raise UserError("the sources hold plain text only, so there is no instruction to follow. Add instruction data.")
    places = np.fromiter((row.place for row in asked), np.int64, len(asked))
    found = split(
        asked,
        clusters=held.clusters,
        relatives=held.relatives,
        phrasings=held.phrasings,
        items=held.items,
        folds=(held.folds.of, held.folds.fold) if held.folds else None,
        validation=held.validation,
        alike=_near_groups(rows, places, recipe.data),
        lengths=lengths_of(rows, places, workers=cores()) if held.length_strata > 1 else None,
        strata=held.length_strata,
        seed=recipe.seed,
    )
    sides = {"train": texts + found.train} | {side: found.places[side] for side in HELD_OUT}
    counts = ", ".join(f"{name.replace('_', ' ')} {len(side):,}" for name, side in sides.items() if side)
    kept = sum(map(len, sides.values()))
    ledger.step("split", len(labels), kept, found.drops, note="; ".join([counts, *found.notes]))
    reasons = Counter(drop.reason.replace("_", " ") for drop in found.drops).most_common()
    left = f"; left out: {', '.join(f'{reason} {count:,}' for reason, count in reasons)}" if reasons else ""
    say(f"Split: {counts}{left}." + "".join(f" Note: {note}." for note in found.notes))
    return sides


def _near_groups(rows: Rows | StoredRows, places: NDArray[np.int64], data: Data) -> NDArray[np.int64] | None:
    """Rows that stay together, unless nothing is held out, or no two rows are left that are so near."""
    held, dedup = data.hold_out, data.dedup
    held_out = held.items or held.folds or held.phrasings or held.clusters or held.validation
    gone = dedup and dedup.near and held.near and (dedup.near <= held.near, dedup.ngram, dedup.over)
    if held.near is None or not held_out or gone == (True, NGRAM, "both"):
        return None
    return near_groups(rows, places, near=held.near, workers=cores())


def save_worked(run: RunFolder, rows: Rows | StoredRows, labels: Sequence[RowLabel]) -> None:
    """Write which of these rows have worked reasoning, where the mixture asks for a share of it."""
    picked = rows.picked(label.place for label in labels)
    found = map_chunks(lambda some: [row.id for row in some if is_worked(row)], picked, _ROWS_AT_ONCE, cores())
    names = [name for chunk in found for name in chunk]
    with written_aside(run.path / WORKED_ROWS) as aside:
        pq.write_table(pa.table({"row": pa.array(names, pa.string())}), aside)
    say(f"Worked reasoning: {len(names):,} of {len(labels):,} rows to train on.")


def worked_rows(run: RunFolder) -> list[str]:
    """The ids of the rows with worked reasoning, where the mixture asks for a share of it."""
    if run.recipe.data.mix.reasoning is None:
        return []
    names: list[str] = pq.read_table(run.path / WORKED_ROWS)["row"].to_pylist()
    return names
