"""Lists of networks whose requests are always or never served."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from mks_hardening._core.checks import path_text, strings
from mks_hardening._core.durations import seconds
from mks_hardening._core.memo import Memo
from mks_hardening._core.origin.network_addresses import Network, parse_address, parse_network
from mks_hardening._core.process.interval_thread import IntervalThread, until_collected
from mks_hardening._edge.client_rules.network_set import NetworkSet
from mks_hardening.exceptions import ConfigurationError

__all__ = ["ClientRules"]

Verdict = Literal["", "allow", "deny"]

_logger: Final = logging.getLogger("mks_hardening.client_rules")
_Version = tuple[int, int, int]


class ClientRules:
    """Lists of addresses and networks that are denied, and of those that are never banned.

    Deny wins over allow. A client on the allow list is not subject to the bans of a ``BanList``; rate limits still
    apply to it.

    A file has one rule per line, ``allow`` or ``deny`` and an address or network; ``#`` begins a comment::

        deny 198.51.100.0/24   # scrapers
        allow 203.0.113.7

    A background thread of each process re-reads the file when it has changed, so that no request waits for it. If
    the new content is invalid or the file is missing, the last valid lists stay, and one error is logged. Replace
    the file by renaming a complete one; a file that is written in place is read once it has not changed between two
    checks, since half of a list is often valid.

    Args:
        allow: addresses and CIDR networks.
        deny: addresses and CIDR networks.
        file: path of a file with further rules.
        check_interval: seconds between two checks whether the file has changed.

    Raises:
        ConfigurationError: a network is malformed, or the file cannot be read.
    """

    __slots__ = (
        "__weakref__",
        "_allow",
        "_deny",
        "_in_place",
        "_is_broken",
        "_thread",
        "_verdicts",
        "_version",
        "file",
    )

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
        file: str | os.PathLike[str] | None = None,
        check_interval: float | timedelta = 1.0,
    ) -> None:
        self._allow = _networks(allow, parameter="allow")
        self._deny = _networks(deny, parameter="deny")
        every = seconds(check_interval, parameter="check_interval", allow_zero=False)
        self.file: Path | None = None if file is None else Path(path_text(file, parameter="file"))
        self._is_broken = False
        self._version: _Version | None = None
        self._in_place: _Version | None = None
        self._thread: IntervalThread | None = None
        self._verdicts = _verdicts(self._allow, self._deny)
        if self.file is not None:
            try:
                self._read(self.file)
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"file: {_reason(error)}", parameter="file") from None
            self._thread = IntervalThread(
                until_collected(self._check_file), every=every, name="mks-client-rules"
            )

    def verdict(self, client_ip: str) -> Verdict:
        """Return ``"deny"`` or ``"allow"`` if a list contains the client; an empty string if none does."""
        if self._thread is not None:
            self._thread.start()
        return self._verdicts[client_ip]

    def reload(self) -> None:
        """Re-read the file now if it has changed; see the class for what happens to an invalid one."""
        file = self.file
        if file is None:
            return
        try:
            self._read(file)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                self._version = None  # the same content counts again once it can be read
            if not self._is_broken:
                self._is_broken = True
                _logger.error(  # noqa: TRY400 - the traceback says nothing about the file
                    "%s is ignored, the last valid rules stay: %s", file, _reason(error)
                )
        else:
            if self._is_broken:
                _logger.warning("%s is valid again", file)
            self._is_broken = False

    def _check_file(self) -> bool:
        if not self._is_being_written():
            self.reload()
        return True

    def _is_being_written(self) -> bool:
        """Whether the file has changed again since the last check, in place, so that it may be incomplete."""
        before, known = self._in_place, self._version
        try:
            self._in_place = None if self.file is None or known is None else _version_of(self.file)
        except OSError:
            self._in_place = None
        now = self._in_place
        return now is not None and now not in (known, before) and now[2:] == (known or now)[2:]

    def _read(self, file: Path) -> None:
        version = _version_of(file)
        if version == self._version:
            if self._is_broken:
                raise ValueError("it has not been corrected")
            return
        # Stored first: an invalid file is parsed once, not every second.
        self._version = version
        listed: dict[str, list[Network]] = {"allow": [], "deny": []}
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or words[0] not in listed:
                raise ValueError(f"line {number} must be 'allow' or 'deny' and one network")
            try:
                listed[words[0]].append(parse_network(words[1], parameter="file"))
            except ConfigurationError:
                raise ValueError(f"line {number} has no valid address or network") from None
        self._verdicts = _verdicts([*self._allow, *listed["allow"]], [*self._deny, *listed["deny"]])

    def __repr__(self) -> str:
        return f"ClientRules({len(self._allow)} allowed, {len(self._deny)} denied, file={self.file})"


def _version_of(file: Path) -> _Version:
    found = file.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _networks(listed: Iterable[str], *, parameter: str) -> list[Network]:
    return [
        parse_network(text, parameter=parameter)
        for text in strings(listed, parameter=parameter, of="networks")
    ]


def _verdicts(allow: Iterable[Network], deny: Iterable[Network]) -> Memo[str, Verdict]:
    allowed, denied = NetworkSet(allow), NetworkSet(deny)

    def verdict(client_ip: str) -> Verdict:
        address = parse_address(client_ip)
        if address is None:
            return ""
        return "deny" if address in denied else "allow" if address in allowed else ""

    return Memo(verdict)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)
