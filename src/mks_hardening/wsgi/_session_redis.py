"""Sessions in Redis, shared by all processes and hosts."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Self

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.protocols import SessionRecord
from mks_hardening.wsgi import _session_scripts as lua
from mks_hardening.wsgi._session_memory import RETENTION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from mks_hardening._core.redis_client import RedisClient
    from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisSessionStore"]

_FIELDS: Final = "uctxdve"
_BRACES: Final = frozenset("{}")


class RedisSessionStore:
    """A store in Redis; every operation is one atomic script.

    Keys hold hashes of session ids and of user ids only, and share one hash tag, so that a Cluster keeps a
    namespace in one slot. The server's own clock forgets a session five minutes after its deadline, whatever
    the clocks of the web servers do. Living sessions must not be evicted: use ``noeviction`` or a ``volatile-``
    policy with room.

    Args:
        url_or_client: a Redis URL, a ``RedisClient``, or a client with ``execute_command`` that does not decode.
        namespace: begins all keys; letters of your choice without braces.
        store_budget: seconds one call may take.
        allow_plaintext: whether clear text may leave this machine.
        clock: source of time for those who use the store.

    Raises:
        ConfigurationError: an unusable URL, client or namespace.
        MissingDependencyError: a URL was given and redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike | RedisClient,
        *,
        namespace: str = "mks:sessions",
        store_budget: float = 0.1,
        allow_plaintext: bool = False,
        clock: Clock | None = None,
    ) -> None:
        # Here, so that an application without Redis does not load the client.
        from mks_hardening._core.redis_client import RedisClient

        if not isinstance(namespace, str) or not namespace or not _BRACES.isdisjoint(namespace):
            raise ConfigurationError("namespace must be a str without braces", parameter="namespace")
        self.clock = clock
        self._owned = not isinstance(url_or_client, RedisClient)
        self._redis = (
            url_or_client
            if isinstance(url_or_client, RedisClient)
            else RedisClient(
                url_or_client, name="sessions", store_budget=store_budget, allow_plaintext=allow_plaintext
            )
        )
        self._prefix = f"{{{namespace}}}:"
        self._create = self._redis.script(lua.CREATE)
        self._rotate = self._redis.script(lua.ROTATE)
        self._touch = self._redis.script(lua.TOUCH)
        self._update = self._redis.script(lua.UPDATE)
        self._end = self._redis.script(lua.END)
        self._end_user = self._redis.script(lua.END_USER)
        self._sessions = self._redis.script(lua.SESSIONS)

    def load(self, key: str, /) -> SessionRecord | None:
        """The session, alive or remembered as ended; ``None`` when it is unknown."""
        try:
            found = self._redis.call("HMGET", self._session(key), *_FIELDS, idempotent=True)
        except BackendUnavailableError as error:
            if not str(error.__cause__).startswith("WRONGTYPE"):
                raise
            found = [b"not a session"]
        record = _record(key, found)
        if record is None and any(found):
            self._redis.call("DEL", self._session(key), idempotent=True)
        return record

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
        index = _index(record.user_id)
        keys = [self._session(record.key), self._index_key(index)]
        if replaces is not None:
            keys.append(self._session(replaces))
        times = [repr(record.created_at), repr(record.seen_at), repr(record.expires_at)]
        identity = [self._prefix, record.key, record.user_id, index]
        rest = [repr(now), _ttl(record.expires_at - now), replaces or "", max_sessions or 0]
        ended = self._create.run(keys, [*identity, *times, record.data, *rest], idempotent=True)
        return [key.decode() for key in ended]

    def rotate(
        self,
        key: str,
        new_key: str,
        /,
        *,
        now: float,  # noqa: ARG002 - the server's clock forgets
        data: str | None = None,
    ) -> SessionRecord | None:
        """Move a living session to a new key and end the old one; ``None`` when it does not live."""
        keys = [self._session(key), self._session(new_key)]
        found = self._rotate.run(keys, [self._prefix, key, new_key, data or ""], idempotent=True)
        return None if found is None else _record(new_key, found)

    def touch(self, key: str, /, *, seen_at: float, expires_at: float) -> bool:
        """Record activity of a living session; both times only move forward."""
        times = [repr(seen_at), repr(expires_at), _ttl(expires_at - seen_at)]
        return bool(self._touch.run([self._session(key)], [self._prefix, key, *times], idempotent=True))

    def update(self, key: str, /, *, version: int, data: str) -> bool:
        """Replace the data if the session lives and still has that version."""
        arguments = [self._prefix, key, version, data]
        return bool(self._update.run([self._session(key)], arguments, idempotent=True))

    def end(self, key: str, /, *, reason: str) -> bool:
        """End a living session; ``False`` when there was none."""
        return bool(self._end.run([self._session(key)], [self._prefix, key, reason], idempotent=True))

    def end_user(self, user_id: str, /, *, now: float, keep: str | None = None) -> int:
        """End all living sessions of a user but ``keep``; tells how many."""
        index = _index(user_id)
        arguments = [self._prefix, index, repr(now), keep or ""]
        return int(self._end_user.run([self._index_key(index)], arguments, idempotent=True))

    def sessions(self, user_id: str, /, *, now: float) -> list[SessionRecord]:
        """The living sessions of a user whose ``expires_at`` lies ahead, oldest first."""
        index = _index(user_id)
        arguments = [self._prefix, index, repr(now)]
        found = self._sessions.run([self._index_key(index)], arguments, idempotent=True)
        records = (_record(key.decode(), fields) for key, fields in found)
        return [record for record in records if record is not None]

    def ping(self) -> bool:
        """Whether Redis answers within the budget."""
        return self._redis.ping()

    def close(self) -> None:
        """Give the connections back; harmless when called twice. A ``RedisClient`` handed in stays open."""
        if self._owned:
            self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RedisSessionStore({self._prefix!r})"

    def _session(self, key: str) -> str:
        return f"{self._prefix}s:{key}"

    def _index_key(self, index: str) -> str:
        return f"{self._prefix}u:{index}"


def _index(user_id: str) -> str:
    """Name of a user's index: a hash, so that keys tell no names and may hold any text."""
    return sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()


def _ttl(seconds: float) -> int:
    return max(1, int((seconds + RETENTION) * 1000))


def _record(key: str, fields: Sequence[Any]) -> SessionRecord | None:
    """The record from its fields; ``None`` when they are missing or are not what this version writes."""
    try:
        user, created, seen, expires, data, version, ended = fields
        return SessionRecord(
            key,
            user.decode(),
            float(created),
            float(seen),
            float(expires),
            data.decode(),
            int(version),
            "" if ended is None else ended.decode(),
        )
    except (AttributeError, TypeError, ValueError):
        return None
