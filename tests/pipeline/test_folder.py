"""The folder of a run: which recipe may go on in it, who works in it, and what a killed process leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tunesmith.base.errors import RecipeError, UserError
from tunesmith.base.stopping import terminations_interrupt
from tunesmith.pipeline import run
from tunesmith.pipeline.folder import RunFolder
from tunesmith.recipe import load_recipe
from tunesmith.report.load import load_run


def read(path):
    return json.loads(path.read_text())


def test_a_recipe_may_change_until_something_is_trained(recipe, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match="there is no file"):
        run(recipe("data.sources=[{path: /typo.jsonl}]"), folder, until="prepare")
    assert run(recipe(), folder, until="prepare") == 0
    first = read(folder / "run.json")["keys"]["prepare"]
    assert run(recipe("seed=1", "train.threads=1"), folder, until="prepare") == 0
    assert load_recipe(str(folder)).recipe == recipe("seed=1", "train.threads=1").recipe
    assert read(folder / "run.json")["keys"]["prepare"] != first
    (folder / "checkpoints").mkdir()  # as of a training that has begun
    for change in ("seed=2", "train.learning_rate=0.1", "train.threads=2", "evaluate.forgetting.pocket=20"):
        with pytest.raises(UserError, match="different recipe"):
            RunFolder.open(folder, recipe("seed=1", "train.threads=1", change))
    RunFolder.open(folder, recipe("seed=1", "train.threads=1", "evaluate.items=3"))
    told = ("data.coverage={rows: 9}", "data.sources=[{pocket: 240, name: small, licence: mit}]")
    RunFolder.open(folder, recipe("seed=1", "train.threads=1", *told))


def test_after_training_what_only_measures_or_watches_may_change(finished, recipe, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    watching = ("train.threads=2", "train.checkpoint_every=3", "train.keep_checkpoints=1", "train.evaluate_every=4")
    assert run(recipe("evaluate.items=3", *watching), folder) == 0
    assert "Training: done before." in capsys.readouterr().err
    kept = load_recipe(str(folder)).recipe
    assert kept.evaluate.items == 3 and kept.train == recipe().recipe.train  # as it was trained
    summary = read(folder / "evaluation/summary.json")
    assert {level["overall"]["n"] for level in summary["generation"]["levels"].values()} == {3}


def test_a_recipe_that_is_no_runs_is_not_replaced(recipe, tmp_path):
    own = tmp_path / "project/recipe.yaml"
    own.parent.mkdir()
    own.write_text("# mine\ndata: {sources: [{pocket: 10}]}\n")
    with pytest.raises(UserError, match="no run of Tunesmith"):
        RunFolder.open(own.parent, load_recipe(str(own)))
    assert own.read_text().startswith("# mine")


def test_a_trained_run_whose_recipe_is_broken_is_left_alone(finished, recipe, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "recipe.yaml").write_text("train: 3\n- broken")
    with pytest.raises(UserError, match="different recipe"):
        run(recipe(), folder)
    with pytest.raises(RecipeError):
        load_recipe(str(folder))


def test_one_process_at_a_time(recipe, tmp_path):
    pytest.importorskip("fcntl")
    folder = RunFolder.open(tmp_path / "run", recipe())
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from tunesmith.pipeline.folder import RunFolder\nfrom tunesmith.recipe import load_recipe\n"
        "with RunFolder.open(Path(sys.argv[2]), load_recipe(sys.argv[1])).running():\n"
        "    print('works', flush=True)\n    input()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "small.yaml"), str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "works\n"
        before = (folder.path / "run.json").read_bytes()
        with pytest.raises(UserError, match="another tunesmith is working in"), folder.running():
            pass
        assert (folder.path / "run.json").read_bytes() == before
        assert load_run(folder.path).run["status"] == "running"
        other.kill()
        other.wait()
    assert read(folder.path / "run.json")["status"] == "running"  # it could not say that it ended
    assert load_run(folder.path).run["status"] == "stopped"
    with folder.running():
        assert read(folder.path / "run.json")["status"] == "running"
    assert read(folder.path / "run.json")["status"] == "finished"


def test_what_ended_a_run_is_kept(recipe, tmp_path):
    folder, before = RunFolder.open(tmp_path / "run", recipe()), signal.getsignal(signal.SIGTERM)
    for number, said in ((signal.SIGINT, "stopped by Ctrl-C"), (signal.SIGTERM, "stopped by SIGTERM")):
        with pytest.raises(KeyboardInterrupt), terminations_interrupt(), folder.running():
            os.kill(os.getpid(), number)
        told = read(folder.path / "run.json")
        assert (told["status"], told["error"]) == ("stopped", said)
    signal.signal(signal.SIGTERM, before)


def test_a_stage_killed_in_the_middle_is_not_done(recipe, tmp_path):
    folder = RunFolder.open(tmp_path / "run", recipe())
    with folder.running():
        with folder.stage("prepare", "one"):
            pass
        assert read(folder.path / "run.json")["keys"] == {"prepare": "one"}
        with folder.stage("prepare", "two"):
            assert read(folder.path / "run.json")["keys"] == {}


def test_half_a_model_that_a_killed_process_left_is_removed(recipe, tmp_path):
    unfinished = tmp_path / "run" / ".model.123.part"
    folder = RunFolder.open(tmp_path / "run", recipe())
    with folder.running():
        unfinished.mkdir()
        (unfinished / "model.safetensors").touch()
    with RunFolder.open(tmp_path / "run", recipe()).running():
        assert not unfinished.exists()


def test_a_run_of_a_version_with_fewer_keys_goes_on(recipe, tmp_path):
    folder = tmp_path / "run"
    assert run(recipe(), folder, until="prepare") == 0
    (folder / "checkpoints").mkdir()
    kept = (folder / "recipe.yaml").read_text()
    older = "".join(line for line in kept.splitlines(keepends=True) if "decontaminate" not in line)
    assert older != kept
    (folder / "recipe.yaml").write_text(older)
    RunFolder.open(folder, recipe())
    with pytest.raises(UserError, match="different recipe"):
        RunFolder.open(folder, recipe("seed=1"))
