"""Whether anybody answers at the address of a PostgreSQL server, asked without an account.

A server that is stopped, or a network that swallows packets, still lets connections be made: the kernel answers in
the server's place. So one question is sent that every server and pooler answers with one byte before anything else,
"may we speak TLS?" (protocol 3.0, SSLRequest).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final, TypeAlias

from mks_hardening._core.clock import SYSTEM_CLOCK

__all__ = ["Address", "answers"]

# What ``getpeername`` gives: a path for a UNIX socket, otherwise host, port and more.
Address: TypeAlias = "str | bytes | tuple[str | int, ...]"

_SSL_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_LEAST: Final = 0.001  # 0 would mean: do not wait at all
_YES: Final = b"S"


def answers(family: int, address: Address, *, within: float) -> bool:
    """Whether the server says anything within so many seconds; only silence is a no.

    Refused and broken connections are answers: the system that sends them also ends the connections that are open.
    """
    until = SYSTEM_CLOCK.monotonic() + within
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(within)
        try:
            connection.connect(address)
            connection.sendall(_SSL_REQUEST)
            connection.settimeout(max(_LEAST, until - SYSTEM_CLOCK.monotonic()))
            answer = connection.recv(1)
        except TimeoutError:
            return False
        except BlockingIOError:  # a full queue at a UNIX socket: nobody accepts
            return False
        except OSError:
            return True
        if answer == _YES:
            _shake_hands(connection)
    return True


def _shake_hands(connection: socket.socket) -> None:
    """Do what was asked for: a server that is left here writes a line to its log, once for every probe."""
    import ssl  # heavy, and most servers of a private network say no

    # Nothing is said on it and nothing believed, so there is nothing to verify.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError, ValueError), context.wrap_socket(connection) as secured:
        # With its good-bye, and having read what the server says: a reset would be a line in its log as well.
        secured.unwrap()
