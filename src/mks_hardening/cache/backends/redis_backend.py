"""A cache in Redis, shared by all processes: one round trip for a hit, one computation for a miss."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from random import random
from typing import Any, Final

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.redis_client import RedisClient
from mks_hardening._core.sentinel import MISSING
from mks_hardening.cache.base import BaseCache
from mks_hardening.cache.effects import Op, Pause, Pipeline, RunScript
from mks_hardening.cache.entry import Entry, Lease, check_namespace
from mks_hardening.cache.envelope import Envelope
from mks_hardening.exceptions import DecodeError
from mks_hardening.protocols import Clock, RedisLike

__all__ = ["RedisCache"]

_LEASE_MS: Final = 30_000
_SHORTEST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.05
_TAG_TTL_MS: Final = 30 * 24 * 3600 * 1000
_SCAN_COUNT: Final = 1000

_COMMIT: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisCache(BaseCache):
    """Keeps values in Redis. When Redis is away, everything is a miss and nothing is raised.

    Keys are ``namespace:v:KEY`` (values), ``namespace:l:KEY`` (leases) and ``namespace:t:TAG`` (versions of tags).

    Args:
        url_or_client: Redis URL, or a client that does not decode its answers.
        namespace: 1 to 64 characters of ``A-Za-z0-9_.-``; caches with different ones share nothing.
        default_ttl: seconds a value is kept when nothing else is said.
        signing_keys: secrets of at least 16 bytes; the first signs, all are accepted. Without them, whoever can
            write to Redis can choose what the application reads (data only, never code).
        store_budget: seconds that all Redis calls of one operation may take together.
        allow_plaintext: whether clear text may leave this machine.
        jitter: share of each ttl, up to 0.1, that is taken off at random.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is impossible.
        MissingDependencyError: redis is not installed.
    """

    def __init__(
        self,
        url_or_client: str | RedisLike,
        *,
        namespace: str = "mks",
        default_ttl: float | timedelta = 3600,
        signing_keys: Iterable[str | bytes] | None = None,
        store_budget: float = 0.1,
        allow_plaintext: bool = False,
        jitter: float = 0.1,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_namespace(namespace)
        store = RedisStore(
            RedisClient(
                url_or_client,
                name="cache",
                store_budget=store_budget,
                allow_plaintext=allow_plaintext,
                clock=clock,
            ),
            Envelope(namespace=namespace, signing_keys=signing_keys),
            namespace=namespace,
            clock=clock,
        )
        super().__init__(store, namespace=namespace, default_ttl=default_ttl, jitter=jitter, clock=clock)

    def __repr__(self) -> str:
        return f"RedisCache({self.store!r})"


class RedisStore:
    """Entries in Redis; see ``RedisCache`` for the names of the keys."""

    def __init__(self, client: RedisClient, envelope: Envelope, *, namespace: str, clock: Clock) -> None:
        self._client = client
        self._envelope = envelope
        self._namespace = namespace
        self._clock = clock
        self._commit_script = client.script(_COMMIT)
        self._release_script = client.script(_RELEASE)

    def close(self) -> None:
        """Give the connections back; harmless when called twice."""
        self._client.close()

    async def aclose(self) -> None:
        """The same, with those of the running event loop."""
        await self._client.aclose()

    def __repr__(self) -> str:
        return f"{self._client!r}, namespace={self._namespace!r}"

    def load(self, keys: Sequence[str], tags: Sequence[str] = ()) -> Op[list[Entry | None]]:
        """The entries that have not ended, in one round trip if the caller named their tags."""
        names = [self._value_name(key) for key in keys] + [self._tag_name(tag) for tag in tags]
        answers: Sequence[Any] = yield from self._fetch(names)
        entries, damaged = self._opened(keys, answers)
        if damaged:
            yield Pipeline(self._client, [("UNLINK", *map(self._value_name, damaged))], idempotent=True)
        if not any(entry is not None and entry.tags for entry in entries):
            return entries
        versions = dict(zip(tags, answers[len(keys) :], strict=True))
        unknown = [tag for entry in entries if entry for tag in entry.tags if tag not in versions]
        if unknown:
            versions |= zip(unknown, (yield from self._fetch(map(self._tag_name, unknown))), strict=True)
        return [entry if entry and _has_versions(entry, versions) else None for entry in entries]

    def _fetch(self, names: Iterable[str]) -> Op[Sequence[Any]]:
        command = ("MGET", *names)
        if len(command) == 2:
            command = ("GET", command[1])
        answers: list[Any] = yield Pipeline(self._client, (command,), idempotent=True)
        several: Sequence[Any] = answers if command[0] == "GET" else answers[0]
        return several

    def _opened(self, keys: Sequence[str], answers: Sequence[Any]) -> tuple[list[Entry | None], list[str]]:
        """Entries that have not ended, and the keys whose bytes nobody will ever be able to read."""
        entries: list[Entry | None] = []
        damaged: list[str] = []
        now = self._clock.time()
        for key, data in zip(keys, answers, strict=False):
            entry = None
            if data is not None:
                try:
                    entry = self._envelope.open(key, data)
                except DecodeError as error:
                    if not error.newer:
                        damaged.append(key)
            entries.append(None if entry is None or now >= entry.expires_at else entry)
        return entries, damaged

    def save(self, entries: Mapping[str, tuple[Any, float]], tags: Sequence[str]) -> Op[None]:
        """Keep values."""
        versions = yield from self._versions(tags)
        commands: list[Sequence[Any]] = []
        now = self._clock.time()
        for key, (value, ttl) in entries.items():
            data = self._envelope.seal(key, Entry(value, now + ttl, now + ttl, versions))
            commands += [
                ("SET", self._value_name(key), data, "PX", max(1, int(ttl * 1000))),
                ("UNLINK", self._lease_name(key)),
            ]
        if commands:
            yield Pipeline(self._client, commands, idempotent=True)

    def _versions(self, tags: Sequence[str], *, patient: bool = False) -> Op[dict[str, str]]:
        """Versions of the tags, made where there are none. Random, so that none ever comes back."""
        if not tags:
            return {}
        names = [self._tag_name(tag) for tag in tags]
        commands: list[Sequence[Any]] = [
            ("SET", name, secrets.token_hex(8), "NX", "PX", _TAG_TTL_MS) for name in names
        ]
        commands.append(("MGET", *names))
        *_, answers = yield Pipeline(self._client, commands, idempotent=True, patient=patient)
        return {tag: (answer or b"").decode() for tag, answer in zip(tags, answers, strict=True)}

    def acquire(self, key: str, tags: Sequence[str], *, wait: bool) -> Op[Entry | Lease | None]:
        """Take the lease; one caller of each process polls for it."""
        token = secrets.token_hex(16)
        pause = 0.0
        give_up = self._clock.monotonic() + _LEASE_MS / 1000
        while True:
            waiting = pause > 0
            versions = yield from self._versions(tags, patient=waiting)
            # The look comes after the lock in the same round trip: who waited finds what the holder stored.
            look = (
                ("SET", self._lease_name(key), token, "NX", "PX", _LEASE_MS),
                ("GET", self._value_name(key)),
            )
            got, data = yield Pipeline(self._client, look, patient=waiting)
            lease = Lease(token, versions)
            if not wait:
                return None if got is None else lease
            entry = self._fresh(key, data, versions)
            if entry is not None and got is not None:
                yield from self.release(key, lease)
            if entry is not None:
                return entry
            if got is not None or self._clock.monotonic() >= give_up:
                return lease
            pause = min(_LONGEST_PAUSE, pause * 1.5) or _SHORTEST_PAUSE
            yield Pause(pause * (0.5 + random()))  # noqa: S311 - spreads polls, protects nothing

    def _fresh(self, key: str, data: Any, versions: Mapping[str, str]) -> Entry | None:
        (entry,), _damaged = self._opened([key], [data])
        if entry is None or self._clock.time() >= entry.fresh_until:
            return None
        return entry if entry.tags.items() <= versions.items() else None

    def commit(self, key: str, lease: Lease, entry: Entry) -> Op[bool]:
        """Keep what was computed, if the lease is still ours, in one step."""
        ttl_ms = max(1, int((entry.expires_at - self._clock.time()) * 1000))
        data = self._envelope.seal(key, entry)
        names = [self._value_name(key), self._lease_name(key)]
        stored = yield RunScript(self._commit_script, names, [lease.token, data, ttl_ms])
        return bool(stored)

    def release(self, key: str, lease: Lease) -> Op[None]:
        """Give the lease back."""
        yield RunScript(self._release_script, [self._lease_name(key)], [lease.token])

    def remove(self, keys: Sequence[str]) -> Op[int]:
        """Remove entries and void leases."""
        values = [self._value_name(key) for key in keys]
        leases = [self._lease_name(key) for key in keys]
        # Leases go first: nobody can store between the two.
        _, removed = yield Pipeline(self._client, [("UNLINK", *leases), ("UNLINK", *values)], idempotent=True)
        return int(removed)

    def remove_matching(self, pattern: str) -> Op[int]:
        """The same by pattern."""
        yield from self._remove_names(self._lease_name(pattern))
        return (yield from self._remove_names(self._value_name(pattern)))

    def _remove_names(self, pattern: str) -> Op[int]:
        """SCAN and UNLINK in steps of a thousand: other clients wait milliseconds, never for the whole."""
        removed = 0
        cursor: Any = b"0"
        while True:
            ((cursor, names),) = yield self._patiently("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
            if names:
                (count,) = yield self._patiently("UNLINK", *names)
                removed += int(count)
            if cursor in {b"0", 0}:
                return removed

    def _patiently(self, *command: Any) -> Pipeline:
        return Pipeline(self._client, (command,), idempotent=True, patient=True)

    def void_tags(self, tags: Sequence[str]) -> Op[None]:
        """Remove the versions: new ones are random, so that no old one comes back."""
        if tags:
            yield Pipeline(self._client, [("UNLINK", *map(self._tag_name, tags))], idempotent=True)

    def peek(self, _key: str) -> Any:
        """Nothing is here without a round trip."""
        return MISSING

    def ping(self) -> Op[bool]:
        """Whether Redis answers."""
        yield Pipeline(self._client, [("PING",)], idempotent=True)
        return True

    # --- names -------------------------------------------------------------------------------

    def _value_name(self, key: str) -> str:
        return f"{self._namespace}:v:{key}"

    def _lease_name(self, key: str) -> str:
        return f"{self._namespace}:l:{key}"

    def _tag_name(self, tag: str) -> str:
        return f"{self._namespace}:t:{tag}"


def _has_versions(entry: Entry, versions: Mapping[str, Any]) -> bool:
    """Whether all tags still have the versions the entry was made under."""
    return all(versions[tag] == version.encode() for tag, version in entry.tags.items())
