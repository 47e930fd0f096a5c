"""A response cache for any WSGI application, private by default.

Answers stream through as they are made; a copy is kept when the application said nothing against it and its
body was sent whole. All variants of a URL are one entry, so that a hit is one round trip and an invalidation
forgets all of them at once; it also wins against an answer that was being made meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening.cache.base import BaseCache
from mks_hardening.cache.entry import Lease
from mks_hardening.cache.response_rules import (
    CacheRule,
    Headers,
    answer_key,
    directives,
    header,
    is_not_modified,
    kept_headers,
    lifetime,
    request_obstacle,
    response_obstacle,
    variant_names,
    variant_of,
)
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.protocols import Clock

if TYPE_CHECKING:
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["ResponseCacheMiddleware"]

_MOST_VARIANTS: Final = 8
_NO_NAMES: Final[tuple[str, ...]] = ()


class _Answer(NamedTuple):
    """A kept answer; times are of the wall clock."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    made_at: float
    fresh_until: float


class _Request(NamedTuple):
    environ: WSGIEnvironment
    rule: CacheRule
    key: str
    personal: bool


class ResponseCacheMiddleware:
    """Keeps whole answers to GET requests, for those paths that a rule names.

    Without ``identity`` in the rule, requests with Cookie or Authorization and answers marked ``private`` are never
    kept or answered from the cache. Answers with Set-Cookie, with ``no-store`` or ``no-cache``, other than 200,
    with ``Vary: *``, cut short, or with the request's CSP nonce inside are never kept.

    Args:
        app: the application.
        cache: where to keep answers.
        rules: the first that matches the path counts.
        max_body: bytes of the largest body kept.
        clock: source of time.

    Raises:
        ConfigurationError: a parameter is impossible.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        cache: BaseCache,
        rules: Iterable[CacheRule],
        max_body: int = 1_048_576,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._app = app
        self._cache = cache
        self._rules = tuple(rules)
        self._max_body = max_body
        self._clock = clock
        if not isinstance(cache, BaseCache):
            raise ConfigurationError(f"cache must be a cache, not {type(cache).__name__}", parameter="cache")
        if not all(isinstance(rule, CacheRule) for rule in self._rules):
            raise ConfigurationError("rules must be CacheRule objects", parameter="rules")
        if type(max_body) is not int or max_body < 0:
            raise ConfigurationError("max_body must be a whole number of bytes", parameter="max_body")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer from the cache, or let the application answer and keep a copy."""
        request = self._cacheable(environ)
        if request is None:
            return self._app(environ, start_response)
        control = _request_control(environ)
        variants: dict[str, Any] = self._cache.get(request.key) or {}
        answer = self._fitting(environ, variants, control)
        if answer is not None:
            return self._from_cache(environ, answer, start_response)
        if "only-if-cached" in control:
            start_response("504 Gateway Timeout", [("Content-Type", "text/plain"), ("Content-Length", "0")])
            return [b""]
        lease = (
            self._cache.begin(request.key, request.rule.tags) if environ["REQUEST_METHOD"] == "GET" else None
        )
        if lease is None:
            return self._app(environ, start_response)
        keep = _Keeping(self, request, lease, variants, start_response)
        return keep.answer(self._app)

    def _cacheable(self, environ: WSGIEnvironment) -> _Request | None:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        rule = next((rule for rule in self._rules if rule.matches(path)), None)
        if rule is None:
            return None
        obstacle = request_obstacle(environ, rule)
        identity = rule.identity(environ) if rule.identity is not None and obstacle is None else None
        if obstacle is None and rule.identity is not None and identity is None:
            obstacle = "identity"
        if obstacle is not None:
            self._cache.count_bypass(obstacle)
            return None
        return _Request(environ, rule, answer_key(environ, rule, identity), identity is not None)

    def _fitting(
        self, environ: WSGIEnvironment, variants: Mapping[str, Any], control: Mapping[str, str]
    ) -> _Answer | None:
        """The kept variant this request may be answered with."""
        if not variants or "no-cache" in control:
            return None
        stored = variants["answers"].get(variant_of(environ, variants["names"]))
        answer = None if stored is None else _Answer(*stored)
        if answer is None or self._clock.time() >= answer.fresh_until:
            return None
        limit = control.get("max-age", "")
        if limit.isdecimal() and self._age(answer) > float(limit[:10]):
            return None
        return answer

    def _age(self, answer: _Answer) -> int:
        return max(0, int(self._clock.time() - answer.made_at))

    def _from_cache(
        self, environ: WSGIEnvironment, answer: _Answer, start_response: StartResponse
    ) -> Iterable[bytes]:
        headers = [*((name, value) for name, value in answer.headers), ("Age", str(self._age(answer)))]
        if is_not_modified(environ, headers):
            start_response("304 Not Modified", _without_content(headers))
            return [b""]
        start_response(answer.status, headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else answer.body]

    # --- used by _Keeping ---

    def obstacle(self, request: _Request, status: str, headers: Headers) -> str | None:
        """Why an answer must not be kept, or None."""
        obstacle = response_obstacle(status, headers, personal=request.personal)
        length = header(headers, "content-length")
        if obstacle is None and length.isdecimal() and int(length[:15]) > self._max_body:
            obstacle = "size"
        if obstacle is None and not lifetime(headers, ttl=request.rule.ttl, now=self._clock.time()):
            obstacle = "stale"
        return obstacle

    def keep(
        self,
        request: _Request,
        lease: Lease,
        variants: Mapping[str, Any],
        *,
        status: str,
        headers: Headers,
        body: bytes,
    ) -> None:
        """Add an answer that was sent whole to the variants of its URL, unless it was invalidated meanwhile."""
        now = self._clock.time()
        fresh = lifetime(headers, ttl=request.rule.ttl, now=now)
        kept = kept_headers(headers)
        if not header(kept, "content-length"):
            kept.append(("Content-Length", str(len(body))))
        if not header(kept, "etag"):
            kept.append(("ETag", f'W/"{blake2b(body, digest_size=16).hexdigest()}"'))
        age = header(headers, "age")
        made_at = now - (float(age[:10]) if age.isdecimal() else 0.0)
        names = variant_names(headers) or _NO_NAMES
        answers = dict(variants["answers"]) if variants and tuple(variants["names"]) == names else {}
        answers = {key: stored for key, stored in answers.items() if now < stored[4]}
        answers[variant_of(request.environ, names)] = list(_Answer(status, kept, body, made_at, now + fresh))
        while len(answers) > _MOST_VARIANTS:
            del answers[next(iter(answers))]
        end = max(stored[4] for stored in answers.values())
        self._cache.finish(request.key, lease, {"names": list(names), "answers": answers}, ttl=end - now)

    def drop(self, request: _Request, lease: Lease, reason: str) -> None:
        """Note that an answer was not kept."""
        self._cache.abandon(request.key, lease)
        self._cache.count_bypass(reason)

    @property
    def max_body(self) -> int:
        """Bytes of the largest body kept."""
        return self._max_body


