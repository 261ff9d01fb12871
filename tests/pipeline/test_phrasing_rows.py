"""A table put into words inside a run: held-out phrasings and items, the ledger, the command, and an edited file."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from tunesmith.base.errors import DataError, UserError
from tunesmith.cli import app
from tunesmith.data.ledger import Ledger
from tunesmith.data.sources.read import read_source
from tunesmith.pipeline import run
from tunesmith.recipe import load_recipe
from tunesmith.recipe.phrasings import phrasings_of, shipped_templates

RECIPE = """
base: pocket
data:
  sources:
    - {path: t.csv, name: nli, templates: {file: mine.yaml, per_row: 2, columns: {premise: one, hypothesis: two}}}
  hold_out: {items: 0.1, phrasings: 0.2}
train: {max_length: 256}
"""


@pytest.fixture
def folder(tmp_path):
    """A recipe, its table (120 rows and two faulty ones, each question twice), and its prompt templates."""
    shutil.copy(shipped_templates()["entailment"], tmp_path / "mine.yaml")
    rows = [f"The {n % 60} birds fly.,There are {n % 60} birds.,{n % 3}" for n in range(120)]
    (tmp_path / "t.csv").write_text("\n".join(["one,two,label", *rows, "Seven birds.,,0", "Six birds.,None.,9"]))
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


def prepared(folder, *overrides):
    assert run(load_recipe(str(folder / "r.yaml"), overrides), folder / "run", until="prepare") == 0
    lines = (folder / "run" / "data" / "held_out.tsv").read_text().splitlines()
    held = [(line.split("\t")[0], json.loads(line.split("\t")[1])) for line in lines]
    return Ledger.load(folder / "run" / "ledger"), held


def test_rows_reconcile_and_no_question_is_on_both_sides(folder):
    ledger, held = prepared(folder)
    step = ledger.summary()[0]
    assert step["stage"] == "read nli" and step["read"] == step["kept"] + step["dropped"]
    assert "122 rows of the table gave" in step["note"]
    assert step["reasons"] == {"label_outside_options": 1, "missing_column": 1}
    assert "nothing in column hypothesis" in ledger.story("nli:122")[-1]
    assert "new_items" in {place for place, _ in held}
    ids = [f"nli:{line}.{k}" for line in range(2, 122) for k in (1, 2)]
    trained = {id for id in ids if ledger.story(id)[0] == "kept, and used for train"}
    assert len(trained) > 100
    for _, row in held:
        n = (int(row["id"].split(":")[1].split(".")[0]) - 2) % 60
        assert not trained & {f"nli:{line}.{k}" for line in (n + 2, n + 62) for k in (1, 2)}


def test_held_out_phrasings_are_trained_nowhere(folder):
    overrides = ("data.sources.0.templates.per_row=1", "data.hold_out.items=0")
    ledger, held = prepared(folder, *overrides)
    assert held and {place for place, _ in held} == {"new_phrasings"}
    names = {(row["task"], row["phrasing"]) for _, row in held}
    source = load_recipe(str(folder / "r.yaml"), overrides).recipe.data.sources[0]
    rows = read_source("nli", folder / "t.csv", phrasings=phrasings_of(source, source.templates)).rows
    trained = {(row.task, row.phrasing) for row in rows if ledger.story(row.id)[0] == "kept, and used for train"}
    assert trained and not trained & names
    shown = CliRunner().invoke(app, ["inspect", str(folder / "run"), "--row", held[0][1]["id"], "--json"])
    assert shown.exit_code == 0 and json.loads(shown.stdout)[0]["row"].startswith("nli:")


def test_an_edit_of_the_templates_is_seen(folder, capsys):
    prepared(folder)
    prepared(folder)
    assert "prepared before" in capsys.readouterr().err
    templates = folder / "mine.yaml"
    templates.write_text(templates.read_text().replace("A friend tells me", "A colleague tells me"))
    prepared(folder)
    assert "prepared before" not in capsys.readouterr().err
    shown = CliRunner().invoke(app, ["inspect", str(folder / "run"), "--row", "nli:2.1"])
    assert shown.exit_code == 0 and "nli:2.1" in shown.stdout


def test_faults_stop_before_anything_is_spent(folder):
    def fails(error, match, *overrides):
        with pytest.raises(error, match=match):
            run(load_recipe(str(folder / "r.yaml"), overrides), folder / "run", until="prepare")

    fails(DataError, "names column 'premise'", "data.sources.0.templates.columns={hypothesis: two}")
    fails(UserError, "neither a file nor the name", "data.sources.0.templates.file=their.yaml")
    (folder / "t.csv").write_text("one,two,label\na,b,9\nc,d,8\n")
    fails(UserError, r"none of its 2 rows can be used(.|\n)*label '9' is none of 0, 1, 2")


def test_the_command_prints_what_is_shipped():
    listed = CliRunner().invoke(app, ["templates"]).stdout
    assert all(name in listed for name in shipped_templates())
    printed = CliRunner().invoke(app, ["templates", "choices"]).stdout
    assert printed == shipped_templates()["choices"].read_text(encoding="utf-8")
