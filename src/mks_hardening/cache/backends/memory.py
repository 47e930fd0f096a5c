"""A cache in the memory of this process: bounded, thread-safe, without aliasing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import count
from threading import Lock
from typing import Any, Final, NamedTuple
from uuid import UUID

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.codec import Codec
from mks_hardening._core.forked import renew_in_child
from mks_hardening._core.sentinel import MISSING
from mks_hardening.cache.base import BaseCache
from mks_hardening.cache.effects import Op
from mks_hardening.cache.entry import Entry, Lease
from mks_hardening.cache.key_glob import glob_pattern
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

__all__ = ["MemoryCache"]

# Values of exactly these types cannot be changed by whoever got them; all others are kept as bytes.
_IMMUTABLE: Final = frozenset({str, int, float, bool, bytes, type(None), date, timedelta, Decimal, UUID})
_LARGEST_VALUE: Final = 1 << 26


class _Slot(NamedTuple):
    payload: Any
    encoded: bool
    fresh_until: float  # monotonic, as is the next
    expires_at: float
    tags: Mapping[str, str]


class MemoryCache(BaseCache):
    """Keeps values in this process; for one process, for tests, or in front of Redis (``TieredCache``).

    Args:
        max_entries: entries kept; the least recently used go first.
        default_ttl: seconds a value is kept when nothing else is said.
        namespace: what events call it.
        jitter: share of each ttl, up to 0.1, that is taken off at random.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is impossible.
    """

    def __init__(
        self,
        *,
        max_entries: int = 10_000,
        default_ttl: float | timedelta = 3600,
        namespace: str = "memory",
        jitter: float = 0.1,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if type(max_entries) is not int or max_entries < 1:
            raise ConfigurationError(
                "max_entries must be a whole number of at least 1", parameter="max_entries"
            )
        store = MemoryStore(max_entries=max_entries, clock=clock)
        super().__init__(store, namespace=namespace, default_ttl=default_ttl, jitter=jitter, clock=clock)

    def __repr__(self) -> str:
        return f"MemoryCache({self.store!r})"


class MemoryStore:
    """Entries in this process, the least recently used dropped first."""

    def __init__(self, *, max_entries: int, clock: Clock) -> None:
        self._max_entries = max_entries
        self._clock = clock
        self._codec = Codec(max_bytes=_LARGEST_VALUE)
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._versions: OrderedDict[str, str] = OrderedDict()  # of tags; a missing one makes entries invalid
        self._leases: dict[str, object] = {}
        self._next_version = count(1)
        self._lock = Lock()
        renew_in_child(self)

    def renew(self) -> None:
        """Be usable in a forked child, whatever the parent's threads were doing."""
        self._lock = Lock()
        self._leases.clear()

    def close(self) -> None:
        """Nothing to give back."""

    async def aclose(self) -> None:
        """Nothing to give back."""

    def __repr__(self) -> str:
        return f"{len(self._slots)} of {self._max_entries} entries"

    def peek(self, key: str) -> Any:
        """The fresh value. Each step is atomic by itself, so that a hit needs no lock."""
        slot = self._slots.get(key)
        if slot is None or self._clock.monotonic() >= slot.fresh_until or (slot.tags and self._is_void(slot)):
            return MISSING
        try:
            self._slots.move_to_end(key)
        except KeyError:  # removed by another thread meanwhile
            return MISSING
        return self._codec.decode(slot.payload, trusted=True) if slot.encoded else slot.payload

    def _is_void(self, slot: _Slot) -> bool:
        return any(self._versions.get(tag) != made for tag, made in slot.tags.items())

    def load(self, keys: Sequence[str], _tags: Sequence[str] = ()) -> Op[list[Entry | None]]:
        """The valid entries."""
        yield from ()
        return [self._entry(key) for key in keys]

    def save(self, entries: Mapping[str, tuple[Any, float]], tags: Sequence[str]) -> Op[None]:
        """Keep values."""
        yield from ()
        frozen = {key: (*self._freeze(value), ttl) for key, (value, ttl) in entries.items()}
        now = self._clock.monotonic()
        with self._lock:
            versions = self._current_versions(tags)
            for key, (payload, encoded, ttl) in frozen.items():
                self._put(key, _Slot(payload, encoded, now + ttl, now + ttl, versions))

    def acquire(self, key: str, tags: Sequence[str], *, wait: bool) -> Op[Entry | Lease | None]:
        """The right to compute; nobody else can have it, as only one caller of a process asks."""
        yield from ()
        entry = (
            self._entry(key) if wait else None
        )  # another thread may have stored it since the caller looked
        if entry is not None and self._clock.time() < entry.fresh_until:
            return entry
        token = object()
        with self._lock:
            self._leases[key] = token
            return Lease(token, self._current_versions(tags))

    def commit(self, key: str, lease: Lease, entry: Entry) -> Op[bool]:
        """Keep what was computed unless the lease is void."""
        yield from ()
        payload, encoded = self._freeze(entry.value)
        shift = self._clock.monotonic() - self._clock.time()
        with self._lock:
            if self._leases.get(key) is not lease.token:
                return False
            self._put(
                key, _Slot(payload, encoded, entry.fresh_until + shift, entry.expires_at + shift, entry.tags)
            )
            return all(self._versions.get(tag) == version for tag, version in entry.tags.items())

    def release(self, key: str, lease: Lease) -> Op[None]:
        """Give the lease back."""
        yield from ()
        with self._lock:
            if self._leases.get(key) is lease.token:
                del self._leases[key]

    def remove(self, keys: Sequence[str]) -> Op[int]:
        """Remove entries and void leases."""
        yield from ()
        present = sum(self._entry(key) is not None for key in keys)
        with self._lock:
            for key in keys:
                self._leases.pop(key, None)
                self._slots.pop(key, None)
        return present

    def remove_matching(self, pattern: str) -> Op[int]:
        """The same by pattern."""
        matches = glob_pattern(pattern).fullmatch
        with self._lock:
            keys = [key for key in (*self._slots, *self._leases) if matches(key)]
        return (yield from self.remove(list(dict.fromkeys(keys))))

    def void_tags(self, tags: Sequence[str]) -> Op[None]:
        """Give the tags no version, which no entry has."""
        yield from ()
        with self._lock:
            for tag in tags:
                self._versions.pop(tag, None)

    def ping(self) -> Op[bool]:
        """It is there."""
        yield from ()
        return True

    # --- slots -------------------------------------------------------------------------------

    def _entry(self, key: str) -> Entry | None:
        slot = self._slots.get(key)
        if slot is None:
            return None
        now = self._clock.monotonic()
        if now >= slot.expires_at or self._is_void(slot):
            with self._lock:
                if self._slots.get(key) is slot:
                    del self._slots[key]
            return None
        with self._lock:
            if key in self._slots:
                self._slots.move_to_end(key)
        shift = self._clock.time() - now
        value = self._codec.decode(slot.payload, trusted=True) if slot.encoded else slot.payload
        return Entry(value, slot.fresh_until + shift, slot.expires_at + shift, slot.tags)

    def _put(self, key: str, slot: _Slot) -> None:
        """Store a slot and void leases on it; the lock is held."""
        self._leases.pop(key, None)
        self._slots[key] = slot
        self._slots.move_to_end(key)
        while len(self._slots) > self._max_entries:
            self._slots.popitem(last=False)

    def _current_versions(self, tags: Sequence[str]) -> dict[str, str]:
        """Versions of the tags, made where there are none; the lock is held."""
        versions: dict[str, str] = {}
        for tag in tags:
            versions[tag] = self._versions.setdefault(tag, str(next(self._next_version)))
            self._versions.move_to_end(tag)
        while len(self._versions) > 4 * self._max_entries + len(versions):
            self._versions.popitem(last=False)
        return versions

    def _freeze(self, value: Any) -> tuple[Any, bool]:
        return (value, False) if type(value) in _IMMUTABLE else (self._codec.encode(value), True)