class _Keeping:
    """Lets one answer stream through and collects a copy; decides at its end."""

    def __init__(
        self,
        cache: ResponseCacheMiddleware,
        request: _Request,
        lease: Lease,
        variants: Mapping[str, Any],
        start_response: StartResponse,
    ) -> None:
        self._cache = cache
        self._request = request
        self._lease: Lease | None = lease
        self._variants = variants
        self._start_response = start_response
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._silent = False  # the client has the content already
        self._result: Iterable[bytes] = ()
        self._steps: Iterator[bytes] = iter(())
        self._closed = False

    def answer(self, app: WSGIApplication) -> Iterable[bytes]:
        """Call the application, which is asked for the whole content even if the client has a copy."""
        environ = self._request.environ.copy()
        environ.pop("HTTP_IF_NONE_MATCH", None)
        environ.pop("HTTP_IF_MODIFIED_SINCE", None)
        try:
            self._result = app(environ, self.start_response)
            self._steps = iter(self._result)
        except BaseException:
            self._drop("error")
            raise
        return self

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """Look at the head, and send 304 instead when the client has the same content."""
        self._status, self._headers = status, list(headers)
        obstacle = "error" if exc_info else self._cache.obstacle(self._request, status, headers)
        if obstacle:
            self._drop(obstacle)
        self._silent = status.startswith("200") and is_not_modified(self._request.environ, headers)
        if self._silent:
            status, headers = "304 Not Modified", _without_content(headers)
        try:
            write = (
                self._start_response(status, headers, exc_info)
                if exc_info
                else self._start_response(status, headers)
            )
        finally:
            exc_info = None

        def counted_write(data: bytes, /) -> object:
            return write(self._take(data))

        return counted_write

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = next(self._steps)
        except StopIteration:
            self._finish()
            raise
        except BaseException:
            self._drop("error")
            raise
        return self._take(piece)

    def close(self) -> None:
        """Close the application's body, once; an answer that was not read to its end is not kept."""
        if self._closed:
            return
        self._closed = True
        self._drop("cut short")
        close = getattr(self._result, "close", None)
        if close is not None:
            close()

    def _take(self, piece: bytes) -> bytes:
        if self._lease is not None:
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > self._cache.max_body:
                self._drop("size")
        return b"" if self._silent else piece

    def _finish(self) -> None:
        lease, body = self._lease, b"".join(self._pieces)
        if lease is None:
            return
        length = header(self._headers, "content-length")
        if length and length != str(len(body)):
            self._drop("cut short")
        elif self._holds_nonce(body):
            self._drop("nonce")
        else:
            self._lease = None
            self._cache.keep(
                self._request, lease, self._variants, status=self._status, headers=self._headers, body=body
            )

    def _holds_nonce(self, body: bytes) -> bool:
        """A page made for one request's Content-Security-Policy would be broken in the next."""
        nonce = str(self._request.environ.get("mks_hardening.csp_nonce") or "")
        return bool(nonce) and (nonce.encode() in body or any(nonce in value for _, value in self._headers))

    def _drop(self, reason: str) -> None:
        lease, self._lease = self._lease, None
        self._pieces.clear()
        if lease is not None:
            self._cache.drop(self._request, lease, reason)


def _request_control(environ: WSGIEnvironment) -> dict[str, str]:
    control = directives(environ.get("HTTP_CACHE_CONTROL", ""))
    if "HTTP_CACHE_CONTROL" not in environ and "no-cache" in environ.get("HTTP_PRAGMA", "").lower():
        control["no-cache"] = ""
    return control


def _without_content(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The fields of a 304: nothing that describes a body that is not there (RFC 9110, 15.4.5)."""
    left_out = {"content-length", "content-type", "content-encoding", "content-language", "transfer-encoding"}
    return [(name, value) for name, value in headers if name.lower() not in left_out]
