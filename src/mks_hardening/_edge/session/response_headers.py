"""Response header fields that belong to a session."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from mks_hardening._edge.private_response import keep_private
from mks_hardening._edge.session.cookie_header import sets_cookie

if TYPE_CHECKING:
    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening._edge.session.session_cookie import SessionCookie

__all__ = ["SessionResponseHeaders"]

_ROUNDING: Final = 0.001


class SessionResponseHeaders:
    """Session-related header fields of responses.

    Args:
        cookie: the session cookie.
        also_cleared: names of the cookies that are cleared with it.
        warn_before: seconds before the end of a session from which responses report the time left.
        clear_site_data: value of ``Clear-Site-Data`` at sign-out; omitted if empty.
    """

    __slots__ = ("_clear_site_data", "also_cleared", "cookie", "warn_before")

    def __init__(
        self,
        cookie: SessionCookie,
        *,
        also_cleared: tuple[str, ...],
        warn_before: float,
        clear_site_data: str = "",
    ) -> None:
        self.cookie: SessionCookie = cookie
        self.also_cleared: tuple[str, ...] = also_cleared
        self.warn_before: float = warn_before
        self._clear_site_data = clear_site_data

    def set(self, headers: Headers, session_id: str, *, max_age: int | None = None) -> None:
        """Set the session cookie, and keep the response out of shared caches."""
        headers.append(self.cookie.setting(session_id, max_age=max_age))
        keep_private(headers, default="no-store")

    def clear(self, headers: Headers) -> None:
        """Clear the session cookie, and those in ``also_cleared`` unless the response sets them itself."""
        cleared = [name for name in self.also_cleared if not sets_cookie(headers, name)]
        headers.append(self.cookie.clearing())
        headers += [self.cookie.clearing_of(name) for name in cleared]
        keep_private(headers, default="no-store")

    def sign_out(self, headers: Headers) -> None:
        """Add ``Clear-Site-Data``, if configured and not already set."""
        if self._clear_site_data and not any(name.lower() == "clear-site-data" for name, _ in headers):
            headers.append(("Clear-Site-Data", self._clear_site_data))

    def warn(self, headers: Headers, left: float) -> None:
        """Report the seconds left, if the session ends soon."""
        if self.warn_before > 0 and left <= self.warn_before:
            headers.append(("X-Session-Expires-In", str(ceil(max(0.0, left - _ROUNDING)))))
