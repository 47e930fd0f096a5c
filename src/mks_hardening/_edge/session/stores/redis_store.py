"""Session store in Redis, shared by all processes and hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mks_hardening._core.checks import boolean, namespace_of
from mks_hardening._core.clock import given_clock
from mks_hardening._core.closing import Closing
from mks_hardening._core.durations import seconds
from mks_hardening._core.operations import Op, arun, run
from mks_hardening._core.resilience.budget import STORE_BUDGET
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionRecord

if TYPE_CHECKING:
    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisSessionStore"]

T = TypeVar("T")


class RedisSessionStore(Closing):
    """A session store in Redis; every operation is one atomic script and has an asyncio version.

    Keys contain only hashes of session ids and user ids, and share one hash tag, so that Redis Cluster keeps a
    namespace in one slot. Redis deletes a session five minutes after its deadline by its own clock, whatever the
    clocks of the web servers show. Living sessions must not be evicted: use ``noeviction``, or a ``volatile-``
    policy with enough memory. If the index of a user is damaged or lost, sessions that are still used restore it.

    Args:
        url_or_client: a Redis URL, a ``redis.Redis``, or any client with ``execute_command`` that does not decode
            responses.
        namespace: prefix of all keys: letters, digits and ``_.:-``.
        store_budget: seconds that one operation may take with all its round trips; within a request, all operations
            share the request's budget.
        allow_plaintext: whether unencrypted connections to other machines are allowed.
        clock: source of time for the users of the store; by default the server's clock, so that web servers whose
            clocks differ agree on which sessions are alive.

    Raises:
        ConfigurationError: the URL, client or namespace cannot be used.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike | RedisClient,
        *,
        namespace: str = "mks:sessions",
        store_budget: float = STORE_BUDGET,
        allow_plaintext: bool = False,
        clock: Clock | None = None,
    ) -> None:
        # Imported here, so that an application without Redis does not load the client.
        from mks_hardening._core.backend.redis_client import RedisClient
        from mks_hardening._edge.session.stores.redis_sessions import RedisSessions
        from mks_hardening._edge.session.stores.server_clock import ServerClock

        name = namespace_of(namespace)
        # Covers all round trips of an operation: a script that the server has forgotten is sent twice.
        self._budget = seconds(store_budget, parameter="store_budget", allow_zero=False)
        boolean(allow_plaintext, parameter="allow_plaintext")
        server_clock = ServerClock()
        self.clock: Clock = server_clock if clock is None else given_clock(clock)
        self._redis = RedisClient(
            url_or_client, name="sessions", store_budget=store_budget, allow_plaintext=allow_plaintext
        )
        self._sessions = RedisSessions(self._redis, namespace=name, clock=server_clock)

    def settle(self) -> None:
        """Synchronize with the server's clock if due, before a time is taken from it for a new session.

        Raises:
            BackendUnavailableError: the server did not respond.
        """
        self._run(self._sessions.settle())

    async def asettle(self) -> None:
        """``settle`` for asyncio."""
        await self._arun(self._sessions.settle())

    def load(self, key: str, /) -> SessionRecord | None:
        """Return the session, alive or ended but retained; ``None`` if it is unknown."""
        return self._run(self._sessions.load(key))

    async def aload(self, key: str, /) -> SessionRecord | None:
        """``load`` for asyncio."""
        return await self._arun(self._sessions.load(key))

    def create(
        self,
        record: SessionRecord,
        /,
        *,
        now: float,
        replaces: str | None = None,
        max_sessions: int | None = None,
    ) -> list[str]:
        """Add a session, end ``replaces``, and end the user's oldest sessions beyond ``max_sessions``.

        Returns:
            The keys of the sessions beyond ``max_sessions``.
        """
        return self._run(self._sessions.create(record, now=now, replaces=replaces, max_sessions=max_sessions))

    async def acreate(
        self,
        record: SessionRecord,
        /,
        *,
        now: float,
        replaces: str | None = None,
        max_sessions: int | None = None,
    ) -> list[str]:
        """``create`` for asyncio."""
        return await self._arun(
            self._sessions.create(record, now=now, replaces=replaces, max_sessions=max_sessions)
        )

    def rotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """Move a living session to a new key and end the old one; ``None`` if it is not alive."""
        return self._run(self._sessions.rotate(key, new_key, now=now, data=data))

    async def arotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """``rotate`` for asyncio."""
        return await self._arun(self._sessions.rotate(key, new_key, now=now, data=data))

    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """Record activity of a living session; both times only increase."""
        return self._run(self._sessions.touch(key, seen_at=seen_at, expires_at=expires_at))

    async def atouch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """``touch`` for asyncio."""
        return await self._arun(self._sessions.touch(key, seen_at=seen_at, expires_at=expires_at))

    def update(self, key: str, /, *, version: int, data: str) -> bool:
        """Replace the data if the session is alive and has this version."""
        return self._run(self._sessions.update(key, version=version, data=data))

    async def aupdate(self, key: str, /, *, version: int, data: str) -> bool:
        """``update`` for asyncio."""
        return await self._arun(self._sessions.update(key, version=version, data=data))

    def end(self, key: str, /, *, reason: str) -> bool:
        """End a living session; ``False`` if there was none."""
        return self._run(self._sessions.end(key, reason=reason))

    async def aend(self, key: str, /, *, reason: str) -> bool:
        """``end`` for asyncio."""
        return await self._arun(self._sessions.end(key, reason=reason))

    def end_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """End all living sessions of a user except ``keep``; returns their number."""
        return self._run(self._sessions.end_user(user_id, now=now, keep=keep))

    async def aend_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """``end_user`` for asyncio."""
        return await self._arun(self._sessions.end_user(user_id, now=now, keep=keep))

    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        """Return the living sessions of a user with ``expires_at`` in the future, oldest first."""
        return self._run(self._sessions.sessions(user_id, now=now))

    async def asessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        """``sessions`` for asyncio."""
        return await self._arun(self._sessions.sessions(user_id, now=now))

    def _run(self, operation: Op[T]) -> T:
        return run(operation, budget=self._budget)

    async def _arun(self, operation: Op[T]) -> T:
        return await arun(operation, budget=self._budget)

    def ping(self) -> bool:
        """Return whether Redis responds within the budget."""
        return self._redis.ping()

    async def aping(self) -> bool:
        """``ping`` for asyncio."""
        try:
            await self._redis.acall("PING", idempotent=True)
        except BackendUnavailableError:
            return False
        return True

    def close(self) -> None:
        """Close the connections; may be called twice. A client that was passed in stays open."""
        self._redis.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, including the connections of the running event loop."""
        await self._redis.aclose()

    def __repr__(self) -> str:
        return f"RedisSessionStore({self._sessions.prefix!r})"
