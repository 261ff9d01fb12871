"""Memory that has been freed goes back to the system, so that a process takes about what it holds."""

from __future__ import annotations

import ctypes
import sys

LARGE = 1 << 18
"""Bytes from which on a tensor gets pages of its own. With a megabyte, small models still took twice what they held."""
_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> bool:
    """Have glibc give tensors of `LARGE` bytes and more pages of their own, which go back when they are freed.

    By default it learns to keep blocks of up to 32 MB in its heaps, of which each thread has one; as the forward and
    the backward pass run in two, each keeps what the other needs, and a process took 1.5 to 5 times what it held.
    It costs time, since pages are touched anew: half as much again with the pocket model (docs/planning.md), so it is
    for where memory is short. Returns whether there was a glibc to be told.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE))
    except AttributeError:  # another C library
        return False
