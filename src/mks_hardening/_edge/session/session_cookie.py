"""Session cookie: name and attributes."""

from __future__ import annotations

from typing import Final, Literal

from mks_hardening._core.checks import boolean
from mks_hardening._edge.session.cookie_header import is_cookie_name
from mks_hardening.exceptions import ConfigurationError

__all__ = ["SessionCookie"]

_DEFAULT_NAME: Final = "mks-session"
_DEAD: Final = "Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


class SessionCookie:
    """Name and attributes of the session cookie; it is always HttpOnly, with ``Path=/`` and without Domain.

    Args:
        name: ``__Host-mks-session`` by default (``mks-session`` without ``secure``). The prefix makes browsers
            reject a cookie that a sibling domain or a plain-HTTP response sets (RFC 6265bis, 4.1.3.2).
        secure: whether it is sent over HTTPS only; switch it off only for development over plain HTTP.
        same_site: ``"Lax"``, ``"Strict"`` or ``"None"``.

    Raises:
        ConfigurationError: ``name`` is not a token, its prefix or ``same_site="None"`` requires ``secure``, or
            ``same_site`` is unknown.
    """

    __slots__ = ("attributes", "name", "needle")

    def __init__(
        self,
        name: str | None = None,
        *,
        secure: bool = True,
        same_site: Literal["Lax", "Strict", "None"] = "Lax",
    ) -> None:
        boolean(secure, parameter="secure")
        if name is None:
            name = f"__Host-{_DEFAULT_NAME}" if secure else _DEFAULT_NAME
        if not is_cookie_name(name):
            raise ConfigurationError("name must be a cookie name, a token of RFC 6265", parameter="name")
        if not secure and name.lower().startswith(("__host-", "__secure-")):
            raise ConfigurationError("a __Host- or __Secure- name requires secure=True", parameter="secure")
        if same_site not in ("Lax", "Strict", "None"):
            raise ConfigurationError("same_site must be 'Lax', 'Strict' or 'None'", parameter="same_site")
        if same_site == "None" and not secure:
            raise ConfigurationError("same_site='None' requires secure=True", parameter="same_site")
        self.name = name
        self.needle = name + "="
        self.attributes = f"HttpOnly; SameSite={same_site}" + ("; Secure" if secure else "")

    def setting(self, value: str, *, max_age: int | None = None) -> tuple[str, str]:
        """Return the header field that sets the cookie, for ``max_age`` seconds or until the browser is closed."""
        kept = "" if max_age is None else f" Max-Age={max_age};"
        return "Set-Cookie", f"{self.name}={value}; Path=/;{kept} {self.attributes}"

    def clearing(self) -> tuple[str, str]:
        """Return the header field that clears the cookie."""
        return self.clearing_of(self.name)

    def clearing_of(self, name: str) -> tuple[str, str]:
        """Return the header field that clears another cookie of this host with ``Path=/``."""
        return "Set-Cookie", f"{name}=; {_DEAD}; {self.attributes}"

    def __repr__(self) -> str:
        return f"SessionCookie({self.name!r})"
