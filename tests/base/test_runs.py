import os
from pathlib import Path

import pytest

from tunesmith.base.errors import UserError
from tunesmith.base.runs import find_run


def make(*names: str) -> None:
    for age, name in enumerate(names):
        file = Path("runs") / name / "run.json"
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        os.utime(file, (1_000_000 - age, 1_000_000 - age))


def test_a_run_is_found_by_path_by_name_and_by_age(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make("newest", "older", "oldest")
    assert find_run() == Path("runs/newest")
    assert find_run("older") == find_run("runs/older") == Path("runs/older")
    assert find_run(str(tmp_path / "runs/oldest")) == tmp_path / "runs/oldest"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    make("one")
    assert find_run("~/runs/one") == tmp_path / "runs/one"


def test_a_folder_that_is_no_run_is_named_with_those_that_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run in runs/ here"):
        find_run()
    with pytest.raises(UserError, match="There are no runs"):
        find_run("x")
    make("first", "second")
    with pytest.raises(UserError, match=r"Did you mean `second`.*newest first: first, second"):
        find_run("secnod")
    with pytest.raises(UserError, match="runs is not the folder of a run"):
        find_run("runs")
