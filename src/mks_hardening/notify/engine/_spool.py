"""Alerts on disk: what could not be delivered waits in a folder until a handler for its destination is built.

Files are written under a name of their own and renamed, readable by the owner only, and bounded in number. Several
processes and destinations may share a folder: an entry is touched only for the destination that it was meant for, a
file belongs to whoever renames it, and a claim that its owner left behind is taken up again after a while.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.engine._alert import Alert
from mks_hardening.notify.engine._spool_entry import MAX_BYTES, EntryNames, decoded, encoded
from mks_hardening.protocols import Clock

__all__ = ["Claim", "Spool"]

_MAX_FILES: Final = 1000
_COUNT_EVERY: Final = 50
# Longer than any try can take; a claim is renewed with each try.
_STALE_CLAIM: Final = 120.0


class Claim(NamedTuple):
    """A file taken out of the folder's line."""

    path: Path
    name: str


class Spool:
    """The undelivered alerts of one destination in a folder.

    Args:
        folder: created with mode 0700 when missing.
        kind: of the destination, part of the file names.
        destination: its address, of which only a keyed digest gets into the file names.
        clock: wall clock for names and claims.
        max_files: alerts kept; further ones are refused.

    Raises:
        ConfigurationError: the folder cannot be created or written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        kind: str,
        destination: str,
        clock: Clock,
        max_files: int = _MAX_FILES,
    ) -> None:
        self._folder = Path(folder)
        self._entries = EntryNames(kind, destination)
        self._clock = clock
        self._max_files = max_files
        self._room = 0
        _make_private(self._folder)

    def put(self, alert: Alert) -> None:
        """Write one alert.

        Raises:
            OSError: the disk or the folder is full, or the folder is gone.
        """
        if self._room <= 0:  # other processes write here too, so that it is counted now and then
            self._room = min(_COUNT_EVERY, self._max_files - len(self._names()))
        if self._room <= 0:
            raise OSError(ENOSPC, f"the spool holds {self._max_files} alerts")
        self._room -= 1
        self._write(self._entries.of(alert), encoded(alert))

    def strangers(self) -> int:
        """Entries of this kind for other destinations, or by other hands; they are left where they are."""
        return sum(
            self._entries.is_of_kind(name) and not self._entries.belongs(name) for name in self._all_names()
        )

    def empty(self) -> bool:
        """Whether no alert waits for anybody."""
        return not any(name.endswith(".json") for name in self._names()) and not self._left_behind()

    def claim(self, most: int) -> list[tuple[Claim, Alert]]:
        """Take up to ``most`` alerts, oldest first; no other process gets them until they are released."""
        for name in self._left_behind():
            self._rename(name, name.partition(".json")[0] + ".json")
        taken: list[tuple[Claim, Alert]] = []
        for name in sorted(name for name in self._names() if name.endswith(".json")):
            if len(taken) >= most:
                break
            claim = self._take(name)
            alert = self._read(claim) if claim else None
            if claim and alert:
                taken.append((claim, alert))
        return taken

    def release(self, claim: Claim) -> None:
        """Put an alert back into the line."""
        self._rename(claim.path.name, claim.name)

    def done(self, claim: Claim) -> None:
        """Remove an alert that was delivered."""
        with suppress(OSError):
            claim.path.unlink()

    def _names(self) -> list[str]:
        return [name for name in self._all_names() if self._entries.belongs(name)]

    def _all_names(self) -> list[str]:
        try:
            with os.scandir(self._folder) as entries:
                return [entry.name for entry in entries]
        except OSError:
            return []

    def _left_behind(self) -> list[str]:
        return [name for name in self._names() if name.endswith(".taken") and self._age(name) > _STALE_CLAIM]

    def _age(self, name: str) -> float:
        try:
            # abs: a clock that was set back must not make a claim immortal.
            return abs(self._clock.time() - (self._folder / name).stat().st_mtime)
        except OSError:
            return 0.0

    def _take(self, name: str) -> Claim | None:
        claim = Claim(self._folder / f"{name}.{os.getpid()}.taken", name)
        now = self._clock.time()
        try:
            # Before the rename: with an old time the claim would look left behind in the same moment.
            os.utime(self._folder / name, (now, now))
            (self._folder / name).rename(claim.path)
        except OSError:  # another process was quicker
            return None
        return claim

    def _read(self, claim: Claim) -> Alert | None:
        try:
            with claim.path.open("rb") as file:
                return self._entries.checked(claim.name, decoded(file.read(MAX_BYTES)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # Half a file cannot be: it was renamed whole. Somebody else wrote this; out of the way with it.
            self._rename(claim.path.name, f"{claim.name}.unreadable")
            return None

    def _rename(self, old: str, new: str) -> None:
        with suppress(OSError):
            (self._folder / old).rename(self._folder / new)

    def _write(self, name: str, content: bytes) -> None:
        # Hidden until it is whole: readers go by names, and a rename is all or nothing.
        draft = self._folder / f".{name}.{uuid4().hex}.draft"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            draft.rename(self._folder / name)
        except OSError:
            with suppress(OSError):
                draft.unlink()
            raise


def _make_private(folder: Path) -> None:
    """Create the folder, or close it to others; alerts tell of the inside of an application."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = folder.stat()
        if known.st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"spool must be a folder that can be created ({error.strerror})", parameter="spool"
        ) from error
    # Whoever can write there could put alerts of their own under our name.
    foreign = known.st_uid != os.geteuid() and known.st_mode & stat.S_IWOTH
    if foreign or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            "spool must be a folder that this process, but not everybody, can write", parameter="spool"
        )
