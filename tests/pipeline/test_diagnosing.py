"""From a finished run and a log of production to a diagnosis."""

import json
import shutil

import pytest

from tunesmith.base.errors import UserError
from tunesmith.evaluate.diagnose import symptom
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
        {"instruction": f"Quel vin sert-on avec le plat numéro {i} du menu ?", "response": answer, "failed": True}
        for i, answer in enumerate(["yes"] * 15 + [""] * 5)
    ]
    log = _log(tmp_path, same + foreign)
    assert diagnose_run(run, log) == 0
    found = json.loads((run / "diagnosis.json").read_text())
    assert found["failures_by"] == "20 failed, by the column failed; empty responses among the failures: 5"
    shown = [(what, count) for cluster in found["clusters"] for _, what, count in cluster["symptoms"]]
    assert sum(count for what, count in shown if what == "no answer") == 5
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


@pytest.mark.parametrize(
    "silent",
    [
        {"instruction": "a", "response": ""},
        {"instruction": "a", "response": None},
        {"instruction": "a", "response": " \n<|im_end|>"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]},
    ],
)
@pytest.mark.parametrize("failed", [{"failed": False}, {"failed": True}, {}])
def test_a_row_that_answers_nothing_stays_and_is_a_failure(tmp_path, silent, failed):
    rows = [{"instruction": f"a{i}", "response": "b", "failed": False} for i in range(3)]
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}
    rows.append({"messages": [{"role": "user", "content": "a"}, call], "failed": False})
    found, by = read_log(_log(tmp_path, [*rows, silent | failed]))
    assert [row.failed for row in found] == [False] * 4 + [True], "a call of a tool says something"
    assert (found[-1].instruction, found[-1].response) == ("a", "")
    assert by == "1 failed, by the column failed; empty responses among the failures: 1"
    assert symptom(found[-1]) == ("not following", "no answer")


def test_a_row_that_asks_nothing_or_says_nothing_before_its_end_is_left_out(tmp_path):
    talk = [
        {"role": role, "content": text}
        for role, text in zip(["user", "assistant"] * 2, ["a", "", "b", "c"], strict=True)
    ]
    rows = [{"instruction": f"a{i}", "response": "b"} for i in range(2)]
    found, by = read_log(_log(tmp_path, [*rows, {"instruction": "", "response": ""}, {"messages": talk}]))
    assert len(found) == 2 and "2 more rows left out" in by and "empty responses" not in by


def test_a_run_that_trained_on_no_instructions_is_nothing_to_compare_with(tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.pipeline.diagnosing.trained_instructions", lambda _: [])
    with pytest.raises(UserError, match="trained on 0 instructions"):
        diagnose_run(tmp_path, _log(tmp_path, [{"instruction": f"a{i}", "response": "b"} for i in range(4)]))
