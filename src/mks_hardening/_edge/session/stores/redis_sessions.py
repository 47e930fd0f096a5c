"""Redis commands of the session store: each method is one operation, for ``run`` and ``arun``."""

from __future__ import annotations

from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_operations import Pipeline, RunScript, Script
from mks_hardening._core.operations import Op
from mks_hardening._edge.session.stores.retention import RETENTION
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.protocols import SessionRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mks_hardening._core.backend.redis_client import RedisClient
    from mks_hardening._edge.session.stores.server_clock import ServerClock

__all__ = ["RedisSessions"]

_FIELDS: Final = "uctxdve"
_PACKAGE: Final = "mks_hardening._edge.session.stores"
# Idempotent (``update`` thanks to its token), so each may be sent again within the budget.
_SCRIPTS: Final = ("load", "create", "rotate", "touch", "update", "end", "end_user", "sessions")


class RedisSessions:
    """The sessions of one namespace.

    Args:
        client: Redis client.
        namespace: prefix of all keys, and their hash tag.
        clock: clock that the server's responses synchronize.
    """

    __slots__ = ("_client", "_clock", "_scripts", "prefix")

    def __init__(self, client: RedisClient, *, namespace: str, clock: ServerClock) -> None:
        self._client = client
        self._clock = clock
        self.prefix: str = f"{{{namespace}}}:"
        self._scripts: dict[str, Script] = {
            name: client.script(lua_source(_PACKAGE, "lua/common.lua", f"lua/{name}.lua"))
            for name in _SCRIPTS
        }

    def load(self, key: str) -> Op[SessionRecord | None]:
        """Return the session, alive or ended but retained."""
        if self._clock.is_due():
            return _record(key, (yield from self._load_and_set_clock(key)))
        command = ("HMGET", self._session(key), *_FIELDS)
        try:
            (found,) = yield Pipeline(self._client, [command], idempotent=True)
        except BackendUnavailableError as error:
            if not str(error.__cause__).startswith("WRONGTYPE"):
                raise
            found = [b"not a session"]
        record = _record(key, found)
        if record is None and any(found):
            yield Pipeline(self._client, [("DEL", self._session(key))], idempotent=True)
        return record

    def settle(self) -> Op[None]:
        """Synchronize the clock if due."""
        if self._clock.is_due():
            yield from self._load_and_set_clock("")

    def _load_and_set_clock(self, key: str) -> Op[Sequence[bytes | None]]:
        now, fields = yield self._run("load", [self._session(key)], key)
        self._clock.learn(now)
        found: Sequence[bytes | None] = fields
        return found

    def create(
        self, record: SessionRecord, *, now: float, replaces: str | None, max_sessions: int | None
    ) -> Op[list[str]]:
        """Add a session and end those it replaces."""
        index = _index(record.user_id)
        keys = [self._session(record.key), self._index_key(index)]
        if replaces is not None:
            keys.append(self._session(replaces))
        times: list[str] = [repr(record.created_at), repr(record.seen_at), repr(record.expires_at)]
        rest: list[str | int] = [
            repr(now),
            _ttl(record.expires_at - now),
            replaces or "",
            max_sessions or 0,
            _ttl(0.0),
        ]
        ended: list[bytes] = yield self._run(
            "create", keys, record.key, record.user_id, index, *times, record.data, *rest
        )
        return [key.decode() for key in ended]

    def rotate(self, key: str, new_key: str, *, now: float, data: str | None) -> Op[SessionRecord | None]:
        """Move a living session to a new key."""
        keys = [self._session(key), self._session(new_key)]
        found = yield self._run("rotate", keys, key, new_key, data or "", repr(now), _ttl(0.0))
        return None if found is None else _record(new_key, found)

    def touch(self, key: str, *, seen_at: float, expires_at: float) -> Op[bool]:
        """Record activity."""
        times = (repr(seen_at), repr(expires_at), _ttl(expires_at - seen_at))
        return bool((yield self._run("touch", [self._session(key)], key, *times)))

    def update(self, key: str, *, version: int, data: str) -> Op[bool]:
        """Replace the data."""
        # With a token: by version and data alone, a write that is sent again after a lost response could not be
        # distinguished from an equal write of another request, nor recognized after a later write of another one.
        arguments = (self.prefix, key, version, data)
        token = token_hex(16)
        return bool((yield RunScript(self._scripts["update"], [self._session(key)], arguments, token=token)))

    def end(self, key: str, *, reason: str) -> Op[bool]:
        """End a session."""
        return bool((yield self._run("end", [self._session(key)], key, reason)))

    def end_user(self, user_id: str, *, now: float, keep: str | None) -> Op[int]:
        """End the sessions of a user."""
        index = _index(user_id)
        return int((yield self._run("end_user", [self._index_key(index)], index, repr(now), keep or "")))

    def sessions(self, user_id: str, *, now: float) -> Op[list[SessionRecord]]:
        """Return the living sessions of a user."""
        index = _index(user_id)
        found = yield self._run("sessions", [self._index_key(index)], index, repr(now))
        records = (_record(key.decode(), fields) for key, fields in found)
        return [record for record in records if record is not None]

    def _run(self, script: str, keys: Sequence[str], *arguments: str | float) -> RunScript:
        return RunScript(self._scripts[script], keys, [self.prefix, *arguments], idempotent=True)

    def _session(self, key: str) -> str:
        return f"{self.prefix}s:{key}"

    def _index_key(self, index: str) -> str:
        return f"{self.prefix}u:{index}"


def _index(user_id: str) -> str:
    """Return the name of a user's index: a hash, so that keys reveal no names and user ids may contain any text."""
    return sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()


def _ttl(seconds: float) -> int:
    return max(1, int((seconds + RETENTION) * 1000))


def _record(key: str, fields: Sequence[bytes | None]) -> SessionRecord | None:
    """Build a record from its fields; ``None`` if fields are missing or in another format."""
    if len(fields) != len(_FIELDS) or None in fields[:-1]:
        return None
    user, created, seen, expires, data, version = (field or b"" for field in fields[:-1])
    try:
        return SessionRecord(
            key,
            user.decode(),
            float(created),
            float(seen),
            float(expires),
            data.decode(),
            int(version),
            (fields[-1] or b"").decode(),
        )
    except ValueError:
        return None
