"""What the training rows cover: measured while they are at hand, judged against the recipe whenever it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.base.conversation import Conversation
from tunesmith.base.errors import UserError
from tunesmith.base.files import read_json, write_json
from tunesmith.base.parallel import cores
from tunesmith.base.progress import say
from tunesmith.data.coverage.coverage import measure
from tunesmith.data.coverage.targets import Target, Warned, reached, warnings_of
from tunesmith.data.rows import RowLabel
from tunesmith.data.sources.formats import nearest
from tunesmith.pipeline.folder import RunFolder
from tunesmith.recipe.models import Recipe

COVERAGE = Path("data") / "coverage.json"
TARGETS = {"categories", "rows", "min_multi_turn", "max_multi_turn", "min_worked"}  # what rows are held against


def refuse_unknown_clusters(recipe: Recipe, labels: Sequence[RowLabel]) -> None:
    """Raises UserError if a category is given for a cluster that no row belongs to."""
    given = recipe.data.coverage.given if recipe.data.coverage else {}
    known = {label.cluster for label in labels} if given else set()
    for cluster in given:
        if cluster not in known:
            raise UserError(
                f"data.coverage.given names the cluster {cluster!r}, and no row belongs to it, so it would have no "
                f"effect. {nearest(cluster, known)}"
            )


def cover(run: RunFolder, rows: Any, labels: Sequence[RowLabel]) -> None:
    """Measure what the training rows of `labels` cover, plain text aside, and keep it. rows: holds them by place."""
    wanted = run.recipe.data.coverage
    (run.path / COVERAGE).unlink(missing_ok=True)
    if not wanted:
        return
    asked: Sequence[Conversation] = rows.picked(label.place for label in labels if not label.is_text)
    found = measure(asked, sample=wanted.sample, clusters=wanted.given, seed=run.recipe.seed, workers=cores())
    write_json(run.path / COVERAGE, found)


def judge(run: RunFolder) -> list[Warned]:
    """What falls short of the recipe's target; nothing where coverage was not measured. Kept beside the measures."""
    wanted, path = run.recipe.data.coverage, run.path / COVERAGE
    if not wanted or not path.exists():
        return []
    found, target = read_json(path), Target(**wanted.model_dump(include=TARGETS))
    warned = warnings_of(found, target)
    judged = {
        "target": asdict(target),
        "reached": reached(found, target),
        "warnings": [asdict(each) for each in warned],
    }
    if found | judged != found:
        write_json(path, found | judged)
    return warned


def say_coverage(run: RunFolder) -> None:
    """One line for the terminal of what was measured."""
    path = run.path / COVERAGE
    if not run.recipe.data.coverage or not path.exists():
        return
    found = read_json(path)
    on = "" if found["sampled"] == found["rows"] else f" (on {found['sampled']:,} of {found['rows']:,} rows)"
    some = ", ".join(f"{each['category'].replace('_', ' ')} {each['rows']:,}" for each in found["categories"][:5])
    say(
        f"Coverage of rows before they are mixed{on}: {some} ...; several turns {found['multi_turn']:.1%}, "
        f"worked reasoning {found['worked']:.1%}, "
        f"near-duplicates {found['near_duplicates']:.1%}."
    )
