"""Decide which requests may use the response cache, and build their keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from mks_hardening._core.canonical_text import canonical, digest
from mks_hardening._edge.response_cache.cache_rule import CacheRule
from mks_hardening._edge.response_cache.client_fields import identifies_user, requested_target
from mks_hardening._edge.response_cache.http_caching import directives

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["bypass_reason", "request_control", "response_key", "variant_of"]

_CONDITIONS: Final = ("HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE")


def bypass_reason(environ: WSGIEnvironment, rule: CacheRule) -> str | None:
    """Return why a request must bypass the cache, or None."""
    if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
        return "method"
    # Ranges and preconditions refer to one representation, which only the application knows.
    if any(name in environ for name in _CONDITIONS):
        return "conditional"
    if rule.identity is None and environ.get("HTTP_AUTHORIZATION"):
        return "authorization"
    # Private by default: serving one user's page to another is the one mistake a response cache must not make.
    if rule.identity is None and environ.get("HTTP_COOKIE"):
        return "cookie"
    if rule.identity is None and identifies_user(environ):
        return "identity"
    if "no-store" in directives(environ.get("HTTP_CACHE_CONTROL", "")):
        return "no-store"
    query = environ.get("QUERY_STRING", "")
    if rule.query is not None and any(name not in rule.query for name, _ in _parameters(query)):
        return "query"
    return None


def _parameters(query: str) -> list[tuple[str, str]]:
    # latin-1 preserves every byte, so that two different queries never become equal.
    return parse_qsl(query, keep_blank_values=True, encoding="latin-1")


def response_key(environ: WSGIEnvironment, rule: CacheRule, identity: object) -> str:
    """Return the key of a URL as seen by one user (or an anonymous one).

    If the rule names query parameters, the order of different names does not matter; everything else is used as
    sent.

    Raises:
        CacheKeyError: the identity is not a plain value.
    """
    query: object = environ.get("QUERY_STRING", "")
    if rule.query is not None:
        # A stable sort by name alone: the order of two values with the same name may be significant.
        query = tuple(sorted(_parameters(environ.get("QUERY_STRING", "")), key=lambda pair: pair[0]))
    place = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME')}:{environ.get('SERVER_PORT')}"
    path = (environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", ""))
    origin = (environ.get("wsgi.url_scheme"), place.lower(), requested_target(environ))
    return f"http:{digest(canonical((origin, path, query, identity)))}"


def variant_of(environ: WSGIEnvironment, names: Sequence[str]) -> str:
    """Return a digest of the named request fields; names and values are delimited so that no two sets collide."""
    values = {name: environ.get(_environ_name(name)) for name in names}
    return digest(canonical((values,)))


def _environ_name(field: str) -> str:
    name = field.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


def request_control(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the cache directives of the client."""
    control = directives(environ.get("HTTP_CACHE_CONTROL", ""))
    if "HTTP_CACHE_CONTROL" not in environ and "no-cache" in environ.get("HTTP_PRAGMA", "").lower():
        control["no-cache"] = ""
    return control
