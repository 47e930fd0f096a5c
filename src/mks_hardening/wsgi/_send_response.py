"""Sending of prebuilt responses to a WSGI server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from mks_hardening._edge.refusal_response import FixedResponse

__all__ = ["send_response"]


def send_response(
    environ: WSGIEnvironment, start_response: StartResponse, response: FixedResponse
) -> list[bytes]:
    """Send the response, without the body to HEAD requests, and return the iterable for the server."""
    start_response(response.status_line, [*response.headers])
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [response.body]
