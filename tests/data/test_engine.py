"""The engine: each operation against plain Python, on both runners; the faults of Daft; processes that die."""

import importlib.util
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from itertools import groupby
from pathlib import Path

import engine_operations as given
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError, TunesmithError, UserError
from tunesmith.base.parallel import map_chunks
from tunesmith.data.curation.stage import Outcome
from tunesmith.data.engine import (
    SCHEMA,
    Engine,
    StoredRows,
    Table,
    labels_of,
    relations,
    rows_of,
    run_stages,
    runner,
    write_rows,
    write_table,
)
from tunesmith.data.engine.canonical import from_batch, to_batch
from tunesmith.data.rows import Rows
from tunesmith.pocket.tasks import conversations

HERE = Path(__file__).parent
HAS_RAY = importlib.util.find_spec("ray") is not None
NUMBERS = pa.schema([("n", pa.int64())])


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The processes of the engine find the functions of these tests where this one does."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The results of all operations with two processes on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        return given.operations(Engine(processes=2, here_rows=0), Engine(), tmp_path_factory.mktemp("native"))


def numbers(folder, count, part_rows=100):
    batch = pa.RecordBatch.from_pydict({"n": list(range(count))}, NUMBERS)
    return write_table(folder, [batch], NUMBERS, part_rows)


def last(value):
    """Sorts null behind all else."""
    return (value is None, value)


# Each operation


def expected():
    """The results, by plain Python."""
    rows, titles = given.keys(), {row["bucket"]: row["title"] for row in given.known()}
    by_hash = [list(of) for _, of in groupby(sorted(rows, key=lambda r: last(r["hash"])), key=lambda r: r["hash"])]
    by_bucket = sorted(rows, key=lambda row: (last(row["bucket"]), row["id"], last(row["hash"])))
    buckets = [[row["bucket"] for row in of if row["bucket"] is not None] for of in by_hash]
    pairs = {(row["hash"], row["bucket"]) for row in rows}
    return {
        "scan": rows,
        "map": [{"id": row["id"], "twice": 2 * place} for place, row in enumerate(rows)],
        "filter": [row for row in rows if row["bucket"] is not None and row["bucket"] % 2 == 0],
        "filtered": [row for row in rows if row["bucket"] is None or row["bucket"] % 2],
        "explode": [row | {"words": word} for row in rows for word in row["words"] or [None]],
        "pick": [rows[place] for place in (0, 99, 100, 350, 699)],
        "distinct": [
            {"hash": one, "bucket": two} for one, two in sorted(pairs, key=lambda pair: (last(pair[0]), last(pair[1])))
        ],
        "group": [
            {"hash": of[0]["hash"], "rows": len(of), "ids": sorted(row["id"] for row in of)}
            | {"least": min(known), "sum": sum(known)}
            for of, known in zip(by_hash, buckets, strict=True)
        ],
        "sort": by_bucket,
        "inner": [row | {"title": titles[row["bucket"]]} for row in by_bucket if row["bucket"] in titles],
        "left": [row | {"title": titles.get(row["bucket"])} for row in by_bucket],
        "semi": [row for row in by_bucket if row["bucket"] in titles],
        "anti": [row for row in by_bucket if row["bucket"] not in titles],
        "killed": rows,
    }


@pytest.mark.parametrize("name", expected())
def test_operations_give_what_plain_python_gives_in_that_order(native, name):
    assert native[name].read().to_pylist() == expected()[name]


def test_rows_go_through_stages_in_order_and_all_is_recorded(native):
    rows = {int(row.id.split(":")[1]): row for row in conversations(3, 300)}
    kept = {number: row for number, row in rows.items() if number % 3}
    changed = [number for number in kept if number % 5 == 0]
    assert list(rows_of(native["kept"])) == [
        given.renamed(row) if number in changed else row for number, row in kept.items()
    ]
    assert native["dropped"].read().to_pylist() == [
        {"row": row.id, "stage": "drop", "reason": "third", "detail": f"{number} divides by 3"}
        for number, row in rows.items()
        if number % 3 == 0
    ]
    assert native["changes"].read().to_pylist() == [
        {"row": rows[n].id, "stage": "change", "what": "task renamed", "before": rows[n].task, "after": "changed"}
        for n in changed
    ]
    assert native["flags"].read(["row"])["row"].to_pylist() == [rows[n].id for n in kept if n not in changed]


