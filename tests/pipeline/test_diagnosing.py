"""From a finished run and a log of production to a diagnosis."""

import json
import shutil

import pytest

from tunesmith.base.errors import UserError
from tunesmith.pipeline.diagnosing import diagnose_run, read_log, trained_instructions


def _log(folder, rows):
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_is_compared_with_a_log(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    trained = trained_instructions(run)
    assert len(trained) > 50
    same = [{"instruction": text, "response": "yes", "failed": False} for text in trained[:40]]
    foreign = [
        {"instruction": f"Quel vin sert-on avec le plat numéro {i} du menu ?", "response": "yes", "failed": True}
        for i in range(20)
    ]
    log = _log(tmp_path, same + foreign)
    assert diagnose_run(run, log) == 0
    found = json.loads((run / "diagnosis.json").read_text())
    assert found["failures_by"] == "20 failed, by the column failed"
    page, printed = (run / "diagnosis.html").read_text(), capsys.readouterr()
    assert "Quel vin" in page and "Quel vin" in printed.out + printed.err


def test_a_log_that_cannot_be_diagnosed_says_why(tmp_path):
    rows = [{"instruction": "a", "response": "b", "output": "c"}] * 3
    with pytest.raises(UserError, match=r"holds 0 rows.*Of 3 rows, the first that was refused: output and response"):
        read_log(_log(tmp_path, rows))
    with pytest.raises(UserError, match=r"no column 'bad'.*It has: instruction, response"):
        read_log(_log(tmp_path, [{"instruction": "a", "response": "b"}] * 3), "bad")


def test_failures_are_told_by_either_kind_of_column(tmp_path):
    rows = [{"instruction": f"a{i}", "response": "b", "ok": value} for i, value in enumerate(["no", True, 0, "yes"])]
    found, by = read_log(_log(tmp_path, rows))
    assert [row.failed for row in found] == [True, False, True, False] and by == "2 failed, by the column ok"


def test_a_column_that_only_failures_have_tells_them_and_what_is_left_out_is_said(tmp_path):
    rows = [{"instruction": f"a{i}", "response": "b"} for i in range(4)]
    found, by = read_log(_log(tmp_path, [*rows, {"instruction": "c", "response": "d", "failed": True}, {"x": 1}]))
    assert [row.failed for row in found] == [False] * 4 + [True]
    assert by.startswith("1 failed, by the column failed; 1 more rows left out, the first because ")


def test_a_run_that_trained_on_no_instructions_is_nothing_to_compare_with(tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.pipeline.diagnosing.trained_instructions", lambda _: [])
    with pytest.raises(UserError, match="trained on 0 instructions"):
        diagnose_run(tmp_path, _log(tmp_path, [{"instruction": f"a{i}", "response": "b"} for i in range(4)]))
