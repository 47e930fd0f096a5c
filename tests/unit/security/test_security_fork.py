"""A child forked at any moment counts and stores for itself, and never waits for a thread that it does not have."""

import os
import signal
from typing import Any

import pytest

from mks_hardening.security import MemoryTwoFactorStore, RateLimiter
from mks_hardening.testing import FrozenClock

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # forking with threads is the point
]


def in_child(work: Any) -> Any:
    """The exit code of a forked child that runs ``work``; it is killed when it hangs."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_limiter_works_in_a_child_forked_while_a_thread_held_its_lock() -> None:
    limiter = RateLimiter({"g": "2 per minute"}, clock=FrozenClock())
    assert limiter.hit("g", "k")
    with limiter._storage.counters._lock:
        assert in_child(lambda: limiter.hit("g", "k") and not limiter.hit("g", "k")) == 0
    assert limiter.hit("g", "k")


def test_a_memory_store_works_in_a_child_forked_while_a_thread_held_its_lock() -> None:
    store = MemoryTwoFactorStore()
    with store._lock:
        assert in_child(lambda: store.replace("u", b"x", expected=None, version="a")) == 0
    assert store.load("u") is None
