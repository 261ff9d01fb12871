"""The story of rows of a real run, against what the store and the plan hold."""

import json
import shutil

import pytest

from tunesmith.base.errors import UserError
from tunesmith.data.ledger import Ledger
from tunesmith.pipeline.explaining import explain, packed_rows
from tunesmith.pipeline.folder import RunFolder
from tunesmith.pipeline.preparing import planned
from tunesmith.pipeline.splitting import HELD_OUT
from tunesmith.recipe import load_recipe
from tunesmith.tokens.store import TokenStore


def test_packed_rows_are_those_that_each_step_trains_on(finished):
    run = RunFolder(finished, load_recipe(str(finished)))
    store = TokenStore.open(finished / "tokens/store")
    places = Ledger.load(finished / "ledger").places().to_pylist()
    _, _, plan = planned(run, store, [row["row"] for row in places if row["place"] in HELD_OUT])
    trained = {}
    for step in range(plan.steps):
        for number, packed in enumerate(plan.step(step), 1):
            for document, sequence in enumerate(packed.tolist(), 1):
                trained.setdefault(sequence, []).append((step + 1, number, document))
    for sequence in range(len(store)):
        found = packed_rows(plan, [sequence])
        assert [(one["step"], one["packed_row"], one["document"]) for one in found] == trained.get(sequence, [])
    assert len(trained) > 100


def test_stories_of_rows(finished, capsys):
    ledger = Ledger.load(finished / "ledger")
    for place in ("train", "new_items", "replay"):
        row = next(row["row"] for row in ledger.places().to_pylist() if row["place"] == place)
        assert explain(finished, row, None, 1, as_json=True) == 0
        story = json.loads(capsys.readouterr().out)
        assert story["place"] == place and len(story["sequences"]) == 1 and "pocket world" in story["origin"]["from"]
        assert len(story["packed"]) == (story["times"] or 0)  # of one epoch
        assert (story["times"] is None) == (place == "new_items")
    explain(finished, None, None, 1, as_json=False)
    assert "kept: new_items" in capsys.readouterr().out
    with pytest.raises(UserError, match="no row small:x"):
        explain(finished, "small:x", None, 1, as_json=False)


def test_a_source_that_has_changed_is_not_shown(recipe, tmp_path, capsys):
    from tunesmith.pipeline import run

    source = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"Say {number}.", "output": f"{number}"} for number in range(40)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"instruction": broken\n')
    loaded = recipe(f"data.sources=[{{path: {source}}}]", "data.hold_out.clusters=[]", "data.hold_out.phrasings=0")
    assert run(loaded, tmp_path / "run", until="prepare") == 0
    capsys.readouterr()
    explain(tmp_path / "run", "rows:7", None, 1, as_json=False)
    told = capsys.readouterr().out
    assert f"from {source}, line 7" in told and '"Say 6."' in told and "optimizer step" in told
    explain(tmp_path / "run", None, "bad_json", 5, as_json=False)
    assert '{"instruction": broken' in capsys.readouterr().out
    shutil.copy(source, tmp_path / "copy")
    source.write_text(source.read_text().replace("Say 6", "Say 7"))
    explain(tmp_path / "run", "rows:7", None, 1, as_json=False)
    told = capsys.readouterr().out
    assert "has changed since it was read" in told and "Say" not in told
    source.unlink()
    explain(tmp_path / "run", None, "bad_json", 5, as_json=False)
    assert "not shown" in capsys.readouterr().out
