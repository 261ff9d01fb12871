"""Several runs side by side: what differs in their recipes, what came of it, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from tunesmith.base.errors import UserError
from tunesmith.base.files import write_text
from tunesmith.evaluate.intervals import paired_bootstrap
from tunesmith.report import comparison, verdict
from tunesmith.report.comparison import LEVELS, Estimate, Judgement, Row, judge
from tunesmith.report.load import Fields, RunFiles, at, fields_at, load_run, number
from tunesmith.report.page import environment, policy_of, style_sheet
from tunesmith.report.suites import suite_rows
from tunesmith.report.words import points

_UNITS = {"loss": " nats", "text": ""}  # of a suite's difference, by its kind; bits per byte are relative
UNSAID = ("name", "path")  # keys whose values differ wherever files lie elsewhere


@dataclass(frozen=True)
class Outcome:
    """One level of one run. against: tuned minus the tuned model of the first run on the items that both answered."""

    run: str
    row: Row
    against: Estimate | None
    shared: int

    @property
    def judgement(self) -> Judgement | None:
        return judge(self.against)

    @property
    def said(self) -> str:
        return points(self.against.mean) if self.against else ""

    @property
    def interval(self) -> str:
        if self.against is None or self.against.low is None:
            return ""
        return f"{points(self.against.low)} to {points(self.against.high)}"


@dataclass(frozen=True)
class Cost:
    """What a run took. memory: bytes, the most in any step. seconds: of training. rise: in bits per byte, relative.

    suites: by name, how the tuned model's mean differs from the base's, with its unit.
    """

    run: str
    status: str
    trainable: float | None
    parameters: float | None
    memory: float | None
    seconds: float | None
    tokens: float | None
    forgetting: verdict.Forgetting | None
    suites: dict[str, str]


@dataclass(frozen=True)
class SideBySide:
    """names: of the runs, in order. settings: by recipe key, each run's value, of the keys that differ.

    levels: by title, each run's outcome. suites: the names of all suites that any run was examined with.
    """

    names: list[str]
    settings: dict[str, list[str]]
    levels: dict[str, list[Outcome]]
    costs: list[Cost]
    suites: list[str]

    @property
    def other_bases(self) -> bool:
        """Whether runs began from different base models."""
        return "base" in self.settings


def compare_runs(folders: Sequence[Path]) -> SideBySide:
    """What is known of each run; what was not measured is missing. Raises UserError for fewer than two."""
    if len(folders) < 2:
        raise UserError("a comparison needs two runs or more: tunesmith report RUN RUN --compare.")
    runs = [load_run(folder) for folder in folders]
    names = _names(folders)
    levels: dict[str, list[Outcome]] = {}
    for key, (title, *_) in LEVELS.items():
        found = [_outcome(name, run, runs[0], key) for name, run in zip(names, runs, strict=True)]
        if kept := [outcome for outcome in found if outcome]:
            levels[title] = kept
    suites = list(dict.fromkeys(name for run in runs for name in fields_at(run.evaluation, "suites")))
    costs = [_cost(name, run) for name, run in zip(names, runs, strict=True)]
    return SideBySide(names, _differing(runs), levels, costs, suites)


def write_comparison_page(folders: Sequence[Path], path: Path, title: str) -> Path:
    """Write the page of several runs side by side, and return its path."""
    style = style_sheet()
    page = environment().get_template("compare.html.j2")
    text = page.render(
        style=Markup(style),
        policy=policy_of(style),
        title=title,
        found=compare_runs(folders),
        written=datetime.now(UTC),
    )
    write_text(path, text)
    return path


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, with those above where two are alike."""
    whole = [folder.resolve() for folder in folders]
    for depth in range(1, 1 + max(len(folder.parts) for folder in whole)):
        names = ["/".join(folder.parts[-depth:]) for folder in whole]
        if len(set(names)) == len(names):
            return names
    raise UserError("a run is named twice; name each once.")


def _outcome(name: str, run: RunFiles, first: RunFiles, level: str) -> Outcome | None:
    overall = fields_at(run.evaluation, "generation", "levels", level, "overall")
    if not overall:
        return None
    row = comparison.score_row(name, overall)
    if run is first:
        return Outcome(name, row, None, 0)
    before, after = _tuned(first, level), _tuned(run, level)
    shared = [key for key in after if key in before]
    if not shared:
        return Outcome(name, row, None, 0)
    scores = [[side[key][0] for key in shared] for side in (before, after)]
    interval = paired_bootstrap(scores[0], scores[1], [after[key][1] for key in shared])
    return Outcome(name, row, Estimate(*interval), len(shared))


def _tuned(run: RunFiles, level: str) -> dict[tuple[str, str], tuple[float, str]]:
    """The tuned model's score and the item of each answered row, by its id and expected response."""
    found = {}
    for item in run.items:
        score = number(item, "scores", "tuned")
        if item.get("level") == level and score is not None:
            found[str(item.get("row")), str(item.get("expected"))] = score, str(item.get("item"))
    return found


def _cost(name: str, run: RunFiles) -> Cost:
    memory = [value for step in run.metrics if (value := number(step, "memory")) is not None]
    suites = {row.name: row.said + _UNITS.get(row.kind, " points") for row in suite_rows(run.evaluation) if row.said}
    return Cost(
        name,
        str(at(run.run, "status") or "not begun"),
        number(run.run, "trainable"),
        number(run.run, "parameters"),
        max(memory, default=None),
        number(run.run, "seconds", "train"),
        number(run.run, "tokens"),
        verdict.forgetting(run.evaluation),
        suites,
    )


def _differing(runs: Sequence[RunFiles]) -> dict[str, list[str]]:
    """By recipe key, each run's value, of the keys in which the runs differ."""
    flat = [_flat(_recipe(run)) for run in runs]
    keys = dict.fromkeys(key for values in flat for key in values)
    table = {key: [values.get(key, "") for values in flat] for key in keys if key.split(".")[-1] not in UNSAID}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def _recipe(run: RunFiles) -> Fields:
    try:
        found = yaml.safe_load(run.recipe)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _flat(value: Any, key: str = "") -> dict[str, str]:
    """Plain values by their dotted keys."""
    if isinstance(value, Mapping):
        pairs = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        pairs = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return {key: "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)}
    return {
        name: text for part, inner in pairs for name, text in _flat(inner, f"{key}.{part}" if key else part).items()
    }