def test_the_number_of_processes_changes_nothing(native, tmp_path):
    (tmp_path / "killed").touch()  # or this process would be
    alone = given.operations(Engine(), Engine(), tmp_path)
    assert {name: table.read() for name, table in alone.items()} == {
        name: table.read() for name, table in native.items()
    }
    files = [[file.read_bytes() for file in of["kept"].files] for of in (alone, native)]
    assert files[0] == files[1]


def test_a_table_is_one_parquet_file_if_asked(native, tmp_path):
    native["sort"].write(tmp_path / "deep" / "all.parquet")
    assert pq.read_table(tmp_path / "deep" / "all.parquet").to_pylist() == expected()["sort"]


def test_operations_on_no_rows_at_all_give_none(tmp_path):
    engine, empty = Engine(), write_table(tmp_path / "empty", [], given.KEYS)
    assert not len(empty)
    assert not len(engine.filter(empty, given.even_bucket, tmp_path / "filter", name="filter")[0])
    assert not len(engine.sort(empty, ["id"], tmp_path / "sort", name="sort"))
    assert not len(engine.distinct(empty, ["id"], tmp_path / "distinct", name="distinct"))
    some = numbers(tmp_path / "some", 3)
    assert len(engine.join(some, numbers(tmp_path / "none", 0), ["n"], "anti", tmp_path / "anti", name="anti")) == 3


# Rows as Parquet

texts = st.text(st.characters(exclude_categories=()), max_size=8)  # halves of surrogate pairs among them
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
objects = st.dictionaries(texts, values, max_size=2)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool", "text"]),
    content=texts,
    reasoning=st.none() | texts,
    tool_calls=st.lists(objects, max_size=2).map(tuple),
    name=st.none() | texts,
    tool_call_id=st.none() | texts,
    train=st.none() | st.booleans(),
)
rows = st.builds(
    Conversation,
    id=texts,
    messages=st.lists(messages, max_size=3).map(tuple),
    **dict.fromkeys(("source", "cluster", "task", "phrasing", "item"), texts),
    tools=st.lists(objects, max_size=1).map(tuple),
    extra=objects,
)


@drawn(st.lists(rows, max_size=4))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_rows_come_back_from_arrow_as_they_were(given_rows):
    batch = to_batch(given_rows)
    batch.validate(full=True)
    back = from_batch(batch)
    assert back == given_rows
    assert [row.to_json() for row in back] == [row.to_json() for row in given_rows]  # 1 is not 1.0, None not ""
    assert batch.column("prompt_key").to_pylist() == [row.prompt_key for row in given_rows]


@drawn(st.lists(rows, min_size=1, max_size=4))
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
def test_labels_and_rows_by_place_are_those_of_the_rows_given(tmp_path, given_rows):
    table = write_rows(tmp_path / "rows", given_rows)
    with Rows(tmp_path / "old") as old:
        assert list(labels_of(table)) == [old.append(row) for row in given_rows]
    with StoredRows(table, tmp_path / "stored") as stored:
        assert list(stored) == given_rows
    assert Table.scan(table.files) == table


def test_rows_are_found_by_place(tmp_path):
    made = list(conversations(5, 2500))
    table = write_table(tmp_path / "rows", [to_batch(made)], SCHEMA, part_rows=1100)
    with StoredRows(table, tmp_path / "stored") as stored:
        order = random.Random(0).choices(range(2500), k=300)
        assert [stored[place] for place in order] == [made[place] for place in order]
        assert stored[1000:2300:7] == made[1000:2300:7] and len(stored) == 2500
        places = [5, 1200, 1201, 2400]
        assert stored.picked(places)[1:] == [made[place] for place in places[1:]]
        assert [row for chunk in map_chunks(list, stored, 100, 2) for row in chunk] == made
        with pytest.raises(IndexError, match="row 2500 of 2500"):
            stored[2500]
    assert not (tmp_path / "stored").exists()


