"""prepare --export: every kept row in its split, with a card; and what is in the way of it."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from tunesmith.base.errors import UserError
from tunesmith.base.files import file_hash
from tunesmith.data.ledger import Ledger
from tunesmith.pipeline import run

SPLITS = {"train": "train", "new_items": "test", "new_phrasings": "test_new_phrasings"}
SPLITS |= {"new_clusters": "test_new_clusters", "replay": "train"}


def exported(folder):
    rows = {}
    for file in [*(folder / "data").glob("*.parquet"), *(folder / "plain_text").glob("*.parquet")]:
        for row in pq.read_table(file).to_pylist():
            assert row["split"] == file.stem
            rows[row["id"]] = row
    return rows


def test_every_kept_row_is_exported_to_its_split(finished, recipe, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    store = (folder / "tokens/store/meta.json").read_bytes()
    assert run(recipe(), folder, until="prepare", export=tmp_path / "out") == 0  # prepared before, and trained
    assert (folder / "tokens/store/meta.json").read_bytes() == store
    rows = exported(tmp_path / "out")
    places = Ledger.load(folder / "ledger").places().to_pylist()
    wanted = {row["row"]: SPLITS.get(row["place"], row["place"]) for row in places if row["place"] != "forgetting"}
    assert {id: row["split"] for id, row in rows.items()} == wanted
    marked = json.loads((tmp_path / "out/export.json").read_text())
    assert all(file_hash(tmp_path / "out" / name) == digest for name, digest in marked["sha256"].items())
    shutil.rmtree(folder / "data/kept")  # as of an earlier version
    assert run(recipe(), folder, until="prepare", export=tmp_path / "again") == 0
    assert exported(tmp_path / "again") == rows
    assert (folder / "tokens/store/meta.json").read_bytes() == store


def test_a_licence_is_told_and_changes_no_row(recipe, tmp_path, capsys):
    sources = "data.sources=[{pocket: 240, name: small, licence: cc-by-4.0}]"
    assert run(recipe(), tmp_path / "run", until="prepare") == 0
    assert run(recipe(sources), tmp_path / "run", until="prepare", export=tmp_path / "out") == 0
    assert "prepared before" in capsys.readouterr().err
    card = (tmp_path / "out/README.md").read_text()
    assert "license:\n- cc-by-4.0\n- unknown\n" in card and str(tmp_path) not in card


def test_what_is_no_export_is_left_as_it_is(recipe, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    for path in (mine, mine / "thesis.txt"):
        with pytest.raises(UserError, match="no export of Tunesmith, so it was left as it is"):
            run(recipe(), tmp_path / "run", until="prepare", export=path)
    assert (mine / "thesis.txt").read_text() == "precious" and not (tmp_path / "run/tokens").exists()
    (mine / "thesis.txt").unlink()
    for _ in range(2):  # an empty folder, and then an export
        assert run(recipe(), tmp_path / "run", until="prepare", export=mine) == 0
    assert (mine / "README.md").is_file()
