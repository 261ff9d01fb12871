"""Daft, started: in this process natively, or on a Ray cluster. Nothing else of Tunesmith imports it.

Daft has one runner for the life of a process, so a process works with one of the two.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.base.errors import TunesmithError, UserError
from tunesmith.base.parallel import cores

REACHED_S = 5.0  # for a TCP connection to the address of a cluster
JOINED_S = 10.0  # for the cluster to take a client in; Ray's own limit is longer and its words are few
_JOIN = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"

ENDED_S = 5.0  # for processes that were told to end

_running: set[Any] = set()  # Daft's handles of the processes that it has started
_runner: str | None = None  # "native" or the address, once Daft has started


def import_daft() -> Any:
    """The module; it would report its use to its makers, unless told before it is imported."""
    os.environ.update(DO_NOT_TRACK="1", DAFT_ANALYTICS_ENABLED="0", DAFT_PROGRESS_BAR="0")
    import daft

    return daft


def start(ray: str | None) -> int:
    """Start Daft natively (None) or on the Ray cluster at this address. Returns the cores there are to work with.

    Raises UserError when the other runner has started before, or the cluster can't be used.
    """
    global _runner
    wanted = ray or "native"
    if _runner not in (None, wanted):
        raise UserError(
            f"data.engine was {_runner} in this process and can't become {wanted}: Daft has one runner for the life "
            f"of a process. Prepare the other run in a process of its own."
        )
    if _runner is None:
        if ray:
            _join(ray)
        else:
            daft = import_daft()
            daft.set_runner_native()
            daft.set_execution_config(maintain_order=True)
            _keep_interrupts(daft)
            _watch_processes()
        for name in ("daft", "daft_local_execution"):  # a failed job is told of by us, once
            logging.getLogger(name).setLevel(logging.CRITICAL)
        _runner = wanted
    if ray:
        import ray as cluster

        return int(cluster.cluster_resources().get("CPU", 1))
    return cores()


def run_jobs(work: type, jobs: list[str], workers: int) -> Iterator[str]:
    """The results of `work` for each job, as they are done and in no order; both are short texts, never rows.

    work: a class with a method `do` from a job to its result. It is made once in each of the `workers` processes, which
    Daft starts and ends. Raises RuntimeError when one of them was ended from outside.
    """
    daft = import_daft()
    do = daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)(_do)
    made = daft.cls(type("Work", (work,), {"do_batch": do}), max_concurrency=workers, use_process=True)
    frame = daft.from_pydict({"job": jobs})
    # One job at a time for whoever is free; each of the runners knows one way of saying so.
    frame = frame.into_batches(1) if _runner == "native" else frame.into_partitions(len(jobs))
    results = frame.select(made().do_batch(daft.col("job")).alias("result")).to_arrow_iter()
    try:
        for batch in results:
            yield from batch.column("result").to_pylist()
    finally:
        _end_processes()


def _keep_interrupts(daft: Any) -> None:
    """Have Ctrl-C stay Python's. With its first query Daft takes it for itself, and results then just end early."""
    daft.from_pydict({"first": [1]}).where(daft.col("first") > 0).to_pydict()
    handler = signal.getsignal(signal.SIGINT)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)


def _watch_processes() -> None:
    """Have Daft keep account of its processes, and close the pipe from each, which it leaves to the collector."""
    from daft.execution import udf

    class Watched(udf.UdfHandle):  # type: ignore[misc]
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            _running.add(self)

        def teardown(self, *given: Any) -> None:
            try:
                super().teardown(*given)
            finally:
                self.process.stdout.close()
                _running.discard(self)

    udf.UdfHandle = Watched


def _end_processes() -> None:
    """End what still works, and wait till Daft has noticed: this process must not end before its threads have."""
    for handle in list(_running):
        handle.process.kill()
    end = time.monotonic() + ENDED_S
    while _running and time.monotonic() < end:
        time.sleep(0.02)


def _do(self: Any, jobs: Any) -> list[str]:
    return [self.do(job) for job in jobs.to_pylist()]


def _join(address: str) -> None:
    """Connect to a cluster, within a limit of time and with a token."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("data.engine names a Ray cluster, and Ray isn't installed: pip install 'tunesmith[ray]'")
    _require_token()
    _reach(address)
    # Joining can hang for minutes inside of Ray, so another process tries it first, which can be ended.
    trial = subprocess.Popen([sys.executable, "-c", _JOIN, address], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _, said = trial.communicate(timeout=JOINED_S)
    except subprocess.TimeoutExpired:
        trial.kill()
        trial.communicate()
        said = f"no answer in {JOINED_S:.0f} s".encode()
    if trial.returncode:
        last = said.decode("utf-8", "replace").strip().split("\n")[-1]
        raise UserError(
            f"something listens at data.engine.ray {address}, but it takes no client in ({last}). It has to be the "
            f"cluster's own address (that of `ray start --head`, port 6379 unless chosen), with the same Ray and "
            f"Python as here, and the token here has to be the cluster's: see docs/engine.md."
        )
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    # A cluster that asks for no token takes ours too; its processes have the setting that it was started with.
    mode = ray.get(ray.remote(num_cpus=0)(_auth_mode).remote(), timeout=JOINED_S)
    if mode.lower() != "token":
        ray.shutdown()
        raise UserError(
            f"the Ray cluster at {address} asks for no token (its RAY_AUTH_MODE is {mode or 'not set'}), so whoever "
            f"reaches it can run code on it. Start it again with RAY_AUTH_MODE=token: see docs/engine.md."
        )
    import_daft().set_runner_ray(noop_if_initialized=True)


def _auth_mode() -> str:
    return os.environ.get("RAY_AUTH_MODE", "")


def _require_token() -> None:
    """Who reaches a cluster without a token can run any code on it, and Ray does not ask for one by default."""
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if mode.lower() != "token":
        raise UserError(
            f"RAY_AUTH_MODE is {mode}, so the cluster would take anyone's code. Start it with RAY_AUTH_MODE=token, set "
            f"the same here, and give both the same token: see docs/engine.md."
        )
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not os.environ.get("RAY_AUTH_TOKEN") and not file.is_file():
        raise UserError(
            f"no token for the Ray cluster: RAY_AUTH_TOKEN is not set and there is no file {file}. Make one with "
            f"`ray get-auth-token --generate`, and give the cluster and this machine the same: see docs/engine.md."
        )


def _reach(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"data.engine.ray is {address!r}, which is no address. Write HOST:PORT, as in 10.0.0.5:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_S).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error}). Start one there (docs/engine.md), correct "
            f"data.engine.ray, or leave it out to work on this machine."
        ) from error


def cluster_died(error: Exception, done: int, of: int) -> TunesmithError:
    return TunesmithError(
        f"processes that prepared data were ended from outside again and again, with {done:,} of {of:,} parts done; "
        f"most likely memory ran out ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__}). "
        f"Nothing was lost; run again with more memory free or fewer processes."
    )
