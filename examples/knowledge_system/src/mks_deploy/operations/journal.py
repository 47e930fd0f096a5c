"""Who did what to a host, and one at a time: a lock that names its holder, a trail that is only appended to."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from mks_deploy.files import append_line

__all__ = ["Locked", "Trail", "ending_takes_back", "locked"]


class Locked(RuntimeError):  # noqa: N818 - a state of the host
    """Somebody else works on this host; the message names who and since when."""


@contextmanager
def locked(file: Path, *, doing: str) -> Iterator[None]:
    """Hold the host's lock; it is given back when the process ends, however that is.

    Raises:
        Locked: somebody else holds it.
    """
    with file.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise Locked(f"locked: {stream.read().strip() or 'by somebody'}") from None
        stream.truncate(0)
        stream.write(f"{doing} by {person()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z")
        stream.flush()
        try:
            yield
        finally:
            stream.truncate(0)


@contextmanager
def ending_takes_back() -> Iterator[None]:
    """A terminal that is lost, or a kill, ends a move as a failure of a step does: requests go back first."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Trail:
    """One JSON object a line.

    Args:
        file: where it is appended to.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, action: str, *, outcome: str, **facts: object) -> None:
        """Append one line, on disk before the next step is taken."""
        line = {
            "time": datetime.now(UTC).isoformat(),
            "who": person(),
            "action": action,
            "outcome": outcome,
            **facts,
        }
        append_line(self._file, json.dumps(line, ensure_ascii=False))

    def last(self, number: int) -> list[str]:
        """The newest lines, oldest first."""
        if not self._file.exists():
            return []
        return self._file.read_text(encoding="utf-8").splitlines()[-number:]


def person() -> str:
    """Who is at work: the account behind sudo, or our own."""
    return os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
