"""Chunks in several processes: the same results in the same order, and errors that arrive."""

import os
import signal

import pytest

from tunesmith.base.errors import TunesmithError
from tunesmith.base.parallel import map_chunks


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_in_order(workers):
    seen = []

    def squares(chunk):
        seen.append(chunk)
        return [number * number for number in chunk], os.getpid()

    results = list(map_chunks(squares, range(1000), 37, workers))
    assert [square for squares, _ in results for square in squares] == [number * number for number in range(1000)]
    processes = {process for _, process in results}
    assert (os.getpid() in processes) == (workers == 1) and 1 <= len(processes) <= workers
    assert bool(seen) == (workers == 1)


def test_errors_and_ended_processes_are_told():
    def fails(chunk):
        if 300 in chunk:
            raise KeyError("mine")
        return len(chunk)

    with pytest.raises(KeyError, match="mine"):
        list(map_chunks(fails, range(1000), 10, 2))

    def ends(chunk):
        if 300 in chunk:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(chunk)

    with pytest.raises(TunesmithError, match="ended from outside"):
        list(map_chunks(ends, range(1000), 10, 2))


def test_results_may_be_left_behind():
    found = map_chunks(len, range(10_000), 10, 2)
    assert next(found) == 10
    found.close()
