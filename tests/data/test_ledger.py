from collections import Counter
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from tunesmith.base.errors import DataError, TunesmithError
from tunesmith.data.engine import write_table
from tunesmith.data.ledger import Drop, Ledger, _hashes, refuse_same_ids


def filled(folder):
    ledger = Ledger(folder)
    drops = [Drop("a:1", "read", "bad_json", "line 1: \udc80"), Drop("a:4", "read", "bad_json")]
    ledger.step("read", 4, 2, drops, changed=1, note="mended")
    ledger.step("split", 2, 1, [Drop("a:3", "split", "held_out", "a:2 is trained")])
    ledger.place(["a:2"], "train")
    return ledger


def test_the_ledger_comes_back_as_it_was_saved(tmp_path):
    before = filled(tmp_path / "ledger")
    before.save()
    after = Ledger.load(tmp_path / "ledger")
    assert after.summary() == before.summary()
    assert after.summary()[0] == {
        "stage": "read",
        "read": 4,
        "kept": 2,
        "dropped": 2,
        "reasons": {"bad_json": 2},
        "changed": 1,
        "note": "mended",
    }
    assert after.story("a:2") == ["kept, and used for train"]
    assert after.story("a:3") == ["dropped by stage split: held_out (a:2 is trained)"]
    assert "udc80" in after.story("a:1")[0]
    assert after.story("b:9") == []
    assert sorted(file.name for file in (tmp_path / "ledger").iterdir()) == [
        "drops.parquet",
        "places.parquet",
        "steps.json",
    ]


def test_an_empty_ledger_can_be_saved(tmp_path):
    Ledger(tmp_path).save()
    assert Ledger.load(tmp_path).summary() == []


def test_rows_that_vanish_are_an_error(tmp_path):
    for read, kept in ((3, 1), (1, 1), (0, 0)):
        with pytest.raises(TunesmithError, match="unaccounted"):
            Ledger(tmp_path).step("read", read, kept, [Drop("a:1", "read", "x")])


def test_a_row_has_one_fate(tmp_path):
    ledger = filled(tmp_path)
    with pytest.raises(TunesmithError, match="a:3"):
        ledger.step("supervise", 1, 0, [Drop("a:3", "supervise", "too_long")])
    with pytest.raises(TunesmithError, match="a:2"):
        ledger.step("supervise", 1, 0, [Drop("a:2", "supervise", "too_long")])
    with pytest.raises(TunesmithError, match="b:1"):
        ledger.step("read b", 2, 0, [Drop("b:1", "read", "x")] * 2)
    for row in ("a:1", "a:2"):
        for where in ("new_items", "train"):
            with pytest.raises(TunesmithError, match=row):
                ledger.place(["a:9", row], where)
    with pytest.raises(DataError, match="two rows have the id a:8"):
        ledger.place(["a:7", "a:8", "a:8"], "train")
    assert len(ledger.summary()) == 2 and ledger.places().to_pylist() == [{"row": "a:2", "place": "train"}]


@pytest.mark.parametrize("hashes", [None, 40])
def test_columns_say_what_objects_say(tmp_path, monkeypatch, hashes):
    """Many random rows, a third of them dropped by several stages as objects or as a table, against plain dicts.

    hashes: how many different ones there are, so that what is not the same is told apart by its text.
    """
    if hashes:
        plain = _hashes
        monkeypatch.setattr("tunesmith.data.ledger._hashes", lambda rows: plain(rows) % hashes)
    rng = np.random.default_rng(0)
    ledger, fates, left = Ledger(tmp_path), {}, [f"s:{number}" for number in rng.permutation(5000)]
    for number, stage in enumerate(["read", "filter", "dedup"]):
        gone, read = set(rng.choice(left, len(left) // 8, replace=False).tolist()), len(left)
        drops = [Drop(row, stage, f"reason_{hash(row) % 3}", f"for {row}") for row in left if row in gone]
        left = [row for row in left if row not in gone]
        table = pa.Table.from_pylist([asdict(drop) for drop in drops])
        ledger.step(stage, read, len(left), table if number % 2 else iter(drops))
        fates |= {drop.row: drop for drop in drops}
        assert ledger.summary()[-1]["reasons"] == dict(Counter(drop.reason for drop in drops))
    places = {where: left[start::3] for start, where in enumerate(["train", "new_items", "replay"])}
    for where, rows in places.items():
        ledger.place(rows, where)
    for row in (left[17], next(iter(fates))):
        with pytest.raises(TunesmithError, match=f"row {row} "):
            ledger.place(["s:none", row], "validation")
        with pytest.raises(TunesmithError, match=f"row {row},"):
            ledger.step("supervise", 2, 0, [Drop("s:none", "supervise", "x"), Drop(row, "supervise", "x")])
    ledger.save()
    after = Ledger.load(tmp_path)
    for row in rng.choice(5000, 50, replace=False):
        fate = after.fate(f"s:{row}")
        where = next((where for where, rows in places.items() if f"s:{row}" in rows), None)
        assert (fate.drop, fate.place) == (fates.get(f"s:{row}"), where)
    assert {row["row"]: row["place"] for row in after.places().to_pylist()} == {
        row: where for where, rows in places.items() for row in rows
    }
    for reason in ("reason_0", "reason_1"):
        examples = after.examples(reason, 20)
        assert len({drop.row for drop in examples}) == 20 and examples == ledger.examples(reason, 20)
        assert all(fates[drop.row] == drop and drop.reason == reason for drop in examples)


def test_what_is_remarked_is_the_ledgers_once_it_is_saved(tmp_path):
    schema = pa.schema([(name, pa.string()) for name in ("row", "stage", "what", "before", "after")])
    flags = pa.schema([(name, pa.string()) for name in ("row", "stage", "flag")])

    def remarked(ledger, before):
        one = pa.RecordBatch.from_pylist([dict(zip(schema.names, ("a:2", "clean", "x", before, "b"), strict=True))])
        changes = write_table(tmp_path / f"changes {before}", [one], schema)
        ledger.remark(changes, write_table(tmp_path / f"flags {before}", [], flags))
        return ledger

    remarked(filled(tmp_path), "first").save()
    assert "'first' -> 'b'" in Ledger.load(tmp_path).story("a:2")[0]
    unsaved = remarked(filled(tmp_path), "second")  # of a run that dies
    assert "'second' -> 'b'" in unsaved.story("a:2")[0] and "'first'" in Ledger.load(tmp_path).story("a:2")[0]
    filled(tmp_path).save()  # of a run without such stages
    assert len(Ledger.load(tmp_path).story("a:2")) == 1


def test_two_rows_of_one_id_are_refused():
    refuse_same_ids(f"s:{number}" for number in range(1000))
    with pytest.raises(DataError, match=r"two rows have the id s:7,.*name"):
        refuse_same_ids([*(f"s:{number}" for number in range(1000)), "s:7"])


def test_no_ledger_is_said(tmp_path):
    with pytest.raises(TunesmithError, match="no readable ledger"):
        Ledger.load(tmp_path)
    filled(tmp_path).save()
    (tmp_path / "drops.parquet").write_bytes(b"PAR1")
    with pytest.raises(TunesmithError, match="no readable ledger"):
        Ledger.load(tmp_path)
