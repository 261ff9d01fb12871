"""What the C library does with freed memory: keep it for speed, or give it back at once."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_SMALL = 1 << 18  # bytes; with a megabyte, small models still took twice what they held
_ALL = 1 << 30
_MOST = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, since a step needs it again: training on a CPU takes a tenth less time.

    By default it hands tensors of 32 MB and more back when they are freed (the logits of a chunk, say), and every page
    of them has to be touched anew. Returns whether there was a glibc to be told.
    """
    return _told(_ALL, _MOST)


def return_freed_memory() -> bool:
    """Have glibc give tensors from a quarter of a megabyte on pages of their own, which go back when they are freed.

    By default it learns to keep blocks of up to 32 MB in its heaps, and a process took 1.5 to 5 times what it held.
    It costs time, since pages are touched anew: half as much again with the pocket model (docs/planning.md).
    """
    return _told(_SMALL, _SMALL)


def _told(mmap_from: int, trim_from: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        return bool(library.mallopt(_M_MMAP_THRESHOLD, mmap_from) and library.mallopt(_M_TRIM_THRESHOLD, trim_from))
    except AttributeError:  # another C library
        return False
