"""What stays of files when a process is killed while it writes them, or the system refuses."""

import errno
import os

import pytest

from tunesmith.base.errors import TunesmithError
from tunesmith.base.files import refusals_told, remove_unfinished, write_text, written_aside


def folder_of(path, content):
    path.mkdir()
    (path / "weights").write_text(content)


def test_a_kill_between_two_renames_gives_back_what_was_there(tmp_path):
    folder_of(tmp_path / ".model.17.old", "before")
    folder_of(tmp_path / ".model.17.part", "after")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "before"


def test_a_kill_after_both_renames_leaves_the_new_one(tmp_path):
    folder_of(tmp_path / ".model.17.old", "before")
    folder_of(tmp_path / "model", "after")
    write_text(tmp_path / ".mine.old", "a user's")
    write_text(tmp_path / ".lock", "")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".mine.old", "model"]
    assert (tmp_path / "model" / "weights").read_text() == "after"


def test_a_second_rename_that_fails_gives_back_what_was_there(tmp_path, monkeypatch):
    folder_of(tmp_path / "model", "before")
    rename = type(tmp_path).rename

    def failing(self, target):
        if self.name.endswith(".part"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", failing)
    with pytest.raises(TunesmithError, match="Input/output error"), written_aside(tmp_path / "model") as aside:
        folder_of(aside, "after")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "before"


@pytest.mark.parametrize(("number", "remedy"), [(errno.ENOSPC, "Free some space"), (errno.EIO, "Look at that disk")])
def test_what_the_system_refuses_is_told_once_with_its_remedy(tmp_path, number, remedy):
    with pytest.raises(TunesmithError, match=remedy) as caught, refusals_told(tmp_path / "a"):  # noqa: SIM117
        with refusals_told(tmp_path / "b"):
            raise OSError(number, os.strerror(number))
    assert str(caught.value).count("could not write") == 1
