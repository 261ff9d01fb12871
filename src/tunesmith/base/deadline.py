"""A time limit on code that is not ours, in whatever thread it runs."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LOOKS_EVERY = 0.1  # seconds

_lock = threading.Lock()
_deadlines: dict[int, float] = {}  # of each thread that runs under a limit
_overdue: set[int] = set()
_watcher: threading.Thread | None = None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside the block once it has run for `seconds`.

    Works on Python code: a single call into C that takes longer is only interrupted when it returns. Costs about two
    microseconds; blocks don't nest. One thread watches all blocks, and ends when there are none.
    """
    thread = threading.get_ident()
    _watch(thread, time.monotonic() + seconds)
    try:
        yield
    finally:
        with _lock:
            _deadlines.pop(thread, None)
            if thread in _overdue:
                _raise_in(thread, None)  # it ended just in time: take back what has not been raised yet


def _watch(thread: int, deadline: float) -> None:
    global _watcher
    with _lock:
        _deadlines[thread] = deadline
        _overdue.discard(thread)
        if _watcher is None:
            _watcher = threading.Thread(target=_look, name="time limits", daemon=True)
            _watcher.start()


def _look() -> None:
    global _watcher
    while True:
        time.sleep(_LOOKS_EVERY)
        with _lock:
            if not _deadlines:
                _watcher = None
                return
            now = time.monotonic()
            for thread, deadline in _deadlines.items():
                if deadline < now and thread not in _overdue:
                    _overdue.add(thread)
                    _raise_in(thread, TimeoutError)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in a thread when it next runs Python code; None takes back what is still to be raised."""
    value = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)


def _forget() -> None:
    """A forked process has none of its parent's threads."""
    global _lock, _watcher
    _lock, _watcher = threading.Lock(), None
    _deadlines.clear()
    _overdue.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
