"""Virus scanning of uploads: by a command, by clamd, or disabled.

If the scan fails, the file is rejected as if it were infected; the client can retry.
"""

from __future__ import annotations

import re
import shlex
import socket
import struct
import subprocess
from typing import Final, Protocol

_CHUNK: Final = 65_536
_LONGEST_REPLY: Final = 4096
_FOUND: Final = re.compile(rb"stream: (.{1,200}) FOUND")


class ScanFailedError(Exception):
    """The scan could not be performed."""


class Scanner(Protocol):
    """Interface of the virus scanners."""

    def scan(self, content: bytes) -> str:
        """Return the scanner's finding; empty if the file is clean.

        Raises:
            ScanFailedError: the scan could not be performed.
        """
        ...


class NoScanner:
    """Accepts every file without a scan."""

    def scan(self, content: bytes) -> str:
        """Return an empty finding."""
        del content
        return ""


class CommandScanner:
    """Scans with a program that reads the file from stdin: exit status 0 means clean, 1 infected, others failure.

    Args:
        command: the program and its arguments, for example ``clamdscan --no-summary -``; run without a shell.
        timeout: time limit in seconds.
    """

    def __init__(self, command: str, *, timeout: float = 30) -> None:
        self._command = shlex.split(command)
        self._timeout = timeout

    def scan(self, content: bytes) -> str:
        """Run the program."""
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
    """Scans with clamd over its socket, using ``INSTREAM``.

    Args:
        address: path of a Unix socket, or ``host:port``.
        timeout: time limit of each socket operation in seconds.
    """

    def __init__(self, address: str, *, timeout: float = 30) -> None:
        self._address = address
        self._timeout = timeout

    def scan(self, content: bytes) -> str:
        """Send the file to clamd."""
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
    """Return the configured scanner; no scanner if both are empty."""
    if address:
        return ClamdScanner(address)
    return CommandScanner(command) if command else NoScanner()
