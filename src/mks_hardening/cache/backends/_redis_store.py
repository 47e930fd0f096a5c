"""Entries in Redis, shared by all processes: one round trip for a hit, one computation for a miss."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, cast

from mks_hardening._core.backend.lua_files import lua_source
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.backend.redis_operations import (
    SCAN_START,
    Pipeline,
    RunScript,
    ScanPage,
    ScanPlace,
    Script,
)
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import Op, Pause
from mks_hardening.cache._call_keys import function_of_key
from mks_hardening.cache._compute_lease import (
    LEASE_ALIVE_MS,
    LEASE_KEPT_MS,
    MAX_COMPUTATION,
    MAX_DEFERRED_LEASE,
    ComputeLease,
)
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache._store import CacheStore
from mks_hardening.cache.backends._client_tracking import ClientTracking
from mks_hardening.cache.backends._generation import (
    KNOWN_FOR,
    KnownGeneration,
    new_generation,
)
from mks_hardening.cache.backends._key_glob import escape_incomplete
from mks_hardening.cache.backends._lease_renewal import LeaseRenewal
from mks_hardening.cache.backends._pending_invalidations import (
    EVERYTHING,
    Invalidation,
    InvalidationSender,
    pending_invalidations_of,
)
from mks_hardening.cache.backends._stored_bytes import (
    GENERATION_TAG,
    TAG_VERSION_BYTES,
    Envelope,
    key_bytes,
)
from mks_hardening.cache.backends._wake_ups import WAKE_MS, LeaseWait, WakeUps
from mks_hardening.exceptions import ConfigurationError, DecodeError, EncodeError
from mks_hardening.protocols import Clock

__all__ = ["RedisKeys", "RedisStore"]

# More for an entry that lives longer, because it becomes invalid when the version expires. Renewed when half of it
# has passed, and not with every value: a renewal is a write, which would drop the copies of other processes.
_TAG_TTL_MS: Final = 30 * 24 * 3600 * 1000
_TAG_KEPT_MS: Final = _TAG_TTL_MS // 2
_SCAN_COUNT: Final = 1000
_VALUES_AT_ONCE: Final = 100
"""Values may be large, and other clients wait while Redis sends them."""

_PACKAGE: Final = "mks_hardening.cache.backends"
_ACQUIRE: Final = "lua/acquire.lua"
_COMMIT: Final = "lua/commit.lua"


class RedisKeys:
    """Names of one namespace, as bytes: a key may contain lone surrogates, which cannot be encoded as UTF-8.

    ``namespace:v:{=KEY}``, ``namespace:l:{=KEY}``, ``namespace:w:{=KEY}``, ``namespace:t:{=TAG}``. The text between
    the first opening brace and the next closing one is the hash tag, which determines the slot in a Cluster: value,
    lease and wake-up list of a key are always in the same slot, whatever the key contains, and different keys in
    different ones (the ``=`` is there because an empty hash tag is ignored). Further names that begin with
    ``namespace:v:{=KEY}`` would be in that slot too. Namespaces and kinds contain no brace, so that the names of
    two namespaces never collide.
    """

    __slots__ = ("_lease", "_tag", "_value", "_wake")

    def __init__(self, namespace: str) -> None:
        self._value = f"{namespace}:v:{{="
        self._lease = f"{namespace}:l:{{="
        self._tag = f"{namespace}:t:{{="
        self._wake = f"{namespace}:w:{{="

    def value(self, key: str) -> bytes:
        """Return the name of the value of a key, or of all keys that match a pattern."""
        return key_bytes(f"{self._value}{key}}}")

    def key_of(self, name: bytes) -> str:
        """Return the key of the name of a value."""
        return name[len(self._value) : -1].decode("utf-8", "surrogatepass")

    def lease(self, key: str) -> bytes:
        """Return the name of the lease of a key, or of all keys that match a pattern."""
        return key_bytes(f"{self._lease}{key}}}")

    def wake(self, key: str) -> bytes:
        """Return the name of the list that wakes the callers waiting for the value of a key."""
        return key_bytes(f"{self._wake}{key}}}")

    def tag(self, tag: str) -> bytes:
        """Return the name of the version of a tag."""
        return key_bytes(f"{self._tag}{tag}}}")

    @property
    def tracked(self) -> tuple[bytes, bytes]:
        """The prefixes of values and of versions of tags."""
        return self._value.encode(), self._tag.encode()

    def invalidated_by(self, name: bytes) -> Invalidation | None:
        """Return what a change of a name invalidates; None if no cache has given it."""
        try:
            text = name.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return None
        if text.startswith(self._value):
            return "key", text[len(self._value) : -1]
        if not text.startswith(self._tag):
            return None
        tag = text[len(self._tag) : -1]
        return ("pattern", EVERYTHING) if tag == GENERATION_TAG else ("tag", tag)


class _RedisLease(ComputeLease):
    """A lease, with the generation that the value will belong to."""

    __slots__ = ("generation",)

    def __init__(
        self, token: bytes, tags: Mapping[str, bytes], former: CacheEntry | None, generation: bytes
    ) -> None:
        super().__init__(token, tags, former)
        self.generation = generation


def _generation_of(lease: ComputeLease) -> bytes:
    if not isinstance(lease, _RedisLease):
        raise TypeError("a lease of another store")
    return lease.generation


def _version_in(found: Sequence[bytes | None]) -> bytes | None:
    """Return the version of a tag from the response to MGET; None if it is damaged, of another type, or absent."""
    (version,) = found
    return version if version is not None and len(version) == TAG_VERSION_BYTES else None


class RedisStore:
    """Entries in Redis; see ``RedisKeys`` for their names and ``_stored_bytes.py`` for their format."""

    def __init__(self, client: RedisClient, envelope: Envelope, *, namespace: str, clock: Clock) -> None:
        self._client = client
        self._envelope = envelope
        self._namespace = namespace
        self._names = RedisKeys(namespace)
        self._clock = clock
        self._acquire_script = client.script(lua_source(_PACKAGE, _ACQUIRE))
        self._commit_script = client.script(lua_source(_PACKAGE, _COMMIT))
        self._release_script = client.script(lua_source(_PACKAGE, "lua/release.lua"))
        self._renewal = LeaseRenewal(client.script(lua_source(_PACKAGE, "lua/renew.lua")), clock=clock)
        self._wake_ups = WakeUps(client)
        self._generation = KnownGeneration()
        self._pending = pending_invalidations_of(client.place, namespace)
        self._sender = InvalidationSender(
            self._pending,
            {"key": self._unlink, "tag": self._unlink_versions, "pattern": self._send_patterns},
        )

    @property
    def budget(self) -> float:
        """Maximum seconds for all round trips of one operation together."""
        return self._client.budget

    @property
    def pending(self) -> int:
        """Number of keys, tags and patterns whose invalidation Redis has not received."""
        return len(self._pending)

    def close(self) -> None:
        """Release connections; calling it twice is safe."""
        self._sender.close()
        self._client.close()

    async def aclose(self) -> None:
        """Release connections, including those of the running event loop."""
        self._sender.close()
        await self._client.aclose()

    def __repr__(self) -> str:
        return f"{self._client!r}, namespace={self._namespace!r}"

    def track(self, copies: CacheStore) -> ClientTracking:
        """Return what keeps copies of these entries current, in another store of this process.

        Raises:
            ConfigurationError: the server cannot report changes on one connection.
        """
        if self._client.is_cluster or not self._client.is_probed:
            raise ConfigurationError(
                "client_tracking requires a single Redis server or Sentinel: "
                + (
                    "each primary of a Cluster reports only its own keys, which move between them"
                    if self._client.is_cluster
                    else "an object that only has execute_command cannot report changes"
                ),
                parameter="client_tracking",
            )
        return ClientTracking(
            self._client.push_channel,
            copies,
            prefixes=self._names.tracked,
            meaning=self._names.invalidated_by,
            forget=self._generation.forget,
        )

    # --- entries -----------------------------------------------------------------------------

    def load(
        self, keys: Sequence[str], tags: Sequence[str] = (), *, patient: bool = False
    ) -> Op[list[CacheEntry | None]]:
        """Return the entries that have not expired, in one round trip if the caller passes their tags."""
        while True:
            changes = self._pending.changes
            entries = yield from self._load(keys, tags, patient=patient)
            if self._pending:
                entries = [
                    self._sender.permitted(key, entry) for key, entry in zip(keys, entries, strict=True)
                ]
            # Reload: an entry read before its invalidation was flushed, but checked afterwards, passes the check.
            if self._pending.changes == changes:
                return entries

    def _load(
        self, keys: Sequence[str], tags: Sequence[str], *, patient: bool
    ) -> Op[list[CacheEntry | None]]:
        names = [*map(self._names.value, keys), *map(self._names.tag, tags)]
        answers: Sequence[bytes | None]
        if not self._generation.is_current:
            asked_at = SYSTEM_CLOCK.monotonic()
            answers = yield from self._fetch([*names, self._names.tag(GENERATION_TAG)], patient=patient)
            self._generation.learn(answers[-1], asked_at=asked_at)
        elif len(names) == 1:  # the usual case, without a generator of its own
            answers = yield Pipeline(self._client, [("GET", names[0])], idempotent=True, patient=patient)
        else:
            answers = yield from self._fetch(names, patient=patient)
        entries, damaged = self._opened(keys, answers)
        if damaged or any(entry is not None and entry.tags for entry in entries):
            known = dict(zip(tags, answers[len(keys) : len(names)], strict=True))
            entries = yield from self._checked(entries, known, damaged, patient=patient)
        return entries

    def _checked(
        self,
        entries: list[CacheEntry | None],
        versions: dict[str, bytes | None],
        damaged: list[str],
        *,
        patient: bool,
    ) -> Op[list[CacheEntry | None]]:
        """Return the entries whose tags still have the versions they were made under; delete damaged ones."""
        if damaged and not patient:  # an operator who lists keys may have other signing keys
            commands = [("UNLINK", self._names.value(key)) for key in damaged]
            yield Pipeline(self._client, commands, idempotent=True)
        unknown = list(
            dict.fromkeys(tag for entry in entries if entry for tag in entry.tags if tag not in versions)
        )
        if unknown:
            found = yield from self._fetch([self._names.tag(tag) for tag in unknown], patient=patient)
            versions |= zip(unknown, found, strict=True)
        return [
            entry if entry and all(versions[tag] == made for tag, made in entry.tags.items()) else None
            for entry in entries
        ]

    def _fetch(self, names: Sequence[bytes], *, patient: bool) -> Op[Sequence[bytes | None]]:
        """Return the values of names in one round trip; on a Cluster they are on several servers."""
        if len(names) == 1 or self._client.is_cluster:
            single: list[bytes | None] = yield Pipeline(
                self._client, [("GET", name) for name in names], idempotent=True, patient=patient
            )
            return single
        answers: list[bytes | None]
        (answers,) = yield Pipeline(self._client, [("MGET", *names)], idempotent=True, patient=patient)
        return answers

    def _opened(
        self, keys: Sequence[str], answers: Sequence[bytes | None]
    ) -> tuple[list[CacheEntry | None], list[str]]:
        """Return the entries that have not expired, and the keys whose stored bytes no process can read."""
        entries: list[CacheEntry | None] = []
        damaged: list[str] = []
        now = self._clock.time()
        for key, data in zip(keys, answers, strict=False):
            entry = None
            if data is not None:
                try:
                    entry = self._envelope.open(key, data)
                except DecodeError as error:
                    # Entries of a newer release are left alone: both run side by side during a roll-out.
                    if not error.newer:
                        damaged.append(key)
            is_valid = entry is not None and now < entry.expires_at and self._generation.admits(entry)
            entries.append(entry if is_valid else None)
        return entries, damaged

    def load_original(self, key: str) -> Op[CacheEntry | None]:
        """Return the entry."""
        (entry,) = yield from self.load((key,))
        return entry

    def save(self, entries: Mapping[str, tuple[object, float]], tags: Sequence[str]) -> Op[None]:
        """Store values; if that fails, invalidate the keys, so that no older value is left."""
        yield from self._sender.run_or_defer(self._save(entries, tags), "key", entries)
        if self._pending:
            self._pending.supersede([("key", key) for key in entries])

    def _save(self, entries: Mapping[str, tuple[object, float]], tags: Sequence[str]) -> Op[None]:
        now = self._clock.time()
        versions = yield from self._versions(tags)
        generation = yield from self._current_generation()
        leases: list[Sequence[object]] = []
        values: list[Sequence[object]] = []
        for key, (value, ttl) in entries.items():
            end = now + ttl
            entry = CacheEntry(value, fresh_until=end, expires_at=end, tags=versions, generation=generation)
            data = self._envelope.seal(key, entry)
            # A computation that began before this write must not be stored after it.
            leases.append(("UNLINK", self._names.lease(key)))
            values.append(("SET", self._names.value(key), data, "PX", max(1, int(ttl * 1000))))
        if values:
            yield from self._keep_versions(tags, max(ttl for _value, ttl in entries.values()))
            yield Pipeline(self._client, [*leases, *values], idempotent=True)

    def _versions(self, tags: Sequence[str], *, patient: bool = False) -> Op[dict[str, bytes]]:
        """Return the versions of the tags, creating missing ones. They are random, so none is ever reused."""
        if not tags:
            return {}
        commands: list[Sequence[object]] = []
        for name in map(self._names.tag, tags):
            made = secrets.token_bytes(TAG_VERSION_BYTES)
            commands += [("SET", name, made, "NX", "PX", _TAG_TTL_MS), ("MGET", name), ("PTTL", name)]
        answers = yield Pipeline(self._client, commands, idempotent=True, patient=patient)
        ending = [tag for tag, left in zip(tags, answers[2::3], strict=True) if 0 <= left < _TAG_KEPT_MS]
        yield from self._extend_versions(ending, _TAG_TTL_MS, patient=patient)
        versions = {tag: _version_in(found) for tag, found in zip(tags, answers[1::3], strict=True)}
        # Otherwise no entry with this tag could be stored until the name expires.
        yield from self._unlink_versions([tag for tag, version in versions.items() if version is None])
        # If a version was damaged or removed, use one that no tag ever has: the entry is invalid.
        return {tag: version or bytes(TAG_VERSION_BYTES) for tag, version in versions.items()}

    def _current_generation(self, *, patient: bool = False) -> Op[bytes]:
        """Return the generation, creating the first one of the namespace."""
        known = self._generation.value
        if known is not None and self._generation.is_current:
            return known
        name = self._names.tag(GENERATION_TAG)
        asked_at = SYSTEM_CLOCK.monotonic()
        # It does not expire: values may live long, and there is one for each namespace.
        commands: list[Sequence[object]] = [("SET", name, new_generation(first=True), "NX"), ("MGET", name)]
        _, found = yield Pipeline(self._client, commands, idempotent=True, patient=patient)
        known = _version_in(found)
        if known is None:  # damaged: not a first one, which would admit entries that a ``clear`` has removed
            replacement = [("SET", name, new_generation(first=False))]
            yield Pipeline(self._client, replacement, idempotent=True, patient=patient)
        self._generation.learn(known, asked_at=asked_at)
        return known or bytes(
            TAG_VERSION_BYTES
        )  # removed in between: a generation that no namespace ever has

    def _keep_versions(self, tags: Iterable[str], lifetime: float) -> Op[None]:
        """Extend the versions of tags for an entry that lives longer than they do by themselves."""
        if lifetime * 1000 > _TAG_KEPT_MS:
            yield from self._extend_versions(tags, int(lifetime * 1000) + _TAG_TTL_MS)

    def _extend_versions(self, tags: Iterable[str], left_ms: int, *, patient: bool = False) -> Op[None]:
        # GT: they may live longer already, for an entry that does.
        commands = [("PEXPIRE", self._names.tag(tag), left_ms, "GT") for tag in tags]
        if commands:
            yield Pipeline(self._client, commands, idempotent=True, patient=patient)

    # --- leases ------------------------------------------------------------------------------

    def acquire(
        self, key: str, tags: Sequence[str], *, wait: float = 0
    ) -> Op[CacheEntry | ComputeLease | None]:
        """Acquire the lease; one caller of each process waits for it."""
        token = secrets.token_bytes(16)
        names = self._lease_names(key)
        give_up = self._clock.monotonic() + wait
        waiting: LeaseWait | None = None
        while not (self._pending and self._pending.covers(key, tags)):
            patient = waiting is not None
            # Before the lease: versions read after it could hide an invalidation in between.
            versions = yield from self._versions(tags, patient=patient)
            generation = yield from self._current_generation(patient=patient)
            terms = [token, LEASE_ALIVE_MS, LEASE_KEPT_MS, int(wait > 0), generation]
            ours, data = yield RunScript(self._acquire_script, names, terms, idempotent=True, patient=patient)
            entry = self._fresh(key, data, versions)
            lease = _RedisLease(token, versions, entry, generation)
            if entry is not None and wait:
                if ours:
                    yield from self.release(key, lease)
                return entry
            if ours:
                longest = MAX_COMPUTATION if wait else MAX_DEFERRED_LEASE
                self._renewal.watch(lease, name=names[0], token=token, longest=longest)
                return lease
            left = give_up - self._clock.monotonic()
            if left <= 0:
                return None
            waiting = waiting or LeaseWait(self._wake_ups, names[2])
            yield from waiting.wait(left)
        return None

    def _lease_names(self, key: str) -> list[bytes]:
        return [self._names.lease(key), self._names.value(key), self._names.wake(key)]

    def acquire_many(self, keys: Sequence[str], tags: Sequence[str]) -> Op[dict[str, ComputeLease]]:
        """Acquire the leases that no other caller holds, in one round trip (except on a Cluster)."""
        versions = yield from self._versions(tags)
        generation = yield from self._current_generation()
        tokens = {
            key: secrets.token_bytes(16)
            for key in keys
            if not (self._pending and self._pending.covers(key, tags))
        }
        runs = [
            (self._lease_names(key), [token, LEASE_ALIVE_MS, LEASE_KEPT_MS, 0, generation])
            for key, token in tokens.items()
        ]
        answers = yield from self._run_many(self._acquire_script, _ACQUIRE, runs, idempotent=True)
        leases: dict[str, ComputeLease] = {}
        for (key, token), (ours, data) in zip(tokens.items(), answers, strict=True):
            if ours:
                former = self._fresh(key, data, versions)
                lease = leases[key] = _RedisLease(token, versions, former, generation)
                self._renewal.watch(lease, name=self._names.lease(key), token=token, longest=MAX_COMPUTATION)
        return leases

    def commit_many(self, computed: Mapping[str, tuple[ComputeLease, CacheEntry]]) -> Op[list[str]]:
        """Store computed values, in one round trip (except on a Cluster)."""
        refused: list[str] = []
        runs: list[tuple[Sequence[bytes], Sequence[object]]] = []
        now = self._clock.time()
        for key, (lease, entry) in computed.items():
            try:
                entry.generation = _generation_of(lease)
                data = self._envelope.seal(key, entry)
            except EncodeError:
                refused.append(key)
                yield from self.release(key, lease)
                continue
            self._renewal.forget(lease)
            ttl_ms = max(1, int((entry.expires_at - now) * 1000))
            runs.append(
                (
                    [self._names.value(key), self._names.lease(key), self._names.wake(key)],
                    [cast("bytes", lease.token), data, ttl_ms, WAKE_MS],
                )
            )
        entries = [entry for _lease, entry in computed.values()]
        if entries:
            longest = max(entry.expires_at for entry in entries) - now
            yield from self._keep_versions(entries[0].tags, longest)
        yield from self._run_many(self._commit_script, _COMMIT, runs, idempotent=False)
        return refused

    def _run_many(
        self,
        script: Script,
        file: str,
        runs: Sequence[tuple[Sequence[bytes], Sequence[object]]],
        *,
        idempotent: bool,
    ) -> Op[list[Any]]:
        if self._client.is_cluster or len(runs) == 1:  # the keys are on several servers
            answers: list[Any] = []
            for names, values in runs:
                answers.append((yield RunScript(script, names, values, idempotent=idempotent)))
            return answers
        source = lua_source(_PACKAGE, file)
        commands = [("EVAL", source, len(names), *names, *values) for names, values in runs]
        return (yield Pipeline(self._client, commands, idempotent=idempotent)) if commands else []

    def _fresh(self, key: str, data: bytes | None, versions: Mapping[str, bytes]) -> CacheEntry | None:
        (entry,), _damaged = self._opened([key], [data])
        if entry is None or self._clock.time() >= entry.fresh_until:
            return None
        return entry if entry.tags.items() <= versions.items() else None

    def commit(self, key: str, lease: ComputeLease, entry: CacheEntry) -> Op[bool]:
        """Store a computed value if this process still holds the lease, atomically."""
        ttl_ms = max(1, int((entry.expires_at - self._clock.time()) * 1000))
        entry.generation = _generation_of(lease)
        data = self._envelope.seal(key, entry)
        self._renewal.forget(lease)
        yield from self._keep_versions(entry.tags, ttl_ms / 1000)
        names = [self._names.value(key), self._names.lease(key), self._names.wake(key)]
        # Not idempotent: the first run releases the lease, so a second one might find that of another process.
        stored = yield RunScript(self._commit_script, names, [lease.token, data, ttl_ms, WAKE_MS])
        return bool(stored)

    def release(self, key: str, lease: ComputeLease) -> Op[None]:
        """Release the lease."""
        self._renewal.forget(lease)
        names = [self._names.lease(key), self._names.wake(key)]
        yield RunScript(self._release_script, names, [lease.token, WAKE_MS], idempotent=True)

    # --- invalidation ------------------------------------------------------------------------

    def remove(self, keys: Sequence[str]) -> Op[int]:
        """Remove entries and void leases."""
        return (yield from self._sender.run_or_defer(self._unlink(keys), "key", keys))

    def remove_matching(self, pattern: str) -> Op[int]:
        """Remove entries and void leases by pattern."""
        patterns = [pattern]
        return (yield from self._sender.run_or_defer(self._unlink_matching(patterns), "pattern", patterns))

    def void_all(self) -> Op[None]:
        """Begin a new generation."""
        yield from self._sender.run_or_defer(self._renew_generation(), "pattern", [EVERYTHING])

    def void_tags(self, tags: Sequence[str]) -> Op[None]:
        """Remove the versions of the tags: new ones are random, so that an old one is never reused."""
        yield from self._sender.run_or_defer(self._unlink_versions(tags), "tag", tags)

    def _unlink(self, keys: Iterable[str]) -> Op[int]:
        # Leases first: nothing can be stored between the two commands.
        values = [self._names.value(key) for key in keys]
        leases = [self._names.lease(key) for key in keys]
        if not values:
            return 0
        if self._client.is_cluster:
            commands = [("UNLINK", name) for name in (*leases, *values)]
            answers = yield Pipeline(self._client, commands, idempotent=True)
            return sum(answers[len(leases) :])
        _, removed = yield Pipeline(self._client, [("UNLINK", *leases), ("UNLINK", *values)], idempotent=True)
        return int(removed)

    def _renew_generation(self) -> Op[None]:
        name = self._names.tag(GENERATION_TAG)
        yield Pipeline(self._client, [("SET", name, new_generation(first=False))], idempotent=True)
        self._generation.forget()
        yield Pause(KNOWN_FOR)

    def _unlink_versions(self, tags: Iterable[str]) -> Op[None]:
        commands = [("UNLINK", self._names.tag(tag)) for tag in tags]
        if commands:
            yield Pipeline(self._client, commands, idempotent=True)

    def _send_patterns(self, patterns: Sequence[str]) -> Op[None]:
        """Send invalidations that were pending: ``clear`` is one of them."""
        if EVERYTHING in patterns:
            yield from self._renew_generation()
        else:
            yield from self._unlink_matching(patterns)

    def _unlink_matching(self, patterns: Iterable[str]) -> Op[int]:
        removed = 0
        for whole in map(escape_incomplete, patterns):
            yield from self._unlink_names(self._names.lease(whole))
            removed += yield from self._unlink_names(self._names.value(whole))
        return removed

    def _unlink_names(self, pattern: bytes) -> Op[int]:
        """SCAN and UNLINK in steps of a thousand: other clients wait milliseconds, never for the whole scan."""
        removed = 0
        places: Sequence[ScanPlace] = SCAN_START
        while places:
            places, names = yield ScanPage(self._client, pattern, places, count=_SCAN_COUNT)
            if names and not self._client.is_cluster:
                (count,) = yield Pipeline(self._client, [("UNLINK", *names)], idempotent=True, patient=True)
                removed += int(count)
            elif names:
                commands = [("UNLINK", name) for name in names]
                removed += sum((yield Pipeline(self._client, commands, idempotent=True, patient=True)))
        return removed

    def matching(self, pattern: str, most: int | None) -> Op[list[str]]:
        """Return the keys of fresh values that match; only the stored bytes tell whether a value is valid."""
        found: dict[str, None] = {}  # a scan may return a key twice
        places: Sequence[ScanPlace] = SCAN_START
        whole = self._names.value(escape_incomplete(pattern))
        while places and (most is None or len(found) < most):
            places, names = yield ScanPage(self._client, whole, places, count=_SCAN_COUNT)
            keys = [self._names.key_of(name) for name in names]
            for page in (keys[at : at + _VALUES_AT_ONCE] for at in range(0, len(keys), _VALUES_AT_ONCE)):
                entries = yield from self.load(page, patient=True)
                now = self._clock.time()
                found |= {
                    key: None
                    for key, entry in zip(page, entries, strict=True)
                    if entry is not None and now < entry.fresh_until
                }
        return list(islice(found, most))

    def sizes(self, pattern: str) -> Op[dict[str, tuple[int, int]]]:
        """Return number and bytes of the stored values of each function whose keys match, also invalid ones.

        Values that are written meanwhile may be missing, or counted twice.
        """
        found: dict[str, tuple[int, int]] = {}
        places: Sequence[ScanPlace] = SCAN_START
        whole = self._names.value(escape_incomplete(pattern))
        while places:
            places, names = yield ScanPage(self._client, whole, places, count=_SCAN_COUNT)
            commands = [("STRLEN", name) for name in names]
            lengths: list[int] = []
            if commands:
                lengths = yield Pipeline(self._client, commands, idempotent=True, patient=True)
            for name, length in zip(names, lengths, strict=True):
                function = function_of_key(self._names.key_of(name))
                count, size = found.get(function, (0, 0))
                found[function] = (count + 1, size + length)
        return found

    # --- health ------------------------------------------------------------------------------

    def peek(self, _key: str) -> Any:
        """Return ``MISSING``: every read needs a round trip."""
        return MISSING

    def ping(self) -> Op[bool]:
        """Return whether Redis responds."""
        yield Pipeline(self._client, [("PING",)], idempotent=True)
        return True
