"""What a diagnosis found, in the terminal and on a page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from tunesmith.base.files import write_text
from tunesmith.evaluate.diagnose import Diagnosis, Shift
from tunesmith.report.page import environment, policy_of, style_sheet
from tunesmith.report.words import clipped, counted, listed, percent

SHOWN = 90  # characters of an instruction in the terminal
ON_PAGE = 600


def told_shift(shift: Shift) -> str:
    """The shift in words."""
    sure = f"AUC {shift.auc:.2f}, 95% interval {shift.low:.2f} to {shift.high:.2f}; 0.5 is not at all, 1 is always"
    if shift.low <= 0.5 or shift.auc < 0.6:
        return f"The log asks much the same as what was trained: a classifier hardly tells them apart ({sure})."
    if shift.auc < 0.8:
        return f"The log asks somewhat else than what was trained: a classifier often tells which is which ({sure})."
    return f"The log asks other things than what was trained: a classifier tells them apart nearly always ({sure})."


def told_foreign(shift: Shift) -> str:
    return (
        f"{percent(shift.foreign)} of its instructions are foreign: further from every trained one than "
        f"95% of these are from each other (5% would be usual)."
    )


def told_kinds(found: Diagnosis) -> str:
    """How the failures look, and what would help."""
    if not found.failures:
        return "No row of the log failed."
    look = {"unclear": "show nothing in their texts"}
    parts = [
        f"{percent(count / found.failures, 0)} {look.get(kind, f'look like {kind}')}"
        for kind, count in found.kinds.items()
    ]
    remedies = {
        "not following": "data that shows the form that is asked for mends what does not follow",
        "missing knowledge": (
            "missing knowledge is mended by a base that has it, by texts in the prompt, or by training on "
            "such texts; examples of instructions teach a model to make things up"
        ),
    }
    helps = [text for kind, text in remedies.items() if found.kinds.get(kind)]  # type: ignore[call-overload]
    foreign = sum(cluster.size * (1 - cluster.coverage) for cluster in found.clusters) / found.failures
    said = f"Of {counted(found.failures, 'failure')}, {listed(parts)}" + (f": {'; '.join(helps)}." if helps else ".")
    if foreign >= 0.2:
        said += f" {percent(foreign, 0)} ask what is foreign to training: data like these is what is missing first."
    return said


def print_diagnosis(found: Diagnosis) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for sentence in (told_shift(found.shift), told_foreign(found.shift), told_kinds(found)):
        console.print(Text(sentence))
    if found.shift.examples:
        console.print(Text("\nMost foreign:", "bold"))
    for near in found.shift.examples[:5]:
        console.print(Text(f"  {near.similarity:.2f}  {near.id}: {clipped(' '.join(near.instruction.split()), SHOWN)}"))
    for number, cluster in enumerate(found.clusters, 1):
        head = f"\nFailures {number}: {', '.join(cluster.words)}"
        console.print(Text(head, "bold"))
        console.print(
            Text(
                f"  {cluster.size} failures, {percent(cluster.rate, 0)} of such rows; {percent(cluster.coverage, 0)} "
                f"of them are covered by what was trained"
            )
        )
        for kind, what, count in cluster.symptoms[:3]:
            console.print(Text(f"  {count} {kind}: {what}"))
        for near in cluster.examples[:1]:
            console.print(Text(f"  as    {near.id}: {clipped(' '.join(near.instruction.split()), SHOWN)}"))
            console.print(Text(f"  near  {near.similarity:.2f} {clipped(' '.join(near.trained.split()), SHOWN)}"))


def write_diagnosis(found: Diagnosis, path: Path, run: str, log: str, by: str) -> Path:
    style = style_sheet()
    page = environment().get_template("diagnosis.html.j2")
    text = page.render(
        style=Markup(style),
        policy=policy_of(style),
        found=found,
        sentences=[told_shift(found.shift), told_foreign(found.shift), told_kinds(found)],
        run=run,
        log=log,
        by=by,
        clip=lambda value: clipped(value, ON_PAGE),
        written=datetime.now(UTC),
    )
    write_text(path, text)
    return path
