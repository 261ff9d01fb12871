"""Work on the chunks of a sequence in several processes, results in order: the same whatever their number.

Processes are forked, so they have the sequence already and only places in it and results cross their borders. Where
the system can't fork, or there is too little to do, the work is done here.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

from tunesmith.base.errors import TunesmithError

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNKS_A_WORKER = 4  # with fewer, starting processes is not worth it
_IN_FLIGHT = 3  # chunks a worker has before it or done, so that memory stays bounded when results are taken slowly

_work: tuple[Callable[[Sequence[Any]], Any], Sequence[Any]] | None = None  # what forked processes find


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_chunks(
    function: Callable[[Sequence[Item]], Result], items: Sequence[Item], size: int, workers: int
) -> Iterator[Result]:
    """`function` of each chunk of `size` items, in order. Results have to be picklable, the function not."""
    chunks = [slice(start, start + size) for start in range(0, len(items), size)]
    workers = min(workers, len(chunks) // CHUNKS_A_WORKER)
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from (function(items[chunk]) for chunk in chunks)
        return
    global _work
    _work = function, items
    gc.freeze()  # what is there stays out of the collector's sight, or each process would copy it by looking at it
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _start) as pool:
            yield from _in_order(pool, iter(chunks), workers)
    finally:
        gc.unfreeze()
        _work = None


def _in_order(pool: ProcessPoolExecutor, chunks: Iterator[slice], workers: int) -> Iterator[Any]:
    with warnings.catch_warnings():  # the first submission forks; what the warning is about can't happen to us
        warnings.simplefilter("ignore", DeprecationWarning)
        waiting: deque[Future[Any]] = deque(pool.submit(_do, chunk) for chunk in islice(chunks, _IN_FLIGHT * workers))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(_do, chunk) for chunk in islice(chunks, 1))
            yield result
    except BrokenProcessPool as error:
        raise TunesmithError(
            "a process that prepared data was ended from outside, most likely because memory ran out. Nothing was "
            "lost; run again with more memory free."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start() -> None:
    """In a new process: one core each, few looks for garbage, and requests to stop are the parent's to handle."""
    gc.set_threshold(100_000, 50, 100)  # rows are no cycles, and looking for some takes a tenth of the time
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler came along, and would raise here


def _do(chunk: slice) -> Any:
    assert _work is not None, "forked after the work was set"
    function, items = _work
    return function(items[chunk])
