"""Entries in the memory of this process: bounded, thread-safe, no shared mutable objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import count, islice
from sys import getsizeof
from threading import RLock
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

from mks_hardening._core.missing import MISSING
from mks_hardening._core.operations import Op
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.cache._compute_lease import MAX_DEFERRED_LEASE, ComputeLease
from mks_hardening.cache._entry import CacheEntry
from mks_hardening.cache._immutable import Thaw, freeze, thawed
from mks_hardening.cache.backends._key_glob import glob_pattern
from mks_hardening.exceptions import EncodeError
from mks_hardening.protocols import Clock

__all__ = ["MemoryStore"]


# Measured on CPython 3.11: the tuple with its numbers, and its place in the ordered mapping.
_ENTRY_BYTES: Final = 320
_TAG_BYTES: Final = 100


class _MemoryEntry(NamedTuple):
    payload: Any
    thaw: Thaw | None  # makes a value of the payload; None for the payload itself
    fresh_until: float  # monotonic clock, as is expires_at
    expires_at: float
    tags: Mapping[str, bytes]
    cost: float = 0.0

    def size(self, key: str) -> int:
        """Return the bytes that the entry takes in memory, estimated."""
        payload = getsizeof(self.payload)
        # Versions of tags belong to all entries that have them.
        return payload + getsizeof(key) + _ENTRY_BYTES + _TAG_BYTES * len(self.tags)


class _HeldLease(ComputeLease):
    """A lease in this process, with the monotonic time until which no other caller can acquire it."""

    __slots__ = ("until",)

    def __init__(self, tags: Mapping[str, bytes], former: CacheEntry | None, until: float) -> None:
        super().__init__(None, tags, former)
        self.until = until


class MemoryStore:
    """Entries in this process; the least recently used ones are evicted first."""

    budget = None
    pending = 0

    def __init__(self, *, max_entries: int, max_bytes: int | None = None, clock: Clock) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0  # counted only if there is a maximum
        self._clock = clock
        self._now = clock.monotonic
        self._slots: OrderedDict[str, _MemoryEntry] = OrderedDict()
        self._versions: OrderedDict[str, bytes] = (
            OrderedDict()
        )  # of tags; a missing one makes entries invalid
        self._leases: WeakValueDictionary[str, _HeldLease] = WeakValueDictionary()
        self._next_version = count(1)
        self._lock = RLock()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child, and drop the parent's leases."""
        self._lock = RLock()
        # They belong to threads of the parent, which never commit here.
        self._leases.clear()

    def close(self) -> None:
        """Do nothing: there are no connections."""

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""

    def __repr__(self) -> str:
        size = "" if self._max_bytes is None else f", {self._bytes} of {self._max_bytes} bytes"
        return f"{len(self._slots)} of {self._max_entries} entries{size}"

    def peek(self, key: str) -> Any:
        """Return the fresh value. Each step is atomic, so a hit needs no lock."""
        slot = self._slots.get(key)
        if slot is None:
            return MISSING
        payload, thaw, fresh_until, _, tags, _ = slot  # in one step: each name of its own takes a look-up
        if self._now() >= fresh_until or (tags and not self._are_current(tags)):
            return MISSING
        try:
            self._slots.move_to_end(key)
        except KeyError:  # removed by another thread in the meantime
            return MISSING
        return payload if thaw is None else thaw(payload)  # thawed(), without its call

    def _are_current(self, versions: Mapping[str, bytes]) -> bool:
        return all(self._versions.get(tag) == made for tag, made in versions.items())

    def load(self, keys: Sequence[str], _tags: Sequence[str] = ()) -> Op[list[CacheEntry | None]]:
        """Return the valid entries."""
        yield from ()
        return [self._entry(key) for key in keys]

    def load_original(self, key: str) -> Op[CacheEntry | None]:
        """Return the valid entry."""
        yield from ()
        return self._entry(key)

    def save(self, entries: Mapping[str, tuple[object, float]], tags: Sequence[str]) -> Op[None]:
        """Store values."""
        yield from ()
        # Outside the lock: encoding a large value takes time, and may call back into the cache.
        frozen = {key: (*freeze(value), ttl) for key, (value, ttl) in entries.items()}
        now = self._now()
        with self._lock:
            versions = self._current_versions(tags)
            for key, (payload, thaw, ttl) in frozen.items():
                self._put(key, _MemoryEntry(payload, thaw, now + ttl, now + ttl, versions))

    def acquire(
        self, key: str, tags: Sequence[str], *, wait: float = 0
    ) -> Op[CacheEntry | ComputeLease | None]:
        """Return a lease; None at once while another caller holds it (with ``wait``: one that takes too long)."""
        yield from ()
        now = self._now()
        with self._lock:
            entry = self._entry(key)
            fresh = entry if entry is not None and self._clock.time() < entry.fresh_until else None
            if fresh is not None and wait:  # another thread has stored it since the caller's look-up
                return fresh
            # A lease is not taken over from its holder: under steady demand, no holder could ever store its value.
            if self._is_held(key, now):
                return None
            until = now + MAX_DEFERRED_LEASE
            lease = self._leases[key] = _HeldLease(self._current_versions(tags), fresh, until)
            return lease

    def acquire_many(self, keys: Sequence[str], tags: Sequence[str]) -> Op[dict[str, ComputeLease]]:
        """Return the leases that no other caller holds."""
        leases: dict[str, ComputeLease] = {}
        for key in keys:
            lease = yield from self.acquire(key, tags)
            if isinstance(lease, ComputeLease):
                leases[key] = lease
        return leases

    def commit_many(self, computed: Mapping[str, tuple[ComputeLease, CacheEntry]]) -> Op[list[str]]:
        """Store computed values; return the keys of those that are not plain data."""
        refused: list[str] = []
        for key, (lease, entry) in computed.items():
            try:
                yield from self.commit(key, lease, entry)
            except EncodeError:
                refused.append(key)
                yield from self.release(key, lease)
        return refused

    def _is_held(self, key: str, now: float) -> bool:
        """Return whether another caller holds a valid lease; the lock is held."""
        held = self._leases.get(key)
        return held is not None and now < held.until and self._are_current(held.tags)

    def commit(self, key: str, lease: ComputeLease, entry: CacheEntry) -> Op[bool]:
        """Store a computed value unless its lease is void."""
        yield from ()
        payload, thaw = freeze(entry.value)
        # Entries have wall clock times, which may be set back; here they are stored in monotonic time.
        shift = self._now() - self._clock.time()
        with self._lock:
            # The key was written or invalidated: a value computed from older data must not be stored.
            if self._leases.get(key) is not lease:
                return False
            self._put(
                key,
                _MemoryEntry(
                    payload,
                    thaw,
                    entry.fresh_until + shift,
                    entry.expires_at + shift,
                    entry.tags,
                    entry.cost,
                ),
            )
            # Stored either way, as an entry with an old version is never read; but waiting callers must not get it.
            return self._are_current(entry.tags)

    def release(self, key: str, lease: ComputeLease) -> Op[None]:
        """Release the lease."""
        yield from ()
        with self._lock:
            if self._leases.get(key) is lease:
                del self._leases[key]

    def remove(self, keys: Sequence[str]) -> Op[int]:
        """Remove entries and void leases."""
        yield from ()
        present = sum(self._entry(key) is not None for key in keys)
        with self._lock:
            for key in keys:
                self._leases.pop(key, None)
                self._drop(key)
        return present

    def remove_matching(self, pattern: str) -> Op[int]:
        """Remove entries and void leases by pattern."""
        matches = glob_pattern(pattern).fullmatch
        with self._lock:
            keys = [key for key in (*self._slots, *self._leases) if matches(key)]
        return (yield from self.remove(list(dict.fromkeys(keys))))

    def matching(self, pattern: str, most: int | None) -> Op[list[str]]:
        """Return the keys of fresh values that match."""
        yield from ()
        matches = glob_pattern(pattern).fullmatch
        with self._lock:
            slots = list(self._slots.items())
        now = self._now()
        found = (
            key
            for key, slot in slots
            if matches(key) and now < slot.fresh_until and self._are_current(slot.tags)
        )
        return list(islice(found, most))

    def void_tags(self, tags: Sequence[str]) -> Op[None]:
        """Remove the versions of the tags, which invalidates all entries made under them."""
        yield from ()
        with self._lock:
            for tag in tags:
                self._versions.pop(tag, None)

    def void_all(self) -> Op[None]:
        """Remove all entries and void all leases."""
        yield from ()
        with self._lock:
            self._leases.clear()
            self._slots.clear()
            self._bytes = 0

    def ping(self) -> Op[bool]:
        """Return True: memory is always available."""
        yield from ()
        return True

    # --- slots -------------------------------------------------------------------------------

    def _entry(self, key: str) -> CacheEntry | None:
        slot = self._slots.get(key)
        if slot is None:
            return None
        now = self._now()
        if now >= slot.expires_at or not self._are_current(slot.tags):
            with self._lock:
                if self._slots.get(key) is slot:
                    self._drop(key)
            return None
        with self._lock:
            if key in self._slots:
                self._slots.move_to_end(key)
        shift = self._clock.time() - now
        return CacheEntry(
            thawed(slot.payload, slot.thaw),
            fresh_until=slot.fresh_until + shift,
            expires_at=slot.expires_at + shift,
            tags=slot.tags,
            cost=slot.cost,
        )

    def _put(self, key: str, slot: _MemoryEntry) -> None:
        """Store an entry and void the lease on its key; the lock is held."""
        self._leases.pop(key, None)
        most = self._max_bytes
        if most is not None:
            size = slot.size(key)
            if size > most:  # it would evict everything else, and not fit either
                self._drop(key)
                return
            former = self._slots.get(key)
            self._bytes += size - (0 if former is None else former.size(key))
        self._slots[key] = slot  # in one step: readers take no lock
        self._slots.move_to_end(key)
        while len(self._slots) > self._max_entries or (most is not None and self._bytes > most):
            self._drop(next(iter(self._slots)))

    def _drop(self, key: str) -> None:
        """Remove an entry, if there is one; the lock is held."""
        slot = self._slots.pop(key, None)
        if slot is not None and self._max_bytes is not None:
            self._bytes -= slot.size(key)

    def _current_versions(self, tags: Sequence[str]) -> dict[str, bytes]:
        """Return the versions of the tags, creating missing ones; the lock is held."""
        versions: dict[str, bytes] = {}
        for tag in tags:
            versions[tag] = self._versions.setdefault(tag, b"%d" % next(self._next_version))
            self._versions.move_to_end(tag)
        # Dropping a version can only invalidate entries, never validate one; so the bound is safe, and generous.
        while len(self._versions) > 4 * self._max_entries + len(versions):
            self._versions.popitem(last=False)
        return versions
