"""The stored responses of a URL: select the one that fits a request, and add another."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, NotRequired, TypedDict

from mks_hardening._core.canonical_text import canonical, digest
from mks_hardening._edge.response_cache.cache_rule import CacheRule
from mks_hardening._edge.response_cache.cacheable_request import variant_of
from mks_hardening._edge.response_cache.http_caching import (
    Headers,
    header,
    lifetime,
    not_storable_reason,
    storable_headers,
    variant_names,
)
from mks_hardening.cache._entry import ComputeLease
from mks_hardening.cache.base_cache import BaseCache
from mks_hardening.protocols import Clock

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["CacheableRequest", "StoredResponse", "StoredResponses", "Variants", "path_tag"]

# `Vary: User-Agent` alone has thousands; all variants of a URL are one entry, which is read for every hit.
_MOST_VARIANTS: Final = 8
# One tag per path would let visitors create any number of tags, which Redis keeps for weeks.
_PATH_TAGS: Final = 1 << 14
_NO_NAMES: Final[tuple[str, ...]] = ()


def path_tag(path: str) -> str:
    """Return the tag of all responses of a path, whatever query, host and identity; some paths share a tag."""
    return f"http-path:{int(digest(canonical((path,)))[:8], 16) % _PATH_TAGS}"


class StoredResponse(NamedTuple):
    """A stored response; times are on the wall clock."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    made_at: float
    fresh_until: float


class Variants(TypedDict):
    """The entry of a URL: the request fields its responses depend on, and the responses by the values of these.

    ``route`` is the application's name for the URL, if it set one; entries of older releases have none.
    """

    names: list[str]
    answers: dict[str, list[object]]
    route: NotRequired[str]


class CacheableRequest(NamedTuple):
    """A request that matches a rule, and the key of its responses."""

    environ: WSGIEnvironment
    rule: CacheRule
    key: str
    tags: tuple[str, ...]
    personal: bool


class StoredResponses:
    """The responses stored in one cache."""

    def __init__(self, cache: BaseCache, *, max_body: int, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self.max_body = max_body

    def variants(self, request: CacheableRequest) -> Variants | None:
        """Return all stored responses of the URL."""
        found: Variants | None = self._cache.get_tagged(request.key, request.tags)
        return found

    def select_response(
        self, environ: WSGIEnvironment, variants: Variants | None, control: Mapping[str, str]
    ) -> StoredResponse | None:
        """Return the stored response that this request may be served, or None."""
        if not variants or "no-cache" in control:
            return None
        stored = variants["answers"].get(variant_of(environ, variants["names"]))
        answer = None if stored is None else StoredResponse._make(stored)
        if answer is None or self._clock.time() >= answer.fresh_until:
            return None
        limit = control.get("max-age", "")
        if limit.isdecimal() and self.age(answer) > float(limit[:10]):
            return None
        return answer

    def age(self, answer: StoredResponse) -> int:
        """Return the seconds since the response was made."""
        return max(0, int(self._clock.time() - answer.made_at))

    def begin(self, request: CacheableRequest) -> ComputeLease | None:
        """Acquire a lease to store a response that is going to be made."""
        return self._cache.begin(request.key, request.tags)

    def obstacle(self, request: CacheableRequest, status: str, headers: Headers) -> str | None:
        """Return why a response must not be stored, or None."""
        obstacle = not_storable_reason(status, headers, personal=request.personal)
        length = header(headers, "content-length")
        if obstacle is None and length.isdecimal() and int(length[:15]) > self.max_body:
            obstacle = "size"
        if obstacle is None and not lifetime(headers, ttl=request.rule.ttl, now=self._clock.time()):
            obstacle = "stale"
        return obstacle

    def keep(
        self,
        request: CacheableRequest,
        lease: ComputeLease,
        *,
        status: str,
        headers: Headers,
        body: bytes,
        route: object,
    ) -> None:
        """Add a complete response to the variants of its URL, unless they were invalidated in the meantime."""
        # The variants of the lease: those read before it, or from a copy in this process, may have been invalidated
        # since, and would be restored together with the new one.
        variants: Variants | None = lease.former.value if lease.former else None
        now = self._clock.time()
        fresh = lifetime(headers, ttl=request.rule.ttl, now=now)
        kept = storable_headers(headers)
        if not header(kept, "content-length"):
            kept.append(("Content-Length", str(len(body))))
        if not header(kept, "etag"):
            # A weak one: the same content, but not the same bytes on the wire after compression.
            kept.append(("ETag", f'W/"{blake2b(body, digest_size=16).hexdigest()}"'))
        age = header(headers, "age")
        made_at = now - (float(age[:10]) if age.isdecimal() else 0.0)
        names = variant_names(headers) or _NO_NAMES
        # If Vary has changed, responses under the old names would be found by requests they do not fit.
        answers = variants["answers"] if variants and tuple(variants["names"]) == names else {}
        living = {key: StoredResponse._make(stored) for key, stored in answers.items()}
        living = {key: answer for key, answer in living.items() if now < answer.fresh_until}
        living[variant_of(request.environ, names)] = StoredResponse(status, kept, body, made_at, now + fresh)
        while len(living) > _MOST_VARIANTS:
            del living[next(iter(living))]
        end = max(answer.fresh_until for answer in living.values())
        content: Variants = {
            "names": list(names),
            "answers": {key: list(answer) for key, answer in living.items()},
        }
        if isinstance(route, str):
            content["route"] = str(route)
        self._cache.finish(request.key, lease, content, ttl=end - now)

    def drop(self, request: CacheableRequest, lease: ComputeLease, reason: str) -> None:
        """Release the lease of a response that is not stored, and count the bypass."""
        self._cache.abandon(request.key, lease)
        self._cache.count_bypass(reason)
