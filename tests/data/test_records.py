import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesmith.base.errors import DataError
from tunesmith.data.sources.messages import Rejected
from tunesmith.data.sources.records import LONG, cut, file_kind, read_records

ROWS = [{"a": 1, "b": "x\ny"}, {"a": 2, "b": "ü\u2028"}, {"a": 3, "b": ["list", {"of": None}]}]


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(r.number, r.value.reason if isinstance(r.value, Rejected) else r.value) for r in read_records(path)]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_jsonl_numbers_are_lines(tmp_path, bom, newline):
    text = newline.join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    step = 2 if newline == "\n\n" else 1
    assert read(tmp_path / "a.jsonl", bom + text.encode()) == [(1 + i * step, row) for i, row in enumerate(ROWS)]


def test_jsonl_fault_costs_one_row(tmp_path):
    huge = '{"n": ' + "9" * 5000 + "}"
    deep = "[" * 100_000
    lines = ['{"a": 1}', '{"a": ', "nonsense", huge, deep, '\ufeff{"a": 2}', '{"n": 123456789012345678901234567890}']
    assert read(tmp_path / "a.jsonl", "\n".join(lines)) == [
        (1, {"a": 1}),
        (2, "bad_json"),
        (3, "bad_json"),
        (4, "bad_json"),
        (5, "bad_json"),
        (6, {"a": 2}),
        (7, {"n": 123456789012345678901234567890}),
    ]


@pytest.mark.parametrize(("indent", "name"), [(None, "a.json"), (2, "a.json"), (4, "a.json"), (2, "a.jsonl")])
def test_json_arrays_under_either_name(tmp_path, indent, name):
    assert read(tmp_path / name, json.dumps(ROWS, indent=indent)) == list(enumerate(ROWS, 1))


def test_a_jsonl_line_may_be_a_list_of_messages(tmp_path):
    line = [{"role": "user", "content": "x"}]
    assert read(tmp_path / "a.jsonl", json.dumps(line) + "\n" + json.dumps(line)) == [(1, line), (2, line)]


def test_json_that_is_jsonl_or_an_object(tmp_path):
    lines = "\n".join(map(json.dumps, ROWS))
    assert [value for _, value in read(tmp_path / "a.json", lines)] == ROWS
    assert [value for _, value in read(tmp_path / "b.json", json.dumps({"version": 1, "data": ROWS}))] == ROWS
    row = {"messages": [{"role": "user", "content": "x"}]}
    assert read(tmp_path / "c.json", json.dumps(row)) == [(1, row)]
    assert read(tmp_path / "d.json", " \n") == []


def test_json_array_fault_costs_one_element(tmp_path):
    rows = [{"n": number, "inner": [{"x": 1}, {"y": 2}]} for number in range(5)]
    for indent, name in ((2, "pretty"), (None, "lines")):
        text = json.dumps(rows, indent=2) if indent else "[" + ",\n".join(map(json.dumps, rows)) + "]"
        broken = text.replace('"n": 2', '"n": 2 oops')
        assert broken != text
        expected = [(n + 1, row if n != 2 else "bad_json") for n, row in enumerate(rows)]
        assert read(tmp_path / f"{name}.json", broken) == expected


def test_truncated_json_array_says_so(tmp_path):
    text = json.dumps([{"a": 1}, {"a": 2}], indent=1)
    assert read(tmp_path / "a.json", text[:-6]) == [(1, {"a": 1}), (2, "bad_json")]
    assert read(tmp_path / "b.json", text[: text.rindex("{")]) == [(1, {"a": 1}), (2, "bad_json")]
    assert read(tmp_path / "c.json", text.rstrip("]\n")) == [(1, {"a": 1}), (2, {"a": 2}), (3, "bad_json")]


