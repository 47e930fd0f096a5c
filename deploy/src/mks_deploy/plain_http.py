"""Plain-HTTP listener besides gunicorn with its own TLS: ACME challenges and redirects only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.environment_file import register_own_variables
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import HTTPSRedirectMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["from_env", "plain_http"]

# RFC 8555, 8.3: base64url only, so a path traversal is impossible.
_CHALLENGE: Final = re.compile(r"/\.well-known/acme-challenge/([A-Za-z0-9_-]{1,128})")
_NOT_FOUND: Final = b"404 Not Found\n"


def from_env() -> WSGIApplication:
    """Create the listener from environment variables, for gunicorn."""
    register_own_variables(os.environ)
    wsgi = HardeningSettings.from_env().wsgi
    webroot = os.environ.get("MKS_ACME_WEBROOT", "")
    return plain_http(
        wsgi.allowed_hosts, https_port=wsgi.https_port, webroot=Path(webroot) if webroot else None
    )


def plain_http(allowed_hosts: tuple[str, ...], *, https_port: int, webroot: Path | None) -> WSGIApplication:
    """Create a WSGI application that serves challenges from ``webroot`` and redirects known hosts to HTTPS."""
    redirect = HTTPSRedirectMiddleware(
        _not_found, allowed_hosts=allowed_hosts, https_port=https_port, permanent=True
    )

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = _CHALLENGE.fullmatch(environ.get("PATH_INFO", ""))
        if found is None or webroot is None:
            return redirect(environ, start_response)
        try:
            text = (webroot / ".well-known" / "acme-challenge" / found[1]).read_bytes()
        except OSError:
            return _not_found(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
        return [text]

    return answer


def _not_found(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    del environ
    start_response(
        "404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", str(len(_NOT_FOUND)))]
    )
    return [_NOT_FOUND]
