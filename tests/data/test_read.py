import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tunesmith.base.errors import DataError, TunesmithError
from tunesmith.data.ledger import Drop
from tunesmith.data.sources.read import SourceRows, read_source, source_files
from tunesmith.recipe.data import Source, Templates
from tunesmith.recipe.phrasings import phrasings_of

DATA = Path(os.environ.get("TUNESMITH_DATA", Path(__file__).parents[3] / "shared" / "data"))


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def pair(n):
    return {"instruction": f"q{n}", "output": f"a{n}"}


def test_mixed_shapes_are_read_each_by_its_own_and_said(tmp_path):
    path = write(
        tmp_path / "mix.jsonl",
        pair(1),
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "id": "x"},
        {"foo": 1},
        "[1, 2]",
        "oops",
        "",
        pair(2),
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    )
    source = read_source("mix", path)
    assert [row.id for row in source.rows] == ["mix:1", "mix:2", "mix:7", "mix:8"]
    assert {drop.row: drop.reason for drop in source.rejected} == {
        "mix:3": "unknown_shape",
        "mix:4": "not_an_object",
        "mix:5": "bad_json",
    }
    assert source.read == 7
    assert source.format == (
        "Alpaca triples (2 rows, keys instruction, output); ShareGPT conversations (1 row, keys conversations, id); "
        "no known shape (1 row, keys foo); OpenAI messages (1 row, keys messages)"
    )
    assert source.rows[1].extra == {"id": "x"}


def test_labels_come_from_columns_map_and_recipe(tmp_path):
    row = {**pair(1), "cluster": "c", "task": "t", "template": "p", "item": 7, "kind": "k"}
    path = write(tmp_path / "a.jsonl", row, pair(2))
    one, two = read_source("a", path).rows
    assert (one.cluster, one.task, one.phrasing, one.item, one.source) == ("c", "t", "p", "7", "a")
    assert (two.cluster, two.task, two.phrasing, two.item) == ("a", "", "", "")
    assert one.extra == {"kind": "k"}
    one, two = read_source("a", path, cluster="mine", task="job").rows
    assert (one.cluster, one.task, two.cluster) == ("mine", "job", "mine")
    one, two = read_source("a", path, cluster="mine", map={"cluster": "kind"}).rows
    assert (one.cluster, two.cluster) == ("k", "mine")


def test_several_rows_of_one_line_share_an_item(tmp_path):
    instances = [{"input": "i", "output": "a"}, {"input": "j", "output": "b"}, {"input": "k", "output": ""}]
    source = read_source("s", write(tmp_path / "s.jsonl", {"instruction": "q", "instances": instances}, pair(2)))
    assert [(row.id, row.item) for row in source.rows] == [("s:1.1", "s:1"), ("s:1.2", "s:1"), ("s:2", "")]
    assert [(drop.row, drop.reason) for drop in source.rejected] == [("s:1.3", "empty_response")]
    assert source.read == 4


def test_undecodable_bytes_cost_their_row_only(tmp_path):
    good = json.dumps(pair(1)).encode()
    bad = good.replace(b"a1", b"\xff\xfe")
    lone = b'{"instruction": "q", "output": "\\ud83d"}'
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([good, bad, lone, good]))
    (tmp_path / "b.json").write_bytes(b"[" + b",\n".join([good, bad, lone, good]) + b"]")
    (tmp_path / "c.csv").write_bytes(b"instruction,output\nq,a\nq,\xff\nq,a\n")
    for name, bad_rows in (("a.jsonl", ["x:2", "x:3"]), ("b.json", ["x:2", "x:3"]), ("c.csv", ["x:3"])):
        source = read_source("x", tmp_path / name)
        assert [drop.row for drop in source.rejected] == bad_rows
        assert {drop.reason for drop in source.rejected} == {"invalid_utf8"}
        assert len(source.rows) == 2


