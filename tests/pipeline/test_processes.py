"""The whole of `prepare`, every stage on: the same bytes whatever the number of processes and of rows in memory."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tunesmith.base import parallel
from tunesmith.data.engine import canonical, engine
from tunesmith.data.engine.table import TableWriter
from tunesmith.data.rows import Rows
from tunesmith.pipeline import covering, curating, preparing, run, splitting, supervising
from tunesmith.recipe import load_recipe

RECIPE = """
base: pocket
data:
  sources:
    - {pocket: 1500, name: small}
    - {path: own.jsonl}
    - {path: table.csv, cluster: entailment, templates: {file: entailment, per_row: 2, shuffle_options: true}}
  clean: {}
  filter: {personal: redact}
  dedup: {near: 0.8, semantic: 0.98}
  decontaminate: {against: [{path: test.jsonl}]}
  mix: {unit: tokens, strategy: temperature, temperature: 2, reasoning: 0.1}
  replay: {pocket: 200, share: 0.1}
  hold_out: {items: 0.1, validation: 0.1, clusters: [paraphrase]}
train: {max_length: 256, tokens_per_batch: 1024, tokens_per_step: 2048}
evaluate: {forgetting: {pocket: 10}}
"""
PARALLEL = (covering, curating, splitting, supervising, engine)
UNLIKE = {"run.json", "report.html", ".lock"}  # when and how long


def _files(folder: Path) -> None:
    (folder / "r.yaml").write_text(RECIPE)
    asked = [f"What is {n} plus {n % 7}, if a ship leaves the harbour of town {n} at dawn?  " for n in range(900)]
    answers = [
        f"Sure! We add {n} and {n % 7} step by step, and ask jane.doe{n % 50}@harbourmail.com.\n#### {n + n % 7}"
        for n in range(900)
    ]
    pairs = [{"instruction": one, "output": other} for one, other in zip(asked, answers, strict=True)]
    (folder / "own.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in [*pairs, *pairs[:90]]))
    (folder / "test.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs[100:140]))
    lines = [f"it rains in town {n},it is wet in town {n},{n % 3}" for n in range(200)]
    (folder / "table.csv").write_text("\n".join(["premise,hypothesis,label", *lines]) + "\n")


def _prepared(folder: Path, name: str) -> dict[str, bytes]:
    loaded = load_recipe(str(folder / "r.yaml"))
    assert run(loaded, folder / name / "run", until="prepare", export=folder / name / "export") == 0
    return {
        str(path.relative_to(folder / name)): path.read_bytes()
        for path in (folder / name).rglob("*")
        if path.is_file() and path.name not in UNLIKE
    }


@pytest.mark.slow
def test_processes_make_no_difference_to_anything(tmp_path, monkeypatch):
    _files(tmp_path)
    monkeypatch.setattr(canonical, "TableWriter", partial(TableWriter, part_rows=256))
    monkeypatch.setattr(curating, "Engine", partial(engine.Engine, here_rows=0))
    monkeypatch.setattr(parallel, "CHUNKS_A_WORKER", 1)
    for module in PARALLEL:
        monkeypatch.setattr(module, "cores", lambda: 1)
    one = _prepared(tmp_path, "one")
    used: set[int] = set()
    workers = engine.Engine._workers
    monkeypatch.setattr(engine.Engine, "_workers", lambda *given: used.add(found := workers(*given)) or found)
    for module in PARALLEL:
        monkeypatch.setattr(module, "cores", lambda: 3)
    monkeypatch.setattr(preparing, "Rows", partial(Rows, in_memory=50))
    three = _prepared(tmp_path, "three")
    assert used == {3}
    stages = {step["stage"] for step in json.loads(one["run/ledger/steps.json"])}
    assert {"clean", "filter", "decontaminate", "dedup", "split", "supervise", "replay"} <= stages
    assert sorted(one) == sorted(three)
    assert [name for name in one if one[name] != three[name]] == []
