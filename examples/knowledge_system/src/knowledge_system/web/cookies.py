"""Cookies besides the session cookie: sign-in challenge, passkey challenge, remembered device, language."""

from __future__ import annotations

from typing import Final

from flask import after_this_request, request
from werkzeug.wrappers import Response

CHALLENGE: Final = ("knowledge_challenge", 300)
PASSKEY: Final = ("knowledge_passkey", 300)
"""A browser that signs in with a passkey instead of name and password; the user is not known yet."""
PROVIDER: Final = ("knowledge_provider", 600)
"""A browser that is at the identity provider; the response is accepted from it alone."""
BROWSER_LENGTH: Final = 43
DEVICE: Final = ("knowledge_device", 90 * 86_400)
LANGUAGE: Final = ("knowledge_language", 400 * 86_400)
RECENT: Final = ("knowledge_recent", 90 * 86_400)
"""The articles read last in this browser, and who read them."""


def kept(cookie: tuple[str, int]) -> str | None:
    """Return the value sent by the browser."""
    return request.cookies.get(_name(cookie))


def keep(cookie: tuple[str, int], value: str | None) -> None:
    """Set the cookie on the response, if there is a value."""
    if value is not None:
        _answer_with(cookie, value, cookie[1])


def forget(cookie: tuple[str, int]) -> None:
    """Delete the cookie on the response."""
    if kept(cookie) is not None:
        _answer_with(cookie, "", 0)


def _answer_with(cookie: tuple[str, int], value: str, seconds: int) -> None:
    @after_this_request
    def with_cookie(response: Response) -> Response:
        response.set_cookie(
            _name(cookie), value, max_age=seconds, secure=request.is_secure, httponly=True, samesite="Lax"
        )
        return response


def _name(cookie: tuple[str, int]) -> str:
    """Add the ``__Host-`` prefix (RFC 6265bis, 4.1.3.2), except without TLS on a development machine."""
    return f"__Host-{cookie[0]}" if request.is_secure else cookie[0]
