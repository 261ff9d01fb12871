"""The token store gives back what was written, notices damage, and has the same bytes each time."""

import numpy as np
import pytest

from tunesmith.base.errors import TunesmithError
from tunesmith.tokens.encoded import Encoded
from tunesmith.tokens.store import FILES, TokenStore


def sequences(count, largest=5000, seed=0):
    random = np.random.default_rng(seed)
    for index in range(count):
        length = int(random.integers(2, 40))
        start = int(random.integers(1, length))
        ids = random.integers(0, largest, length).astype(np.int32)
        yield Encoded.from_spans(ids, ((1, start, length),)), f"src:{index}", f"cluster{index % 3}"


@pytest.mark.parametrize(
    ("vocabulary", "largest", "kind"), [(5000, 5000, "uint16"), (None, 5000, "int32"), (100_000, 99_999, "int32")]
)
def test_what_is_written_is_read(tmp_path, vocabulary, largest, kind):
    written = list(sequences(50, largest))
    store = TokenStore.write(tmp_path / "t", iter(written), {"key": "abc"}, vocabulary=vocabulary)
    assert len(store) == 50 and store.meta["key"] == "abc"
    assert list(store) == [encoded for encoded, _, _ in written]
    assert store.row_ids == [row for _, row, _ in written]
    assert store.clusters == [cluster for _, _, cluster in written]
    assert store.lengths.tolist() == [len(encoded) for encoded, _, _ in written]
    assert store.supervised_counts.tolist() == [encoded.supervised.sum() for encoded, _, _ in written]
    assert (tmp_path / "t/ids.bin").stat().st_size == store.tokens * np.dtype(kind).itemsize
    store.verify()


def test_many_clusters_over_several_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.tokens.store.ROWS_AT_ONCE", 2)
    one = Encoded.from_spans([1, 2], ((1, 1, 2),))
    store = TokenStore.write(tmp_path / "t", [(one, f"r{i}", f"c{i}") for i in range(5)], {})
    assert store.clusters == [f"c{i}" for i in range(5)] and store[4] == one


def test_same_sequences_same_bytes(tmp_path):
    for name in "ab":
        TokenStore.write(tmp_path / name, sequences(20), {})
    assert all(
        (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in (*FILES, "meta.json")
    )


def test_empty_store(tmp_path):
    store = TokenStore.write(tmp_path / "t", [], {})
    assert len(store) == 0 and store.row_ids == [] and store.tokens == 0


def test_a_failed_write_leaves_the_old_store(tmp_path):
    TokenStore.write(tmp_path / "t", sequences(5), {})

    def broken():
        yield from sequences(2)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        TokenStore.write(tmp_path / "t", broken(), {})
    assert len(TokenStore.open(tmp_path / "t")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_damage_is_noticed(tmp_path):
    store = TokenStore.write(tmp_path / "t", sequences(5), {})
    ids = tmp_path / "t/ids.bin"
    data = bytearray(ids.read_bytes())
    data[3] ^= 1
    ids.write_bytes(data)
    with pytest.raises(TunesmithError, match=r"ids\.bin is damaged"):
        store.verify()
    ids.write_bytes(data[:-1])
    with pytest.raises(TunesmithError, match="bytes"):
        TokenStore.open(tmp_path / "t")
    with pytest.raises(TunesmithError, match="no token store"):
        TokenStore.open(tmp_path / "elsewhere")


def test_index_out_of_range(tmp_path):
    store = TokenStore.write(tmp_path / "t", sequences(5), {})
    with pytest.raises(IndexError):
        store[5]
