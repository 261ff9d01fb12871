"""A function over all batches of a table, part file by part file, in as many processes as there are cores.

The unit of work is a part: a process reads the file, calls the function for its batches, writes what comes out beside
the others under the part's number, and answers with counts. So rows never travel between processes, the order is that
of the parts whatever finishes first, memory is that of a batch a process, and a part whose process was killed is done
again: its files are written aside and renamed, so nothing of it counts twice.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import signal
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tunesmith import __version__
from tunesmith.base import errors
from tunesmith.base.errors import TunesmithError
from tunesmith.base.files import written_aside
from tunesmith.base.progress import progress
from tunesmith.data.engine.runner import cluster_died, run_jobs
from tunesmith.data.engine.table import BATCH_ROWS, Table, part_path, read_batches

BatchFunction = Callable[[pa.RecordBatch, int], Mapping[str, pa.RecordBatch]]
"""From a batch, and the place of its first row, to the rows of each output by name."""

_STOPPED = ".stopped"  # in the folder of a step that fails: what has not begun need not be done
ATTEMPTS = 4  # at a part, before what kills its process is taken to be the part


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to each part. make: called once in every process, picklable, for the function.

    outputs: the schema of each output. conserved: the outputs that together have each row that came in once; none if
    rows are multiplied.
    """

    name: str
    make: Callable[[], BatchFunction]
    outputs: Mapping[str, pa.Schema]
    conserved: tuple[str, ...]
    folder: Path
    version: str = __version__


def map_parts(
    table: Table, step: Step, into: Path, workers: int, picked: NDArray[np.bool_] | None = None
) -> dict[str, Table]:
    """The outputs of a step, each a table in a folder of its name below `into`; whole or not at all.

    workers: 1 does the work in this process. picked: only these rows of the table are given to the function.
    Raises TunesmithError when the function fails, or a row is unaccounted for.
    """
    with written_aside(into) as aside:
        aside.mkdir()
        here = replace(step, folder=aside.absolute())
        counts = _done(here, _jobs(table, picked), workers)
    return {name: _output(into / name, schema, name, counts) for name, schema in step.outputs.items()}


def _done(step: Step, jobs: dict[int, str], workers: int) -> list[dict[str, int]]:
    """The counts of each part in order, after each was done exactly once."""
    found: dict[int, dict[str, int]] = {}
    with progress(step.name, len(jobs)) as bar:
        for attempt in range(ATTEMPTS):
            left = [job for number, job in jobs.items() if number not in found]
            try:
                results = run_jobs(_work(step), left, workers) if workers > 1 else map(PartWork(step).do, left)
                for number, counts in _all_or_none(step, results):
                    found[number] = counts
                    bar.advance()
                break
            except RuntimeError as error:  # how Daft says that a process is gone
                if attempt == ATTEMPTS - 1 or workers == 1:
                    raise cluster_died(error, len(found), len(jobs)) from error
    assert sorted(found) == list(jobs), "every part has been done"
    return [found[number] for number in jobs]


def _all_or_none(step: Step, results: Iterator[str]) -> Iterator[tuple[int, dict[str, int]]]:
    """The counts of each part. When something fails, or someone stops it, the processes first come to rest."""
    try:
        for result in results:
            yield _counts(step, json.loads(result))
    except RuntimeError:  # the processes have ended already
        raise
    except BaseException:
        (step.folder / _STOPPED).touch()
        for _ in results:
            pass
        raise


def _counts(step: Step, result: dict[str, Any]) -> tuple[int, dict[str, int]]:
    if failed := result.get("error"):
        kind = getattr(errors, failed["kind"], None)
        if isinstance(kind, type) and issubclass(kind, TunesmithError) and kind is not errors.SupervisionError:
            raise kind(failed["message"])
        raise TunesmithError(
            f"step {step.name} failed on {result['file']}: {failed['kind']}: {failed['message']}. This is a bug of "
            f"Tunesmith, or of a function that was given to it:\n{failed['traceback']}"
        )
    counts: dict[str, int] = result["counts"]
    out = sum(counts[name] for name in step.conserved)
    if result["read"] != result["expected"] or (step.conserved and result["given"] != out):
        raise TunesmithError(
            f"step {step.name}: of {result['expected']:,} rows of {result['file']}, {result['read']:,} were read, "
            f"{result['given']:,} worked on, and {out:,} came out as {' or '.join(step.conserved) or 'anything'}: rows "
            f"are unaccounted for. If nothing changed the file meanwhile, this is a bug of Tunesmith; please report it."
        )
    return result["part"], counts


