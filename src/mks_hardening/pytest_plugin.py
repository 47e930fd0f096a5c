"""Pytest fixtures for applications that use this package; registered through the entry point.

Loading the plugin imports only this file: each fixture imports what it needs when a test requests it, and no
fixture is autouse.
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
        WSGIResponse,
    )

# Pytest discovers the fixtures; they are not imported.
__all__: list[str] = []

_BUDGET = "mks_query_budget"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{_BUDGET}(limit, *engines): fail the test when it sends more statements than that; engines or names of "
        "fixtures that give them, all hardened engines where there are none (mks_hardening)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Enforce the query budget of a marked test; queries of its fixtures are not counted."""
    marker = item.get_closest_marker(_BUDGET)
    if marker is None:
        return (yield)
    from mks_hardening.db import query_budget

    if not marker.args or marker.kwargs:
        raise pytest.UsageError(f"{item.nodeid}: write @pytest.mark.{_BUDGET}(limit, *engines)")
    limit, *named = marker.args
    given: dict[str, object] = getattr(item, "funcargs", {})
    # A fixture that the test does not request would be set up here, inside the budget.
    unknown = [name for name in named if isinstance(name, str) and name not in given]
    if unknown:
        raise pytest.UsageError(f"{item.nodeid}: the test does not use the fixture {unknown[0]}")
    engines: list[Any] = [given[name] if isinstance(name, str) else name for name in named]
    with query_budget(limit, *engines):
        return (yield)


@pytest.fixture
def mks_clock() -> FrozenClock:
    """Return a clock that stands still until it is advanced; pass it as ``clock=``."""
    from mks_hardening.testing import FrozenClock

    return FrozenClock()


@pytest.fixture
def mks_redis() -> Iterator[fakeredis.FakeRedis]:
    """Return an empty in-process Redis; pass it wherever a URL or client is accepted."""
    from mks_hardening._core.optional_imports import optional

    with optional("fakeredis", extra="testing"):
        import fakeredis
    with fakeredis.FakeRedis() as client:
        yield client


@pytest.fixture
def mks_outbox() -> RecordingTransport:
    """Return a transport that stores every alert instead of sending it; pass it as ``transport=``."""
    from mks_hardening.testing import RecordingTransport

    return RecordingTransport()


@pytest.fixture
def mks_query_budget() -> Callable[..., AbstractContextManager[QueryLog]]:
    """Return ``mks_hardening.db.query_budget``: fails a ``with`` block that sends more statements than allowed."""
    from mks_hardening.db import query_budget

    return query_budget


@pytest.fixture
def mks_check() -> Callable[..., Any]:
    """Return ``mks_check.check``, the audit before go-live, with a report as its result (extra ``check``)."""
    from mks_hardening._core.check_package import check_tool

    check: Callable[..., Any] = check_tool("pytest")
    return check


@pytest.fixture
def mks_wsgi() -> Callable[..., WSGIResponse]:
    """Return ``mks_hardening.testing.call_wsgi``: one request to a WSGI application, without a server."""
    from mks_hardening.testing import call_wsgi

    return call_wsgi


@pytest.fixture
def mks_events() -> Iterator[RecordedEvents]:
    """Record every event of ``mks_hardening.events`` during the test: ``mks_events.of(CacheRead)``."""
    from mks_hardening.events import add_observer, remove_observer
    from mks_hardening.testing import RecordedEvents

    recorded = RecordedEvents()
    add_observer(recorded)
    yield recorded
    remove_observer(recorded)


@pytest.fixture
def mks_records() -> Iterator[RecordedLines]:
    """Record every log record of the test as it is formatted: ``.lines``, ``.of("app")``, ``.messages``, ``.text``.

    Records of this package are included from INFO; ``mks_records.set_level`` includes lower levels.
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
    """Record the alerts that the test's log records trigger (ERROR and above): ``.subjects``, ``.texts``."""
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
    """Record and run the background tasks of an application, on the clock ``mks_clock``.

    ``recorder = mks_tasks(tasks)``, then ``.assert_enqueued("mail.send", to="a@example.jp")`` and ``.run()``.
    """
    from contextlib import ExitStack

    from mks_hardening.tasks import TaskWorker
    from mks_hardening.testing import TaskRecorder

    with ExitStack() as stack:
        yield lambda tasks: stack.enter_context(
            TaskRecorder(tasks, worker=TaskWorker(tasks, clock=mks_clock), clock=mks_clock)
        )
