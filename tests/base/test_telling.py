"""Errors of several processes, as torchrun starts them: each is told once."""

import os
import subprocess
import sys

import pytest

ONE_FAILS = """
import tunesmith.cli as cli
from tunesmith.base.errors import UserError
from tunesmith.base.ranks import joined

def go(*given):
    with joined() as ranks:
        if not ranks.is_main:
            raise UserError("the data is not on this machine")
        ranks.meet("prepared")

cli._go = go
cli.app(["run", "quickstart"])
"""


def told(program, *given):
    """The lines on stderr that Tunesmith said, and all of it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, *program, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("tunesmith: ")], done.stderr


def test_what_all_meet_is_told_by_rank_0(tmp_path):
    lines, said = told(["-m", "tunesmith"], "run", tmp_path / "none.yaml")
    assert len(lines) == 1 and "none.yaml" in lines[0] and "cli.py" not in said, said


def test_what_one_alone_meets_is_told_with_its_rank(tmp_path):
    (tmp_path / "program.py").write_text(ONE_FAILS)
    lines, said = told([str(tmp_path / "program.py")])
    assert sorted(lines)[0].startswith("tunesmith: rank 1 is gone, while the others waited for it"), said
    assert sorted(lines)[1:] == ["tunesmith: rank 1: the data is not on this machine"], said


@pytest.mark.parametrize("rank", ["0", "1"])
def test_where_nobody_keeps_the_keys_each_tells(rank):
    code = "from tunesmith.cli import app; app(['run', 'none.yaml'])"
    alone = {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | alone)
    assert done.returncode == 2 and "none.yaml" in done.stderr, done.stderr
