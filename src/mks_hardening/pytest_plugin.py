"""Fixtures for tests of applications that use this package; pytest finds them through the entry point.

Loading it costs a test run nothing but this file: each fixture imports what it needs when a test asks for it, and
none runs unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import fakeredis

    from mks_hardening.db import QueryLog
    from mks_hardening.tasks import Tasks
    from mks_hardening.testing import (
        FrozenClock,
        RecordedAlerts,
        RecordedEvents,
        RecordedLines,
        RecordingTransport,
        TaskRecorder,
        WSGIAnswer,
    )

# Fixtures are found by pytest, not imported.
__all__: list[str] = []

_BUDGET = "mks_query_budget"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{_BUDGET}(limit, *engines): fail the test when it sends more statements than that; engines or names of "
        "fixtures that give them, all hardened engines where there are none (mks_hardening)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Hold a marked test to its budget; what its fixtures send is not counted."""
    marker = item.get_closest_marker(_BUDGET)
    if marker is None:
        return (yield)
    from mks_hardening.db import query_budget

    if not marker.args or marker.kwargs:
        raise pytest.UsageError(f"{item.nodeid}: write @pytest.mark.{_BUDGET}(limit, *engines)")
    limit, *named = marker.args
    given: dict[str, object] = getattr(item, "funcargs", {})
    # A fixture that the test does not use would have to be set up here, inside of the budget.
    unknown = [name for name in named if isinstance(name, str) and name not in given]
    if unknown:
        raise pytest.UsageError(f"{item.nodeid}: the test does not use the fixture {unknown[0]}")
    engines: list[Any] = [given[name] if isinstance(name, str) else name for name in named]
    with query_budget(limit, *engines):
        return (yield)


@pytest.fixture
def mks_clock() -> FrozenClock:
    """A clock that stands still until it is moved; pass it as ``clock=``."""
    from mks_hardening.testing import FrozenClock

    return FrozenClock()


@pytest.fixture
def mks_redis() -> Iterator[fakeredis.FakeRedis]:
    """An empty Redis inside the process; pass it where a URL or client is asked for."""
    from mks_hardening._core.optional_imports import optional

    with optional("fakeredis", extra="testing"):
        import fakeredis
    with fakeredis.FakeRedis() as client:
        yield client


@pytest.fixture
def mks_outbox() -> RecordingTransport:
    """A transport that keeps every alert instead of sending it; pass it as ``transport=``."""
    from mks_hardening.testing import RecordingTransport

    return RecordingTransport()


@pytest.fixture
def mks_query_budget() -> Callable[..., AbstractContextManager[QueryLog]]:
    """``mks_hardening.db.query_budget``: fails a ``with`` block that sends more than so many statements."""
    from mks_hardening.db import query_budget

    return query_budget


@pytest.fixture
def mks_wsgi() -> Callable[..., WSGIAnswer]:
    """``mks_hardening.testing.call_wsgi``: one request to a WSGI application, without a server."""
    from mks_hardening.testing import call_wsgi

    return call_wsgi


@pytest.fixture
def mks_events() -> Iterator[RecordedEvents]:
    """Every event of ``mks_hardening.events`` during the test: ``mks_events.of(CacheRead)``."""
    from mks_hardening.events import add_observer, remove_observer
    from mks_hardening.testing import RecordedEvents

    recorded = RecordedEvents()
    add_observer(recorded)
    yield recorded
    remove_observer(recorded)


@pytest.fixture
def mks_records() -> Iterator[RecordedLines]:
    """Every log record of the test as it is written: ``.lines``, ``.of("app")``, ``.messages``, ``.text``.

    Records of this package pass from INFO on; ``mks_records.set_level`` lets more through.
    """
    import logging

    from mks_hardening.logging import JsonFormatter
    from mks_hardening.testing import RecordedLines

    recorded = RecordedLines(JsonFormatter())
    recorded.set_level(logging.INFO, "mks_hardening")
    logging.getLogger().addHandler(recorded)
    yield recorded
    logging.getLogger().removeHandler(recorded)
    recorded.close()


@pytest.fixture
def mks_alerts() -> Iterator[RecordedAlerts]:
    """The alerts that the records of the test would send (ERROR and above): ``.subjects``, ``.texts``."""
    import logging

    from mks_hardening.notify import EmailNotificationHandler
    from mks_hardening.testing import RecordedAlerts, RecordingTransport

    transport = RecordingTransport()
    handler = EmailNotificationHandler(
        "localhost",
        from_addr="alerts@example.com",
        to_addrs="ops@example.com",
        lang="en",
        environment="test",
        transport=transport,
    )
    logging.getLogger().addHandler(handler)
    yield RecordedAlerts(transport, handler.flush)
    logging.getLogger().removeHandler(handler)
    handler.close()


@pytest.fixture
def mks_tasks(mks_clock: FrozenClock) -> Iterator[Callable[[Tasks], TaskRecorder]]:
    """Watch the tasks of an application, by the clock ``mks_clock``.

    ``recorder = mks_tasks(tasks)``, then ``.assert_enqueued("mail.send", to="a@example.jp")`` and ``.run()``.
    """
    from contextlib import ExitStack

    from mks_hardening.tasks import TaskWorker
    from mks_hardening.testing import TaskRecorder

    with ExitStack() as stack:
        yield lambda tasks: stack.enter_context(
            TaskRecorder(tasks, worker=TaskWorker(tasks, clock=mks_clock), clock=mks_clock)
        )
