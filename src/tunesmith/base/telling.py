"""Which of several processes tells an error: rank 0 if it meets the same one, else the process that does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from tunesmith.base.ranks import RankLost, rank, world_size

_FOR_RANK_0 = 10.0  # seconds in which rank 0 is to meet the same error: it may have had more to do before
_FOR_OTHERS = 2.0  # seconds that rank 0 stays: torchrun ends the others as soon as it has gone
_LOOKS_EVERY = 0.05


@contextmanager
def telling(error: BaseException, message: str) -> Iterator[str | None]:
    """Yields the message as this process has to print it within; None where rank 0 prints the same.

    That another rank is lost is the same error wherever it is met.
    """
    if world_size() == 1:
        yield message
        return
    gist = RankLost.__name__ if isinstance(error, RankLost) else message
    store = _store()
    if rank() == 0:
        if store:
            store.set("0", gist)
        yield message
        if store:
            _within(_FOR_OTHERS, store, [str(other) for other in range(1, world_size())])
        return
    same = store and _within(_FOR_RANK_0, store, ["0"]) and store.get("0").decode() == gist
    yield None if same else f"rank {rank()}: {message}"
    if store:
        store.set(str(rank()), "told")


def _store() -> Any:
    """The keys that all ranks see, by a connection of its own; None where nobody keeps them (any more)."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    host, port, wait = os.environ.get("MASTER_ADDR", ""), int(os.environ.get("MASTER_PORT", "0")), timedelta(seconds=5)
    try:
        return PrefixStore("errors", TCPStore(host, port, is_master=False, timeout=wait))
    except (RuntimeError, ValueError):
        return None


def _within(seconds: float, store: Any, keys: list[str]) -> bool:
    """Whether all of the keys are set within so many seconds."""
    until = time.monotonic() + seconds
    try:
        while not store.check(keys):
            if time.monotonic() > until:
                return False
            time.sleep(_LOOKS_EVERY)
    except RuntimeError:  # whoever kept them is gone
        return False
    return True
