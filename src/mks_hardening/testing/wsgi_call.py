"""One request to a WSGI application, with both sides validated against PEP 3333."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mks_hardening.testing._header_fields import field_pairs, only_value

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


__all__ = ["WSGIResponse", "call_wsgi"]


class WSGIResponse(NamedTuple):
    """Response of a WSGI application.

    Attributes:
        status: status code.
        headers: header fields in order.
        body: the whole body.
        environ: the environ after the request.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    environ: dict[str, Any]

    def header(self, name: str) -> str | None:
        """Return the value of the only header field of that name; ``None`` if there is none.

        Raises:
            AssertionError: there are several.
        """
        return only_value(self.headers, name)


def call_wsgi(
    app: WSGIApplication,
    path: str = "/",
    *,
    wrap: Callable[[WSGIApplication], WSGIApplication] | None = None,
    method: str = "GET",
    query: str = "",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    scheme: str = "http",
    environ: Mapping[str, Any] | None = None,
) -> WSGIResponse:
    """Send one request to a WSGI application, under ``wsgiref.validate``.

    Args:
        app: the application.
        path: request path, decoded.
        wrap: wraps the application in a middleware; then both sides of the middleware are validated.
        method: request method.
        query: query string as sent.
        headers: request header fields.
        body: request body.
        scheme: ``http`` or ``https``.
        environ: further environ keys; ``None`` removes a key.

    Returns:
        The response.

    Raises:
        AssertionError: the application or the middleware violates the protocol (PEP 3333).
    """
    from wsgiref.validate import validator

    request = _environ(
        REQUEST_METHOD=method,
        # PEP 3333: bytes decoded as latin-1, whatever the encoding of the path.
        PATH_INFO=path.encode("utf-8", "surrogateescape").decode("latin-1"),
        QUERY_STRING=query,
        **{"wsgi.url_scheme": scheme, "wsgi.input": io.BytesIO(body)},
    )
    if body:
        request["CONTENT_LENGTH"] = str(len(body))
    for name, value in field_pairs(headers):
        key = name.upper().replace("-", "_")
        request[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    request |= environ or {}
    for key in [key for key, value in request.items() if value is None]:
        del request[key]
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(
        status: str, fields: list[tuple[str, str]], exc_info: object = None, /
    ) -> Callable[[bytes], object]:
        if started and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        started[:] = [(status, list(fields))]
        return written.append

    # Twice: the outer one checks the middleware as an application, the inner one checks it as a server.
    under_test = validator(wrap(validator(app))) if wrap else validator(app)
    answered = under_test(request, start_response)
    try:
        written += answered
    finally:
        answered.close()  # type: ignore[attr-defined]  # the validator's own iterator
    status, fields = started[0]
    return WSGIResponse(int(status[:3]), fields, b"".join(written), request)


def _environ(**known: object) -> dict[str, Any]:
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": "server.internal",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **known,
    }
