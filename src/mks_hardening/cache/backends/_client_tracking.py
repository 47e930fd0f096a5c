"""Local copies that Redis invalidates: client tracking (RESP3) in broadcast mode, by key prefix.

A copy may be served only while the channel is known to deliver: Redis must have responded on it to a command sent
at most ``TRUSTED_FOR`` seconds ago, so that all earlier reports have arrived. When the channel breaks or is opened,
all copies are dropped, and what was read before must not be copied any more.

redis-py's client-side cache is not used: it has no asyncio version, polls a pooled connection under two locks at
each hit (31 µs), and keeps the bytes of Redis, which would be verified and decoded at each hit.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import RLock
from typing import Final, Protocol, TypeAlias

from mks_hardening._core.backend.redis_push_channel import PushMessage, RedisMessage
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.operations import run
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.interval_thread import IntervalThread, until_collected
from mks_hardening._core.resilience.outage_log import OutageLog
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache.backends._pending_invalidations import EVERYTHING, Invalidation
from mks_hardening.exceptions import BackendUnavailableError

__all__ = ["TRUSTED_FOR", "ChannelTrust", "ClientTracking", "TrackingChannel"]

TRUSTED_FOR: Final = 1.5
"""Seconds for which copies are served, from the sending of the last command that Redis has responded to."""

_PING_EVERY: Final = 0.5
_ANSWER_WITHIN: Final = 3.0
_LOOK_EVERY: Final = 0.001
_WAIT: Final = 0.25
_RECONNECT_AFTER: Final = 0.02
_RETRY_WITHIN: Final = 1.0
_logger = logging.getLogger("mks_hardening.cache")


class TrackingChannel(Protocol):
    """A connection to Redis with non-blocking reads; see ``PushChannel``."""

    def send(self, command: Sequence[object]) -> None:
        """Send a command."""
        ...

    def receive(self) -> list[RedisMessage]:
        """Return what has arrived."""
        ...

    def wait(self, seconds: float) -> None:
        """Wait for something to arrive."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


Meaning: TypeAlias = Callable[[bytes], Invalidation | None]
"""Returns what a change of a name in Redis invalidates."""
_ALL: Final[Invalidation] = ("pattern", EVERYTHING)


