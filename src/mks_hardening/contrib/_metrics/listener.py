"""A small HTTP server of its own for what only this machine should read."""

from __future__ import annotations

import socket
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from mks_hardening._core.checks import whole_number
from mks_hardening._core.closing import Closing
from mks_hardening._core.process.after_fork import renew_in_child
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["Listener", "listening_socket"]

_PATIENCE: Final = 10.0
"""Seconds that a client may keep a thread waiting."""


def listening_socket(address: str, port: int, *, beside_predecessor: bool = False) -> socket.socket:
    """A socket that listens.

    Args:
        address: numeric, of this machine.
        port: 0 for any that is free.
        beside_predecessor: whether another process of the same user, which made its socket here too, may listen on
            it still.

    Raises:
        ConfigurationError: the port is taken, or cannot be.
    """
    whole_number(port, parameter="port", minimum=0, maximum=65_535)
    try:
        if port and not beside_predecessor:
            # One that shares its port would share it with strangers as well; so ask first, without.
            _bound(address, port, share=False).close()
        made = _bound(address, port, share=True)
    except OSError as error:
        raise ConfigurationError(
            f"the port for metrics cannot be had ({error.strerror}); give another", parameter="port"
        ) from None
    made.listen(16)
    # Several processes wait at one socket; whoever comes second must not be kept.
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
    """Answers requests with a WSGI application, on daemon threads.

    Args:
        app: the application.
        listening: from ``listening_socket``; closed by ``close``.
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
        renew_in_child(self)

    def renew(self) -> None:
        """In a forked child, where nobody answers: its socket would keep the port when the parent has ended."""
        self._thread = None
        self._server.server_close()

    def close(self) -> None:
        """Listen no more; harmless when called twice."""
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
        """Say nothing: a scrape every few seconds is no news."""
