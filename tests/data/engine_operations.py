"""Every operation of the engine on one small table; also run by itself, on a Ray cluster: ADDRESS FOLDER."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from tunesmith.data.curation.stage import Change, Outcome
from tunesmith.data.engine import Engine, run_stages, write_rows, write_table
from tunesmith.pocket.tasks import conversations

ROWS = 700
KEYS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("hash", pa.binary()),
        pa.field("bucket", pa.int64()),
        pa.field("words", pa.list_(pa.string())),
    ]
)


def keys():
    """Rows of keys with what is awkward in them: nulls, equal keys, empty lists, bytes that are no text."""
    return [
        {
            "id": f"row:{number}",
            "hash": None if number % 11 == 0 else bytes([255 - number % 7, number % 3]),
            "bucket": None if number % 13 == 0 else number * 37 % 50 - 25,
            "words": None if number % 5 == 0 else [f"w{word}" for word in range(number % 4)],
        }
        for number in range(ROWS)
    ]


def known():
    return [{"bucket": bucket, "title": f"bucket {bucket}"} for bucket in range(-25, 10)]


def curated():
    """Two stages: rows whose number is divisible by 3 are dropped, of the others those by 5 are changed."""

    def drop(row):
        number = int(row.id.split(":")[1])
        return Outcome.dropped("third", f"{number} divides by 3") if number % 3 == 0 else Outcome(row)

    def change(row):
        if int(row.id.split(":")[1]) % 5:
            return Outcome(row, flags=("plain",))
        return Outcome(renamed(row), changes=(Change("task renamed", row.task, "changed"),))

    return {"drop": drop, "change": change}


def renamed(row):
    return type(row)(row.id, row.messages, row.source, row.cluster, "changed", row.phrasing, row.item, row.tools)


def even_bucket():
    return lambda batch: [bucket is not None and bucket % 2 == 0 for bucket in batch.column("bucket").to_pylist()]


def doubled():
    def double(batch, place):
        twice = pa.array(np.arange(place, place + batch.num_rows) * 2)
        return {"kept": pa.record_batch([batch.column("id"), twice], schema=DOUBLED)}

    return double


DOUBLED = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("twice", pa.int64())])


def killing(flag):
    """The process that is given place 200 for the first time is killed, after it has written some of the part."""

    def keep(batch, place):
        if place == 200 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"kept": batch}

    return keep


def operations(engine, other, folder):
    """The result of each operation by name; what takes the road of map_batches a second time is done by the other."""
    batch = pa.RecordBatch.from_pylist(keys(), schema=KEYS)
    table = write_table(folder / "keys", [batch], KEYS, part_rows=100)
    titles = pa.schema([("bucket", pa.int64()), ("title", pa.string())])
    right = write_table(folder / "right", [pa.RecordBatch.from_pylist(known(), schema=titles)], titles)
    rows = write_rows(folder / "rows", conversations(3, 300))
    found = {"scan": engine.scan(table.files)}
    found |= {"map": engine.map_batches(table, doubled, folder / "map", {"kept": DOUBLED}, name="map")["kept"]}
    found["filter"], found["filtered"] = other.filter(table, even_bucket, folder / "filter", name="filter")
    found["explode"] = other.explode(table, "words", folder / "explode", name="explode")
    found["pick"] = other.pick(table, np.array([0, 99, 100, 350, 699]), folder / "pick", name="pick")
    found["distinct"] = engine.distinct(table, ["hash", "bucket"], folder / "distinct", name="distinct")
    aggregates = {"rows": ("count", "id"), "ids": ("list", "id"), "least": ("min", "bucket"), "sum": ("sum", "bucket")}
    found["group"] = engine.group(table, ["hash"], aggregates, folder / "group", name="group")
    found["sort"] = engine.sort(table, ["bucket"], folder / "sort", name="sort")
    for how in ("inner", "left", "semi", "anti"):
        found[how] = engine.join(table, right, ["bucket"], how, folder / how, name=how)
    staged = run_stages(engine, rows, curated, ["drop", "change"], folder / "staged")
    found |= {"kept": staged.kept, "dropped": staged.dropped, "changes": staged.changes, "flags": staged.flags}
    make = partial(killing, folder / "killed")
    found["killed"] = engine.map_batches(table, make, folder / "kill", {"kept": KEYS}, name="kill")["kept"]
    return found


def main(address, folder):
    engine = Engine(address, here_rows=0)
    for name, table in operations(engine, engine, folder).items():
        table.write(folder / "results" / f"{name}.parquet")


if __name__ == "__main__":
    # By its own name, so that the processes of the cluster find the functions where they are.
    from engine_operations import main as named

    named(sys.argv[1], Path(sys.argv[2]))