def test_stages_look_at_some_places_only_if_asked(tmp_path):
    table = write_rows(tmp_path / "rows", conversations(5, 2500))
    places = [5, 1200, 1201, 2400]
    few = run_stages(Engine(), table, given.curated, ["drop", "change"], tmp_path / "few", places=np.array(places))
    assert [row.id for row in rows_of(few.kept)] == [f"pocket:{place + 1}" for place in places if (place + 1) % 3]
    assert few.steps["drop"][0] == 4 and sum(len(table) for table in (few.kept, few.dropped)) == 4


def test_rows_are_readable_by_any_tool(tmp_path):
    calls = ({"name": "add", "arguments": {"a": [1, {"b": None}]}},)
    row = Conversation("s:1", (Message("user", "Add."), Message("assistant", "", tool_calls=calls)), "s")
    write_rows(tmp_path / "rows", [row])
    [read] = pq.read_table(tmp_path / "rows").to_pylist()
    assert read["messages"][0] == {
        **dict.fromkeys(("reasoning", "tool_calls", "name", "tool_call_id", "train")),
        "role": "user",
        "content": "Add.",
    }
    assert json.loads(read["messages"][1]["tool_calls"]) == list(calls)


def test_long_rows_make_parts_of_fewer_rows(tmp_path):
    long = "x" * (1 << 20)
    table = write_rows(tmp_path / "rows", (Conversation.from_text(f"t:{n}", long) for n in range(3000, 3100)))
    assert len(table.files) == 1 and table.counts == (100,)  # one batch
    few = write_table(tmp_path / "few", table.batches(size=10), SCHEMA)
    assert max(few.counts) <= 40 and len(few) == 100


def test_files_that_are_no_table_are_refused(tmp_path):
    one = numbers(tmp_path / "one", 3).files[0]
    other = write_table(tmp_path / "other", [pa.RecordBatch.from_pydict({"m": [1]})], pa.schema([("m", pa.int64())]))
    with pytest.raises(DataError, match=r"has other columns than .*m: int64 where n: int64 is expected"):
        Table.scan([one, *other.files])
    (tmp_path / "text.parquet").write_text("not Parquet")
    with pytest.raises(DataError, match=r"text.parquet can't be read as Parquet"):
        Table.scan([tmp_path / "text.parquet"])
    with pytest.raises(DataError, match="no files"):
        Table.scan([])


# Rows are accounted for


def losing():
    return lambda batch, place: {"kept": batch.slice(1) if place == 200 else batch}


def twice():
    return lambda batch, place: {"kept": batch, "dropped": batch.slice(0, 1)}


@pytest.mark.parametrize("make", [losing, twice])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_function_that_loses_or_doubles_rows_is_told_of_by_its_name(tmp_path, make, processes):
    table, engine = numbers(tmp_path / "n", 500), Engine(processes=processes, here_rows=0)
    outputs = {"kept": NUMBERS, "dropped": NUMBERS}
    with pytest.raises(TunesmithError, match="step thinning: of 100 rows"):
        engine.map_batches(table, make, tmp_path / "out", outputs, name="thinning")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n"]


