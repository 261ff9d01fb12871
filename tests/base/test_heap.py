"""Freed memory goes back: what a process takes after large blocks came and went in no order."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
from tunesmith.base.heap import return_freed_memory
if sys.argv[1] == "told" and not return_freed_memory():
    sys.exit("no glibc")
import numpy as np
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
np.ones(1 << 19)  # freed, which teaches glibc to keep blocks of this size
before = resident()
held = [np.ones(1 << 17) for _ in range(300)]  # a MiB each
held = held[::10]  # gaps of 9 MiB stay
print((resident() - before) / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_gaps_between_blocks_go_back_to_the_system():
    taken = {}
    for how in ("told", "untold"):
        done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=False)
        if done.stderr.strip() == "no glibc":
            pytest.skip("no glibc here")
        taken[how] = float(done.stdout)
    assert taken["told"] < 40  # 30 MiB are held
    assert taken["untold"] > 200
