"""Why a unit failed: the end of its journal, without secrets, for whoever typed the command."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from mks_deploy.operations.host_credentials import plain_credentials
from mks_deploy.operations.release import ReleaseError
from mks_hardening.logging import REDACTED, SecretRedactor

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["explained", "masked"]

_LINES: Final = "20"
_SHORTEST: Final = 6
"""Shorter parts of a secret may be parts of any word."""


def explained(error: ReleaseError, words: Sequence[str], settings: Settings) -> ReleaseError:
    """Add the last lines of the journal to an error, for each service that a command named.

    They are notes of the error (PEP 678), because the log of the operations keeps its text alone.
    """
    for unit in (word for word in words if word.endswith(".service")):
        if text := masked(_journal(unit), _secrets(settings)).strip():
            error.add_note("\n    ".join([f"{unit} wrote last:", *text.splitlines()]))
    return error


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
    read = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={_LINES}", f"--unit={unit}"]
    said = b""
    try:
        for words in (["journalctl", "--sync"], read):
            said = subprocess.run(words, capture_output=True, check=False, timeout=30).stdout  # noqa: S603 - no shell
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.decode("utf-8", "replace")
