"""Progress and messages for people: one console on stderr, quiet when told to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from tunesmith.base.ranks import rank

T = TypeVar("T")
console = Console(stderr=True, highlight=False)


class Task(Protocol):
    """A running progress bar: `advance` moves it, `note` sets the text at its right end."""

    def advance(self, steps: float = 1) -> None: ...
    def note(self, text: str) -> None: ...


class _BarTask:
    def __init__(self, bar: Progress, title: str, total: float | None) -> None:
        self._bar = bar
        self._id = bar.add_task(title, total=total, note="")

    def advance(self, steps: float = 1) -> None:
        self._bar.advance(self._id, steps)

    def note(self, text: str) -> None:
        self._bar.update(self._id, note=text)


@contextmanager
def progress(title: str, total: float | None = None, start: float = 0) -> Iterator[Task]:
    """A progress bar with counts and time left; it vanishes when done and is absent when stderr is no terminal."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=rank() > 0 or not console.is_terminal,
    )
    with bar:
        task = _BarTask(bar, title, total)
        task.advance(start)
        yield task


def track(items: Iterable[T], title: str, total: float | None = None) -> Iterator[T]:
    """Iterate over items under a progress bar."""
    with progress(title, total) as task:
        for item in items:
            yield item
            task.advance()


def say(message: str) -> None:
    """One line for the person watching, on stderr (stdout is for results); of several processes only rank 0 speaks."""
    if rank() == 0:
        console.print(message, markup=False, emoji=False, soft_wrap=True)
