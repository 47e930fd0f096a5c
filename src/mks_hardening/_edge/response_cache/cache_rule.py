"""Rules of the response cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final

from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.checks import function, instance, strings
from mks_hardening._core.durations import seconds
from mks_hardening._core.web.paths import PathRules
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CacheRule"]

# Cookies by which frameworks recognise a user; a pattern for harmless cookies must not match them.
_IDENTIFYING_COOKIES: Final = (
    *(
        "__Host-session",
        "__Host-sid",
        "__Secure-session",
        "_session_id",
        "access_token",
        "auth",
        "auth_token",
    ),
    *("connect.sid", "csrf_token", "csrftoken", "id_token", "jwt", "PHPSESSID", "remember_token", "session"),
    *("sessionid", "sid", "token", "user", "user_id", "XSRF-TOKEN"),
)


class CacheRule:
    """Which responses may be cached, and for whom.

    Args:
        path: a page (``/news``) or a directory with everything below it (``/news/`` or ``/news/*``), in the syntax
            of all options that take paths; ``=/`` is the home page only, ``/*`` every page.
        ttl: maximum seconds for which a response is stored; its ``Cache-Control`` and ``Expires`` can only shorten
            it.
        query: query parameters the response depends on; requests with other parameters bypass the cache. None: the
            whole query string.
        identity: called with the environ or the scope; returns what the response depends on besides the URL
            (user, tenant), or None to bypass the cache. In ASGI it may be ``async def``. If it raises an error, or
            returns something that is not a plain value, the request bypasses the cache, and the error is logged, at
            most once a minute. Without it, requests that identify the user (Cookie, Authorization, REMOTE_USER, a
            client certificate, fields of an authenticating proxy) bypass the cache.
        tags: names for ``invalidate_tags``.
        stale_while_revalidate: seconds after the end of its lifetime during which a response is still served; one
            of these requests makes the new response after its own last byte (RFC 5861, 3). The directive of that
            name in a response can only shorten it. None: as long as the response says, 0: never.
        stale_if_error: seconds after the end of its lifetime during which a response is served instead of a 500,
            502, 503, 504 or an exception (RFC 5861, 4); otherwise like ``stale_while_revalidate``.
        ignore_cookies: names of cookies that do not identify the user, for example ``["_ga", "_ga_*", "_gid"]``; a
            final ``*`` matches any rest. A request with no other cookies is treated as one without cookies, and the
            application does not see them.

    A stale response is never served if it has ``must-revalidate``, ``proxy-revalidate`` or ``s-maxage`` (RFC 9111,
    4.2.4).

    Raises:
        ConfigurationError: a parameter is invalid.
    """

    __slots__ = (
        "_cookies",
        "_paths",
        "identity",
        "ignore_cookies",
        "path",
        "query",
        "stale_if_error",
        "stale_while_revalidate",
        "tags",
        "ttl",
    )

    def __init__(
        self,
        path: str,
        *,
        ttl: float | timedelta,
        query: Iterable[str] | None = None,
        identity: Callable[[Any], object] | None = None,
        tags: Iterable[str] = (),
        stale_while_revalidate: float | timedelta | None = None,
        stale_if_error: float | timedelta | None = None,
        ignore_cookies: Iterable[str] = (),
    ) -> None:
        self.path: str = instance(path, str, parameter="path")
        # In other tools "/" means every page: with that expectation a user would cache nothing, or far too much.
        if path == "/":
            raise ConfigurationError(
                "path: write '=/' for the home page only, or '/*' for every page", parameter="path"
            )
        self._paths = PathRules([path], parameter="path")
        self.ttl: float = seconds(ttl, parameter="ttl", allow_zero=False)
        self.query: frozenset[str] | None = (
            None if query is None else frozenset(strings(query, parameter="query", of="names"))
        )
        self.identity: Callable[[Any], object] | None = (
            None if identity is None else function(identity, parameter="identity", may_be_async=True)
        )
        self.tags: tuple[str, ...] = check_tags(tags)
        self.stale_while_revalidate: float | None = (
            None
            if stale_while_revalidate is None
            else seconds(stale_while_revalidate, parameter="stale_while_revalidate")
        )
        self.stale_if_error: float | None = (
            None if stale_if_error is None else seconds(stale_if_error, parameter="stale_if_error")
        )
        self.ignore_cookies: tuple[str, ...] = strings(ignore_cookies, parameter="ignore_cookies", of="names")
        self._cookies = _CookiePatterns(self.ignore_cookies)

    def matches(self, path: str) -> bool:
        """Return whether the rule applies to this path."""
        return self._paths.match(path)

    def ignores(self, cookies: str) -> bool:
        """Return whether all cookies of a ``Cookie`` field are harmless."""
        return self._cookies.match_all(cookies)

    def __repr__(self) -> str:
        return f"CacheRule({self.path!r}, ttl={self.ttl:g})"


class _CookiePatterns:
    __slots__ = ("_names", "_prefixes")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._names = frozenset(pattern for pattern in patterns if not pattern.endswith("*"))
        self._prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
        for pattern in patterns:
            if not pattern or "*" in pattern[:-1] or pattern == "*" or set(pattern) & set(" \t;,="):
                raise ConfigurationError(
                    f"ignore_cookies: {pattern!r} must be the name of a cookie, or the beginning of one and '*'",
                    parameter="ignore_cookies",
                )
        identifying = [name for name in _IDENTIFYING_COOKIES if self._match(name)]
        if identifying:
            raise ConfigurationError(
                f"ignore_cookies must not match {identifying[0]!r}, which identifies a user: the page of one user "
                "would be served to others; name the cookies of your analytics only, for example '_ga' and '_ga_*'",
                parameter="ignore_cookies",
            )

    def match_all(self, cookies: str) -> bool:
        if not self._names and not self._prefixes:
            return False
        names = (pair.partition("=")[0].strip() for pair in cookies.split(";"))
        return all(self._match(name) for name in names if name)

    def _match(self, name: str) -> bool:
        return name in self._names or (bool(self._prefixes) and name.startswith(self._prefixes))
