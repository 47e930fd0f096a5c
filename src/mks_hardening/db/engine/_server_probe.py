"""Probe of a PostgreSQL server that needs no credentials.

Connecting proves nothing: if the server process is stopped or a network drops packets, the kernel still accepts
connections. The probe therefore sends an SSLRequest (protocol 3.0: "may we use TLS?"), to which every server and
pooler responds with one byte before anything else.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final, TypeAlias

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["Address", "is_responding"]

# Return value of ``getpeername``: a path for a UNIX socket, otherwise a tuple of host, port and more.
Address: TypeAlias = "str | bytes | tuple[str | int, ...]"

_SSL_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_LEAST: Final = 0.001  # 0 would make the socket non-blocking
_YES: Final = b"S"


def is_responding(family: int, address: Address, *, within: float) -> bool:
    """Whether the server responds within ``within`` seconds; only silence counts as no.

    Refused and broken connections count as responses: the host that sends them also closes the open connections.
    """
    until = SYSTEM_CLOCK.monotonic() + within
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(within)
        try:
            connection.connect(address)
            connection.sendall(_SSL_REQUEST)
            connection.settimeout(max(_LEAST, until - SYSTEM_CLOCK.monotonic()))
            response = connection.recv(1)
        except TimeoutError:
            return False
        except BlockingIOError:  # the backlog of a UNIX socket is full: the server accepts nothing
            return False
        except OSError:
            return True
        if response == _YES:
            _complete_tls_handshake(connection)
    return True


def _complete_tls_handshake(connection: socket.socket) -> None:
    """Complete the TLS handshake: a server whose client disconnects here logs one line for every probe."""
    import ssl  # expensive import, and most servers in private networks decline TLS

    # No data is sent or trusted on this connection, so there is nothing to verify.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError, ValueError), context.wrap_socket(connection) as secured:
        # Close with close_notify after reading the server's data: a reset would also be logged by the server.
        secured.unwrap()
