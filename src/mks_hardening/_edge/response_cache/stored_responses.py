"""The stored responses of a URL: find the one that fits a request, and add another."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from mks_hardening._core.operations import Op
from mks_hardening._core.store_calls import call_store
from mks_hardening._edge.response_cache.cacheable_request import CacheableRequest, variant_of
from mks_hardening._edge.response_cache.http_caching import (
    Headers,
    header,
    lifetime,
    may_be_stale,
    not_storable_reason,
    stale_windows,
    storable_headers,
    variant_names,
)
from mks_hardening._edge.response_cache.response_choice import StoredResponse
from mks_hardening._edge.response_cache.response_index import (
    ResponseIndex,
    ResponseVariant,
    index_of,
    index_value,
    response_in_slot,
    slot_value,
)
from mks_hardening.exceptions import EncodeError
from mks_hardening.protocols import Clock

if TYPE_CHECKING:
    from mks_hardening.cache import BaseCache
    from mks_hardening.cache._compute_lease import ComputeLease

__all__ = ["FoundResponse", "StoredResponses"]

# `Vary: User-Agent` alone has thousands.
_MOST_VARIANTS: Final = 8
_MOST_KNOWN: Final = 4096
_NO_NAMES: Final[tuple[str, ...]] = ()


class FoundResponse(NamedTuple):
    """What is stored for a request.

    Attributes:
        response: the response that fits, fresh or stale.
        route: the application's name for the URL, if it set one.
        variant: which requests have the same response, as far as that is known.
        version: of the response.
    """

    response: StoredResponse | None = None
    route: str | None = None
    variant: str = ""
    version: str = ""


class StoredResponses:
    """The responses stored in one cache.

    Args:
        cache: a cache of ``mks_hardening.cache``.
        max_body: maximum size of a body in bytes.
        clock: source of time.
    """

    def __init__(self, cache: BaseCache, *, max_body: int, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self.max_body = max_body
        # The last entries of URLs whose responses are beside them: both are then read in one round trip.
        self._known: dict[str, tuple[object, ResponseIndex | None]] = {}

    def find(self, request: CacheableRequest) -> Op[FoundResponse]:
        """Return what is stored for a request."""
        guess, digest = None, ""
        known_value, known = self._known.get(request.key, _UNKNOWN)
        if known is not None:
            digest = variant_of(request.head.variables, known.names)
            guess = known.variant(digest)
        beside: object = None
        if guess is None:
            value = yield from call_store(self._cache.get_tagged, request.key, request.tags)
        else:
            keys = (request.key, _slot_key(request, guess))
            value, beside = yield from call_store(self._cache.get_together, keys, request.tags)
        index = known if value == known_value else index_of(value)
        if index is None:
            return _NOTHING
        if known is None or index.names != known.names:
            digest = variant_of(request.head.variables, index.names)
        variant = index.variant(digest)
        if variant is None:
            return FoundResponse(None, index.route, digest)
        if variant.response is not None:
            return FoundResponse(variant.response, index.route, digest, variant.version)
        if index is not known:
            self._remember(request, value, index)
        if guess is None or guess.slot != variant.slot:
            beside = yield from call_store(self._cache.get, _slot_key(request, variant))
        return FoundResponse(response_in_slot(beside, variant), index.route, digest, variant.version)

    def _remember(self, request: CacheableRequest, value: object, index: ResponseIndex) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[request.key] = value, index

    def has_changed(self, request: CacheableRequest, found: FoundResponse, lease: ComputeLease) -> bool:
        """Return whether another response for this request was stored before the lease was acquired."""
        index = index_of(lease.former.value) if lease.former else None
        if index is None:
            return False
        variant = index.variant(variant_of(request.head.variables, index.names))
        return variant is not None and variant.version != found.version

    def begin(self, request: CacheableRequest, *, wait: float = 0.0) -> Op[ComputeLease | None]:
        """Acquire a lease to store a response that is going to be made.

        While another process holds it, wait at most ``wait`` seconds for its response or its end.
        """
        return call_store(self._cache.begin, request.key, request.tags, wait=wait)

    def obstacle(self, request: CacheableRequest, status: int, headers: Headers) -> str | None:
        """Return why a response must not be stored, or None."""
        obstacle = not_storable_reason(status, headers, personal=request.personal)
        length = header(headers, "content-length")
        if obstacle is None and length.isdecimal() and int(length[:15]) > self.max_body:
            obstacle = "size"
        if obstacle is None and not lifetime(headers, ttl=request.rule.ttl, now=self._clock.time()):
            obstacle = "stale"
        return obstacle

    def made(self, request: CacheableRequest, headers: Headers, body: bytes) -> StoredResponse:
        """Return a complete response in the form in which it is stored."""
        rule, now = request.rule, self._clock.time()
        kept = storable_headers(headers)
        can_validate = bool(header(kept, "etag") or header(kept, "last-modified"))
        if not header(kept, "content-length"):
            kept.append(("Content-Length", str(len(body))))
        if not header(kept, "etag"):
            # A weak one: the same content, but not the same bytes on the wire after compression.
            kept.append(("ETag", f'W/"{blake2b(body, digest_size=16).hexdigest()}"'))
        age = header(headers, "age")
        fresh_until = now + lifetime(headers, ttl=rule.ttl, now=now)
        while_revalidate, if_error = stale_windows(
            headers, while_revalidate=rule.stale_while_revalidate, if_error=rule.stale_if_error
        )
        return StoredResponse(
            tuple(kept),
            body,
            now - (float(age[:10]) if age.isdecimal() else 0.0),
            fresh_until,
            fresh_until + while_revalidate,
            fresh_until + if_error,
            may_be_stale(headers),
            can_validate,
        )

    def keep(
        self, request: CacheableRequest, lease: ComputeLease, response: StoredResponse, route: object
    ) -> Op[None]:
        """Add a response to those of its URL, unless they were invalidated in the meantime."""
        now = self._clock.time()
        names = variant_names(response.headers) or _NO_NAMES
        digest = variant_of(request.head.variables, names)
        # The entry of the lease: one that was read before it, or from a copy in this process, may have been
        # invalidated since, and would be restored together with the new response.
        former = index_of(lease.former.value) if lease.former else None
        others: list[ResponseVariant] = []
        # If Vary has changed, responses under the old names would be found by requests they do not fit.
        if former is not None and former.names == names:
            others = [each for each in former.variants if each.digest != digest and now < each.until]
        others = others[-(_MOST_VARIANTS - 1) :] if names else []
        used = {each.slot for each in others}
        slot = next(number for number in range(_MOST_VARIANTS) if number not in used)
        version = os.urandom(8).hex()
        variant = ResponseVariant(digest, slot, version, response.kept_until, None if names else response)
        index = ResponseIndex(names, (*others, variant), str(route) if isinstance(route, str) else None)
        until = max(each.until for each in index.variants)
        try:
            entry = index_value(index)
            beside = slot_value(version, response) if names else None
        except EncodeError:  # a field with characters that no server could send
            yield from self.drop(request, lease, "no data")
            return
        if beside is not None:
            key = _slot_key(request, variant)
            if not (yield from call_store(self._cache.set, key, beside, ttl=variant.until - now)):
                yield from call_store(self._cache.abandon, request.key, lease)
                return
        yield from call_store(self._cache.finish, request.key, lease, entry, ttl=until - now)

    def drop(self, request: CacheableRequest, lease: ComputeLease | None, reason: str) -> Op[None]:
        """Release the lease of a response that is not stored, and count the bypass."""
        self._cache.count_bypass(reason)
        if lease is not None:
            yield from call_store(self._cache.abandon, request.key, lease)


def _slot_key(request: CacheableRequest, variant: ResponseVariant) -> str:
    return f"{request.key}:{variant.slot}"


_UNKNOWN: Final[tuple[object, ResponseIndex | None]] = (None, None)
_NOTHING: Final = FoundResponse()
