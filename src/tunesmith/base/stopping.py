"""Being asked to end by SIGTERM, as schedulers, containers and torchrun do: heard as Ctrl-C is."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SAME_REQUEST = 2.0  # seconds


class Terminated(KeyboardInterrupt):
    """SIGTERM, where Ctrl-C would be a KeyboardInterrupt."""


class Terminations:
    """Tells a SIGTERM that asks anew from one that says the same again.

    systemd and Slurm may signal every process of a job, and torchrun passes on to its processes what it gets, so one
    request often arrives twice within moments. Nobody means to say by that that it is urgent.
    """

    def __init__(self) -> None:
        self._first: float | None = None

    def is_repeated(self, number: int) -> bool:
        """Whether this signal, received now, is a SIGTERM that says again what the first has said."""
        if number != signal.SIGTERM:
            return False
        now = time.monotonic()
        if self._first is None:
            self._first = now
            return False
        return now - self._first < _SAME_REQUEST


@contextmanager
def terminations_interrupt() -> Iterator[None]:
    """Within, SIGTERM raises Terminated in the main thread, so that what is open is closed and kept.

    A second one ends the process at once, as if there were nobody to hear it. So it stays once one has come, while the
    process says its last words.
    """
    if threading.current_thread() is not threading.main_thread():  # only that may handle signals
        yield
        return
    terminations, asked = Terminations(), False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal asked
        if terminations.is_repeated(number):
            return
        if asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked = True
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if not asked:
            signal.signal(signal.SIGTERM, before)
