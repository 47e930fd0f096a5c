"""Alerts on disk: what could not be delivered waits in a folder until a handler on it is built.

Files are written under a name of their own and renamed, readable by the owner only, and bounded in number. Several
processes may share a folder: a file belongs to whoever renames it, and a claim that its owner left behind is taken
up again after a while.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from typing import Any, Final, NamedTuple

from mks_hardening._core.codec import json_dumps
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.notify.alert import Alert
from mks_hardening.protocols import Clock

__all__ = ["Claim", "Spool"]

_VERSION: Final = 1
_MAX_FILES: Final = 1000
# The largest alert has some 85,000 characters.
_MAX_BYTES: Final = 1_048_576
# Longer than any try can take; a claim is renewed with each try.
_STALE_CLAIM: Final = 120.0


class Claim(NamedTuple):
    """A file taken out of the folder's line."""

    path: Path
    name: str


class Spool:
    """A folder of undelivered alerts for one kind of destination.

    Args:
        folder: created with mode 0700 when missing.
        kind: part of the file names, so that e-mail and Slack may share a folder.
        clock: wall clock for names and claims.
        max_files: alerts kept; further ones are refused.

    Raises:
        ConfigurationError: the folder cannot be created or written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, kind: str, clock: Clock, max_files: int = _MAX_FILES
    ) -> None:
        self._folder = Path(folder)
        self._kind = kind
        self._clock = clock
        self._max_files = max_files
        _make_private(self._folder)

    def put(self, alert: Alert) -> None:
        """Write one alert.

        Raises:
            OSError: the disk or the folder is full, or the folder is gone.
        """
        if len(self._names()) >= self._max_files:
            raise OSError(ENOSPC, f"the spool holds {self._max_files} alerts")
        name = f"{self._kind}-{int(alert.created * 1000):015d}-{alert.id}"
        self._write(name, json_dumps({"version": _VERSION, **alert._asdict()}))

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
        try:
            with os.scandir(self._folder) as entries:
                return [entry.name for entry in entries if entry.name.startswith(f"{self._kind}-")]
        except OSError:
            return []

    def _left_behind(self) -> list[str]:
        return [name for name in self._names() if name.endswith(".taken") and self._age(name) > _STALE_CLAIM]

    def _age(self, name: str) -> float:
        try:
            return abs(self._clock.time() - (self._folder / name).stat().st_mtime)
        except OSError:
            return 0.0

    def _take(self, name: str) -> Claim | None:
        claim = Claim(self._folder / f"{name}.{os.getpid()}.taken", name)
        now = self._clock.time()
        try:
            os.utime(self._folder / name, (now, now))
            (self._folder / name).rename(claim.path)
        except OSError:  # another process was quicker
            return None
        return claim

    def _read(self, claim: Claim) -> Alert | None:
        try:
            with claim.path.open("rb") as file:
                return _alert(json.loads(file.read(_MAX_BYTES)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # Half a file cannot be: it was renamed whole. Somebody else wrote this; out of the way with it.
            self._rename(claim.path.name, f"{claim.name}.unreadable")
            return None

    def _rename(self, old: str, new: str) -> None:
        with suppress(OSError):
            (self._folder / old).rename(self._folder / new)

    def _write(self, name: str, content: bytes) -> None:
        draft = self._folder / f".{name}.{os.getpid()}.draft"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            draft.rename(self._folder / f"{name}.json")
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
    foreign = known.st_uid != os.geteuid() and known.st_mode & stat.S_IWOTH
    if foreign or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(
            "spool must be a folder that this process, but not everybody, can write", parameter="spool"
        )


_FIELDS: Final[dict[str, Callable[[Any], Any]]] = {
    "id": str, "fingerprint": str, "created": float, "level": str, "logger": str, "message": str, "place": str,
    "exception": str, "request_id": str, "host": str, "environment": str, "repeats": int, "since": float,
    "digest": bool,
}  # fmt: skip


def _alert(data: Any) -> Alert:
    if data["version"] != _VERSION:
        raise ValueError("written by another version")
    fields = {str(name): str(value) for name, value in data["fields"].items()}
    return Alert(**{name: convert(data[name]) for name, convert in _FIELDS.items()}, fields=fields)
