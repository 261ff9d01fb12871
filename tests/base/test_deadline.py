"""Time limits: they end what takes too long, and leave everything else alone."""

import threading
import time

import pytest

from tunesmith.base.deadline import time_limit


def spin(seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


def test_what_takes_too_long_is_ended_and_what_comes_after_is_not():
    started = time.monotonic()
    with pytest.raises(TimeoutError), time_limit(0.05):
        spin()
    assert time.monotonic() - started < 5
    with time_limit(30):
        assert spin(0.3) == "done"
    assert spin(0.3) == "done"


def test_in_any_thread_and_each_by_itself():
    outcomes = {}

    def work(name, limit):
        try:
            with time_limit(limit):
                outcomes[name] = spin(0.5)
        except TimeoutError:
            outcomes[name] = "ended"

    threads = [threading.Thread(target=work, args=(limit, limit)) for limit in (0.05, 20.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes == {0.05: "ended", 20.0: "done"}


def test_errors_pass_through():
    with pytest.raises(KeyError), time_limit(5):
        raise KeyError("mine")
