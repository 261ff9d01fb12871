"""Where rows came from, against the ids that reading gives them."""

import json

from tunesmith.data.sources.origin import SHOWN, excerpts, origin_of
from tunesmith.data.sources.read import read_source, source_files


def test_every_row_is_found_in_the_files_that_it_was_read_from(tmp_path):
    (tmp_path / "sub").mkdir()
    rows = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n\n" for row in rows[:10]))
    (tmp_path / "sub" / "b.json").write_text(json.dumps(rows[10:20]))
    lines = ["instruction,output", *(f"{row['instruction']},{row['output']}" for row in rows[20:])]
    (tmp_path / "c.csv").write_text("\n".join(lines))
    files = source_files(tmp_path)
    for row in read_source("s", tmp_path).rows:
        origin = origin_of(row.id, "s", files)
        text = excerpts(origin.file, [origin])[origin]
        assert json.loads(text) == {"instruction": row.messages[0].content, "output": row.response}
    assert origin_of("other:1", "s", files) is None and origin_of("s:none.json:1", "s", files) is None
    assert origin_of("s:x", "s", files) is None


def test_what_can_not_be_decoded_is_shown_as_it_stands(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"instruction": "a", "output": "b"}\n{"instruction": \xff\n')
    dropped = read_source("s", file).rejected[0]
    origin = origin_of(dropped.row, "s", [file])
    assert excerpts(file, [origin])[origin] == '{"instruction": \\xff' and origin.said == f"{file}, line 2"


def test_long_rows_are_cut_and_parts_told_apart(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("A sentence of some words that goes on. " * 300 + "\n\nshort\n")
    rows = read_source("t", file, kind="text").rows
    assert len(rows) > 3
    for row in rows[:-1]:
        origin = origin_of(row.id, "t", [file])
        text = excerpts(file, [origin])[origin]
        assert origin.part and row.response[:100] in text and text.endswith("more characters)")
        assert len(text) < SHOWN + 40
