"""Several limits on one view or function take their hits together or not at all, whatever their order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from flask import Flask, request

from contrib_django_site import project
from contrib_flask_site import settings_of
from mks_hardening.contrib import django_app, flask_app
from mks_hardening.exceptions import RateLimitExceededError
from mks_hardening.security import RateLimiter
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import RateLimitMiddleware, RateLimitRule

from django.http import HttpResponse  # isort: skip

GROUPS = {"all": "10 per minute", "each": "5 per minute"}
ORDERS = [["all", "each"], ["each", "all"]]

Visit = Callable[[str], int]
"""Takes an address and answers the status."""


def one_address_uses_up_its_own_limit_only(visit: Visit) -> None:
    assert [visit("192.0.2.1") for _ in range(20)] == [200] * 5 + [429] * 15
    assert [visit("192.0.2.2") for _ in range(7)] == [200] * 5 + [429] * 2
    assert visit("192.0.2.3") == 429  # all ten are taken by now


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_flask_views(order: list[str]) -> None:
    app = Flask(__name__)
    flask_app.Hardening(app, settings_of(), groups=GROUPS)
    keys: dict[str, Any] = {"all": lambda: "all", "each": None}

    def view() -> str:
        return ""

    for group in reversed(order):
        view = flask_app.limit(group, key=keys[group])(view)
    app.get("/")(view)
    client = app.test_client()
    one_address_uses_up_its_own_limit_only(
        lambda address: client.get("/", environ_base={"REMOTE_ADDR": address}).status_code
    )


def test_the_application_and_its_views_in_flask() -> None:
    app = Flask(__name__)
    flask_app.Hardening(app, settings_of(), groups=GROUPS)
    flask_app.limit("all", key=lambda: "all")(app)
    app.get("/")(flask_app.limit("each")(lambda: ""))
    client = app.test_client()
    one_address_uses_up_its_own_limit_only(
        lambda address: client.get("/", environ_base={"REMOTE_ADDR": address}).status_code
    )


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_django_views(order: list[str]) -> None:
    keys: dict[str, Any] = {"all": lambda request: "all", "each": lambda request: request.headers["X-Client"]}
    view: Any = lambda request: HttpResponse("")  # noqa: E731 - a view like those of the other tests
    for group in reversed(order):
        view = django_app.limit(group, key=keys[group])(view)
    with project(MKS_HARDENING={"groups": GROUPS}) as site:
        one_address_uses_up_its_own_limit_only(
            lambda address: site.visit(view, headers={"X-Client": address}).status
        )


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_rules_in_front_of_an_application(order: list[str]) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    rules = {"all": RateLimitRule("all", key=lambda environ: "all"), "each": RateLimitRule("each")}
    wrapped = RateLimitMiddleware(
        application, limiter=RateLimiter(GROUPS), rules=[rules[name] for name in order]
    )
    one_address_uses_up_its_own_limit_only(
        lambda address: call_wsgi(wrapped, environ={"REMOTE_ADDR": address}).status
    )


def test_a_rule_in_front_and_a_limit_at_the_view() -> None:
    limiter = RateLimiter(GROUPS)
    app = Flask(__name__)
    rule = RateLimitRule("all", key=lambda environ: "all")
    flask_app.Hardening(app, settings_of(), limiter=limiter, rate_limits=[rule])
    app.get("/")(flask_app.limit("each", key=lambda: str(request.remote_addr))(lambda: ""))
    client = app.test_client()
    one_address_uses_up_its_own_limit_only(
        lambda address: client.get("/", environ_base={"REMOTE_ADDR": address}).status_code
    )


def between(function: Any) -> Any:
    """Another decorator between two limits."""

    @wraps(function)
    def called(*args: Any) -> Any:
        return function(*args)

    return called


def same(function: Any) -> Any:
    return function


KEYS: dict[str, Callable[[str], str]] = {"all": lambda who: "all", "each": lambda who: who}


@pytest.mark.parametrize("middle", [same, between])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_functions(order: list[str], middle: Callable[[Any], Any]) -> None:
    limiter = RateLimiter(GROUPS)
    outer, inner = (limiter.limit(group, key=KEYS[group]) for group in order)
    work: Any = outer(middle(inner(lambda who: who)))

    def visit(who: str) -> int:
        try:
            work(who)
        except RateLimitExceededError:
            return 429
        return 200

    one_address_uses_up_its_own_limit_only(visit)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_functions_of_asyncio(order: list[str]) -> None:
    limiter = RateLimiter(GROUPS)
    outer, inner = (limiter.limit(group, key=KEYS[group]) for group in order)

    async def call(who: str) -> str:
        await asyncio.sleep(0)
        return who

    work: Any = outer(inner(call))

    async def both() -> list[object]:
        alice = await asyncio.gather(*(work("alice") for _ in range(20)), return_exceptions=True)
        bob = await asyncio.gather(*(work("bob") for _ in range(7)), return_exceptions=True)
        return [*alice, *bob]

    answers = asyncio.run(both())
    assert (answers.count("alice"), answers.count("bob")) == (5, 5)


def test_a_limited_function_that_calls_another_keeps_its_own_hit() -> None:
    limiter = RateLimiter(GROUPS)
    inner: Any = limiter.limit("each", key=lambda: "k")(lambda: None)

    def call() -> None:
        for _ in range(6):
            inner()

    outer: Any = limiter.limit("all", key=lambda: "k")(call)
    with pytest.raises(RateLimitExceededError):
        outer()
    assert limiter.test("all", "k").remaining == (9,)
    assert limiter.test("each", "k").remaining == (0,)


def test_a_flood_of_one_leaves_the_limit_of_all_to_the_others() -> None:
    limiter = RateLimiter({"all": "20 per minute", "each": "5 per minute"})
    work: Any = limiter.limit("all", key=KEYS["all"])(limiter.limit("each", key=KEYS["each"])(same))

    def flood() -> None:
        for _ in range(500):
            try:
                work("alice")
            except RateLimitExceededError:
                continue

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limiter.test("all", "all").remaining == (15,)
    assert [work(who) for who in ("bob", "carol", "dave") for _ in range(5)]
