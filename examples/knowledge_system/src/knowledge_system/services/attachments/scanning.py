"""Looking for viruses before a file is kept: by a command, by clamd, or by nobody.

A scan that cannot be made counts as one that found something: the file is refused, and can be sent again.
"""

from __future__ import annotations

import re
import shlex
import socket
import struct
import subprocess
from typing import Final, Protocol

__all__ = ["ClamdScanner", "CommandScanner", "NoScanner", "ScanFailedError", "Scanner", "scanner"]

_CHUNK: Final = 65_536
_LONGEST_REPLY: Final = 4096
_FOUND: Final = re.compile(rb"stream: (.{1,200}) FOUND")


class ScanFailedError(Exception):
    """Nobody can say whether the file is clean."""


class Scanner(Protocol):
    """What looks at files."""

    def scan(self, content: bytes) -> str:
        """What was found, in the scanner's words; empty for a clean file.

        Raises:
            ScanFailedError: it could not look.
        """
        ...


class NoScanner:
    """Looks at nothing; files are kept as they are."""

    def scan(self, content: bytes) -> str:
        """Nothing."""
        del content
        return ""


class CommandScanner:
    """A program that reads the file from its standard input: status 0 is clean, 1 is not, all else is a failure.

    Args:
        command: the program and its arguments, for example ``clamdscan --no-summary -``; no shell reads it.
        timeout: seconds.
    """

    def __init__(self, command: str, *, timeout: float = 30) -> None:
        self._command = shlex.split(command)
        self._timeout = timeout

    def scan(self, content: bytes) -> str:
        """Run it."""
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command, no shell
                self._command, input=content, capture_output=True, timeout=self._timeout, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ScanFailedError(type(error).__name__) from error
        if done.returncode in {0, 1}:
            return "found by the scan command" if done.returncode else ""
        raise ScanFailedError(f"status {done.returncode}")


class ClamdScanner:
    """clamd over its socket, by its command ``INSTREAM``.

    Args:
        address: path of a unix socket, or ``host:port``.
        timeout: seconds for each step.
    """

    def __init__(self, address: str, *, timeout: float = 30) -> None:
        self._address = address
        self._timeout = timeout

    def scan(self, content: bytes) -> str:
        """Ask it."""
        try:
            with self._connection() as connection:
                connection.sendall(b"zINSTREAM\0")
                for begin in range(0, len(content), _CHUNK):
                    chunk = content[begin : begin + _CHUNK]
                    connection.sendall(struct.pack(">I", len(chunk)) + chunk)
                connection.sendall(struct.pack(">I", 0))
                reply = _read_reply(connection)
        except (OSError, ValueError) as error:
            raise ScanFailedError(type(error).__name__) from error
        if reply == b"stream: OK":
            return ""
        if found := _FOUND.fullmatch(reply):
            return found[1].decode("ascii", "replace")
        raise ScanFailedError("an answer that says neither")

    def _connection(self) -> socket.socket:
        if self._address.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(self._timeout)
                connection.connect(self._address)
            except BaseException:
                connection.close()
                raise
            return connection
        host, _, port = self._address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=self._timeout)


def _read_reply(connection: socket.socket) -> bytes:
    reply = b""
    while not reply.endswith(b"\0") and len(reply) < _LONGEST_REPLY and (chunk := connection.recv(1024)):
        reply += chunk
    return reply.rstrip(b"\0\n")


def scanner(command: str, address: str) -> Scanner:
    """The scanner that settings name; both empty is none."""
    if address:
        return ClamdScanner(address)
    return CommandScanner(command) if command else NoScanner()
