"""Checkpoints under damage, kills and full disks."""

import errno
import json
import os
import shutil

import pytest
import torch

from tunesmith.base.errors import CheckpointError, TunesmithError
from tunesmith.train import checkpoint
from tunesmith.train.checkpoint import Checkpoints
from tunesmith.train.optimizer import build_optimizer
from tunesmith.train.settings import TrainSettings


@pytest.fixture
def trained(build):
    """A model and its optimizer after one update."""
    model = build()
    optimizer = build_optimizer(model, TrainSettings())
    optimizer.param_groups[0]["lr"] = 0.01
    model(torch.arange(20)[None]).logits.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def save(folder, trained, step, keep=10):
    Checkpoints(folder, *trained, owner="me", keep=keep).save({"step": step})
    return folder / f"step-{step:08d}"


def load(folder, build):
    model = build()
    optimizer = build_optimizer(model, TrainSettings())
    return Checkpoints(folder, model, optimizer, owner="me").load_newest(), model, optimizer


def test_weights_and_moments_come_back_to_the_bit(trained, build, tmp_path):
    save(tmp_path, trained, 1)
    state, model, optimizer = load(tmp_path, build)
    assert state == {"step": 1}
    for theirs, ours in zip(trained[0].parameters(), model.parameters(), strict=True):
        assert torch.equal(theirs, ours)
        for key, value in trained[1].state[theirs].items():
            assert torch.equal(value, optimizer.state[ours][key]) and value.dtype == optimizer.state[ours][key].dtype


def test_nothing_there_is_a_fresh_start(build, tmp_path):
    assert load(tmp_path / "none", build)[0] is None


def test_only_the_newest_are_kept(trained, tmp_path):
    for step in (5, 10, 200, 15_000_000):
        save(tmp_path, trained, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000200", "step-15000000"]


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, os.remove])
@pytest.mark.parametrize("file", [checkpoint.WEIGHTS, checkpoint.OPTIMIZER, checkpoint.STATE])
def test_a_damaged_newest_is_passed_over_and_said(trained, build, tmp_path, capsys, damage, file):
    save(tmp_path, trained, 1)
    newest = save(tmp_path, trained, 2)
    if (damage, file) == (flip, checkpoint.STATE):
        (newest / file).write_text(json.dumps({"state": {"step": 2}, "owner": "me", "counts": {}, "files": {}}))
    else:
        damage(newest / file)
    assert load(tmp_path, build)[0] == {"step": 1}
    assert "step-00000002 is broken" in capsys.readouterr().err


def test_when_all_are_damaged_the_user_decides(trained, build, tmp_path):
    cut(save(tmp_path, trained, 1) / checkpoint.WEIGHTS)
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        load(tmp_path, build)


def test_what_a_kill_left_unfinished_is_no_checkpoint_and_is_cleared(trained, build, tmp_path):
    path = save(tmp_path, trained, 1)
    shutil.copytree(path, tmp_path / ".step-00000002.123.part")
    assert load(tmp_path, build)[0] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_keeps_the_checkpoint_before(trained, build, tmp_path, monkeypatch):
    save(tmp_path, trained, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(TunesmithError, match="No space left"):
        save(tmp_path, trained, 2, keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert load(tmp_path, build)[0] == {"step": 1}


def test_a_broken_one_does_not_push_out_a_sound_one(trained, build, tmp_path):
    save(tmp_path, trained, 1)
    cut(save(tmp_path, trained, 3) / checkpoint.WEIGHTS)
    assert load(tmp_path, build)[0] == {"step": 1}
    save(tmp_path, trained, 2, keep=1)
    assert load(tmp_path, build)[0] == {"step": 2} and not (tmp_path / "step-00000003").exists()
