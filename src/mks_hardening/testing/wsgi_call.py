"""One request to a WSGI application, with both sides held to PEP 3333."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


__all__ = ["WSGIAnswer", "call_wsgi"]


class WSGIAnswer(NamedTuple):
    """What a WSGI application answered.

    Attributes:
        status: the status code.
        headers: the header fields in order.
        body: the whole body.
        environ: the environ as the request left it.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    environ: dict[str, Any]

    def header(self, name: str) -> str | None:
        """The value of the only field of that name; ``None`` when there is none.

        Raises:
            AssertionError: there are several.
        """
        values = [value for field, value in self.headers if field.lower() == name.lower()]
        if len(values) > 1:
            raise AssertionError(f"{name} occurs {len(values)} times")
        return values[0] if values else None


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
) -> WSGIAnswer:
    """Send one request through a WSGI application, under ``wsgiref.validate``.

    Args:
        app: the application.
        path: path of the request, decoded.
        wrap: makes a wrapper around the application; then both sides of the wrapper are validated.
        method: method of the request.
        query: query string as sent.
        headers: request header fields.
        body: request body.
        scheme: ``http`` or ``https``.
        environ: further keys; ``None`` removes one.

    Raises:
        AssertionError: the application or the wrapper breaks the protocol (PEP 3333).
    """
    from wsgiref.validate import validator

    request = _environ(
        REQUEST_METHOD=method,
        # PEP 3333: bytes as latin-1, whatever the path is written in.
        PATH_INFO=path.encode("utf-8", "surrogateescape").decode("latin-1"),
        QUERY_STRING=query,
        **{"wsgi.url_scheme": scheme, "wsgi.input": io.BytesIO(body)},
    )
    if body:
        request["CONTENT_LENGTH"] = str(len(body))
    for name, value in _pairs(headers):
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

    # Twice: the outer one watches the wrapper as an application, the inner one watches it as a server.
    under_test = validator(wrap(validator(app))) if wrap else validator(app)
    answered = under_test(request, start_response)
    try:
        written += answered
    finally:
        answered.close()  # type: ignore[attr-defined]  # the validator's own iterator
    status, fields = started[0]
    return WSGIAnswer(int(status[:3]), fields, b"".join(written), request)


def _pairs(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return cast("Mapping[str, str]", headers).items() if isinstance(headers, Mapping) else headers


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
