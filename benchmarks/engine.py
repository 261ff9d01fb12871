"""A Python function over rows by the engine, beside the road of `map_chunks` and what else was weighed; peak memory.

    python benchmarks/engine.py [ROWS] [ROAD ...]

Each road reads conversations that lie in Parquet, gives each to the same function and writes those that it keeps to
Parquet. Memory is the sum of the proportional set sizes of all processes of a road, at its highest.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tunesmith.base.conversation import Conversation
from tunesmith.base.parallel import cores, map_chunks
from tunesmith.data.curation.stage import Outcome
from tunesmith.data.engine import SCHEMA, Engine, RowsWriter, StoredRows, Table, run_stages, write_rows
from tunesmith.data.engine.canonical import from_batch
from tunesmith.data.engine.runner import import_daft
from tunesmith.data.engine.table import read_batches
from tunesmith.pocket.tasks import conversations

WORD = re.compile(r"\w+")


def repetitive(row: Conversation) -> Outcome:
    """About what a stage of cleaning costs: words, their trigrams, how many of these are there again."""
    words = WORD.findall(" ".join(message.content for message in row.messages).casefold())
    grams = list(zip(words, words[1:], words[2:], strict=False))
    if len(grams) - len(set(grams)) > 0.3 * len(grams):
        return Outcome.dropped("repetitive", f"{len(set(grams))} of {len(grams)}")
    return Outcome(row)


def stages() -> dict[str, Callable[[Conversation], Outcome]]:
    return {"repetitive": repetitive}


def by_engine(table: Table, folder: Path) -> int:
    return len(run_stages(Engine(), table, stages, ["repetitive"], folder / "out").kept)


def by_map_chunks(table: Table, folder: Path) -> int:
    """Forked processes look rows up by place; those that are kept come back by their places, and are written here."""
    with StoredRows(table, folder / "stored") as rows, RowsWriter(folder / "out") as writer:
        for chunk in map_chunks(lambda chunk: [repetitive(row).row for row in chunk], rows, 1024, cores()):
            for row in chunk:
                if row is not None:
                    writer.append(row)
    return len(writer.table)


def by_pool(table: Table, folder: Path) -> int:
    """Arrow and multiprocessing, no more: the floor."""
    (folder / "out").mkdir()
    jobs = [(file, folder / "out" / file.name) for file in table.files]
    with multiprocessing.get_context("spawn").Pool(cores()) as pool:
        return sum(pool.imap_unordered(_part, jobs))


def _part(job: tuple[Path, Path]) -> int:
    kept = 0
    with pq.ParquetWriter(job[1], SCHEMA, compression="zstd") as file:
        for batch in read_batches(job[0]):
            keeps = pa.array([repetitive(row).row is not None for row in from_batch(batch)])
            file.write_batch(batch.filter(keeps))
            kept += keeps.true_count
    return kept


def by_dataflow(table: Table, folder: Path) -> int:
    """Rows through Daft itself, as its manual has it; their order is lost and then restored by a sort."""
    daft = import_daft()

    class Keep:
        @daft.method.batch(return_dtype=daft.DataType.bool(), batch_size=1024)
        def keep(self, *columns):
            arrays = [column.to_arrow().cast(field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            rows = from_batch(pa.RecordBatch.from_arrays(arrays, names=SCHEMA.names))
            return [repetitive(row).row is not None for row in rows]

    keep = daft.cls(Keep, max_concurrency=cores(), use_process=True)()
    kept = keep.keep(*(daft.col(name) for name in SCHEMA.names))
    frame = daft.read_parquet([str(file) for file in table.files]).with_column("kept", kept)
    frame.where(daft.col("kept")).exclude("kept").sort("id").write_parquet(str(folder / "out"))
    return sum(pq.read_metadata(file).num_rows for file in (folder / "out").rglob("*.parquet"))


ROADS = {"engine": by_engine, "map_chunks": by_map_chunks, "pool": by_pool, "dataflow": by_dataflow}


def measured(work: Callable[[], int]) -> tuple[int, float, float]:
    """What it returns, its seconds, and the most memory (MiB) of this process and those it started."""
    most, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        own = psutil.Process()
        while not done.wait(0.2):
            pss = 0
            for process in [own, *own.children(recursive=True)]:
                try:
                    pss += process.memory_full_info().pss
                except psutil.Error:
                    continue
            most = max(most, pss / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return result, seconds, most


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    if len(sys.argv) == 5 and sys.argv[2] == "one":
        folder = Path(sys.argv[4])
        table = Table.scan(sorted((folder / "rows").glob("*.parquet")))
        shutil.rmtree(folder / "out", ignore_errors=True)
        kept, seconds, most = measured(lambda: ROADS[sys.argv[3]](table, folder))
        print(f"{sys.argv[3]:11} {count / seconds:8,.0f} rows/s {most:7,.0f} MiB  {kept:,} kept", flush=True)
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_rows(Path(temporary) / "rows", conversations(1, count))
        for road in sys.argv[2:] or ROADS:  # each in a process of its own: Daft and memory are for the life of one
            environment = {**os.environ, "DO_NOT_TRACK": "1"}
            subprocess.run([sys.executable, __file__, str(count), "one", road, temporary], check=True, env=environment)


if __name__ == "__main__":
    main()