def test_map_with_a_column_that_no_row_has_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", {"question": "q", "result": "a"}, {"question": "q"})
    with pytest.raises(DataError, match="Did you mean 'question'"):
        read_source("a", path, map={"instruction": "questions", "response": "result"})
    source = read_source("a", path, map={"instruction": "question", "response": "result"})
    assert [row.response for row in source.rows] == ["a"]
    assert [drop.reason for drop in source.rejected] == ["missing_column"]


def test_a_forced_format_refuses_the_others(tmp_path):
    path = write(tmp_path / "a.jsonl", pair(1), {"text": "t"}, {**pair(2), "text": "t"})
    source = read_source("a", path, format="text")
    assert [row.id for row in source.rows] == ["a:2", "a:3"] and source.rows[0].is_text
    assert [drop.reason for drop in source.rejected] == ["not_in_format"]
    with pytest.raises(DataError, match="format"):
        read_source("a", path, format="alpacca")


def test_text_sources_take_plain_text_only(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "t"}, pair(1))
    source = read_source("a", path, kind="text")
    assert source.rows[0].is_text and [drop.reason for drop in source.rejected] == ["not_plain_text"]
    path = write(tmp_path / "b.jsonl", {"body": "t", "output": "x"})
    assert read_source("b", path, kind="text", map={"text": "body"}).rows[0].response == "t"
    path = write(tmp_path / "c.txt", "A long walk. " * 1000, "", "short")
    rows = read_source("c", path, kind="text").rows
    assert [row.id for row in rows][:2] == ["c:1.1", "c:1.2"] and rows[-1].id == "c:3"
    assert {row.item for row in rows} == {"c:1", ""}


def test_a_sample_is_seeded_spread_and_accounted_for(tmp_path):
    path = write(tmp_path / "a.jsonl", *map(pair, range(1000)), "broken")
    whole = read_source("a", path)
    source = read_source("a", path, sample=100, seed=1)
    assert source.rows == read_source("a", path, sample=100, seed=1).rows
    assert source.rows != read_source("a", path, sample=100, seed=2).rows
    assert len(source.rows) == 100 and source.read == 1001
    assert Counter(drop.reason for drop in source.rejected) == {"not_sampled": 900, "bad_json": 1}
    lines = [int(row.id.split(":")[1]) for row in source.rows]
    assert lines == sorted(lines) and 350 < sum(lines) / 100 < 650
    assert set(map(repr, source.rows)) < set(map(repr, whole.rows))
    short = read_source("a", path, sample=5000)
    assert len(short.rows) == 1000 and "5,000" in short.note
    with pytest.raises(DataError, match="sample"):
        read_source("a", path, sample=0)


def test_a_sample_of_a_table_with_templates_draws_its_rows(tmp_path):
    header, *rows = ["premise,hypothesis,label", *(f"it rains in {n},it is wet in {n},{n % 3}" for n in range(60))]
    path = write(tmp_path / "t.csv", header, *rows)
    source = Source(path=str(path), templates=Templates(file="entailment", per_row=2))
    phrasings = phrasings_of(source, source.templates)
    whole = read_source("t", path, phrasings=phrasings)
    source = read_source("t", path, phrasings=phrasings, sample=15)
    lines = Counter(row.id.split(".")[0] for row in source.rows)
    assert len(whole.rows) == 120 and len(lines) == 15 and set(lines.values()) == {2}
    assert [row for row in whole.rows if row.id.split(".")[0] in lines] == source.rows
    assert Counter(drop.reason for drop in source.rejected) == {"not_sampled": 90}
    said = Counter(row.phrasing for row in source.rows)
    assert all(f"{name} {count}" in source.note for name, count in said.items())
    assert "60 rows of the table" in source.note and "a sample of 15 rows of the table" in source.note
    assert "there are 60 rows of the table" in read_source("t", path, phrasings=phrasings, sample=61).note


