"""A worker forked at any moment signs people in, and never waits for a thread that it does not have."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

import wsgi_session_apps as apps
from mks_hardening.protocols import SessionRecord
from mks_hardening.wsgi import MemorySessionStore, SessionTimeoutMiddleware

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # forking with threads is the point
]


def in_child(work: Callable[[], bool]) -> int:
    """The exit code of a forked child that runs ``work``; it is killed when it hangs."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_forked_while_the_store_was_held_signs_in_and_out() -> None:
    store = MemorySessionStore()
    browser = apps.Browser(SessionTimeoutMiddleware(apps.bare([]), store=store, max_sessions=2))
    browser.get("/sign-in")

    def work() -> bool:
        answers = [browser.get(path).status for path in ("/page", "/rotate", "/sign-in", "/sign-out")]
        return answers == [200] * 4

    with store._lock:
        assert in_child(work) == 0
    assert browser.get("/page").status == 200


@pytest.mark.parametrize("done", ["listed, not recorded", "recorded, not listed", "ended, still listed"])
def test_a_change_that_was_half_done_at_the_fork_harms_nobody(done: str) -> None:
    store = MemorySessionStore()
    record = SessionRecord("k", "u", 1.0, 1.0, 100.0)
    if done != "recorded, not listed":
        store._by_user["u"] = {"k"}
    if done != "listed, not recorded":
        store._records["k"] = record._replace(ended="idle" if done.startswith("ended") else "")
    assert [one.key for one in store.sessions("u", now=2.0)] == []
    assert store.end_user("u", now=2.0) == 0
    store.create(record._replace(key="new"), now=2.0, max_sessions=1)
    assert [one.key for one in store.sessions("u", now=2.0)] == ["new"]
