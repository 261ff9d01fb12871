"""The processes of a run: which of them this is, how they wait for each other, and who of them is gone.

`torchrun` starts them and names each by its rank. Rank 0 does what one process does alone (data, evaluation, report)
while the others wait; all of them train. Waiting goes by a store of keys that torchrun keeps, not by a collective, so
that an hour of data preparation is no reason to give up. Every rank counts on in that store while it lives, and that is
how the others tell which one is gone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tunesmith.base.errors import Interrupted, TunesmithError

if TYPE_CHECKING:
    from torch import Tensor

COLLECTIVE_SECONDS = 45  # the longest that one rank waits for another within a step
_BEATS_EVERY = 1.0  # seconds
_GONE_AFTER = 12.0  # seconds without a beat: a process that swaps or writes much may miss some
_LOOKS_EVERY = 0.2
FAILED, ASKED = b"failed", b"asked to stop"  # how a rank has ended


def rank() -> int:
    """This process's number, from 0; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class RankLost(TunesmithError):
    """Another process of the run is gone, or out of reach."""


class RankStopped(RankLost):
    """Another process is gone since it was asked to stop, before it trained; this one may have been asked as well."""

    exit_code = Interrupted.exit_code


@dataclass
class Ranks:
    """This process among all of them. Alone, every method does nothing.

    store: the keys that all ranks see; None where there is one process.
    """

    rank: int = 0
    size: int = 1
    store: Any = None
    _met: dict[str, int] = field(default_factory=dict)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that does what one does alone."""
        return self.rank == 0

    def sum(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over the ranks, in place; all ranks have to call it with the same shapes."""
        if self.size == 1:
            return
        import torch.distributed as dist

        for tensor in tensors:
            dist.all_reduce(tensor)

    def meet(self, place: str) -> None:
        """Wait here until all ranks are, however long that takes. Raises RankLost if one of them is gone."""
        if self.store is None:
            return
        self._met[place] = self._met.get(place, 0) + 1
        key = f"met/{place}/{self._met[place]}"
        self.store.set(f"{key}/{self.rank}", "1")
        waiting = set(range(self.size))
        beats = _Beats(self.store, self.size)
        while waiting := {other for other in waiting if not self.store.check([f"{key}/{other}"])}:
            if gone := beats.silent() & waiting:
                raise self.told(gone, f"while the others waited for it ({place})")
            time.sleep(_LOOKS_EVERY)

    def told(self, gone: set[int], when: str) -> RankLost:
        """What to tell of ranks that are gone."""
        names = ", ".join(map(str, sorted(gone)))
        ends = [f"ended/{rank}" for rank in gone]
        try:
            if self.store.check(ends) and all(self.store.get(end) == ASKED for end in ends):
                return RankStopped(f"rank {names} was asked to stop, {when}. Run the same command again to go on.")
        except RuntimeError:  # the store is gone as well
            pass
        return RankLost(
            f"rank {names} is gone, {when}. Look at what that process said last (out of memory, killed, another "
            f"machine down?), then run the same command again: training goes on from the newest checkpoint."
        )

    def lost(self) -> set[int]:
        """The ranks that are gone, asked once something failed between them; watches for some seconds."""
        if self.store is None:
            return set()
        beats, until = _Beats(self.store, self.size), time.monotonic() + _GONE_AFTER + 2 * _BEATS_EVERY
        while time.monotonic() < until:
            try:
                if gone := beats.silent():
                    return gone
            except RuntimeError:  # the store itself is gone, with the process that kept it
                return {0} - {self.rank}
            time.sleep(_LOOKS_EVERY)
        return set()


class _Beats:
    """Watches the counts of the ranks."""

    def __init__(self, store: Any, size: int) -> None:
        self._store = store
        self._seen = {rank: ("", time.monotonic()) for rank in range(size)}

    def silent(self) -> set[int]:
        """The ranks that have not counted on for too long, or have said that they end."""
        now, gone = time.monotonic(), set()
        for rank, (count, since) in self._seen.items():
            if self._store.check([f"ended/{rank}"]):
                gone.add(rank)
                continue
            new = self._store.get(f"alive/{rank}").decode() if self._store.check([f"alive/{rank}"]) else ""
            if new != count:
                self._seen[rank] = (new, now)
            elif now - since > _GONE_AFTER:
                gone.add(rank)
        return gone


def is_of_communication(error: RuntimeError) -> bool:
    """Whether an error is one of talking to other processes, and not of what this one computes. NCCL's and the store's
    have a class of their own, Gloo's only their words."""
    from torch.distributed import DistError

    text = str(error).lower()
    return isinstance(error, DistError) or "gloo" in text or "pair closure" in text


def explained(ranks: Ranks, error: Exception, saved: str) -> RankLost:
    """What to tell of an error of communication: which rank is gone, and what there is to go on from."""
    gone = ranks.lost()
    if gone:
        return ranks.told(gone, f"and {saved}")
    return RankLost(
        f"the processes lost contact ({str(error).splitlines()[0][:200]}), though all of them live: one waited more "
        f"than {COLLECTIVE_SECONDS} s, or the network failed; {saved}. Run the same command again to go on."
    )


@contextmanager
def joined() -> Iterator[Ranks]:
    """Within, the processes that torchrun started work together; alone, there is nothing to join."""
    if world_size() == 1:
        yield Ranks()
        return
    import torch
    import torch.distributed as dist
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, own, size = next(rendezvous("env://", timeout=timedelta(seconds=300)))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore("collectives", store),
        rank=own,
        world_size=size,
        timeout=timedelta(seconds=COLLECTIVE_SECONDS),
    )
    keys = PrefixStore("tunesmith", store)
    stop = threading.Event()
    beating = threading.Thread(
        target=_beat, args=(PrefixStore("tunesmith", store.clone()), own, stop), name="heartbeat", daemon=True
    )
    beating.start()
    ranks = Ranks(own, size, keys)
    ended = FAILED
    try:
        yield ranks
        ended = b""
    except (KeyboardInterrupt, Interrupted):
        ended = ASKED
        raise
    finally:
        stop.set()
        beating.join(5)
        if ended:
            _say_ended(keys, own, ended)
        else:
            dist.destroy_process_group()


def _beat(store: Any, rank: int, stop: threading.Event) -> None:
    count = 0
    while not stop.wait(_BEATS_EVERY if count else 0):
        count += 1
        try:
            store.set(f"alive/{rank}", str(count))
        except RuntimeError:  # the process that keeps the store has ended; the main thread will meet that too
            return


def _say_ended(store: Any, rank: int, how: bytes) -> None:
    """Let the others know at once that this rank has ended, instead of by its silence."""
    try:
        store.set(f"ended/{rank}", how.decode())
    except RuntimeError:
        return
