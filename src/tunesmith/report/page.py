"""The report: one HTML page that reads a run folder, needs nothing else, and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tunesmith.base.errors import UserError
from tunesmith.base.files import write_text
from tunesmith.report import answers, comparison, data, provenance, verdict, words
from tunesmith.report.charts import bar, compact, scale_labels
from tunesmith.report.load import RunFiles, at, fields_at, load_run, number
from tunesmith.report.suites import suite_rows
from tunesmith.report.training import training

RECIPE_LENGTH, TEMPLATE_LENGTH, NAME_LENGTH = 60_000, 8_000, 90


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder from the other files there, and return its path.

    Files that are absent, because the run stopped early, make the page say so. Raises UserError when `run_folder`
    holds nothing of a run at all.
    """
    if not any(
        (run_folder / name).exists() for name in ("run.json", "recipe.yaml", "ledger", "metrics.jsonl", "evaluation")
    ):
        raise UserError(
            f"{run_folder} is not a run: it has no run.json, recipe.yaml, ledger, metrics.jsonl or evaluation, "
            f"so there is nothing to report. Give the folder that `tunesmith run` made."
        )
    path = run_folder / "report.html"
    write_text(path, render(load_run(run_folder)))
    return path


def render(run: RunFiles) -> str:
    """The whole page."""
    scores = comparison.levels(run.evaluation)
    losses, loss_ticks = comparison.loss_levels(run.evaluation)
    lost = verdict.forgetting(run.evaluation)
    answered = answers.side_by_side(run.items)
    style = style_sheet(answered)
    seconds = _stage_seconds(run)
    longest = max([taken for _, taken in seconds], default=0.0)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            style=Markup(style),
            policy=policy_of(style),
            name=str(at(run.run, "name") or run.folder.resolve().name),
            verdict=verdict.verdict(scores, losses, lost, run.evaluation),
            scores=scores,
            suites=suite_rows(run.evaluation),
            losses=losses,
            loss_ticks=[compact(tick) for tick in loss_ticks],
            forgetting=lost,
            answered=answered,
            training=training(run.metrics),
            data=provenance.data_of(run) | data.pages_of(run),
            run_mixture=run.mixture,
            tokens=run.tokens,
            run=run.run,
            recipe=words.clipped(run.recipe, RECIPE_LENGTH),
            chat_template=words.clipped(str(at(run.tokens, "chat_template") or ""), TEMPLATE_LENGTH),
            stop_tokens=[str(token) for token in listed]
            if isinstance(listed := at(run.tokens, "stop_tokens"), list)
            else [],
            unreadable=run.unreadable,
            run_path=_shell_path(run.folder),
            seconds=seconds,
            seconds_bars=[(stage, taken, bar([("kept", taken)], longest)) for stage, taken in seconds],
            written=datetime.now(UTC),
        )
    )


@cache
def environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tunesmith.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (words.whole, words.decimal, words.percent, words.relative, words.points)
    for filter_ in (*formats, words.short, words.duration, words.spaced, words.counted, words.sentence):
        environment.filters[filter_.__name__] = filter_
    environment.filters["name"] = lambda value: words.clipped(str(value), NAME_LENGTH)
    environment.filters["breakable"] = _breakable
    environment.filters["moment"] = _moment
    environment.globals.update(
        at=at, number=number, scale_labels=scale_labels, outcomes=answers.OUTCOMES, styles=comparison.STYLES
    )
    return environment


def _shown(value: Any) -> Any:
    """Whatever the page prints passes here before it is escaped."""
    if isinstance(value, Markup):
        return value
    return words.printable(value) if isinstance(value, str) else words.NOTHING if value is None else value


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line behind each underscore, so that it need not within a word."""
    return Markup(escape(words.printable(name)).replace("_", Markup("_<wbr>")))


def style_sheet(answered: answers.SideBySide | None = None) -> str:
    """The style sheet, with one rule for each level and cluster that answers can be filtered by."""
    sheets = (resources.files("tunesmith.report").joinpath(name) for name in ("style.css", "data.css"))
    style = "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    if answered is None:
        return style
    keys = [f"level-{i}" for i in range(len(answered.levels))] + [f"cluster-{i}" for i in range(len(answered.clusters))]
    rules = [f'#answers:has([value="{key}"]:checked) .item:not(.{key}) {{ display: none }}' for key in keys]
    return style + "\n".join(rules) + "\n"


def policy_of(style: str) -> str:
    """A content security policy under which this one style sheet applies, and nothing runs or loads."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def _stage_seconds(run: RunFiles) -> list[tuple[str, float]]:
    seconds = fields_at(run.run, "seconds")
    return [(str(stage), value) for stage in seconds if (value := number(seconds, stage)) is not None]


def _shell_path(folder: Path) -> str:
    """The run as one types it after `tunesmith chat`."""
    here = os.path.relpath(folder)
    return shlex.quote(str(folder) if here.startswith("..") else here)


def _moment(value: Any) -> str:
    """A time stamp to the minute, in its own time zone; text that is none stays as it is."""
    if value is None:
        return words.NOTHING
    if isinstance(value, datetime):
        value = value.isoformat()
    try:
        moment = (
            datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else datetime.fromisoformat(str(value))
        )
    except (ValueError, OverflowError, OSError):
        return str(value)
    return f"{moment:%d %B %Y, %H:%M} {moment:%Z}".strip().lstrip("0")
