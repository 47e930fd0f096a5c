"""Decide which requests may use the response cache, and build their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from mks_hardening._core.canonical_text import canonical, digest
from mks_hardening._core.memo import Memo
from mks_hardening._edge.response_cache.cache_rule import CacheRule
from mks_hardening._edge.response_cache.client_fields import identifies_user, requested_target
from mks_hardening._edge.response_cache.http_caching import RequestDirectives, request_directives

__all__ = [
    "CONDITIONS",
    "CacheableRequest",
    "RequestHead",
    "bypass_reason",
    "cacheable_request",
    "path_tag",
    "variant_of",
]

CONDITIONS: Final = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE")
"""Conditions that the cache evaluates itself; the application does not see them."""
_PRECONDITIONS: Final = ("HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE")
# One tag per path would let visitors create any number of tags, which Redis keeps for weeks.
_PATH_TAGS: Final = 1 << 14


class RequestHead(NamedTuple):
    """A request without its body.

    Attributes:
        method: the method, in capitals.
        scheme: ``http`` or ``https``.
        host: requested host and port.
        mount: path under which the application is mounted, in Latin-1 (PEP 3333), as are path and query.
        path: path below ``mount``.
        query: query string as sent.
        variables: meta-variables (RFC 3875, 4.1): header fields (``HTTP_ACCEPT``), and what the server knows about
            the user (``REMOTE_USER``).
    """

    method: str
    scheme: str
    host: str
    mount: str
    path: str
    query: str
    variables: Mapping[str, Any]


class CacheableRequest(NamedTuple):
    """A request that matches a rule, and the key of its responses.

    Attributes:
        head: the request.
        rule: the rule.
        key: key of all responses of the URL, as seen by one user or an anonymous one.
        tags: tags of these responses.
        personal: whether the key includes the user's identity.
        wanted: what the client asks of a cache.
    """

    head: RequestHead
    rule: CacheRule
    key: str
    tags: tuple[str, ...]
    personal: bool
    wanted: RequestDirectives


def bypass_reason(head: RequestHead, rule: CacheRule) -> str | None:
    """Return why a request must bypass the cache, or None."""
    variables = head.variables
    if head.method not in {"GET", "HEAD"}:
        return "method"
    # The response may depend on the body, which is not part of the key.
    if variables.get("CONTENT_LENGTH") not in {None, "", "0"} or "HTTP_TRANSFER_ENCODING" in variables:
        return "body"
    # Ranges and preconditions refer to one representation, which only the application knows.
    if any(name in variables for name in _PRECONDITIONS):
        return "conditional"
    # Private by default: serving one user's page to another is the one mistake a response cache must not make.
    if rule.identity is None:
        if variables.get("HTTP_AUTHORIZATION"):
            return "authorization"
        if variables.get("HTTP_COOKIE"):
            return "cookie"
        if identifies_user(variables):
            return "identity"
    if _wanted(variables).no_store:
        return "no-store"
    if rule.query is not None and any(name not in rule.query for name, _ in _parameters(head.query)):
        return "query"
    return None


def cacheable_request(head: RequestHead, rule: CacheRule, identity: object) -> CacheableRequest:
    """Return the request with the key of its responses.

    If the rule names query parameters, the order of different names does not matter; everything else is used as
    sent.

    Raises:
        CacheKeyError: the identity is not a plain value.
    """
    query: object = head.query
    if rule.query is not None:
        # A stable sort by name alone: the order of two values with the same name may be significant.
        query = tuple(sorted(_parameters(head.query), key=lambda pair: pair[0]))
    target = requested_target(head.variables)
    # Without a target, all parts are usually plain text, for which canonical text is ten times cheaper.
    place = (head.mount, head.path) if not target else (target, head.mount, head.path)
    key = f"http2:{digest(canonical((head.scheme, head.host.lower(), *place, query, identity)))}"
    return CacheableRequest(
        head,
        rule,
        key,
        (*rule.tags, _PATH_TAG[head.mount + head.path]),
        identity is not None,
        _wanted(head.variables),
    )


def _wanted(variables: Mapping[str, Any]) -> RequestDirectives:
    return request_directives(variables.get("HTTP_CACHE_CONTROL"), variables.get("HTTP_PRAGMA", ""))


def path_tag(path: str) -> str:
    """Return the tag of all responses of a path, whatever query, host and identity; some paths share a tag."""
    return f"http-path:{int(digest(canonical((path,)))[:8], 16) % _PATH_TAGS}"


_PATH_TAG: Final[Memo[str, str]] = Memo(path_tag)


def variant_of(variables: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return a digest of the named request fields; names and values are delimited so that no two sets collide."""
    if not names:
        return _ONLY_VARIANT
    pairs: list[object] = []
    for name in names:
        pairs += (name, variables.get(_VARIABLE[name]))
    return digest(canonical(tuple(pairs)))


_ONLY_VARIANT: Final = digest(canonical(()))


def _parameters(query: str) -> list[tuple[str, str]]:
    # latin-1 preserves every byte, so that two different queries never become equal.
    return parse_qsl(query, keep_blank_values=True, encoding="latin-1")


def _variable_of(field: str) -> str:
    name = field.upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


_VARIABLE: Final[Memo[str, str]] = Memo(_variable_of)