class ChannelTrust:
    """How long a channel is trusted to deliver, judging by its commands and their responses. No I/O.

    Attributes:
        until: monotonic time until which copies may be served; 0 before the first response.
    """

    __slots__ = ("_sent", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self._sent: deque[float] = deque()

    def sent(self, now: float) -> None:
        """Record that a command was sent: first ``CLIENT TRACKING``, then each ``PING``."""
        self._sent.append(now)

    def must_ping(self, now: float) -> bool:
        """Return whether it is time to send another command."""
        return not self._sent and now >= self.until - TRUSTED_FOR + _PING_EVERY

    def is_silent(self, now: float) -> bool:
        """Return whether a response is so late that the connection must be closed."""
        return bool(self._sent) and now - self._sent[0] > _ANSWER_WITHIN

    def invalidated(self, message: RedisMessage, meaning: Meaning) -> Sequence[Invalidation]:
        """Return what a message invalidates; the first response invalidates all earlier copies.

        Raises:
            ValueError: an unexpected response, or an error response.
        """
        if isinstance(message, PushMessage):
            return _invalidated(message, meaning) if message[:1] == (b"invalidate",) else ()
        if isinstance(message, ValueError):
            raise message
        if not isinstance(message, bytes) or not self._sent:
            raise ValueError("Redis has sent an unexpected response")
        return () if self.until else (_ALL,)

    def applied(self, message: RedisMessage) -> None:
        """Record that the copies that a message invalidates have been dropped."""
        if not isinstance(message, PushMessage):
            self.until = self._sent.popleft() + TRUSTED_FOR


def _invalidated(message: PushMessage, meaning: Meaning) -> Sequence[Invalidation]:
    names = message[1] if len(message) > 1 else None
    if not isinstance(names, list):  # null: the server was emptied
        return (_ALL,)
    found = [meaning(name) if isinstance(name, bytes) else _ALL for name in names]
    return [one for one in found if one is not None]


class ClientTracking:
    """Drops copies in a local store when Redis reports a change; a background thread maintains the channel.

    A thread that requests a copy also reads messages itself, at most once a millisecond, because busy threads can
    keep the background thread from running for several milliseconds.

    Args:
        connect: opens a connection; raises ``BackendUnavailableError``.
        copies: the store of the copies, whose operations do no I/O.
        prefixes: prefixes of the names to track.
        meaning: what a change of a name invalidates.
        forget: called before all copies are dropped, because other cached facts about the server may be stale too.
    """

    def __init__(
        self,
        connect: Callable[[], TrackingChannel],
        copies: CacheStore,
        *,
        prefixes: Iterable[bytes],
        meaning: Meaning,
        forget: Callable[[], object],
    ) -> None:
        self._connect = connect
        self._copies = copies
        self._command = (
            "CLIENT",
            "TRACKING",
            "ON",
            "BCAST",
            *(p for one in prefixes for p in ("PREFIX", one)),
        )
        self._meaning = meaning
        self._forget = forget
        self._closed = False
        self._channel: TrackingChannel | None = None
        self._outage = OutageLog(
            _logger,
            level=logging.WARNING,
            began="no copies are kept in memory, because Redis cannot report changes: %s",
            ended="Redis reports changes again, so copies are kept in memory",
        )
        # It waits in the work itself, for messages.
        work = until_collected(self._watch)
        self._thread = IntervalThread(work, every=0.0, name="mks-cache-tracking")
        self.reset_after_fork()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Start without a channel in a forked child, which must neither read nor close its parent's."""
        self._of_the_parent = self._channel
        self._lock = RLock()
        self._channel = None
        self._trust = ChannelTrust()
        self._next_look = 0.0
        self._next_attempt = 0.0

    def is_current(self) -> bool:
        """Return whether copies may be served now, after dropping those whose change has been reported."""
        now = SYSTEM_CLOCK.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            if self._channel is None:
                if not self._closed:
                    self._thread.start()
            elif self._lock.acquire(blocking=False):  # otherwise another thread is looking
                try:
                    self._look(now)
                finally:
                    self._lock.release()
        return now < self._trust.until

    def close(self) -> None:
        """End the thread, close the channel, and drop all copies."""
        self._closed = True
        self._thread.close()
        with self._lock:
            self._break()

    def _watch(self) -> bool:
        """Wait for messages, or open the channel; return whether to continue."""
        channel, now = self._channel, SYSTEM_CLOCK.monotonic()
        if channel is not None:
            with suppress(OSError, ValueError):  # closed by a thread that has noticed the same
                channel.wait(_WAIT)
            with self._lock:
                self._look(SYSTEM_CLOCK.monotonic())
        elif now < self._next_attempt:
            time.sleep(min(_WAIT, self._next_attempt - now))
        else:
            self._open()
        return not self._closed

    def _open(self) -> None:
        try:
            channel = self._connect()
        except BackendUnavailableError as error:
            if error.reason == "closed":  # with the shared cache, which ends the thread
                self._closed = True
                raise
            self._retry_later(error.reason)
            return
        with self._lock:
            if self._closed:
                channel.close()
                return
            self._channel, self._trust = channel, ChannelTrust()
            try:
                self._send(channel, self._command)
            except OSError as error:
                self._break(error)

    def _send(self, channel: TrackingChannel, command: Sequence[object]) -> None:
        """Send a command; the lock is held."""
        now = (
            SYSTEM_CLOCK.monotonic()
        )  # before: its response proves the delivery of what was reported until now
        channel.send(command)
        self._trust.sent(now)

    def _look(self, now: float) -> None:
        """Apply what has arrived, and check the channel; the lock is held."""
        channel, trust = self._channel, self._trust
        if channel is None:
            return
        try:
            for message in channel.receive():
                for kind, name in trust.invalidated(message, self._meaning):
                    self._drop(kind, name)
                trust.applied(message)
                self._outage.succeeded()
            if trust.is_silent(now):
                raise ConnectionResetError("no response in time")
            if trust.must_ping(now):
                self._send(channel, ("PING",))
        except (OSError, ValueError) as error:
            self._break(error)

    def _drop(self, kind: str, name: str) -> None:
        if kind == "key":
            run(self._copies.remove((name,)))
        elif kind == "tag":
            run(self._copies.void_tags((name,)))
        else:
            self._forget()
            run(self._copies.void_all())

    def _break(self, error: Exception | None = None) -> None:
        """Drop the channel and all copies; the lock is held."""
        channel, self._channel = self._channel, None
        was_good, self._trust = self._trust.until > 0, ChannelTrust()
        self._drop(*_ALL)
        if channel is not None:
            channel.close()
        if was_good:  # the server may be available all the same
            self._next_attempt = SYSTEM_CLOCK.monotonic() + _RECONNECT_AFTER
        elif error is not None:
            self._retry_later(str(error))

    def _retry_later(self, reason: str) -> None:
        wait = min(self._outage.failed(reason), _RETRY_WITHIN)
        self._next_attempt = SYSTEM_CLOCK.monotonic() + wait
