"""Warning about in-memory sessions in a server with several processes, which only a request reveals."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mks_hardening._edge.session.stores.memory_store import MemorySessionStore

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from mks_hardening.protocols import SessionStore

__all__ = ["warn_if_multiprocess"]

_logger: Final = logging.getLogger("mks_hardening.wsgi")


def warn_if_multiprocess(app: WSGIApplication, store: SessionStore) -> WSGIApplication:
    """Return the application; with a store that cannot be shared, wrapped so that it logs a warning."""
    return _OneProcess(app) if isinstance(store, MemorySessionStore) else app


class _OneProcess:
    """Wrapper that warns once that other processes do not have the sessions of the application."""

    __slots__ = ("_app", "_warned")

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._warned = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request (PEP 3333)."""
        if environ.get("wsgi.multiprocess") and not self._warned:
            self._warned = True
            _logger.warning(
                "sessions are in the memory of this process, and the server runs several: users appear signed "
                "out on every other request; set MKS_REDIS_URL, or give store=RedisSessionStore(...)"
            )
        return self._app(environ, start_response)
