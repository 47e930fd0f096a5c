"""Lock and trail of host operations: the lock names its holder, the trail is append-only."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from mks_deploy.atomic_files import append_line

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["Locked", "OperationLog", "announce", "is_held_by_shell", "lock_file", "locked", "signals_as_exit"]

_JOURNAL: Final = "/run/systemd/journal/socket"
_UNNAMED: Final = "by another process"
_CONTROL: Final = re.compile(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]")


class Locked(RuntimeError):  # noqa: N818 - a state of the host
    """Another operation is running on this host; the message names its user and start time."""


def lock_file(settings: Settings) -> Path:
    """Return the file that is locked by what sets up this host or builds a version on it."""
    return Path(f"/run/mks-deploy-{settings.name}.lock")


@contextmanager
def locked(file: Path, *, doing: str) -> Iterator[str]:
    """Hold the host's lock, which is released whenever the process ends.

    Yields:
        What was being done by a process that was killed while it held the lock; empty if none was.

    Raises:
        Locked: another process holds it.
    """
    with file.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise Locked(f"locked: {stream.read().strip() or _UNNAMED}") from None
        stream.seek(0)
        left = stream.read()
        stream.truncate(0)
        stream.write(f"{doing} by {person()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z")
        stream.flush()
        try:
            yield left
        finally:
            stream.truncate(0)


def is_held_by_shell(file: Path) -> bool:
    """Whether a command of a shell holds a lock, as ``mks-deploy up`` has it held while it builds a version."""
    if not file.exists():
        return False
    try:
        with locked(file, doing="mks-deploy"):
            return False
    except Locked as error:
        return str(error).endswith(_UNNAMED)


@contextmanager
def signals_as_exit() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP (lost terminal) into ``SystemExit``, so that a release is rolled back."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class OperationLog:
    """An append-only log with one JSON object per line.

    Args:
        file: path of the log.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, action: str, *, outcome: str, **facts: object) -> None:
        """Append a line and sync it to disk before the next step."""
        line = {
            "time": datetime.now(UTC).isoformat(),
            "who": person(),
            "action": action,
            "outcome": outcome,
            **facts,
        }
        append_line(self._file, json.dumps(line, ensure_ascii=False))

    def last(self, number: int) -> list[str]:
        """Return the newest lines, oldest first."""
        if not self._file.exists():
            return []
        return self._file.read_text(encoding="utf-8").splitlines()[-number:]

    def last_move(self) -> Mapping[str, object]:
        """Return the newest line about a release, a rollback or a restart; empty if there is none."""
        for line in reversed(self.last(1000)):
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and record.get("action") in {"release", "restart", "rollback"}:
                    return record
        return {}


def announce(identifier: str, message: str, *, journal: str = _JOURNAL, **fields: str) -> None:
    """Write a message to systemd's journal, if there is one.

    Args:
        identifier: what ``journalctl -t`` finds it by.
        message: text, of several lines if need be; control characters are replaced.
        journal: socket of the journal.
        fields: further fields, by names in capitals.
    """
    values = {"MESSAGE": message, "SYSLOG_IDENTIFIER": identifier, "PRIORITY": "5", **fields}
    datagram = bytearray()
    # The native protocol (systemd's JOURNAL_NATIVE_PROTOCOL): name, length, value, so that no value ends a field.
    for name, value in values.items():
        data = _CONTROL.sub("\ufffd", value).encode()
        datagram += name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection, suppress(OSError):
        connection.sendto(datagram, journal)


def person() -> str:
    """Return the user behind sudo, or the current account."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
