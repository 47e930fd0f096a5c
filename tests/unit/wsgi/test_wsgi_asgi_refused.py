"""ASGI applications are refused when a wrapper is built, not at the first request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import pytest

from contrib_flask_site import settings_of
from mks_hardening.cache import MemoryCache
from mks_hardening.compose import harden_wsgi
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import RateLimiter
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import (
    CSRFMiddleware,
    HeaderPolicy,
    HealthMiddleware,
    HTTPSRedirectMiddleware,
    MemorySessionStore,
    ProxyTrust,
    RateLimitMiddleware,
    RequestLoggingMiddleware,
    ResponseCacheMiddleware,
    SecurityHeadersMiddleware,
    SessionTimeoutMiddleware,
    TrustedProxyMiddleware,
)

WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "harden_wsgi": lambda app: harden_wsgi(app, settings_of()),
    "cache": lambda app: ResponseCacheMiddleware(app, cache=MemoryCache(), rules=[]),
    "csrf": CSRFMiddleware,
    "headers": lambda app: SecurityHeadersMiddleware(app, policy=HeaderPolicy.web()),
    "health": lambda app: HealthMiddleware(app, required=()),
    "https": lambda app: HTTPSRedirectMiddleware(app, allowed_hosts=["localhost"]),
    "limit": lambda app: RateLimitMiddleware(
        app, limiter=RateLimiter({"all": "5 per minute"}, storage="memory://"), rules=[]
    ),
    "record": RequestLoggingMiddleware,
    "session": lambda app: SessionTimeoutMiddleware(app, store=MemorySessionStore()),
    "trust": lambda app: TrustedProxyMiddleware(app, trust=ProxyTrust()),
}


class LikeFastAPI:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI 3."""


class LikeOldChannels:
    """ASGI 2: a class whose instances are called once more."""

    def __init__(self, scope: Any) -> None:
        pass


class LikeMiddleware:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        raise NotImplementedError


async def coroutine(_environ: Any, _start_response: Any) -> list[bytes]:
    return []


async def three(scope: Any, receive: Any, send: Any) -> None:
    """ASGI 3."""


ASGI: list[Any] = [LikeFastAPI(), LikeOldChannels, LikeMiddleware(), coroutine, three, partial(three, {})]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("app", ASGI, ids=lambda app: getattr(app, "__name__", type(app).__name__))
def test_asgi_is_refused_when_it_is_wrapped(wrapper: str, app: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"WSGI application.*harden_asgi") as caught:
        WRAPPERS[wrapper](app)
    assert caught.value.parameter == "app"


def answer(_environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


class Instances:
    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        return answer(environ, start_response)

    def method(self, environ: Any, start_response: Any, more: int = 0) -> Iterable[bytes]:
        return answer(environ, start_response)


class OfThePEP:
    """The class itself is the application (PEP 3333)."""

    def __init__(self, environ: Any, start_response: Any) -> None:
        self.pieces = answer(environ, start_response)

    def __iter__(self) -> Any:
        return iter(self.pieces)


def with_more(_more: int, environ: Any, start_response: Any) -> Iterable[bytes]:
    return answer(environ, start_response)


FORMS: dict[str, Any] = {
    "function": answer,
    "instance": Instances(),
    "method": Instances().method,
    "class": OfThePEP,
    "partial": partial(with_more, 1),
    "further arguments": lambda environ, start_response, **_: answer(environ, start_response),
    "any arguments": lambda *request, **_: answer(*request),
}


@pytest.mark.parametrize("form", FORMS)
def test_wsgi_of_every_form_is_taken(form: str) -> None:
    assert call_wsgi(RequestLoggingMiddleware(FORMS[form])).body == b"ok"