@pytest.mark.parametrize("operation", ["sort", "distinct", "group", "join"])
@pytest.mark.parametrize("change", [lambda batch: batch.slice(1), lambda batch: pa.concat_batches([batch, batch])])
def test_rows_that_daft_loses_or_doubles_are_told_of(tmp_path, monkeypatch, operation, change):
    ordered = relations._ordered
    monkeypatch.setattr(relations, "_ordered", lambda *given: map(change, ordered(*given)))
    table, engine = numbers(tmp_path / "n", 50), Engine()
    calls = {
        "sort": partial(engine.sort, table, ["n"]),
        "distinct": partial(engine.distinct, table, ["n"]),
        "group": partial(engine.group, table, ["n"], {"rows": ("count", "n")}),
        "join": partial(engine.join, table, table, ["n"], "semi"),
    }
    with pytest.raises(TunesmithError, match=r"step keys: 50 rows went in and (49|100) are accounted for"):
        calls[operation](tmp_path / "out", name="keys")
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_looked_up_and_there_twice_is_told_of(tmp_path):
    right = write_table(tmp_path / "r", [pa.RecordBatch.from_pydict({"n": [3, 3]}, NUMBERS)], NUMBERS)
    with pytest.raises(TunesmithError, match="step lookup: 5 rows went in and 6 are accounted for"):
        Engine().join(numbers(tmp_path / "n", 5), right, ["n"], "left", tmp_path / "out", name="lookup")


def test_a_file_that_changed_since_it_was_scanned_is_told_of(tmp_path):
    table = numbers(tmp_path / "n", 300)
    pq.write_table(pa.table({"n": [1, 2]}, NUMBERS), table.files[1])
    with pytest.raises(TunesmithError, match=r"step look: of 100 rows of .*part-000001.parquet, 2 were read"):
        Engine().filter(table, positive, tmp_path / "out", name="look")
    with pytest.raises(TunesmithError, match="had 100 rows and now has 2"):
        table.read()


def positive():
    return lambda batch: [n >= 0 for n in batch.column("n").to_pylist()]


def failing():
    def fail(batch, place):
        if place == 200:
            raise ValueError("no such thing")
        return {"kept": batch}

    return fail


def refusing():
    def refuse(batch, place):
        raise DataError("the data are at fault")

    return refuse


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_of_functions_come_out_and_nothing_is_left(tmp_path, processes):
    table, engine = numbers(tmp_path / "n", 500), Engine(processes=processes, here_rows=0)
    with pytest.raises(
        TunesmithError, match=r"step halving failed on .*part-000002.parquet: ValueError: no such thing"
    ):
        engine.map_batches(table, failing, tmp_path / "out", {"kept": NUMBERS}, name="halving")
    with pytest.raises(DataError, match=r"^the data are at fault$"):
        engine.map_batches(table, refusing, tmp_path / "out", {"kept": NUMBERS}, name="halving")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n"]


def no_reason():
    return {"silent": lambda row: Outcome(None)}


def other_id():
    return {"silent": lambda row: Outcome(Conversation("other", row.messages))}


def broken():
    return {"silent": lambda row: row.nothing}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_reason, "stage silent dropped row pocket:1 without a reason"),
        (other_id, "stage silent made row other of row pocket:1"),
        (broken, "stage silent failed on row pocket:1: AttributeError"),
    ],
)
def test_stages_that_break_their_word_are_told_of(tmp_path, make, words):
    table = write_rows(tmp_path / "rows", conversations(0, 3))
    with pytest.raises(TunesmithError, match=words):
        run_stages(Engine(), table, make, ["silent"], tmp_path / "out")


# Processes that die


def killed_always():
    def kill(batch, place):
        if place == 200:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"kept": batch}

    return kill


def test_a_part_whose_process_is_killed_is_done_again_and_nothing_twice(native):
    folder = native["killed"].files[0].parent
    assert sorted(path.name for path in folder.iterdir()) == [file.name for file in native["killed"].files]
    assert (folder.parents[1] / "killed").exists()  # it was


@pytest.mark.slow
def test_a_part_that_always_kills_its_process_ends_the_step_and_leaves_nothing(tmp_path):
    table = numbers(tmp_path / "n", 500)
    with pytest.raises(TunesmithError, match="ended from outside again and again"):
        Engine(processes=2, here_rows=0).map_batches(
            table, killed_always, tmp_path / "out", {"kept": NUMBERS}, name="kill"
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n"]


def slow(started):
    def wait(batch, place):
        started.touch()
        time.sleep(0.3)
        return {"kept": batch}

    return wait


def interrupted(folder):
    """Run in a process of its own."""
    table = numbers(folder / "n", 2000)
    Engine(processes=2, here_rows=0).map_batches(
        table, partial(slow, folder / "started"), folder / "out", {"kept": NUMBERS}, name="slow"
    )


def test_ctrl_c_is_heard_and_leaves_nothing(tmp_path):
    call = f"from test_engine import interrupted; from pathlib import Path; interrupted(Path({str(tmp_path)!r}))"
    child = subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.PIPE, start_new_session=True)
    wait_for(tmp_path / "started")
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGINT and b"KeyboardInterrupt" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n", "started"]