def _jobs(table: Table, picked: NDArray[np.bool_] | None) -> dict[int, str]:
    jobs = {}
    for number, (file, count, start) in enumerate(zip(table.files, table.counts, table.starts, strict=True)):
        job: dict[str, Any] = {"part": number, "file": str(file.absolute()), "start": start, "rows": count}
        if picked is not None:
            bits = picked[start : start + count]
            job["picked"] = None if bits.all() else base64.b64encode(np.packbits(bits).tobytes()).decode()
        jobs[number] = json.dumps(job)
    return jobs


def _output(folder: Path, schema: pa.Schema, name: str, counts: list[dict[str, int]]) -> Table:
    sizes = {part_path(folder, number): part[name] for number, part in enumerate(counts) if part[name]}
    return Table(tuple(sizes), tuple(sizes.values()), schema)


def _work(step: Step) -> type:
    """A class that needs no arguments, as each process makes it."""

    def start(self: PartWork) -> None:
        PartWork.__init__(self, step)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one to handle

    return type("Work", (PartWork,), {"__init__": start})


class PartWork:
    """What a process does. It answers with an error as with a result, since one that is raised would be tried again."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._function: BatchFunction | None = None

    def do(self, job: str) -> str:
        """The counts of a part, as JSON."""
        given = json.loads(job)
        if (self._step.folder / _STOPPED).exists():
            return "{}"
        try:
            if self._function is None:
                self._function = _made(self._step)
            return json.dumps(_do_part(self._step, self._function, given))
        except Exception as error:  # noqa: BLE001 - raised again where the step was asked for
            words = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
            return json.dumps({"file": given["file"], "error": words})


def _made(step: Step) -> BatchFunction:
    if step.version != __version__:
        raise errors.UserError(
            f"a machine of the cluster has Tunesmith {__version__}, and this run is of {step.version}. Install the "
            f"same version on all of them."
        )
    function = step.make()
    assert not inspect.iscoroutinefunction(function), "functions are synchronous: Daft does not limit those that wait"
    return function


def _do_part(step: Step, function: BatchFunction, job: dict[str, Any]) -> dict[str, Any]:
    file, place = Path(job["file"]), job["start"]
    if not file.exists():
        raise errors.UserError(
            f"{file} is not there. On a cluster, the folder of the run has to be on a file system that all machines "
            f"share."
        )
    picked = None
    if bits := job.get("picked"):
        picked = np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=job["rows"]).astype(bool)
    read = given = 0
    with ExitStack() as stack:
        outputs = {name: _Output(step.folder / name, job["part"], schema) for name, schema in step.outputs.items()}
        for output in outputs.values():
            stack.callback(output.forget)
        for batch in read_batches(file, None, BATCH_ROWS):
            now = batch if picked is None else batch.filter(pa.array(picked[read : read + batch.num_rows]))
            for name, rows in function(now, place + read).items() if now.num_rows else ():
                outputs[name].write(rows)
            read += batch.num_rows
            given += now.num_rows
        counts = {name: output.finish() for name, output in outputs.items()}
    return {"part": job["part"], "file": str(file), "expected": job["rows"], "read": read, "given": given} | {
        "counts": counts
    }


class _Output:
    """The file of a part of one output; there is none without rows."""

    def __init__(self, folder: Path, part: int, schema: pa.Schema) -> None:
        self._path, self._schema = part_path(folder, part), schema
        # Two processes may be at the same part for a moment, when one is taken for dead; their files are equal.
        self._aside = self._path.with_name(f".{self._path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self._file: pq.ParquetWriter | None = None
        self._rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            if self._file is None:
                self._path.parent.mkdir(exist_ok=True)
                self._file = pq.ParquetWriter(self._aside, self._schema, compression="zstd")
            self._file.write_batch(batch)
            self._rows += batch.num_rows

    def finish(self) -> int:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._aside.replace(self._path)
        return self._rows

    def forget(self) -> None:
        if self._file is not None:
            self._file.close()
        self._aside.unlink(missing_ok=True)
