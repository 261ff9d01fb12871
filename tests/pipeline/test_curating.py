"""Curation inside a run: every row accounted for, each change and drop on record, whatever the number of processes."""

import json
from dataclasses import replace
from functools import partial

import pyarrow.parquet as pq
import pytest

from tunesmith.base.conversation import Conversation, Message
from tunesmith.base.errors import DataError, UserError
from tunesmith.data.engine import Engine, canonical
from tunesmith.data.engine.table import TableWriter
from tunesmith.data.ledger import Ledger
from tunesmith.pipeline import curating
from tunesmith.pipeline.curating import curated
from tunesmith.recipe.curation import Clean, Decontaminate, Dedup, EvaluationFile, Filter
from tunesmith.recipe.data import Data, Source

LONG = "A ship left the harbour at dawn, and the captain asked his crew where they would like to go on that day. "


def row(number, asked, answer):
    return Conversation(f"s:{number}", (Message("user", asked), Message("assistant", answer)), "s")


ROWS = [
    row(1, "Where is Oslo?  ", "Sure! Oslo is in Norway. I hope this helps!"),
    row(2, "Where is Rome?", "Rome is in Italy."),
    row(3, "WHERE IS ROME?", "Rome is in Italy."),
    row(4, "Write code.", "```python\nprint(1)"),
    row(5, LONG + "Tell me more.", LONG * 2 + "They sailed north."),
    row(6, LONG + "Tell me more!", LONG * 2 + "They sailed north again."),
    row(7, "Mail me.", "Write to jane.doe@harbourmail.com today."),
    Conversation.from_text("s:8", "A plain text with  two spaces, which no stage for answers looks at.", "s"),
]


def data(**stages):
    return Data(sources=(Source(pocket=1, name="s"),), **stages)


def through(tmp_path, rows=ROWS, **stages):
    ledger = Ledger(tmp_path / "ledger")
    with curated(rows, data(**stages), tmp_path / "rows", ledger) as (stored, labels):
        left = [stored[label.place] for label in labels]
    assert not (tmp_path / "rows").exists()
    ledger.save()
    return left, Ledger.load(tmp_path / "ledger")


def test_what_the_stages_leave_and_what_the_ledger_says(tmp_path):
    left, ledger = through(tmp_path, clean=Clean(), filter=Filter(personal="redact"), dedup=Dedup(near=0.7))
    assert [each.id for each in left] == ["s:1", "s:2", "s:6", "s:7", "s:8"]
    assert left[0].response == "Oslo is in Norway." and left[0].messages[0].content == "Where is Oslo?"
    assert "[email]" in left[3].response and left[4] == ROWS[7]
    steps = {step["stage"]: step for step in ledger.summary()}
    assert list(steps) == ["clean", "filter", "dedup"]
    assert [steps[name]["read"] for name in steps] == [8, 8, 7] and steps["dedup"]["kept"] == 5
    assert steps["filter"]["reasons"] == {"open_fence": 1}
    assert steps["dedup"]["reasons"] == {"near_duplicate": 1, "exact_duplicate": 1}
    story = ledger.story("s:1")
    assert len(story) == 3 and "preamble removed: 'Sure! Oslo" in story[1]
    assert ledger.story("s:3")[-1].startswith("dropped by stage dedup: exact_duplicate (s:2 was kept instead")
    assert "jane.doe@harbourmail.com" not in str(pq.read_table(tmp_path / "ledger" / "changes.parquet").to_pylist())


def test_examples_of_a_reason(tmp_path):
    _, ledger = through(tmp_path, dedup=Dedup())
    assert [drop.row for drop in ledger.examples("exact_duplicate", 5)] == ["s:3"]
    with pytest.raises(UserError, match=r"reason 'near'\. Reasons in this run: .*exact_duplicate \(1\)"):
        ledger.examples("near", 5)


def test_near_duplicates_that_are_other_phrasings_are_warned_of(tmp_path, capsys):
    rows = [
        replace(row(number, f"{LONG * 3}{words}", "Yes, they would."), task="qa", phrasing=words)
        for number, words in enumerate(("Why?", "Why so?", "Say why."))
    ]
    left, _ = through(tmp_path / "named", rows, dedup=Dedup(near=0.7))
    said = capsys.readouterr().err
    assert len(left) == 1 and "2 of the near-duplicates ask in another phrasing" in " ".join(said.split())
    same = [replace(each, phrasing="one") for each in rows]
    for name, given in (("same", same), ("none", [replace(each, phrasing="") for each in rows])):
        through(tmp_path / name, given, dedup=Dedup(near=0.7))
        assert "Warning" not in capsys.readouterr().err


def test_rows_that_hold_an_evaluation_item_go(tmp_path):
    items = tmp_path / "test.jsonl"
    items.write_text(json.dumps({"question": LONG + "How far is that?", "answer": "far"}) + "\n")
    rows = [*ROWS[:2], row(9, "Repeat: " + LONG.upper() + "how far is that", "As you wish.")]
    against = (EvaluationFile(path=str(items), map={"instruction": "question", "response": "answer"}),)
    left, ledger = through(tmp_path, rows, decontaminate=Decontaminate(against=against))
    assert [each.id for each in left] == ["s:1", "s:2"]
    assert "contaminated (test:1 (question) in message 1" in ledger.story("s:9")[-1]


def test_rows_that_are_known_already_go(tmp_path):
    known = tmp_path / "known.jsonl"
    known.write_text(json.dumps({"instruction": "Where is Rome?", "response": "Rome is in Italy."}) + "\n")
    left, ledger = through(tmp_path, dedup=Dedup(reference=(str(known),)))
    assert not {"s:2", "s:3"} & {each.id for each in left}
    assert "in_reference" in ledger.story("s:2")[-1] or "in_reference" in ledger.story("s:3")[-1]


@pytest.mark.parametrize("stages", [{"filter": Filter(min_response_words=100)}])
def test_a_stage_that_leaves_nothing_is_the_users_to_loosen(tmp_path, stages):
    with pytest.raises(DataError, match=r"data.filter leaves none of 7 rows.*response too short 7"):
        through(tmp_path, ROWS[:7], **stages)


@pytest.mark.slow
def test_processes_make_no_difference(tmp_path, monkeypatch):
    rows = [
        row(number, f"Question {number % 700}?  {LONG * (number % 4)}", f"Certainly! {number % 500} is it. " * 3)
        for number in range(3000)
    ]
    stages = {"clean": Clean(), "filter": Filter(), "dedup": Dedup(near=0.9)}
    monkeypatch.setattr(canonical, "TableWriter", partial(TableWriter, part_rows=256))
    one = through(tmp_path / "one", rows, **stages)
    monkeypatch.setattr(curating, "Engine", lambda **given: Engine(here_rows=0, processes=2))
    many = through(tmp_path / "many", rows, **stages)
    assert one[0] == many[0] and one[1].summary() == many[1].summary()
    for name in ("changes", "drops", "flags"):
        files = [tmp_path / way / "ledger" / f"{name}.parquet" for way in ("one", "many")]
        assert pq.read_table(files[0]).equals(pq.read_table(files[1]))
