"""The command: verbs, exit codes, and messages instead of tracebacks."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tunesmith.base.errors import DataError, LimitBroken
from tunesmith.cli import app
from tunesmith.data.ledger import Drop, Ledger
from tunesmith.recipe import LoadedRecipe, load_recipe

VERBS = "run prepare train evaluate report inspect plan why chat export recipe templates schema".split()
RECIPE = "data: {sources: [{pocket: 10}]}\n"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run a command in an empty folder that holds mine.yaml; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNESMITH_DEBUG", raising=False)
    Path("mine.yaml").write_text(RECIPE)

    def command(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return command


@pytest.fixture
def pipeline(monkeypatch):
    """Stands in for the stages: `calls` says what was asked; `outcome` is returned, or raised."""
    stand_in = SimpleNamespace(calls=[], outcome=0)

    def called(*arguments: object, **named: object) -> object:
        stand_in.calls.append((arguments, named))
        if isinstance(stand_in.outcome, BaseException):
            raise stand_in.outcome
        return stand_in.outcome

    module = SimpleNamespace(run=called, report=called, inspect=called)
    monkeypatch.setitem(sys.modules, "tunesmith.pipeline", module)
    monkeypatch.setattr("tunesmith.pipeline", module, raising=False)
    return stand_in


def make_run(name: str) -> Path:
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "recipe.yaml").write_text(load_recipe("mine.yaml").complete())
    return folder


def test_help_names_every_verb_and_its_purpose(command):
    code, out, _ = command("--help")
    assert code == 0
    for verb in VERBS:
        assert f" {verb} " in out
        code, text, _ = command(verb, "--help")
        assert code == 0 and "Usage" in text


def test_help_is_quick_and_imports_nothing_heavy():
    script = (
        "import sys, tunesmith.cli as cli\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow', 'pydantic', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

    def seconds(*arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return time.perf_counter() - start

    # 0.4 s where an empty program takes 0.02 s; the ratio holds on slower or busier machines too.
    ratio = min(seconds("-m", "tunesmith", "--help") / seconds("-c", "pass") for _ in range(5))
    assert ratio < 20


@pytest.mark.parametrize(
    ("verb", "until"), [("run", "report"), ("prepare", "prepare"), ("train", "train"), ("evaluate", "evaluate")]
)
def test_the_road_runs_as_far_as_the_verb_says(command, pipeline, verb, until):
    pipeline.outcome = 3
    assert command(verb, "mine.yaml", "--set", "seed=5", "--set", "train.epochs=1")[0] == 3
    (((loaded, folder), named),) = pipeline.calls
    assert isinstance(loaded, LoadedRecipe)
    assert (loaded.recipe.seed, loaded.recipe.train.epochs) == (5, 1)
    assert (folder, named) == (Path("runs/mine"), {"until": until})


def test_where_a_run_goes(command, pipeline):
    run = make_run("earlier")
    assert command("run", "mine.yaml", "--output", "elsewhere")[0] == 0
    assert command("run", str(run))[0] == 0
    assert command("run", str(run), "-o", "other")[0] == 0
    assert [folder for (_, folder), _ in pipeline.calls] == [Path("elsewhere"), run, Path("other")]


@pytest.mark.parametrize("name", ["earlier", "runs/earlier", "runs/earlier/recipe.yaml", "~/runs/earlier"])
@pytest.mark.parametrize("verb", ["run", "prepare", "train", "evaluate", "report", "inspect"])
def test_every_verb_takes_a_run(command, pipeline, monkeypatch, verb, name):
    if verb == "report" and name.endswith("recipe.yaml"):
        return  # the run's files are all it takes
    monkeypatch.setenv("HOME", str(Path.cwd()))
    run = make_run("earlier")
    pipeline.outcome = run / "report.html" if verb == "report" else 0
    assert command(verb, name)[0] == 0
    ((arguments, _),) = pipeline.calls
    assert arguments[-1].absolute() == run.absolute()
    assert verb == "report" or arguments[0].name == "earlier"


def test_a_folder_with_a_recipe_is_no_run_yet(command, pipeline):
    Path("project").mkdir()
    Path("project/recipe.yaml").write_text(RECIPE)
    assert command("run", "project")[0] == 0
    assert pipeline.calls[0][0][1] == Path("runs/project")


def test_a_shipped_recipe_comes_before_a_run_of_its_name(command, pipeline):
    make_run("quickstart").rename("quickstart")
    assert command("run", "quickstart")[0] == 0
    ((loaded, folder), _) = pipeline.calls.pop()
    assert (loaded.text, folder) == (load_recipe("quickstart").text, Path("runs/quickstart"))
    assert loaded.path.parent.name == "recipes"


def test_a_run_with_the_name_of_a_shipped_recipe_has_its_own_recipe(command, monkeypatch):
    make_run("lora").rename("lora")
    bases = []
    chat = SimpleNamespace(open_chat=lambda _, base, **__: bases.append(base), talk=lambda *_: None)
    monkeypatch.setitem(sys.modules, "tunesmith.serve.chat", chat)
    assert command("chat", "lora", "--base")[0] == 0
    assert bases == ["pocket"]


def test_a_tilde_in_output_is_the_home_folder(command, pipeline, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert command("run", "mine.yaml", "--output=~/there")[0] == 0
    assert pipeline.calls[0][0][1] == Path.cwd() / "there"


def test_inspect_uses_a_runs_tokens_only_where_they_are_what_was_asked(command, pipeline):
    run = make_run("mine")
    for arguments, trained in ((("runs/mine",), run), (("mine.yaml",), None), (("runs/mine", "-s", "seed=1"), None)):
        assert command("inspect", *arguments)[0] == 0
        assert pipeline.calls.pop()[0][1] == trained


def test_an_output_that_is_a_file_is_told(command):
    for output in ("mine.yaml", "mine.yaml/deeper"):
        code, _, err = command("prepare", "mine.yaml", "-o", output)
        assert code == 2 and "mine.yaml is a file" in err and "--output" in err
    assert Path("mine.yaml").read_text() == RECIPE


def test_inspect_and_report_reach_the_pipeline(command, pipeline):
    run = make_run("earlier")
    assert command("inspect", str(run), "--row", "a:1", "--ids", "--json")[0] == 0
    ((loaded, folder), named) = pipeline.calls.pop()
    assert loaded.recipe.data.sources[0].pocket == 10
    assert (folder, named) == (run, {"row": "a:1", "ids": True, "as_json": True})
    pipeline.outcome = run / "report.html"
    assert command("report")[:2] == (0, f"{run}/report.html\n")
    assert pipeline.calls.pop() == ((run,), {})


def test_a_wrong_recipe_is_told_before_anything_is_imported(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "tunesmith.pipeline", None)  # importing it would fail
    Path("mine.yaml").write_text(RECIPE + "trian: {epochs: 0}\n")
    code, out, err = command("run", "mine.yaml")
    assert (code, out) == (2, "")
    assert "line 2: trian: unknown key; did you mean `train`?" in err
    assert "line 2: train.epochs: 0 must be greater" in err
    assert command("run", "nothing.yaml")[0] == 2


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (DataError("a.json is empty. Give another."), 2, "tunesmith: a.json is empty. Give another."),
        (LimitBroken("bits per byte rose by 4%"), 3, "rose by 4%"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "runs/x: No space left on device"),
        (KeyboardInterrupt(), 130, "goes on from there"),
    ],
)
def test_errors_are_one_message_and_a_code(command, pipeline, error, code, part):
    pipeline.outcome = error
    found, out, err = command("run", "mine.yaml")
    assert (found, out) == (code, "")
    assert part in err and err.count("\n") == 1
    assert "Traceback" not in err


def test_debugging_shows_the_traceback(command, pipeline, monkeypatch):
    pipeline.outcome = DataError("a.json is empty")
    monkeypatch.setenv("TUNESMITH_DEBUG", "1")
    with pytest.raises(DataError):
        command("run", "mine.yaml")


def test_bugs_are_not_hidden(command, pipeline):
    pipeline.outcome = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        command("run", "mine.yaml")


def test_why_tells_a_rows_story(command):
    ledger = Ledger(make_run("one") / "ledger")
    ledger.step("read", 2, 1, [Drop("a:1", "read", "no_response", "column answer is empty")])
    ledger.place(["a:2"], "train")
    ledger.save()
    told = command("why", "one", "a:1")[1].splitlines()
    assert told[-1] == "a:1: dropped by stage read: no_response (column answer is empty)"
    assert json.loads(command("why", "one", "a:1", "--json")[1])["drop"]["reason"] == "no_response"
    assert "no_response" in command("why", "one")[1] and "train" in command("why", "one")[1]
    assert command("why", "one", "a:1", "--reason", "x")[0] == 2
    assert "train" in command("why", "runs/one", "a:2")[1]
    code, _, err = command("why", "one", "a:3")
    assert code == 2 and "no row a:3" in err


def test_chat_and_export_say_what_is_missing(command):
    assert "no run in runs/" in command("chat")[2]
    make_run("one")
    for arguments in (("chat", "one"), ("export", "one", "--merged", "out")):
        code, _, err = command(*arguments)
        assert code == 2 and "no trained model yet" in err


def test_recipes_are_listed_and_printed(command):
    assert command("recipe")[1].split() == ["cluster", "full", "lora", "quickstart"]
    assert command("recipe", "lora")[1] == load_recipe("lora").text


def test_the_schema_is_json(command):
    assert json.loads(command("schema")[1])["title"] == "Recipe"


def test_version_and_module(command):
    done = subprocess.run([sys.executable, "-m", "tunesmith", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == command("--version")[1]


def test_unknown_verbs_and_options_are_the_users_mistakes(command):
    assert command("rum")[0] == command("run")[0] == command("run", "mine.yaml", "--ouptut", "x")[0] == 2
    assert command("chat", "--temperature", "-1")[0] == 2


def test_ctrl_c_ends_a_process_cleanly(tmp_path):
    script = (
        "import os, signal, sys, types\n"
        "stand_in = types.ModuleType('tunesmith.pipeline')\n"
        "stand_in.run = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT) or input()\n"
        "sys.modules['tunesmith.pipeline'] = stand_in\n"
        "import tunesmith, tunesmith.cli as cli\n"
        "tunesmith.pipeline = stand_in\n"
        "cli.app(['run', 'quickstart'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 130
    assert done.stderr == "tunesmith: stopped. What was finished is kept: the same command goes on from there.\n"
