"""Header fields of the application's answers that belong to a session."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from mks_hardening.wsgi._private_response import keep_private
from mks_hardening.wsgi.session._cookie_header import sets_cookie

if TYPE_CHECKING:
    from mks_hardening._core.web.wsgi_head import Headers
    from mks_hardening.wsgi.session.session_cookie import SessionCookie

__all__ = ["SessionResponseHeaders"]

_ROUNDING: Final = 0.001


class SessionResponseHeaders:
    """What answers say about a session.

    Args:
        cookie: the session cookie.
        also_cleared: names of the cookies that end with it.
        warn_before: seconds before the end from which on answers tell how much is left.
        clear_site_data: value of ``Clear-Site-Data`` at sign-out; none if empty.
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
        """Hand the cookie to the browser, in an answer that no cache gives to another."""
        headers.append(self.cookie.setting(session_id, max_age=max_age))
        keep_private(headers, unsaid="no-store")

    def clear(self, headers: Headers) -> None:
        """Take back the session cookie, and the framework's unless the answer sets them itself."""
        taken = [name for name in self.also_cleared if not sets_cookie(headers, name)]
        headers.append(self.cookie.clearing())
        headers += [self.cookie.clearing_of(name) for name in taken]
        keep_private(headers, unsaid="no-store")

    def sign_out(self, headers: Headers) -> None:
        """Have the browser drop what it stored of the site, where that is wanted."""
        if self._clear_site_data and not any(name.lower() == "clear-site-data" for name, _ in headers):
            headers.append(("Clear-Site-Data", self._clear_site_data))

    def warn(self, headers: Headers, left: float) -> None:
        """Tell how many seconds are left, near the end."""
        if self.warn_before > 0 and left <= self.warn_before:
            headers.append(("X-Session-Expires-In", str(ceil(max(0.0, left - _ROUNDING)))))