def test_csv_quotes_newlines_and_faults(tmp_path):
    text = 'q,a\n"one\ntwo",x\r\n\nonly\n"say ""hi""",y,z\n"p",q\n"never closed,1\nmore,2\n'
    assert read(tmp_path / "a.csv", "\ufeff" + text) == [
        (2, {"q": "one\ntwo", "a": "x"}),
        (5, "bad_csv"),
        (6, "bad_csv"),
        (7, {"q": "p", "a": "q"}),
        (8, "bad_csv"),
    ]
    assert read(tmp_path / "b.tsv", "q\ta\n1, 2\tx\n") == [(2, {"q": "1, 2", "a": "x"})]
    assert read(tmp_path / "c.csv", "q;a\n1,5;x\n") == [(2, {"q": "1,5", "a": "x"})]
    big = "x" * 300_000
    assert read(tmp_path / "d.csv", f"q,a\n{big},y\n") == [(2, {"q": big, "a": "y"})]


def test_a_csv_with_two_columns_of_one_name_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv has several columns called 'q'.*Rename"):
        read(tmp_path / "a.csv", "q,a,q\n1,2,3\n")
    assert read(tmp_path / "b.csv", "q,a,,\n1,2,,\n") == [(2, {"q": "1", "a": "2", "": ""})]


def test_parquet_structs_lose_the_nulls_they_never_had(tmp_path):
    calls = [{"m": [{"role": "user", "name": None}]}, {"m": [{"role": "tool", "name": "f"}]}]
    pq.write_table(pa.Table.from_pylist(calls), tmp_path / "a.parquet")
    values = [record.value for record in read_records(tmp_path / "a.parquet")]
    assert values == [{"m": [{"role": "user"}]}, {"m": [{"role": "tool", "name": "f"}]}]


def test_compressed_files_read_alike_and_truncation_is_an_error(tmp_path):
    text = "\n".join(json.dumps({"n": n}) for n in range(20_000)).encode()
    halves = text[: len(text) // 2], text[len(text) // 2 :]
    packers = {"gz": gzip.compress, "zst": lambda raw: pa.Codec("zstd").compress(raw, asbytes=True)}
    for suffix, pack in packers.items():
        path = tmp_path / f"a.jsonl.{suffix}"
        packed = b"".join(map(pack, halves))  # several frames, as pigz and appending produce them
        assert [value["n"] for _, value in read(path, packed)] == list(range(20_000))
        for end in (len(packed) - 3, len(packed) // 4, 10):
            with pytest.raises(DataError, match="Fetch it again"):
                read(path, packed[:end])
        assert read(path, pack(b"")) == []


def test_damaged_and_unknown_files_are_named(tmp_path):
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path / "a.parquet", b"PAR1nonsense")
    with pytest.raises(DataError, match="UTF-16"):
        read(tmp_path / "a.csv", "q,a".encode("utf-16"))
    with pytest.raises(DataError, match="jsonl"):
        read(tmp_path / "a.docx", b"PK\x03\x04")
    assert read(tmp_path / "data", '{"a": 1}') == [(1, {"a": 1})]


def test_file_kinds():
    names = {"a.JSON": "json", "a.b.jsonl.gz": "jsonl", "a.md.zst": "text", "a.bin": None, "json": None}
    assert {name: file_kind(Path(name)) for name in names} == names


def test_text_documents_are_blocks_or_lines(tmp_path):
    assert read(tmp_path / "a.txt", "\n\none\ntwo\n \nthree\n\n\n") == [
        (3, {"text": "one\ntwo"}),
        (6, {"text": "three"}),
    ]
    assert read(tmp_path / "b.txt", "one\ntwo\n\n") == [(1, {"text": "one"}), (2, {"text": "two"})]
    assert read(tmp_path / "c.txt", "") == []


def test_long_documents_are_cut_at_sentences_and_lose_nothing():
    sentence = "Mr. J. Doe paid 3.50 to the U.S. office (he said so.) Then he left!Nobody minded. "
    for document in (sentence * 200, "word " * 3000, "x" * 9000, "文字。" * 3000):
        pieces = cut(document.strip())
        assert "".join("".join(pieces).split()) == "".join(document.split())
        assert max(map(len, pieces)) <= LONG and len(pieces) > 2
    assert all(re.search(r"(so\.\)|left!|minded\.)$", piece) for piece in cut((sentence * 200).strip()))
    assert cut("x" * LONG) == ["x" * LONG]
