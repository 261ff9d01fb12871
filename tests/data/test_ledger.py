import pytest

from tunesmith.base.errors import TunesmithError
from tunesmith.data.ledger import Drop, Ledger


def filled(folder):
    ledger = Ledger(folder)
    drops = [Drop("a:1", "read", "bad_json", "line 1: \udc80"), Drop("a:4", "read", "bad_json")]
    ledger.step("read", 4, 2, drops, changed=1, note="mended")
    ledger.step("split", 2, 1, [Drop("a:3", "split", "held_out", "a:2 is trained")])
    ledger.place("a:2", "train")
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
    with pytest.raises(TunesmithError, match="a:2"):
        ledger.place("a:2", "new_items")
    with pytest.raises(TunesmithError, match="a:1"):
        ledger.place("a:1", "train")
    ledger.place("a:2", "train")
    assert len(ledger.summary()) == 2


def test_no_ledger_is_said(tmp_path):
    with pytest.raises(TunesmithError, match="no readable ledger"):
        Ledger.load(tmp_path)
    filled(tmp_path).save()
    (tmp_path / "drops.parquet").write_bytes(b"PAR1")
    with pytest.raises(TunesmithError, match="no readable ledger"):
        Ledger.load(tmp_path)
