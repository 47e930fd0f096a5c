"""Spool: undeliverable alerts are stored in a folder until a handler for their destination is created.

Files are written under a temporary name and renamed, are readable by the owner only, and their number is limited.
Several processes and destinations may share a folder: an entry is used only for the destination that it was written
for, and is claimed by renaming it. Each process holds a lock file while it has claims, and its claims contain the
name of the lock: claims of a killed process are taken over at once.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from threading import RLock
from typing import Final, NamedTuple
from uuid import uuid4

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.engine._alert import Alert
from mks_hardening.notify.engine._spool_entry import MAX_BYTES, EntryNames, decoded, encoded
from mks_hardening.protocols import Clock

__all__ = ["Spool", "SpoolClaim"]

_MAX_FILES: Final = 1000
_COUNT_EVERY: Final = 50
_LOCK: Final = ".owner"
# Longer than any attempt. For claims whose owner cannot be checked, for example on a file system without locks.
_STALE_CLAIM: Final = 120.0


class SpoolClaim(NamedTuple):
    """A file that this process has claimed."""

    path: Path
    name: str


class Spool:
    """Spool of the undelivered alerts of one destination.

    Args:
        folder: folder; created with mode 0700 if missing.
        kind: kind of the destination, part of the file names.
        destinations: identifiers of the destination (see ``EntryNames``); file names contain only keyed digests of
            them.
        clock: wall clock for names and claims.
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
        self._room = 0
        self._unflushed: list[Path] = []
        _make_private(self._folder)
        self._owner = _SpoolOwner(self._folder)

    def reset_after_fork(self) -> None:
        """Reset the owner in a forked child: the parent keeps its claims."""
        self._owner.leave()
        self._owner = _SpoolOwner(self._folder)

    def close(self) -> None:
        """Release the owner lock; there must be no more claims."""
        self._owner.remove()

    def put(self, alert: Alert, *, flush: bool = True) -> None:
        """Write one alert.

        Args:
            alert: alert to write.
            flush: whether the alert survives a power failure when this returns (takes some milliseconds); otherwise
                call the method ``flush`` later.

        Raises:
            OSError: the disk or the spool is full, or the folder has been removed.
        """
        if self._room <= 0:  # other processes write here too, so count the files now and then
            self._room = min(_COUNT_EVERY, self._max_files - len(self._names()))
        if self._room <= 0:
            raise OSError(ENOSPC, f"the spool holds {self._max_files} alerts")
        self._room -= 1
        self._write(self._entries.of(alert), encoded(alert), flush=flush)

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

    def strangers(self) -> int:
        """Return the number of entries of this kind that are not for this destination; they are left alone."""
        return sum(
            self._entries.is_of_kind(name) and not self._entries.belongs(name) for name in self._all_names()
        )

    def empty(self) -> bool:
        """Return whether no alert of this destination is waiting."""
        return not any(name.endswith(".json") for name in self._names()) and not self._left_behind()

    def claim(self, most: int) -> list[tuple[SpoolClaim, Alert]]:
        """Claim up to ``most`` alerts, oldest first; no other process can claim them until they are released."""
        for name in self._left_behind():
            self._rename(name, name.partition(".json")[0] + ".json")
        self._remove_owners()
        taken: list[tuple[SpoolClaim, Alert]] = []
        for name in sorted(name for name in self._names() if name.endswith(".json")):
            if len(taken) >= most:
                break
            claim = self._take(name)
            alert = self._read(claim) if claim else None
            if claim and alert:
                taken.append((claim, alert))
        return taken

    def release(self, claim: SpoolClaim) -> None:
        """Return an alert to the spool."""
        self._rename(claim.path.name, claim.name)
        self._owner.let_go()

    def done(self, claim: SpoolClaim) -> None:
        """Delete an alert that was delivered."""
        with suppress(OSError):
            claim.path.unlink()
        self._owner.let_go()

    def _names(self) -> list[str]:
        return [name for name in self._all_names() if self._entries.belongs(name)]

    def _all_names(self) -> list[str]:
        try:
            with os.scandir(self._folder) as entries:
                return [entry.name for entry in entries]
        except OSError:
            return []

    def _left_behind(self) -> list[str]:
        taken = [name for name in self._names() if name.endswith(".taken")]
        gone = {owner for owner in map(_owner_of, taken) if self._owner.is_gone(owner)}
        return [name for name in taken if _owner_of(name) in gone or self._age(name) > _STALE_CLAIM]

    def _remove_owners(self) -> None:
        """Remove the locks of processes that have ended without leaving claims of any destination."""
        names = self._all_names()
        needed = {_owner_of(name) for name in names if name.endswith(".taken")}
        for owner in {name[1:].removesuffix(_LOCK) for name in names if name.endswith(_LOCK)} - needed:
            if self._owner.is_gone(owner):
                with suppress(OSError):
                    (self._folder / f".{owner}{_LOCK}").unlink()

    def _age(self, name: str) -> float:
        try:
            # abs: after the clock was set back, a claim must still expire.
            return abs(self._clock.time() - (self._folder / name).stat().st_mtime)
        except OSError:
            return 0.0

    def _take(self, name: str) -> SpoolClaim | None:
        claim = SpoolClaim(self._folder / f"{name}.{self._owner.hold()}.taken", name)
        now = self._clock.time()
        try:
            # Before the rename: with an old time the claim would immediately look abandoned.
            os.utime(self._folder / name, (now, now))
            (self._folder / name).rename(claim.path)
        except OSError:  # another process was faster
            self._owner.let_go()
            return None
        return claim

    def _read(self, claim: SpoolClaim) -> Alert | None:
        try:
            with claim.path.open("rb") as file:
                return self._entries.checked(claim.name, decoded(file.read(MAX_BYTES)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # Not a partial file, as files are complete when renamed. It was written by another program; set it
            # aside.
            self._rename(claim.path.name, f"{claim.name}.unreadable")
            self._owner.let_go()
            return None

    def _rename(self, old: str, new: str) -> None:
        with suppress(OSError):
            (self._folder / old).rename(self._folder / new)

    def _write(self, name: str, content: bytes, *, flush: bool) -> None:
        # Hidden until it is complete: readers select by name, and a rename is atomic. Flushed to the disk before
        # the rename, since ext4 and others may store the name first: a power failure would leave an empty file.
        draft = self._folder / f".{name}.{uuid4().hex}.draft"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
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
    # Errors are ignored: another process may have claimed the alert, and some network file systems reject folders.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _owner_of(claimed: str) -> str:
    return claimed.removesuffix(".taken").rpartition(".")[2]


class _SpoolOwner:
    """Lock file that this process holds while it has claims; the kernel releases the lock when the process ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = RLock()
        self._name = ""
        self._descriptor = -1
        self._claims = 0

    def hold(self) -> str:
        """Register another claim and return the name of the lock, which the first claim creates."""
        with self._lock:
            self._claims += 1
            if not self._name:
                self._name = uuid4().hex
                with suppress(OSError):
                    self._make()
            return self._name

    def let_go(self) -> None:
        """Unregister a claim; the last one removes the lock."""
        with self._lock:
            self._claims = max(0, self._claims - 1)
            if not self._claims:
                self.remove()

    def is_gone(self, owner: str) -> bool:
        """Whether another owner has ended; ``False`` if this cannot be determined."""
        if owner == self._name:
            return False
        try:
            descriptor = os.open(self._path(owner), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True

    def leave(self) -> None:
        """Close the file without unlocking it: in a child the lock belongs to the parent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Unlock and remove the file."""
        with self._lock:
            if self._descriptor >= 0:
                with suppress(OSError):
                    self._path(self._name).unlink()
            self.leave()
            self._name, self._claims = "", 0

    def _path(self, owner: str) -> Path:
        return self._folder / f".{owner}{_LOCK}"

    def _make(self) -> None:
        # Locked before it gets its name: an unlocked file would look like that of a process that has ended.
        draft = self._folder / f".{self._name}.draft"
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(self._path(self._name))
        except OSError:
            os.close(descriptor)
            with suppress(OSError):
                draft.unlink()
            raise
        self._descriptor = descriptor


def _make_private(folder: Path) -> None:
    """Create the folder, or restrict its mode: alerts contain internals of an application."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = folder.stat()
        if known.st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"spool must be a folder that can be created ({error.strerror})", parameter="spool"
        ) from error
    # Anyone who can write to the folder could add alerts in our name.
    foreign = known.st_uid != os.geteuid() and known.st_mode & stat.S_IWOTH
    if foreign or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            "spool must be a folder that this process, but not everybody, can write", parameter="spool"
        )
