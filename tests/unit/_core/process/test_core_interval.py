"""A thread that works at intervals."""

import threading

import pytest

from mks_hardening._core.process.interval_thread import IntervalThread
from mks_hardening.exceptions import BackendUnavailableError


def test_one_thread_works_until_nothing_is_left() -> None:
    threads: set[str] = set()
    done = threading.Event()
    results = [True, True, False]

    def flush() -> bool:
        threads.add(threading.current_thread().name)
        more = results.pop(0)
        if not more:
            done.set()
        return more

    thread = IntervalThread(flush, every=0.001, name="mks-flush-test")
    for _ in range(3):
        thread.start()
    assert done.wait(10)
    assert threads == {"mks-flush-test"}


@pytest.mark.parametrize(("reason", "more"), [("open", True), ("timeout", True), ("closed", False)])
def test_the_thread_ends_with_its_client_and_outlasts_an_outage(reason: str, *, more: bool) -> None:
    def flush() -> bool:
        raise BackendUnavailableError("redis", reason)

    thread = IntervalThread(flush, every=60, name="mks-flush-test")
    assert thread.close(last_try=True) is more
    assert thread.close(last_try=True) is False  # closed already
