import os
import signal
import subprocess
import sys

import pytest

from tunesmith.base.parallel import map_chunks
from tunesmith.base.stopping import Terminated, terminations_interrupt

ASKED_TWICE = """
import os, signal, time
from tunesmith.base.stopping import terminations_interrupt
with terminations_interrupt():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        time.sleep(2.1)
        os.kill(os.getpid(), signal.SIGTERM)
        print("still there")
"""


@pytest.fixture(autouse=True)
def handler():
    """What hears SIGTERM otherwise."""
    before = signal.getsignal(signal.SIGTERM)
    yield before
    signal.signal(signal.SIGTERM, before)


def test_unasked_nothing_stays(handler):
    with terminations_interrupt():
        assert signal.getsignal(signal.SIGTERM) is not handler
    assert signal.getsignal(signal.SIGTERM) is handler


def test_sigterm_interrupts_as_ctrl_c_does():
    closed = []
    with pytest.raises(KeyboardInterrupt) as raised, terminations_interrupt():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # said again within moments: what is being closed goes on closing
            closed.append("all of it")
    assert raised.type is Terminated and closed
    os.kill(os.getpid(), signal.SIGTERM)  # the last words can be said


def test_a_later_sigterm_ends_at_once():
    ended = subprocess.run([sys.executable, "-c", ASKED_TWICE], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGTERM and not ended.stdout


def test_processes_that_prepare_data_end_by_sigterm_as_ever():
    with terminations_interrupt():
        handlers = list(map_chunks(lambda chunk: int(signal.getsignal(signal.SIGTERM)), range(8), 1, 2))
    assert handlers == [signal.SIG_DFL] * 8
