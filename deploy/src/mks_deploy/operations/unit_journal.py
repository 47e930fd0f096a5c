"""Why a unit failed: the end of its journal, without secrets, for whoever typed the command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from mks_deploy.operations.host_credentials import plain_credentials
from mks_deploy.operations.release import ReleaseError
from mks_hardening.logging import REDACTED, SecretRedactor

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["explained", "last_start", "masked"]

_READ: Final = "400"
_SHOWN: Final = 40
"""So many lines are printed of one start: the first half of them, which holds the reason, and the last half."""
_SHORTEST: Final = 6
"""Shorter parts of a secret may be parts of any word."""


def explained(error: ReleaseError, words: Sequence[str], settings: Settings) -> ReleaseError:
    """Add the last lines of the journal to an error, for each service that a command named.

    They are notes of the error (PEP 678), because the log of the operations keeps its text alone.
    """
    for unit in (word for word in words if word.endswith(".service")):
        shown = "\n".join(last_start(unit, _journal(unit).splitlines()))
        if text := masked(shown, _secrets(settings)).strip():
            error.add_note("\n    ".join([f"{unit} wrote last:", *text.splitlines()]))
    return error


def last_start(unit: str, lines: Sequence[str]) -> list[str]:
    """Return what a unit wrote in its last start that ended, with JSON records as text, shortened in the middle.

    A unit that restarts writes its reason at the beginning of each start, and a server that ends may add a
    traceback of its own that is longer than the reason.
    """
    starts = [number for number, line in enumerate(lines) if line.startswith(f"Starting {unit}")] or [0]
    parts = [lines[begin:end] for begin, end in zip(starts, [*starts[1:], None], strict=True)]
    ended = [part for part in parts if any(line.startswith(f"{unit}: Failed with") for line in part)]
    text = [said for line in (ended or parts)[-1] for said in _readable(line)]
    half = _SHOWN // 2
    return (
        text if len(text) <= _SHOWN else [*text[:half], f"... {len(text) - _SHOWN} lines ...", *text[-half:]]
    )


def _readable(line: str) -> list[str]:
    """Return a JSON record as its level, its message and the end of its exception; below WARNING, nothing."""
    try:
        record = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return [line]
    if not isinstance(record, dict) or not {"level", "message"} <= record.keys():
        return [line]
    if record["level"] in {"DEBUG", "INFO"}:
        return []
    raised = record.get("exception")
    text = str(raised.get("text", "")) if isinstance(raised, dict) else ""
    return [f"{record['level']} {record['message']}", *text.splitlines()[-3:]]


def masked(text: str, secrets: Iterable[str]) -> str:
    """Replace the given secrets, their lines and parts and the passwords of their URLs, and what looks secret."""
    parts = {part for secret in secrets for part in _parts(secret) if len(part) >= _SHORTEST}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, REDACTED)
    return SecretRedactor().redact_text(text)


def _parts(secret: str) -> Iterator[str]:
    for line in secret.split():
        yield from (line, *line.split(","), line.partition("=")[2])
        try:
            password = urlsplit(line).password or ""
        except ValueError:
            continue
        yield from (password, unquote(password))


def _secrets(settings: Settings) -> list[str]:
    try:
        files = [file for file in plain_credentials(settings).iterdir() if file.is_file()]
        return [file.read_text(encoding="utf-8", errors="replace") for file in files]
    except (OSError, ReleaseError):
        return []  # no unit can have read them either


def _journal(unit: str) -> str:
    read = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={_READ}", f"--unit={unit}"]
    said = b""
    try:
        for words in (["journalctl", "--sync"], read):
            said = subprocess.run(words, capture_output=True, check=False, timeout=30).stdout  # noqa: S603 - no shell
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.decode("utf-8", "replace")
