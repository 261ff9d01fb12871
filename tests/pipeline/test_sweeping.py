"""A grid of values is run, each run in its folder; finished ones are not run again, and all are compared."""

import json
import shutil
from pathlib import Path

import pytest

from tunesmith import pipeline
from tunesmith.base.errors import RecipeError, TunesmithError, UserError
from tunesmith.pipeline import sweeping
from tunesmith.pipeline.sweeping import Variation, grid, leave_one_out, sweep
from tunesmith.recipe import load_recipe
from tunesmith.report.compare import compare_runs, write_comparison_page


@pytest.fixture
def same_process(monkeypatch):
    """Runs without a process each, which costs seconds of imports; one test below is with processes."""

    def run(recipe, overrides, folder):
        return pipeline.run(load_recipe(recipe, overrides), folder)

    monkeypatch.setattr(sweeping, "_run", run)


def test_a_grid_has_every_combination_once():
    found = grid(["train.method=full,lora", "data.mix.weights={a: 0.5, b: 0.5},{a: 1, b: 0}"])
    assert [one.overrides for one in found] == [
        ("train.method=full", "data.mix.weights={a: 0.5, b: 0.5}"),
        ("train.method=full", "data.mix.weights={a: 1, b: 0}"),
        ("train.method=lora", "data.mix.weights={a: 0.5, b: 0.5}"),
        ("train.method=lora", "data.mix.weights={a: 1, b: 0}"),
    ]
    assert len({one.name for one in found}) == 4
    assert all("/" not in one.name for one in grid(["base=./a/b,../c"]))


@pytest.mark.parametrize("vary", [[], ["train.epochs"], ["train.epochs=1"], ["train.epochs=1,,2"]])
def test_what_is_no_grid_is_refused(vary):
    with pytest.raises(UserError, match="--vary"):
        grid(vary)


def test_a_fault_in_any_run_is_found_before_the_first(recipe_file, tmp_path):
    with pytest.raises(RecipeError, match="method"):
        sweep(recipe_file, [], grid(["train.method=full,loar"]), tmp_path / "into", "a sweep")
    assert not (tmp_path / "into").exists()


def test_a_sweep_goes_on_with_what_is_not_finished_and_compares(recipe_file, tmp_path, same_process):
    into = tmp_path / "into"
    runs = grid(["train.method=full,lora"])
    assert sweep(recipe_file, ["evaluate.items=2"], runs, into, "methods") == 0
    weights = {run.name: next((into / run.name / "model").glob("*.safetensors")).stat().st_mtime_ns for run in runs}
    assert sweep(recipe_file, ["evaluate.items=2"], runs, into, "methods") == 0
    assert weights == {
        run.name: next((into / run.name / "model").glob("*.safetensors")).stat().st_mtime_ns for run in runs
    }
    found = compare_runs([into / run.name for run in runs])
    assert found.settings["train.method"] == ["full", "lora"]
    full, lora = found.costs
    assert full.trainable > lora.trainable and full.memory > 0 and full.seconds > 0
    assert all(outcomes[1].shared == outcomes[1].row.n for outcomes in found.levels.values())
    page = (into / "comparison.html").read_text()
    assert "method=lora" in page and "<script" not in page


def test_a_run_that_fails_does_not_end_the_others(recipe_file, tmp_path, finished):
    into = tmp_path / "into"
    quick = "evaluate.items=0", "evaluate.losses=4", "train.epochs=0.2"
    runs = [Variation("bad", (f"base={tmp_path / 'none'}",)), Variation("quick", quick), Variation("finished", ())]
    shutil.copytree(finished, into / "finished")  # its process has nothing left to do
    with pytest.raises(TunesmithError, match="1 of 3 runs failed: bad"):
        sweep(recipe_file, [], runs, into, "a sweep")
    assert (into / "quick/report.html").is_file() and (into / "comparison.html").is_file()
    assert json.loads((into / "sweep.json").read_text())["exit_codes"] == {"bad": 2, "quick": 0, "finished": 0}


def test_every_cluster_is_held_out_in_its_turn(recipe_file, tmp_path, monkeypatch, same_process):
    folder = tmp_path / "run"
    overrides = ["data.hold_out={items: 0.1}", "evaluate.losses=4"]
    pipeline.run(load_recipe(recipe_file, overrides), folder, until="prepare")
    clusters = sweeping._clusters(folder)
    assert len(clusters) == 16
    monkeypatch.setattr(sweeping, "_clusters", lambda _: clusters[:2])
    assert leave_one_out(load_recipe(recipe_file, overrides), recipe_file, overrides, folder) == 0
    found = json.loads((folder / "leave_one_out/summary.json").read_text())
    assert list(found) == clusters[:2] and all(row["n"] > 0 for row in found.values())


def test_hostile_names_do_not_run_on_the_page(tmp_path, finished):
    other = tmp_path / "<script>alert(1)"
    shutil.copytree(finished, other)
    page = write_comparison_page([Path(finished), other], tmp_path / "page.html", "<img src=x onerror=alert(1)>")
    text = page.read_text()
    assert "<script" not in text and "<img" not in text
