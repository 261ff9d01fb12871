"""Requests to stop: Ctrl-C and SIGTERM, heard between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.base.progress import say


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C or SIGTERM asked to stop; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    asked, before = [], {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        restore()
        say("stopping after this step; once more stops at once")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        restore()
