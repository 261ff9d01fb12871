"""Requests to stop: Ctrl-C and SIGTERM, heard between steps."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.base.errors import Interrupted
from tunesmith.base.progress import say
from tunesmith.base.stopping import Terminations

_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar has hidden it


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields whether Ctrl-C or SIGTERM asked to stop.

    A second one (see `base.stopping.Terminations` for what is none) ends the process at once, whatever it is about: a
    measurement, a tracker that sends, or a checkpoint being written, which is then as if it had never been begun (see
    `base.files.written_aside`).
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    asked: list[int] = []
    terminations = Terminations()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        if terminations.is_repeated(number):
            return
        if asked:
            _end()
        asked.append(number)
        say("stopping after this step; once more stops at once")

    for number in before:
        signal.signal(number, ask)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end() -> None:
    """No exception: it would unwind through all that waits. Nor a stream, which may be in the middle of a line."""
    told = b"\nstopped at once; what was saved before is whole, and the same command goes on from there\n"
    os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + told)
    os._exit(Interrupted.exit_code)
