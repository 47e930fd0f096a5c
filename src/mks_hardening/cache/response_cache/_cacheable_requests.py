"""Which requests an answer may be shared among: what goes past the cache, and what the key is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from mks_hardening.cache._canonical_text import canonical, digest
from mks_hardening.cache.response_cache._client_headers import names_somebody, place_asked_for
from mks_hardening.cache.response_cache._http_rules import directives
from mks_hardening.cache.response_cache.cache_rule import CacheRule

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["answer_key", "request_control", "request_obstacle", "variant_of"]

_CONDITIONS: Final = ("HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE")


def request_obstacle(environ: WSGIEnvironment, rule: CacheRule) -> str | None:
    """Why a request must go past the cache, or None."""
    if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
        return "method"
    # Ranges and preconditions are about one representation, which only the application knows.
    if any(name in environ for name in _CONDITIONS):
        return "conditional"
    if rule.identity is None and environ.get("HTTP_AUTHORIZATION"):
        return "authorization"
    # Private by default: a page with a name on it is the one mistake a response cache must not make.
    if rule.identity is None and environ.get("HTTP_COOKIE"):
        return "cookie"
    if rule.identity is None and names_somebody(environ):
        return "identity"
    if "no-store" in directives(environ.get("HTTP_CACHE_CONTROL", "")):
        return "no-store"
    query = environ.get("QUERY_STRING", "")
    if rule.query is not None and any(name not in rule.query for name, _ in _parameters(query)):
        return "query"
    return None


def _parameters(query: str) -> list[tuple[str, str]]:
    # latin-1 keeps every byte as it came, so that two queries never become one text.
    return parse_qsl(query, keep_blank_values=True, encoding="latin-1")


def answer_key(environ: WSGIEnvironment, rule: CacheRule, identity: object) -> str:
    """The key of a URL as one person (or nobody in particular) sees it.

    Parameters that are named by the rule may come in any order of names; everything else is taken as sent.

    Raises:
        CacheKeyError: the identity is not a plain value.
    """
    query: object = environ.get("QUERY_STRING", "")
    if rule.query is not None:
        # By name alone, and stably: the order of two values of one name may mean something.
        query = tuple(sorted(_parameters(environ.get("QUERY_STRING", "")), key=lambda pair: pair[0]))
    place = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME')}:{environ.get('SERVER_PORT')}"
    path = (environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", ""))
    origin = (environ.get("wsgi.url_scheme"), place.lower(), place_asked_for(environ))
    return f"http:{digest(canonical((origin, path, query, identity)))}"


def variant_of(environ: WSGIEnvironment, names: Sequence[str]) -> str:
    """A digest of the named request fields, names and values framed so that nothing can shift between them."""
    values = {name: environ.get(_environ_name(name)) for name in names}
    return digest(canonical((values,)))


def _environ_name(field: str) -> str:
    name = field.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


def request_control(environ: WSGIEnvironment) -> dict[str, str]:
    """The directives of the client."""
    control = directives(environ.get("HTTP_CACHE_CONTROL", ""))
    if "HTTP_CACHE_CONTROL" not in environ and "no-cache" in environ.get("HTTP_PRAGMA", "").lower():
        control["no-cache"] = ""
    return control
