"""Metrics of all processes per minute, stored in the database for a day.

They are stored in the database, not in Redis: this covers all workers in installations without Redis too, and an
outage of Redis is when the metrics are needed. It costs one row per process and active minute; each write deletes
rows older than a day, so the table does not grow. Minutes that cannot be written are retried.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from knowledge_system.models import Sample
from knowledge_system.services.operations.limited_clients import LimitedClient
from knowledge_system.services.operations.metric_counts import MetricCounts, SlowStatement
from mks_hardening.events import (
    AlertsCounted,
    CacheRead,
    RateLimitDecided,
    RateLimitNear,
    RequestFinished,
    SessionChanged,
    SignInEvent,
    TaskQueueSeen,
    add_observer,
    remove_observer,
)
from mks_hardening.protocols import Clock

KEPT: Final = timedelta(hours=24)
_EVERY: Final = 60
_MOST_WAITING: Final = 120
"""Minutes retained while the database is unavailable; the oldest are dropped."""
_LONGEST_TEXT: Final = 600
_PROBES: Final = frozenset({"/livez", "/readyz", "/healthz"})

_log = logging.getLogger(__name__)


class Samples(logging.Handler):
    """Counts the library's events of this process, and reads the counts of all processes.

    Also a logging handler for the library's slow-statement records: the event identifies a statement only by its
    fingerprint, and the record has its text.

    Args:
        sessions: factory of database sessions.
        clock: clock of the application.
        route: returns the route of the current request, or an empty text outside of requests.
    """

    def __init__(
        self, sessions: sessionmaker[Session], *, clock: Clock, route: Callable[[], str] = lambda: ""
    ) -> None:
        super().__init__(logging.WARNING)
        self._route = route
        self._sessions = sessions
        self._clock = clock
        self._guard = threading.Lock()
        self._minutes: dict[datetime, MetricCounts] = {}
        self._pid = os.getpid()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count events while the context is open."""
        logger = logging.getLogger("mks_hardening.db")
        add_observer(self.observe)
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            remove_observer(self.observe)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write once a minute on a background thread, and once on exit."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(_EVERY):
                self.write()

        thread = threading.Thread(target=run, name="samples", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(_EVERY)
            self.write()

    def observe(self, event: object) -> None:
        """Count an event of the library."""
        with self._guard:
            match event:
                case RequestFinished() if event.route not in _PROBES:
                    self._now().request(event.status, event.duration_ms)
                case CacheRead():
                    self._now().cache[event.outcome] += 1
                case RateLimitDecided(allowed=False):
                    self._now().refused[event.group] += 1
                case RateLimitNear():
                    self._now().came_near(LimitedClient.of(event.group, event.key))
                case AlertsCounted():
                    self._now().alerts[f"{event.channel} {event.state}"] += event.number
                case SignInEvent():
                    self._now().sign_ins[event.change] += 1
                case SessionChanged():
                    self._now().sessions[event.change] += 1
                case TaskQueueSeen():
                    self._now().queue(event.due, event.dead)
                case _:
                    pass

    def count_read(self, source: str) -> None:
        """Count a read of a page by the server that served it; see ``PageReads``."""
        with self._guard:
            self._now().reads[source] += 1

    def emit(self, record: logging.LogRecord) -> None:
        """Record the text of a slow statement."""
        fingerprint, text = getattr(record, "fingerprint", ""), getattr(record, "statement", "")
        if not fingerprint or not text:
            return
        statement = SlowStatement.once(
            text[:_LONGEST_TEXT],
            str(getattr(record, "caller", "")),
            route=self._route(),
            duration_ms=float(getattr(record, "duration_ms", 0)),
        )
        with self._guard:
            self._now().statement(fingerprint, statement=statement)

    def write(self) -> None:
        """Write the pending counts; if the database is unavailable, they stay pending."""
        now = self._minute()
        with self._guard:
            waiting = {minute: counts.as_json() for minute, counts in self._minutes.items()}
        process = f"{socket.gethostname()[:50]}:{os.getpid()}"
        try:
            with self._sessions.begin() as session:
                session.execute(delete(Sample).where(Sample.at < now - KEPT))
                for minute, counts in waiting.items():
                    session.merge(Sample(at=minute, process=process, counts=counts))
        except SQLAlchemyError as error:
            _log.warning("counts of the last minutes wait for the database (%s)", type(error).__name__)
            return
        with self._guard:
            for minute in waiting:
                if minute < now:
                    self._minutes.pop(minute, None)

    def read(self, *, last: timedelta) -> list[tuple[datetime, MetricCounts]]:
        """Return the counts per minute of all processes, oldest first; one entry per process and minute."""
        since = self._minute() - last
        with self._sessions() as session:
            found = session.execute(
                select(Sample.at, Sample.counts).where(Sample.at > since).order_by(Sample.at)
            ).all()
        return [(at, MetricCounts.from_json(counts)) for at, counts in found]

    def _minute(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time() // 60 * 60, UTC)

    def _now(self) -> MetricCounts:
        if self._pid != os.getpid():  # after a fork, drop the parent's counts, which the parent writes itself
            self._pid, self._minutes = os.getpid(), {}
        minute = self._minute()
        if minute not in self._minutes:
            while len(self._minutes) >= _MOST_WAITING:
                self._minutes.pop(next(iter(self._minutes)))
            self._minutes[minute] = MetricCounts()
        return self._minutes[minute]
