"""The cookie that carries the session id, and cookies in general as far as a session needs them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

from mks_hardening.exceptions import ConfigurationError

__all__ = ["CookieFilter", "SessionCookie", "find_cookie", "is_cookie_name", "sets_cookie"]

_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DEFAULT_NAME: Final = "mks-session"
_AMBIGUOUS: Final = "two,values"
_MOST_OF_ONE_NAME: Final = 16
_DEAD: Final = "Path=/; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


class SessionCookie:
    """Name and attributes of the session cookie: always HttpOnly, ``Path=/`` and without Domain.

    Args:
        name: ``__Host-mks-session`` by default (``mks-session`` without ``secure``). The prefix makes browsers
            refuse a cookie that a neighbouring host or a plain-http answer plants (RFC 6265bis, 4.1.3.2).
        secure: whether it is sent over https only; switch it off for plain-http development only.
        same_site: ``"Lax"``, ``"Strict"`` or ``"None"``.

    Raises:
        ConfigurationError: a name that is no token, a prefix that needs ``secure``, or an unknown ``same_site``.
    """

    __slots__ = ("attributes", "name", "needle")

    def __init__(
        self,
        name: str | None = None,
        *,
        secure: bool = True,
        same_site: Literal["Lax", "Strict", "None"] = "Lax",
    ) -> None:
        if name is None:
            name = f"__Host-{_DEFAULT_NAME}" if secure else _DEFAULT_NAME
        if not is_cookie_name(name):
            raise ConfigurationError("name must be a cookie name, a token of RFC 6265", parameter="name")
        if not secure and name.lower().startswith(("__host-", "__secure-")):
            raise ConfigurationError("a __Host- or __Secure- name needs secure=True", parameter="secure")
        if same_site not in ("Lax", "Strict", "None"):
            raise ConfigurationError("same_site must be 'Lax', 'Strict' or 'None'", parameter="same_site")
        if same_site == "None" and not secure:
            raise ConfigurationError("same_site='None' needs secure=True", parameter="same_site")
        self.name = name
        self.needle = name + "="
        self.attributes = f"HttpOnly; SameSite={same_site}" + ("; Secure" if secure else "")

    def setting(self, value: str) -> tuple[str, str]:
        """The header field that hands the cookie to the browser, until that is closed."""
        return "Set-Cookie", f"{self.name}={value}; Path=/; {self.attributes}"

    def clearing(self) -> tuple[str, str]:
        """The header field that takes the cookie back."""
        return self.clearing_of(self.name)

    def clearing_of(self, name: str) -> tuple[str, str]:
        """The header field that takes back another cookie of this host with ``Path=/``."""
        return "Set-Cookie", f"{name}=; {_DEAD}; {self.attributes}"

    def __repr__(self) -> str:
        return f"SessionCookie({self.name!r})"


def is_cookie_name(name: object) -> bool:
    """Whether it is a token (RFC 6265, 4.1.1)."""
    return isinstance(name, str) and name != "" and _TOKEN.issuperset(name)


def find_cookie(header: str, needle: str) -> str | None:
    """The value of the cookie ``needle`` (name and ``=``) in a Cookie header.

    ``None`` when it is absent or empty. Two different values give text that is no id: nobody can tell which
    one is ours, and picking either would let a planted cookie win.
    """
    at = header.find(needle)
    if at < 0:
        return None
    # Browsers write "a=1; b=2" and each name once.
    if (at == 0 or header.startswith("; ", at - 2)) and header.find(needle, at + 1) < 0:
        end = header.find(";", at)
        return header[at + len(needle) : end if end > 0 else None].strip(' \t"') or None
    return _find_among(header, needle)


def _find_among(header: str, needle: str) -> str | None:
    found, end = "", -1
    for _ in range(_MOST_OF_ONE_NAME):
        at = header.find(needle, end + 1)
        if at < 0:
            return found or None
        begin = max(end, header.rfind(";", end + 1, at)) + 1
        end = header.find(";", at)
        if end < 0:
            end = len(header)
        if not header[begin:at].strip(" \t"):
            value = header[at + len(needle) : end].strip(' \t"')
            if found and value not in ("", found):
                return _AMBIGUOUS
            found = found or value
    return _AMBIGUOUS


class CookieFilter:
    """Takes cookies out of a Cookie header.

    Args:
        names: names of the cookies.
    """

    __slots__ = ("_remove",)

    def __init__(self, names: Iterable[str]) -> None:
        alternatives = "|".join(map(re.escape, names))
        self._remove = re.compile(rf"(?:\A|(?<=;))[ \t]*(?:{alternatives})[ \t]*=[^;]*(?:;|\Z)").sub

    def without(self, header: str) -> str:
        """The header without them."""
        return self._remove("", header).strip("; ")


def sets_cookie(headers: list[tuple[str, str]], name: str) -> bool:
    """Whether the answer sets the cookie by itself."""
    needle = name + "="
    return any(
        field.lower() == "set-cookie" and value.lstrip().startswith(needle) for field, value in headers
    )
