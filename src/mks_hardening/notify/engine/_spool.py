"""Spool: undeliverable alerts are stored in a folder until a handler for their destination is created.

Files are written under a temporary name and renamed, are readable by the owner only, and their number is limited.
Several processes and destinations may share a folder: an entry is used only for the destination that it was written
for, and by one process at a time, which locks the file and renames it. The kernel releases the locks of a process
that ends, so other processes continue with its entries at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import ENOSPC
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from mks_hardening._core.codec import json_dumps
from mks_hardening._core.private_folder import make_private
from mks_hardening.notify.engine._alert import Alert
from mks_hardening.protocols import Clock

__all__ = ["EntryNames", "LockedEntry", "Spool"]

_MAX_FILES: Final = 1000
_COUNT_EVERY: Final = 50
# The largest alert has about 85,000 characters.
_MAX_BYTES: Final = 1_048_576
_VERSION: Final = 1
# Suffix of a locked entry, after a unique id: renaming excludes other processes on a file system without locks too.
_SENDING: Final = ".sending"
# Longer than any attempt. For entries whose lock cannot be checked, for example on a file system without locks.
_STALE: Final = 120.0
_NAME: Final = re.compile(r".+-\d{15,}-(?P<id>[^-]+)-(?P<digest>[0-9a-f]{16})\.json(?:\..+)?", re.ASCII)


class LockedEntry(NamedTuple):
    """A file that this process has locked: its current path, and its name while it is not locked."""

    path: Path
    name: str


class EntryNames:
    """Names of the files of one destination: kind, time, id, and a digest of kind and address.

    The digest is keyed with the id of the alert. A name therefore reveals neither the address, which may be a
    secret, nor which entries have the same address; but with the address, each entry can be recognised by its name
    alone.

    Args:
        kind: kind of the destination, for example ``slack``.
        destinations: identifiers of the destination; new entries use the first, and entries of the others belong to
            it too.
    """

    __slots__ = ("_addresses", "_kind")

    def __init__(self, kind: str, destinations: Sequence[str]) -> None:
        self._kind = kind
        self._addresses = [f"{kind}\0{one}".encode("utf-8", "surrogatepass") for one in destinations]

    def of(self, alert: Alert) -> list[str]:
        """Return the possible file names of an alert; a new entry has the first."""
        start = f"{self._kind}-{int(alert.created * 1000):015d}-{alert.id}"
        return [f"{start}-{digest}.json" for digest in self._digests(alert.id)]

    def belongs(self, name: str) -> bool:
        """Return whether an entry, including a locked one, is for this destination."""
        parts = _NAME.fullmatch(name)
        return parts is not None and parts["digest"] in self._digests(parts["id"])

    def is_foreign(self, name: str) -> bool:
        """Return whether an entry is for another destination of this kind."""
        return name.startswith(f"{self._kind}-") and not self.belongs(name)

    def _digests(self, alert_id: str) -> list[str]:
        key = alert_id.encode()[:64]
        return [blake2b(address, key=key, digest_size=8).hexdigest() for address in self._addresses]


class Spool:
    """Spool of the undelivered alerts of one destination.

    Args:
        folder: folder; created with mode 0700 if missing.
        kind: kind of the destination, part of the file names.
        destinations: identifiers of the destination (see ``EntryNames``); file names contain only keyed digests of
            them.
        clock: wall clock for names and locks.
        max_files: maximum number of alerts; further ones are rejected.

    Raises:
        ConfigurationError: the folder cannot be created or written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        kind: str,
        destinations: Sequence[str],
        clock: Clock,
        max_files: int = _MAX_FILES,
    ) -> None:
        self._folder = Path(folder)
        self._entries = EntryNames(kind, destinations)
        self._clock = clock
        self._max_files = max_files
        self._free = 0
        self._unflushed: list[Path] = []
        # Open files of the locked entries; closing one releases its lock.
        self._descriptors: dict[Path, int] = {}
        make_private(self._folder, parameter="spool")

    def close(self) -> None:
        """Close the files of locked entries: other processes may use those that were not returned."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    # In a forked child the locks belong to the parent, and stay locked when the child closes its copies.
    reset_after_fork = close

    def put(self, alert: Alert, *, flush: bool = True) -> None:
        """Write one alert.

        Args:
            alert: alert to write.
            flush: whether the alert survives a power failure when this returns (takes some milliseconds); otherwise
                call the method ``flush`` later.

        Raises:
            OSError: the disk or the spool is full, or the folder has been removed.
        """
        if self._free <= 0:  # other processes write here too, so count the files now and then
            self._free = min(_COUNT_EVERY, self._max_files - len(self._names()))
        if self._free <= 0:
            raise OSError(ENOSPC, f"the spool is full with {self._max_files} alerts")
        self._free -= 1
        content = json_dumps({"version": _VERSION, **alert._asdict()})
        self._write(self._entries.of(alert)[0], content, flush=flush)

    def flush(self, timeout: float) -> None:
        """Make alerts that were written without flushing survive a power failure, within ``timeout`` seconds."""
        until = self._clock.monotonic() + timeout
        written, self._unflushed = self._unflushed, []
        for path in written:
            if self._clock.monotonic() > until:
                break
            _flush(path)
        if written:
            _flush(self._folder)

    def count_foreign(self) -> int:
        """Return the number of entries of this kind that are not for this destination; they are left alone."""
        return sum(map(self._entries.is_foreign, self._all_names()))

    def empty(self) -> bool:
        """Return whether no alert of this destination is waiting."""
        for name in self._names():
            descriptor = self._open_locked(name)
            if descriptor is not None:
                os.close(descriptor)
                return False
        return True

    def lock_entries(self, limit: int) -> list[tuple[LockedEntry, Alert]]:
        """Lock up to ``limit`` alerts, oldest first; no other process uses them until they are unlocked."""
        locked: list[tuple[LockedEntry, Alert]] = []
        for name in sorted(self._names()):
            if len(locked) >= limit:
                break
            entry = self._lock(name)
            alert = self._read(entry) if entry else None
            if entry and alert:
                locked.append((entry, alert))
        return locked

    def unlock(self, entry: LockedEntry) -> None:
        """Return an alert to the spool."""
        self._rename(entry, entry.name)

    def remove(self, entry: LockedEntry) -> None:
        """Delete an alert that was delivered."""
        with suppress(OSError):
            entry.path.unlink()
        self._release(entry)

    def _names(self) -> list[str]:
        return [name for name in self._all_names() if self._entries.belongs(name)]

    def _all_names(self) -> list[str]:
        try:
            return os.listdir(self._folder)  # noqa: PTH208 - names, not paths
        except OSError:
            return []

    def _open_locked(self, name: str) -> int | None:
        """Open and lock an entry; return ``None`` if it is in use, or is no alert."""
        sending = name.endswith(_SENDING)
        if not (sending or name.endswith(".json")):
            return None
        try:
            descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # another process was faster
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # abs: after the clock was set back, a lock must still expire.
            age = abs(self._clock.time() - os.fstat(descriptor).st_mtime)
            # Without locks (any other error), a new entry belongs to the process that renames it.
            if age <= _STALE if sending else isinstance(error, BlockingIOError):
                os.close(descriptor)
                return None
        return descriptor

    def _lock(self, name: str) -> LockedEntry | None:
        descriptor = self._open_locked(name)
        if descriptor is None:
            return None
        original = name.partition(".json")[0] + ".json"
        entry = LockedEntry(self._folder / f"{original}.{uuid4().hex}{_SENDING}", original)
        self._descriptors[entry.path] = descriptor
        now = self._clock.time()
        try:
            # Before the rename: with an old time the lock would immediately look abandoned.
            os.utime(descriptor, (now, now))
            (self._folder / name).rename(entry.path)
        except OSError:  # another process was faster
            self._release(entry)
            return None
        return entry

    def _read(self, entry: LockedEntry) -> Alert | None:
        try:
            with os.fdopen(self._descriptors[entry.path], "rb", closefd=False) as file:
                alert = _decoded(file.read(_MAX_BYTES))
            # Otherwise an entry of another destination was renamed or copied to a name of this one.
            if entry.name in self._entries.of(alert):
                return alert
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
        # Not a partial file, as files are complete when renamed. It was written by another program; set it aside.
        self._rename(entry, f"{entry.name}.unreadable")
        return None

    def _rename(self, entry: LockedEntry, name: str) -> None:
        with suppress(OSError):
            entry.path.rename(self._folder / name)
        self._release(entry)

    def _release(self, entry: LockedEntry) -> None:
        descriptor = self._descriptors.pop(entry.path, None)
        if descriptor is not None:
            os.close(descriptor)

    def _write(self, name: str, content: bytes, *, flush: bool) -> None:
        # Hidden until it is complete: readers select by name, and a rename is atomic. Flushed to the disk before
        # the rename, since ext4 and others may store the name first: a power failure would leave an empty file.
        draft = self._folder / f".{name}.{uuid4().hex}.draft"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                if flush:
                    file.flush()
                    os.fsync(file.fileno())
            draft.rename(self._folder / name)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise
        if flush:
            _flush(self._folder)
        else:
            self._unflushed.append(self._folder / name)


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk if the file system supports it."""
    # Errors are ignored: another process may have locked the alert, and some network file systems reject folders.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _decoded(content: bytes) -> Alert:
    """Deserialize an alert.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, RecursionError: the content is not an alert, or has another
            version.
    """
    data: Any = json.loads(content)
    if data["version"] != _VERSION:
        raise ValueError("written by another version")
    fields = {str(name): str(value) for name, value in data["fields"].items()}
    return Alert(**{name: convert(data[name]) for name, convert in _FIELDS.items()}, fields=fields)


_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "id": str, "fingerprint": str, "created": float, "level": str, "logger": str, "message": str, "place": str,
    "exception": str, "request_id": str, "host": str, "environment": str, "repeats": int, "since": float,
    "digest": bool,
}  # fmt: skip