def wait_for(path, seconds=30):
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert path.exists()


# The faults of Daft that were reproduced (docs/engine.md)


def test_groups_are_all_there_and_counted_right(tmp_path):
    """Daft: keeping only the key after a group-by loses rows, and count_rows after it is wrong."""
    batch = pa.RecordBatch.from_pydict({"n": [n * 7919 % 30_011 for n in range(60_022)]}, NUMBERS)
    table, engine = write_table(tmp_path / "n", [batch], NUMBERS), Engine()
    found = engine.distinct(table, ["n"], tmp_path / "distinct", name="distinct")
    assert len(found) == 30_011 and found.read()["n"].to_pylist() == list(range(30_011))
    groups = engine.group(table, ["n"], {"rows": ("count", "n")}, tmp_path / "group", name="group")
    assert len(groups) == 30_011 and set(groups.read()["rows"].to_pylist()) == {2}


@pytest.mark.parametrize("operation", ["sort", "distinct", "group", "join"])
def test_large_tables_go_through_in_ranges_with_the_same_result(native, tmp_path, operation):
    """Daft: a large sort or group takes memory for all of it."""
    table, right = native["scan"], native["distinct"]
    wanted = {"least": ("min", "id"), "all": ("list", "bucket")}
    calls = {
        "sort": partial(relations.sort, table, ["hash"]),
        "distinct": partial(relations.distinct, table, ["bucket", "hash"]),
        "group": partial(relations.group, table, ["bucket", "hash"], wanted),
        "join": partial(relations.join, table.scan(table.files), right, ["hash", "bucket"], "left"),
    }
    whole = calls[operation](tmp_path / "whole", "keys")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        ordered = relations._ordered
        patch.setattr(relations, "_ordered", lambda *given: seen.append(1) or ordered(*given))
        parts = calls[operation](tmp_path / "parts", "keys", range_rows=100)
    assert len(seen) > 3 and parts.read() == whole.read()


def test_ranges_of_a_key_that_is_always_the_same_lose_nothing(tmp_path):
    for name, value in (("null", None), ("one", 1)):
        batch = pa.RecordBatch.from_pydict({"n": [value] * 50}, NUMBERS)
        table = write_table(tmp_path / name, [batch], NUMBERS)
        assert len(relations.sort(table, ["n"], tmp_path / f"{name} sorted", "sort", range_rows=10)) == 50
        assert len(relations.distinct(table, ["n"], tmp_path / f"{name} different", "d", range_rows=10)) == 1


def test_text_is_not_sorted(tmp_path):
    table = write_rows(tmp_path / "rows", (Conversation.from_text(f"t:{n}", "long " * 500) for n in range(100)))
    with pytest.raises(AssertionError, match="text is picked by place"):
        Engine().sort(table, ["id"], tmp_path / "sorted", name="sort")


def waiting():
    async def wait(batch, place):
        return {"kept": batch}

    return wait


def test_functions_that_wait_are_refused(tmp_path):
    """Daft: asynchronous functions are not limited, and one that fails makes all of its batch null."""
    with pytest.raises(TunesmithError, match="functions are synchronous"):
        Engine().map_batches(numbers(tmp_path / "n", 5), waiting, tmp_path / "out", {"kept": NUMBERS}, name="wait")


