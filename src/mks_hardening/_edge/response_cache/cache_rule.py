"""Rules of the response cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from mks_hardening._core.cache_tags import check_tags
from mks_hardening._core.checks import function, instance, strings
from mks_hardening._core.durations import seconds
from mks_hardening._core.web.paths import PathRules
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["CacheRule"]


class CacheRule:
    """Which responses may be cached, and for whom.

    Args:
        path: a page (``/news``) or a directory with everything below it (``/news/`` or ``/news/*``), in the syntax
            of all options that take paths; ``=/`` is the home page only, ``/*`` every page.
        ttl: maximum seconds for which a response is stored; its ``Cache-Control`` and ``Expires`` can only shorten
            it.
        query: query parameters the response depends on; requests with other parameters bypass the cache. None: the
            whole query string.
        identity: called with the environ; returns what the response depends on besides the URL (user, tenant), or
            None to bypass the cache. Without it, requests that identify the user (Cookie, Authorization,
            REMOTE_USER, a client certificate, fields of an authenticating proxy) bypass the cache.
        tags: names for ``invalidate_tags``.

    Raises:
        ConfigurationError: a parameter is invalid.
    """

    __slots__ = ("_paths", "identity", "path", "query", "tags", "ttl")

    def __init__(
        self,
        path: str,
        *,
        ttl: float | timedelta,
        query: Iterable[str] | None = None,
        identity: Callable[[WSGIEnvironment], object] | None = None,
        tags: Iterable[str] = (),
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
        self.identity: Callable[[WSGIEnvironment], object] | None = (
            None if identity is None else function(identity, parameter="identity")
        )
        self.tags: tuple[str, ...] = check_tags(tags)

    def matches(self, path: str) -> bool:
        """Return whether the rule applies to this path."""
        return self._paths.match(path)

    def __repr__(self) -> str:
        return f"CacheRule({self.path!r}, ttl={self.ttl:g})"
