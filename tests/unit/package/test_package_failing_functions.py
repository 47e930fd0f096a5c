"""A function of the application that raises: it is logged, the client sees nothing, and the protection stays on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
from fastapi import Depends, FastAPI
from flask import Flask

from mks_hardening import asgi, wsgi
from mks_hardening._core import function_errors
from mks_hardening.cache import MemoryCache, cached
from mks_hardening.contrib import asgi_app, fastapi_app, flask_app
from mks_hardening.security import ConcurrencyLimiter, PasswordPolicy, RateLimiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock, call_asgi, call_wsgi
from mks_hardening.wsgi import (
    BanList,
    BanRule,
    CacheRule,
    ConcurrencyRule,
    GroupChoice,
    MemorySessionStore,
    RateLimitRule,
)

PERSON = "taro@example.com"
CLIENT = "192.0.2.1"
GROUPS = {"one": "1 per minute"}


def raising(*_: Any) -> Any:
    raise LookupError(PERSON)


def returning_a_coroutine(*_: Any) -> Any:
    async def later() -> bool:
        return True

    return later()


@pytest.fixture(autouse=True)
def every_error_is_logged() -> Iterator[None]:
    """Errors of functions are logged once a minute, and tests share the minute."""
    function_errors._silent_until.clear()
    yield
    function_errors._silent_until.clear()


class Wsgi:
    package: Any = wsgi

    def __init__(self) -> None:
        self.calls = 0

    def page(self, environ: Any, start_response: Any) -> list[bytes]:
        self.calls += 1
        if environ["PATH_INFO"] == "/start":
            environ["mks_hardening.session"].start("alice")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]

    def ask(self, app: Any, path: str = "/", **fields: str) -> Any:
        return call_wsgi(app, path, headers=fields, environ={"REMOTE_ADDR": CLIENT})


class Asgi:
    package: Any = asgi

    def __init__(self) -> None:
        self.calls = 0

    async def page(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        if scope["path"] == "/start":
            await scope["mks_hardening.session"].astart("alice")
        fields = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"fine"})

    def ask(self, app: Any, path: str = "/", **fields: str) -> Any:
        return call_asgi(app, path, headers=fields, scope={"client": (CLIENT, 1)})


Shell = Any


def twice(shell: Shell, app: Any) -> list[int]:
    return [shell.ask(app).status for _ in range(2)]


def limited(shell: Shell, rule: RateLimitRule, *, on_refusal: Any = None, **options: Any) -> list[int]:
    limiter = RateLimiter(GROUPS, **options)
    middleware = shell.package.RateLimitMiddleware
    return twice(shell, middleware(shell.page, limiter=limiter, rules=[rule], on_refusal=on_refusal))


def concurrent(shell: Shell, held: str, **functions: Any) -> list[int]:
    limiter = ConcurrencyLimiter({"one": 1})
    rules = [ConcurrencyRule("one", **functions)]
    with limiter.hold("one", held):
        return twice(shell, shell.package.ConcurrencyMiddleware(shell.page, limiter=limiter, rules=rules))


def banned(shell: Shell, given: Any) -> list[int]:
    bans = BanList()
    bans.ban(CLIENT, 60)
    return twice(shell, shell.package.ClientRulesMiddleware(shell.page, bans=bans, exempt=given))


def judged(shell: Shell, given: Any) -> list[int]:
    bans = BanList([BanRule("r", strikes=1, when=given)])
    return [*twice(shell, shell.package.ClientRulesMiddleware(shell.page, bans=bans)), len(bans.bans())]


def stored(shell: Shell, given: Any) -> list[int]:
    rules = [CacheRule("/*", ttl=60, identity=given)]
    app = shell.package.ResponseCacheMiddleware(shell.page, cache=MemoryCache(), rules=rules)
    return [*twice(shell, app), shell.calls]


def expired(shell: Shell, given: Any) -> list[int]:
    clock = FrozenClock()
    app = shell.package.SessionTimeoutMiddleware(
        shell.page, store=MemorySessionStore(clock=clock), clock=clock, on_expired=given
    )
    cookie = shell.ask(app, "/start").header("Set-Cookie").partition(";")[0]
    clock.advance(1801)
    return [shell.ask(app, Cookie=cookie).status for _ in range(2)]


def of_a_view(shell: Shell, **functions: Any) -> list[int]:
    settings = HardeningSettings.from_env(environ={"MKS_ENV": "development"})
    app: Any
    if shell.package is wsgi:
        app = Flask(__name__)
        app.add_url_rule("/", view_func=flask_app.limit("one", **functions)(lambda: "fine"))
        flask_app.Hardening(app, settings, groups=GROUPS)
    else:
        app = FastAPI()
        app.get("/", dependencies=[Depends(fastapi_app.limit("one", **functions))])(lambda: "fine")
        asgi_app.Hardening(app, settings, groups=GROUPS)
    return [shell.ask(app, Host="localhost").status for _ in range(2)]


class Row(NamedTuple):
    parameter: str
    ask: Callable[[Shell, Any], list[int]]
    protected: list[int]


DECIDING = {
    "RateLimitRule key": Row("key", lambda shell, f: limited(shell, RateLimitRule("one", key=f)), [200, 429]),
    "RateLimitRule exempt": Row(
        "exempt", lambda shell, f: limited(shell, RateLimitRule("one", exempt=f)), [200, 429]
    ),
    "RateLimitRule final_cost": Row(
        "final_cost", lambda shell, f: limited(shell, RateLimitRule("one", final_cost=f)), [200, 429]
    ),
    "GroupChoice": Row(
        "choose",
        lambda shell, f: limited(shell, RateLimitRule(GroupChoice(f, groups=["one"], fallback="one"))),
        [200, 429],
    ),
    "RateLimiter exempt": Row(
        "exempt", lambda shell, f: limited(shell, RateLimitRule("one"), exempt=f), [200, 429]
    ),
    "on_refusal": Row(
        "on_refusal", lambda shell, f: limited(shell, RateLimitRule("one"), on_refusal=f), [200, 429]
    ),
    "limit key": Row("key", lambda shell, f: of_a_view(shell, key=f), [200, 429]),
    "limit exempt": Row("exempt", lambda shell, f: of_a_view(shell, exempt=f), [200, 429]),
    "limit final_cost": Row("final_cost", lambda shell, f: of_a_view(shell, final_cost=f), [200, 429]),
    "ConcurrencyRule key": Row("key", lambda shell, f: concurrent(shell, CLIENT, key=f), [503, 503]),
    "ConcurrencyRule exempt": Row("exempt", lambda shell, f: concurrent(shell, "all", exempt=f), [503, 503]),
    "ClientRulesMiddleware": Row("exempt", banned, [403, 403]),
    "BanRule": Row("when", judged, [200, 200, 0]),
    "CacheRule": Row("identity", stored, [200, 200, 2]),
    "SessionTimeoutMiddleware": Row("on_expired", expired, [401, 401]),
}
AWAITED_BY_ASGI = {"GroupChoice", "CacheRule", "SessionTimeoutMiddleware"}
CASES = [
    pytest.param(of, given, shell, id=f"{of}-{given.__name__}-{shell.__name__}")
    for of in DECIDING
    for given in (raising, returning_a_coroutine)
    for shell in (Wsgi, Asgi)
    if not (given is returning_a_coroutine and shell is Asgi and of in AWAITED_BY_ASGI)
]


@pytest.mark.parametrize(("of", "given", "shell"), CASES)
def test_the_protection_stays_on_and_the_error_is_logged_once(
    of: str, given: Any, shell: Callable[[], Shell], caplog: pytest.LogCaptureFixture
) -> None:
    parameter, ask, protected = DECIDING[of]
    assert ask(shell(), given) == protected
    (record,) = [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    text = record.getMessage()
    assert text.startswith(f"{parameter}={__name__}.{given.__name__} ")
    assert "further errors of this function are not logged for 60 s" in text
    assert PERSON not in caplog.text


def plain() -> int:
    return 1


LIMITER, SLOTS = RateLimiter(GROUPS), ConcurrencyLimiter({"one": 1})
OF_THE_CALLER: dict[str, Callable[[], object]] = {
    **{
        f"cached {name}": lambda name=name: cached(cache=MemoryCache(), **{name: raising})(plain)()  # type: ignore[misc]
        for name in ("key_func", "condition", "tags", "ttl", "store_if")
    },
    "RateLimiter.limit": LIMITER.limit("one", key=raising)(plain),
    "ConcurrencyLimiter.limit": SLOTS.limit("one", key=raising)(plain),
    "PasswordPolicy": partial(PasswordPolicy(breached=raising).check, "correct horse battery staple"),
}


@pytest.mark.parametrize("of", OF_THE_CALLER)
def test_the_caller_gets_the_error_where_there_is_no_request(of: str) -> None:
    with pytest.raises(LookupError, match=PERSON):
        OF_THE_CALLER[of]()


def test_the_caller_of_an_async_function_gets_the_error_too() -> None:
    async def later() -> int:
        return 1

    for name in ("key_func", "condition", "tags", "ttl", "store_if"):
        options: Any = {name: raising}
        with pytest.raises(LookupError, match=PERSON):
            asyncio.run(cached(cache=MemoryCache(), **options)(later)())