def test_nobody_is_told_of_its_use(tmp_path):
    """Daft: it reports its import and its runner, unless told not to."""
    numbers(tmp_path / "n", 500)
    code = f"""
import socket, sys, threading
from pathlib import Path
tried = []
calls = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, given: tried.append(given) if event in calls else None)
from tunesmith.data.engine import Engine, Table
folder = Path({str(tmp_path)!r})
Engine().distinct(Table.scan(sorted((folder / "n").iterdir())), ["n"], folder / "out", name="distinct")
for thread in threading.enumerate():
    if thread is not threading.current_thread(): thread.join(3)
print(tried)
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("DO_NOT_TRACK",)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_engine_is_imported_without_daft_or_torch():
    heavy = ("daft", "ray", "torch", "transformers")
    code = f"import sys, tunesmith.data.engine; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# Ray


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setattr(runner, "_runner", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)


@pytest.mark.parametrize("address", ["cluster", "cluster:", ":6379", "cluster:70000", "cluster:port"])
def test_what_is_no_address_is_refused(token, address):
    with pytest.raises(UserError, match=r"is no address. Write HOST:PORT"):
        Engine(address)


def test_an_address_where_nobody_listens_is_told_of_at_once(token):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        start = time.monotonic()
        with pytest.raises(UserError, match=r"no Ray cluster answers at 127.0.0.1:\d+ \(.*refused"):
            Engine(f"127.0.0.1:{unused.getsockname()[1]}")
        assert time.monotonic() - start < 5


@pytest.mark.skipif(not HAS_RAY, reason="needs ray: pip install 'tunesmith[ray]'")
def test_an_address_that_does_not_speak_is_told_of_within_the_limit(token, monkeypatch):
    monkeypatch.setattr(runner, "JOINED_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(UserError, match=r"takes no client in \(no answer in 1 s\)"):
            Engine(f"127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - start < 10


def test_a_cluster_without_a_token_is_refused(token, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(UserError, match="RAY_AUTH_MODE is disabled, so the cluster would take anyone's code"):
        Engine("127.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no token for the Ray cluster"):
        Engine("127.0.0.1:6379")


def test_ray_that_is_not_installed_is_told_of(token, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tunesmith\[ray\]'"):
        Engine("127.0.0.1:6379")


def test_one_process_has_one_runner(token, monkeypatch):
    monkeypatch.setattr(runner, "_runner", "native")
    with pytest.raises(UserError, match=r"can't become 10.0.0.5:6379"):
        Engine("10.0.0.5:6379")


CLUSTER = """
import ray, sys
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, _temp_dir=sys.argv[1])
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["token"])
def cluster(request, tmp_path_factory, monkeypatch):
    """The address of a cluster on this machine's loopback, with a token, which ends with the test."""
    monkeypatch.setenv("RAY_AUTH_MODE", request.param)
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on Linux too: nothing but loopback
    command = [sys.executable, "-c", CLUSTER, str(tmp_path_factory.mktemp("ray", numbered=True))]
    head = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield head.stdout.readline().decode().strip()
    finally:
        head.stdin.close()  # which it waits for
        head.wait(timeout=30)
        head.stdout.close()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="needs ray: pip install 'tunesmith[ray]'")
def test_ray_gives_the_same_bytes(native, tmp_path, cluster, monkeypatch):
    assert cluster.startswith("127.0.0.1:")
    command = [sys.executable, str(HERE / "engine_operations.py"), cluster, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "killed").exists()
    for name, table in native.items():
        table.write(tmp_path / "native" / f"{name}.parquet")
        same = [(tmp_path / side / f"{name}.parquet").read_bytes() for side in ("native", "results")]
        assert same[0] == same[1], name
    wrong = {**os.environ, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, env=wrong)
    assert refused.returncode and "takes no client in" in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="needs ray: pip install 'tunesmith[ray]'")
@pytest.mark.parametrize("cluster", ["disabled"], indirect=True)
def test_a_cluster_that_asks_for_no_token_is_refused(cluster, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    code = f"from tunesmith.data.engine import Engine; Engine({cluster!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode and "asks for no token (its RAY_AUTH_MODE is disabled)" in done.stderr
