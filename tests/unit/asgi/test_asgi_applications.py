"""Which objects are ASGI applications: the others are refused when they are wrapped, not at the first request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from asgi_server import call, hello, http
from asgi_wrappers import WRAPPERS
from mks_hardening.exceptions import ConfigurationError


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


class LikeFlask:
    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        return wsgi(environ, start_response)


class LikeOldChannels:
    """ASGI 2: a class whose instances are called once more."""

    def __init__(self, scope: Any) -> None:
        pass

    async def __call__(self, receive: Any, send: Any) -> None: ...


OTHERS = [wsgi, LikeFlask(), LikeFlask().__call__, LikeOldChannels, partial(wsgi, {}), "app", None, 3]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("app", OTHERS, ids=range(len(OTHERS)))
def test_other_applications_are_refused(wrapper: str, app: Any) -> None:
    with pytest.raises(ConfigurationError) as refused:
        WRAPPERS[wrapper](app)
    assert refused.value.parameter == "app"
    if callable(app):
        assert "harden_wsgi" in str(refused.value)


@pytest.mark.parametrize(
    ("app", "name"), [(wsgi, "wsgi"), (LikeFlask(), "LikeFlask"), (LikeOldChannels, "LikeOldChannels")]
)
def test_the_error_names_the_application(app: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"not {name}: "):
        WRAPPERS["HealthMiddleware"](app)


class Instances:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)

    async def method(self, scope: Any, receive: Any, send: Any, more: int = 0) -> None:
        await hello(scope, receive, send)


class OfSlots:
    __slots__ = ("app",)

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        found: Awaitable[None] = self.app(scope, receive, send)
        return found


async def with_more(_more: int, scope: Any, receive: Any, send: Any) -> None:
    await hello(scope, receive, send)


FORMS: dict[str, Callable[..., Any]] = {
    "function": hello,
    "instance": Instances(),
    "method": Instances().method,
    "partial": partial(with_more, 1),
    "instance with slots": OfSlots(hello),
    "any arguments": lambda *given, **_: hello(*given),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("form", FORMS)
def test_applications_of_every_form_are_taken(wrapper: str, form: str) -> None:
    assert call(WRAPPERS[wrapper](FORMS[form]), http()).sent[-1]["body"] == b"hello"
