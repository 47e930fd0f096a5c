"""CSRF tokens for forms: bound to the session or to a separate cookie, and masked differently in each page."""

from __future__ import annotations

import hmac
import os
import re
from typing import TYPE_CHECKING, Final

from mks_hardening._edge.private_response import keep_private, vary_by_cookie

if TYPE_CHECKING:
    from collections.abc import Callable

    from mks_hardening._core.web.wsgi_head import Headers

__all__ = ["CSRFToken"]

_SECURE_COOKIE: Final = "__Host-csrf"
_PLAIN_COOKIE: Final = "csrf"
_SECRET: Final = re.compile(r"[0-9a-f]{64}")
# 128 bits cannot be guessed, and the page carries them twice (mask and masked value).
_MAC_BYTES: Final = 16


class CSRFToken:
    """A CSRF token for the forms of one request; ``str()`` returns it, with a new mask each time (against BREACH).

    Args:
        session: session of the request with a ``csrf_token``, or ``None``.
        cookies: field ``Cookie`` of the request, or a function that returns it: most pages use no token.
        secure: whether the cookie is ``Secure``.
    """

    __slots__ = ("_cookie", "_cookies", "_new_secret", "_session", "was_read")

    def __init__(
        self, session: object, cookies: str | Callable[[], str | None], *, secure: bool = True
    ) -> None:
        # Does not refer to the environ or scope, which holds this token: the cycle would keep all of it, body and
        # session included, in memory until the garbage collector runs.
        self._session = session
        self._cookies = cookies
        self._cookie = _SECURE_COOKIE if secure else _PLAIN_COOKIE
        self.was_read: bool = False
        self._new_secret = ""

    def __str__(self) -> str:
        self.was_read = True
        secret = self._secret()
        if not secret:
            # Double submit with a cookie that sibling domains cannot set (RFC 6265bis, 4.1.3.2).
            secret = self._new_secret = os.urandom(32).hex()
        # Equal bytes in every compressed page could be guessed one by one (BREACH, CVE-2013-3587).
        mask = os.urandom(_MAC_BYTES)
        return (mask + _xor(mask, _mac(secret))).hex()

    def __html__(self) -> str:
        """Return the token as it is; template engines call this method instead of escaping."""
        return str(self)

    def __call__(self) -> str:
        """Return the same, for template engines that call the values they render."""
        return str(self)

    def accepts(self, given: str) -> bool:
        """Return whether ``given`` is a token of this session, or of this browser's cookie without a session."""
        secret = self._secret()
        if not secret or not _SECRET.fullmatch(given):
            return False
        raw = bytes.fromhex(given)
        # Constant time for every wrong token.
        return hmac.compare_digest(_xor(raw[:_MAC_BYTES], raw[_MAC_BYTES:]), _mac(secret))

    def step(self, status: str, headers: Headers) -> str:
        """Add the header fields that a response with a token needs, in place; returns the status."""
        if self.was_read:
            vary_by_cookie(headers)
            keep_private(headers, default="private")
            if self._new_secret:
                secure = "; Secure" if self._cookie == _SECURE_COOKIE else ""
                cookie = f"{self._cookie}={self._new_secret}; Path=/{secure}; HttpOnly; SameSite=Lax"
                headers.append(("Set-Cookie", cookie))
        return status

    def _secret(self) -> str:
        of_session: str | None = getattr(self._session, "csrf_token", None)
        return of_session or self._new_secret or self._cookie_secret()

    def _cookie_secret(self) -> str:
        """Return the secret in the cookie; empty if it is missing or two cookies of that name differ."""
        cookies = self._cookies if isinstance(self._cookies, str) else self._cookies()
        return _secret_in(cookies, self._cookie) if cookies else ""


def _mac(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"mks_hardening.csrf", "sha256")[:_MAC_BYTES]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _secret_in(header: str, cookie: str) -> str:
    pairs = [part.strip(" \t").partition("=") for part in header.split(";") if cookie in part]
    values = {value for name, _, value in pairs if name == cookie}
    value = values.pop() if len(values) == 1 else ""
    return value if _SECRET.fullmatch(value) else ""
