"""Sessions in Redis, shared by all processes and hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mks_hardening._core.checks import flag, namespace_of
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
    """A store in Redis; every operation is one atomic script, and has a twin for asyncio.

    Keys hold hashes of session ids and of user ids only, and share one hash tag, so that a Cluster keeps a
    namespace in one slot. The server's own clock forgets a session five minutes after its deadline, whatever
    the clocks of the web servers do. Living sessions must not be evicted: use ``noeviction`` or a ``volatile-``
    policy with room. A user's list that was damaged or lost is made anew by the sessions that are still used.

    Args:
        url_or_client: a Redis URL, a ``redis.Redis``, or any client with ``execute_command`` that does not decode.
        namespace: begins all keys: letters, digits and ``_.:-``.
        store_budget: seconds that one operation may take with all its round trips; inside a request all operations
            together share the request's budget.
        allow_plaintext: whether clear text may leave this machine.
        clock: source of time for those who use the store; by default the server's clock, so that web servers whose
            clocks differ agree about which sessions live.

    Raises:
        ConfigurationError: an unusable URL, client or namespace.
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
        # Here, so that an application without Redis does not load the client.
        from mks_hardening._core.backend.redis_client import RedisClient
        from mks_hardening.wsgi.session.stores._redis_operations import RedisSessions
        from mks_hardening.wsgi.session.stores._server_clock import ServerClock

        name = namespace_of(namespace)
        # Whatever an operation takes of round trips: a script that the server has forgotten is sent twice.
        self._budget = seconds(store_budget, parameter="store_budget", allow_zero=False)
        flag(allow_plaintext, parameter="allow_plaintext")
        server_clock = ServerClock()
        self.clock: Clock = server_clock if clock is None else given_clock(clock)
        self._redis = RedisClient(
            url_or_client, name="sessions", store_budget=store_budget, allow_plaintext=allow_plaintext
        )
        self._sessions = RedisSessions(self._redis, namespace=name, clock=server_clock)

    def settle(self) -> None:
        """Read the server's clock where that is due; before a time is taken from it for a new session.

        Raises:
            BackendUnavailableError: the server did not answer.
        """
        self._run(self._sessions.settle())

    async def asettle(self) -> None:
        """``settle`` for asyncio."""
        await self._arun(self._sessions.settle())

    def load(self, key: str, /) -> SessionRecord | None:
        """The session, alive or remembered as ended; ``None`` when it is unknown."""
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
        """Add a session, end ``replaces``, and end the user's oldest sessions beyond ``max_sessions``."""
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
        """Move a living session to a new key; the old one ends. ``None`` when it does not live."""
        return self._run(self._sessions.rotate(key, new_key, now=now, data=data))

    async def arotate(
        self, key: str, new_key: str, /, *, now: float, data: str | None = None
    ) -> SessionRecord | None:
        """``rotate`` for asyncio."""
        return await self._arun(self._sessions.rotate(key, new_key, now=now, data=data))

    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """Record activity of a living session; both times only move forward."""
        return self._run(self._sessions.touch(key, seen_at=seen_at, expires_at=expires_at))

    async def atouch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """``touch`` for asyncio."""
        return await self._arun(self._sessions.touch(key, seen_at=seen_at, expires_at=expires_at))

    def update(self, key: str, /, *, version: int, data: str) -> bool:
        """Replace the data if the session lives and still has that version."""
        return self._run(self._sessions.update(key, version=version, data=data))

    async def aupdate(self, key: str, /, *, version: int, data: str) -> bool:
        """``update`` for asyncio."""
        return await self._arun(self._sessions.update(key, version=version, data=data))

    def end(self, key: str, /, *, reason: str) -> bool:
        """End a living session; ``False`` when there was none."""
        return self._run(self._sessions.end(key, reason=reason))

    async def aend(self, key: str, /, *, reason: str) -> bool:
        """``end`` for asyncio."""
        return await self._arun(self._sessions.end(key, reason=reason))

    def end_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """End all living sessions of a user but ``keep``; tells how many."""
        return self._run(self._sessions.end_user(user_id, now=now, keep=keep))

    async def aend_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """``end_user`` for asyncio."""
        return await self._arun(self._sessions.end_user(user_id, now=now, keep=keep))

    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        """The living sessions of a user whose ``expires_at`` lies ahead, oldest first."""
        return self._run(self._sessions.sessions(user_id, now=now))

    async def asessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        """``sessions`` for asyncio."""
        return await self._arun(self._sessions.sessions(user_id, now=now))

    def _run(self, operation: Op[T]) -> T:
        return run(operation, budget=self._budget)

    async def _arun(self, operation: Op[T]) -> T:
        return await arun(operation, budget=self._budget)

    def ping(self) -> bool:
        """Whether Redis answers within the budget."""
        return self._redis.ping()

    async def aping(self) -> bool:
        """``ping`` for asyncio."""
        try:
            await self._redis.acall("PING", idempotent=True)
        except BackendUnavailableError:
            return False
        return True

    def close(self) -> None:
        """Give the connections back; harmless when called twice. A client that was handed in stays open."""
        self._redis.close()

    async def aclose(self) -> None:
        """``close`` for asyncio, with the connections of the running event loop."""
        await self._redis.aclose()

    def __repr__(self) -> str:
        return f"RedisSessionStore({self._sessions.prefix!r})"
