"""Data that are not as they should be, through the pipeline's entry: what is said, and that nothing of it is kept."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tunesmith.base.errors import DataError, UserError
from tunesmith.data.engine import runner
from tunesmith.data.ledger import Ledger
from tunesmith.pipeline import preparing, run
from tunesmith.tokens.store import TokenStore

PLAIN = ("data.hold_out.clusters=[]", "data.hold_out.phrasings=0", "data.replay=null", "evaluate.forgetting=null")
SENTENCE = "The old lighthouse keeper counted eleven ships that passed the rocky cape before the storm came in."


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(count, start=0):
    return [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(start, start + count)]


def test_a_source_that_changes_while_it_is_read(recipe, tmp_path, monkeypatch):
    source = write(tmp_path / "rows.jsonl", rows(40))
    loaded = recipe(f"data.sources=[{{path: {source}}}]", *PLAIN)
    read = preparing.read

    def meanwhile(change):
        def reading(*given):
            read(*given)
            change()

        monkeypatch.setattr(preparing, "read", reading)

    meanwhile(lambda: write(source, rows(40, start=1)))  # the same size
    with pytest.raises(DataError, match=r"rows\.jsonl changed while it was read\. Nothing that was read was kept"):
        run(loaded, tmp_path / "run", until="prepare")
    assert "prepare" not in json.loads((tmp_path / "run/run.json").read_text())["keys"]
    assert not (tmp_path / "run/ledger/steps.json").exists() and not (tmp_path / "run/tokens").exists()
    meanwhile(source.unlink)
    with pytest.raises(DataError, match=r"rows\.jsonl went away while it was read"):
        run(loaded, tmp_path / "run", until="prepare")
    write(source, rows(40))
    meanwhile(lambda: os.utime(source, (1, 1)))  # touched, and the same
    assert run(loaded, tmp_path / "run", until="prepare") == 0


def test_two_rows_with_one_id(recipe, tmp_path):
    (tmp_path / "s").mkdir()
    for name in ("a", "b"):
        write(tmp_path / "s" / f"{name}.jsonl", rows(20))
    other = write(tmp_path / "other.jsonl", rows(20, start=100))
    sources = f"[{{path: {tmp_path / 's'}}}, {{path: {other}, name: 's:b.jsonl'}}]"
    with pytest.raises(DataError, match=r"two rows have the id s:b\.jsonl:\d+.*give one of the two sources a `name`"):
        run(recipe(f"data.sources={sources}", *PLAIN), tmp_path / "run", until="prepare")
    assert not (tmp_path / "run/ledger").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("items.csv", f"frage;antwort\n{SENTENCE};elf\n"),
        ("items.json", json.dumps({"data": [{"para": {"text": SENTENCE}, "golds": ["eleven"]}]})),
        ("items.txt", f"{SENTENCE}\n\nAnother text that nobody has.\n"),
    ],
)
def test_evaluation_items_in_another_format_are_found(recipe, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    source = write(
        tmp_path / "rows.jsonl", [*rows(30), {"instruction": f"Read: {SENTENCE.upper()}", "output": "Eleven."}]
    )
    against = f"data.decontaminate={{against: [{{path: {tmp_path / name}}}]}}"
    assert run(recipe(f"data.sources=[{{path: {source}}}]", against, *PLAIN), tmp_path / "run", until="prepare") == 0
    fate = Ledger.load(tmp_path / "run/ledger").fate("rows:31")
    assert fate.drop.reason == "contaminated" and fate.drop.stage == "decontaminate"


def test_an_evaluation_file_that_can_not_be_read_is_named(recipe, tmp_path):
    source = write(tmp_path / "rows.jsonl", rows(30))
    for name, content, words in (
        ("items.xlsx", b"PK\x03\x04 no text", "items.xlsx is of no kind Tunesmith reads"),
        ("items.jsonl", b'{"question": "a"}\n{"question": \n', "items.jsonl, item 2 can't be read"),
    ):
        (tmp_path / name).write_bytes(content)
        against = f"data.decontaminate={{against: [{{path: {tmp_path / name}}}]}}"
        with pytest.raises(DataError, match=words):
            run(recipe(f"data.sources=[{{path: {source}}}]", against, *PLAIN), tmp_path / "run", until="prepare")


def test_a_stage_that_drops_everything_says_why(recipe, tmp_path):
    source = write(tmp_path / "rows.jsonl", rows(30))
    loaded = recipe(f"data.sources=[{{path: {source}}}]", "data.filter={min_response_words: 4}", *PLAIN)
    with pytest.raises(DataError, match=r"data.filter leaves none of 30 rows.*Why: response too short 30"):
        run(loaded, tmp_path / "run", until="prepare")
    assert not (tmp_path / "run/ledger/steps.json").exists()


def test_replayed_texts_hold_no_evaluation_item(recipe, tmp_path):
    items = write(tmp_path / "items.jsonl", [{"instruction": SENTENCE, "output": "It is so."}])
    texts = [f"A text about number {number}, with some words of its own to be trained on." for number in range(30)]
    texts[7] = f"It was evening. {SENTENCE.upper()} So it was."
    (tmp_path / "texts.txt").write_text("\n\n".join(texts))
    loaded = recipe(
        f"data.sources=[{{path: {write(tmp_path / 'rows.jsonl', rows(30))}}}]",
        f"data.decontaminate={{against: [{{path: {items}}}]}}",
        *PLAIN[:2],
        f"data.replay={{path: {tmp_path / 'texts.txt'}, share: 0.2}}",
        "evaluate.forgetting=null",
    )
    assert run(loaded, tmp_path / "run", until="prepare") == 0
    ledger = Ledger.load(tmp_path / "run/ledger")
    step = next(step for step in ledger.summary() if step["stage"] == "decontaminate, replay")
    assert (step["read"], step["kept"], step["reasons"]) == (30, 29, {"contaminated": 1})
    assert ledger.fate("replay:15").drop.reason == "contaminated"
    assert "replay:15" not in TokenStore.open(tmp_path / "run/tokens/store").row_ids


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install 'tunesmith[ray]'")
def test_a_cluster_that_does_not_answer(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.setattr(runner, "_runner", None)
    monkeypatch.setattr(runner, "JOINED_S", 1.0)
    source = write(tmp_path / "rows.jsonl", rows(30))
    for server in (socket.socket(), socket.create_server(("127.0.0.1", 0))):  # nobody, and one who says nothing
        with server:
            if not server.getsockname()[1]:
                server.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{server.getsockname()[1]}"
            engine = (f"data.engine={{ray: '{address}'}}", "data.clean={}")
            started = time.monotonic()
            with pytest.raises(UserError, match=address):
                run(recipe(f"data.sources=[{{path: {source}}}]", *engine, *PLAIN), tmp_path / "run", until="prepare")
            assert time.monotonic() - started < 20


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle(recipe, tmp_path):
    """Its part is done again: the same rows, the same ledger and the same tokens as without."""
    answers = [f"It is {number}. " + " ".join(f"word{number * 31 + k}" for k in range(60)) for number in range(30_000)]
    given = [{"instruction": f"Say {n}.", "output": f"Sure! {answer}"} for n, answer in enumerate(answers)]
    source = write(tmp_path / "rows.jsonl", given)
    path = tmp_path / "kill.yaml"
    path.write_text(
        f"base: pocket\ndata:\n  sources: [{{path: {source}}}]\n  clean: {{}}\n  filter: {{}}\n"
        "  engine: {processes: 2}\n  hold_out: {items: 0.01}\ntrain: {max_length: 1024}\n"
    )
    folders = [tmp_path / "calm", tmp_path / "killed"]
    for folder in folders:
        command = [sys.executable, "-m", "tunesmith", "prepare", str(path), "--output", str(folder)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        killed = folder.name == "calm" or kill_a_worker(child.pid, folder)
        said, _ = child.communicate(timeout=300)
        assert child.returncode == 0, said[-2000:]
        assert killed
    stores = [json.loads((folder / "tokens/store/meta.json").read_text())["sha256"] for folder in folders]
    assert stores[0] == stores[1]
    for name in ("drops", "changes", "flags", "places"):
        tables = [pq.read_table(folder / f"ledger/{name}.parquet") for folder in folders]
        assert tables[0].equals(tables[1])
    assert Ledger.load(folders[0] / "ledger").summary() == Ledger.load(folders[1] / "ledger").summary()


def kill_a_worker(pid: int, folder: Path) -> bool:
    """Kill one of the processes that write parts, as soon as one is being written."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for part in folder.glob("data/rows/.staged.*/kept/.part-*"):
            writer = int(part.name.split(".")[-1].split("-")[0])
            if writer != pid:
                with suppress(ProcessLookupError):
                    os.kill(writer, signal.SIGKILL)
                    return True
        time.sleep(0.01)
    return False