def test_mended_rows_are_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", {"instruction": "q", "output": "a<|endoftext|>"}, pair(1))
    source = read_source("a", path)
    assert (source.changed, source.note) == (1, "end marker removed from a response (1 rows)")
    assert source.rows[0].response == "a"


def test_folders_globs_and_lone_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    files = [write(tmp_path / "b.jsonl", pair(1)), write(tmp_path / "sub" / "a.json", [pair(2)])]
    write(tmp_path / "README.md", "about")
    write(tmp_path / ".cache" / "x.json", [pair(3)])
    write(tmp_path / "notes.bin", "x")
    assert list(source_files(tmp_path)) == files
    source = read_source("d", tmp_path)
    assert [row.id for row in source.rows] == ["d:b.jsonl:1", "d:sub/a.json:1"]
    assert source_files(tmp_path / "**" / "*.json*") == (files[0], files[1])
    assert source_files(str(tmp_path / "b.*")) == (files[0],)


def test_sources_that_cannot_be_used_name_the_remedy(tmp_path):
    write(tmp_path / "alpaca.json", [pair(1)])
    with pytest.raises(DataError, match=r"alpaca\.json"):
        read_source("a", tmp_path / "alpacca.json")
    with pytest.raises(DataError, match="no folder"):
        read_source("a", tmp_path / "none" / "a.json")
    with pytest.raises(DataError, match="holds no data files"):
        read_source("a", tmp_path / "*.parquet")
    for name in ("e.json", "e.jsonl", "e.csv", "e.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf\n")
        with pytest.raises(DataError, match="empty"):
            read_source("e", tmp_path / name)
    write(tmp_path / "f.json", [])
    with pytest.raises(DataError, match="empty"):
        read_source("f", tmp_path / "f.json")


def test_source_rows_check_their_own_count():
    with pytest.raises(TunesmithError, match="bug"):
        SourceRows("a", "", (), 3, 0, [], [Drop("a:1", "read", "x")])


# The columns of these files and the counts are from their own documentation or counted with plain `json` and `pyarrow`.
REAL = {
    "alpaca_1k.json": ("Alpaca triples", 999, {}),
    "c4_text.jsonl": ("plain text", 300, {}),
    "code_alpaca.json": ("Alpaca triples", 4535, {}),
    "conversations_sharegpt.json": ("ShareGPT conversations", 500, {}),
    "gsm8k_test.jsonl": ("prompts and completions", 1319, {}),
    "gsm8k_train.jsonl": ("prompts and completions", 7473, {}),
    "mt_bench_questions.jsonl": ("questions without responses", 80, {"no_response": 80}),
    "reasoning_tools_50.jsonl": ("OpenAI messages", 50, {}),
    "roleplay.json": ("Alpaca triples", 1923, {}),
    "self_instruct_seed_tasks.jsonl": ("self-instruct tasks", 175, {}),
    "t0_train.parquet": ("Alpaca triples", 55185, {"empty_response": 1400}),
    "toolcalls_sharegpt.json": ("ShareGPT conversations", 300, {}),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name):
    if not (DATA / name).exists():
        pytest.skip(f"no {DATA / name}: set TUNESMITH_DATA to the folder of the real data")
    title, count, reasons = REAL[name]
    source = read_source("real", DATA / name)
    assert source.format.startswith(f"{title} ({count:,} rows")
    assert (source.read, Counter(drop.reason for drop in source.rejected)) == (count, reasons)


def test_real_tool_calls_are_parsed():
    path = DATA / "toolcalls_sharegpt.json"
    if not path.exists():
        pytest.skip(f"no {path}: set TUNESMITH_DATA to the folder of the real data")
    calls = [call for row in read_source("x", path).rows for message in row.messages for call in message.tool_calls]
    assert len(calls) == path.read_text().count('"from": "function_call"')
    assert all(set(call) == {"name", "arguments"} and isinstance(call["arguments"], dict) for call in calls)
