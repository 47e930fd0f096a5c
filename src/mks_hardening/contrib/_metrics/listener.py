"""A small HTTP server for metrics that only this machine should read."""

from __future__ import annotations

import socket
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from mks_hardening._core.checks import whole_number
from mks_hardening._core.closing import Closing
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["Listener", "listening_socket"]

_PATIENCE: Final = 10.0
"""Seconds for which a client may block a thread."""


def listening_socket(address: str, port: int, *, beside_predecessor: bool = False) -> socket.socket:
    """Create a listening socket.

    Args:
        address: numeric address of this machine.
        port: port; 0 for any free one.
        beside_predecessor: whether another process of the same user may still be listening on the port, with a
            socket created by this function.

    Raises:
        ConfigurationError: the port is in use or cannot be bound.
    """
    whole_number(port, parameter="port", minimum=0, maximum=65_535)
    try:
        if port and not beside_predecessor:
            # SO_REUSEPORT would share the port with unrelated processes as well; so first bind without it.
            _bound(address, port, share=False).close()
        made = _bound(address, port, share=True)
    except OSError as error:
        raise ConfigurationError(
            f"the port for metrics cannot be opened ({error.strerror}); choose another", parameter="port"
        ) from None
    made.listen(16)
    # Several processes wait on one socket; those that do not get the connection must not block.
    made.setblocking(False)
    return made


def _bound(address: str, port: int, *, share: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


class Listener(Closing):
    """HTTP server for a WSGI application, on daemon threads.

    Args:
        app: the application.
        listening: socket from ``listening_socket``; closed by ``close``.
    """

    def __init__(self, app: WSGIApplication, listening: socket.socket) -> None:
        name: tuple[str, int] = listening.getsockname()[:2]
        self.address: str = name[0]
        self.port: int = name[1]
        self._server = _Server(name, _Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listening
        self._server.server_name, self._server.server_port = name
        self._server.setup_environ()
        self._server.set_app(app)
        self._thread: Thread | None = Thread(
            target=self._server.serve_forever, name="mks-metrics", daemon=True
        )
        self._thread.start()
        register_after_fork(self)

    def reset_after_fork(self) -> None:
        """Close the socket in a forked child, which does not serve it and would keep the port in use."""
        self._thread = None
        self._server.server_close()

    def close(self) -> None:
        """Stop listening; may be called twice."""
        if self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(_PATIENCE)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Log nothing: regular scrapes are not worth a log record."""
