"""Fixtures for tests of applications that use this package; pytest finds them through the entry point.

Loading it costs a test run nothing but this file: each fixture imports what it needs when a test asks for it, and
none runs unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import fakeredis

    from mks_hardening.db import QueryLog
    from mks_hardening.testing import FrozenClock, RecordingTransport

__all__: list[str] = []


@pytest.fixture
def mks_clock() -> FrozenClock:
    """A clock that stands still until it is moved; pass it as ``clock=``."""
    from mks_hardening.testing import FrozenClock

    return FrozenClock()


@pytest.fixture
def mks_redis() -> Iterator[fakeredis.FakeRedis]:
    """An empty Redis inside the process; pass it where a URL or client is asked for."""
    from mks_hardening._core.lazy import optional

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
def mks_wsgi() -> Callable[..., Any]:
    """``mks_hardening.testing.call_wsgi``: one request to a WSGI application, without a server."""
    from mks_hardening.testing import call_wsgi

    return call_wsgi
