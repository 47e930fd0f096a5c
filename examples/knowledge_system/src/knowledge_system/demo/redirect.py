"""The plain-HTTP server of the demonstration: redirects to HTTPS."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from knowledge_system.settings import AppSettings
from mks_hardening.wsgi import HTTPSRedirectMiddleware


def from_env() -> WSGIApplication:
    """Create the redirecting WSGI application, for gunicorn."""
    wsgi = AppSettings.from_env().hardening.wsgi
    return HTTPSRedirectMiddleware(
        _nothing_here, allowed_hosts=wsgi.allowed_hosts, https_port=wsgi.https_port, permanent=True
    )


def _nothing_here(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    del environ
    start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "0")])
    return [b""]
