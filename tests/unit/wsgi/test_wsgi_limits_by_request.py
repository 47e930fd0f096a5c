"""Rate limits that depend on the request and its response: groups, methods, exemptions, costs. Over both shells."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mks_hardening._core import function_errors
from mks_hardening._core.web.request_header import request_header
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import RateLimiter
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import (
    GroupChoice,
    LimitedResponse,
    RateLimitMiddleware,
    RateLimitRule,
    limit_by_header,
    set_request_cost,
)

WSGI_ONLY = {
    "test_a_coroutine_of_a_plain_function_chooses_nothing",
    "test_an_asynchronous_choice_is_refused",
    "test_a_client_that_leaves_has_the_bytes_so_far_counted",
    "test_parallel_requests_together_exceed_the_limit_by_their_extra_cost_only",
    "test_bytes_that_are_written_count",
    "test_a_server_that_reads_nothing_settles_at_close",
    "test_any_sequence_of_costs_fills_the_bucket_and_no_more",
    "test_the_reserved_cost_remains_when_hits_cannot_be_corrected",
}
HERE = "127.0.0.1"


@pytest.fixture(autouse=True)
def every_error_is_logged() -> Iterator[None]:
    """Errors of functions are logged once a minute, and tests share the minute."""
    function_errors._silent_until.clear()
    yield
    function_errors._silent_until.clear()


def limiter_of(**groups: str) -> RateLimiter:
    return RateLimiter(groups or {"g": "5 per minute"}, clock=FrozenClock())


def used(limiter: RateLimiter, group: str = "g", key: str = HERE) -> int:
    decision = limiter.test(group, key)
    return decision.limits[0].quota - decision.remaining[0]


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"12345"]


def answering(status: str, body: bytes = b"12345", cost: int | None = None) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if cost is not None:
            set_request_cost(environ, cost)
        start_response(status, [("Content-Type", "text/plain")])
        return [body]

    return app


def ask(limiter: Any, *rules: RateLimitRule, app: Any = page, **how: Any) -> int:
    return call_wsgi(
        app, wrap=lambda app: RateLimitMiddleware(app, limiter=limiter, rules=rules), **how
    ).status


# --- which group


PERSON = "tanaka@example.com"


def plan_of(request: dict[str, Any]) -> str:
    plan = request_header(request, "X-Plan") or ""
    if plan == "raise":
        raise LookupError(f"the account of {PERSON}")
    found: Any = {"none": None, "number": 7, "list": [], "other": "g", "bytes": b"team"}.get(plan, plan)
    return found  # type: ignore[no-any-return]  # what functions of applications return


PLANS = {"free": "1 per minute", "team": "3 per minute", "unknown": "2 per minute", "g": "100 per minute"}
BY_PLAN = GroupChoice(plan_of, groups=("free", "team"), fallback="unknown")


@pytest.mark.parametrize(
    ("plan", "group"),
    [
        ("free", "free"),
        ("team", "team"),
        ("unknown", "unknown"),
        *((wrong, "unknown") for wrong in ("", "Free", "none", "number", "list", "other", "bytes", "raise")),
    ],
)
def test_a_function_chooses_the_group_and_nonsense_is_counted_by_the_fallback(plan: str, group: str) -> None:
    limiter = limiter_of(**PLANS)
    rule = RateLimitRule(BY_PLAN)
    statuses = [ask(limiter, rule, headers={"X-Plan": plan}) for _ in range(4)]
    quota = int(PLANS[group].split()[0])
    assert statuses == [200] * quota + [429] * (4 - quota)
    assert {name: used(limiter, name) for name in PLANS} == {
        name: quota if name == group else 0 for name in PLANS
    }


def test_an_error_of_the_function_is_logged_once_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    limiter = limiter_of(**PLANS)
    for _ in range(3):
        ask(limiter, RateLimitRule(BY_PLAN), headers={"X-Plan": "raise"})
    [record] = [each for each in caplog.records if each.name == "mks_hardening.rate_limits"]
    assert "plan_of raised LookupError: requests are counted by 'unknown'" in record.getMessage()
    assert PERSON not in record.getMessage()


def test_a_refusal_names_the_chosen_group() -> None:
    limiter = limiter_of(**PLANS)
    wrap = RateLimitMiddleware(page, limiter=limiter, rules=[RateLimitRule(BY_PLAN)])
    answers = [call_wsgi(wrap, headers={"X-Plan": "free"}) for _ in range(2)]
    assert answers[0].header("X-RateLimit-Limit") == "1"
    assert (answers[1].status, answers[1].header("Retry-After")) == (429, "60")


def test_a_coroutine_of_a_plain_function_chooses_nothing() -> None:
    async def ahead() -> str:
        return "team"

    limiter = limiter_of(**PLANS)
    choice = GroupChoice(lambda request: ahead(), groups=["team"], fallback="free")
    assert [ask(limiter, RateLimitRule(choice)) for _ in range(2)] == [200, 429]


def test_an_asynchronous_choice_is_refused() -> None:
    async def choose(request: dict[str, Any]) -> str:
        return "team"

    class Choose:
        async def __call__(self, request: dict[str, Any]) -> str:
            return "team"

    for function in (choose, Choose()):
        rule = RateLimitRule(GroupChoice(function, groups=["team"], fallback="free"))
        with pytest.raises(ConfigurationError, match="async def"):
            RateLimitMiddleware(page, limiter=limiter_of(**PLANS), rules=[rule])


@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (lambda: GroupChoice("free", groups=["a"], fallback="a"), "choose"),  # type: ignore[arg-type]
        (lambda: GroupChoice(plan_of, groups="ab", fallback="a"), "groups"),
        (lambda: GroupChoice(plan_of, groups=[], fallback="a"), "groups"),
        (lambda: GroupChoice(plan_of, groups=[""], fallback="a"), "groups"),
        (lambda: GroupChoice(plan_of, groups=[7], fallback="a"), "groups"),  # type: ignore[list-item]
        (lambda: GroupChoice(plan_of, groups=["a"], fallback=""), "fallback"),
        (lambda: GroupChoice(plan_of, groups=["a"], fallback=None), "fallback"),  # type: ignore[arg-type]
        (lambda: RateLimitRule(BY_PLAN, limiter=limiter_of(free="1 per minute")), "group"),
        (lambda: RateLimitRule(plan_of), "group"),  # type: ignore[arg-type]
        (lambda: RateLimitRule("g", exempt="monitoring"), "exempt"),  # type: ignore[arg-type]
        (lambda: RateLimitRule("g", exempt=asynchronous), "exempt"),  # type: ignore[arg-type]
        (lambda: RateLimitRule("g", final_cost=7), "final_cost"),  # type: ignore[arg-type]
        (lambda: RateLimitRule("g", final_cost=asynchronous), "final_cost"),  # type: ignore[arg-type]
        (lambda: RateLimitRule("g", cost=-1), "cost"),
        (lambda: RateLimitRule("g", cost=True), "cost"),
        (lambda: RateLimitRule("g", cost=0, final_cost=lambda request, response: 1), "cost"),
        (lambda: set_request_cost({}, -1), "cost"),
        (lambda: set_request_cost({}, 1.5), "cost"),  # type: ignore[arg-type]
    ],
)
def test_impossible_arguments_are_refused(make: Callable[[], object], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.parameter == parameter


async def asynchronous(*arguments: Any) -> bool:
    return True


def test_the_groups_of_a_choice_are_those_of_the_limiter() -> None:
    with pytest.raises(ConfigurationError, match="it has free, team"):
        RateLimitMiddleware(
            page, limiter=limiter_of(free="1 per minute", team="1 per minute"), rules=[RateLimitRule(BY_PLAN)]
        )


# --- methods

PREFLIGHT = {"Origin": "https://www.example.com", "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize(
    ("methods", "method", "headers", "counts"),
    [
        (None, "GET", {}, True),
        (None, "HEAD", {}, True),
        (None, "OPTIONS", {}, True),
        (None, "OPTIONS", {"Origin": "https://www.example.com"}, True),
        (None, "OPTIONS", {"Access-Control-Request-Method": "POST"}, True),
        (None, "OPTIONS", PREFLIGHT, False),
        (None, "GET", PREFLIGHT, True),
        (["GET"], "HEAD", {}, True),
        (["GET"], "OPTIONS", PREFLIGHT, False),
        (["HEAD"], "GET", {}, False),
        (["OPTIONS"], "OPTIONS", PREFLIGHT, True),
        (["options"], "OPTIONS", {}, True),
    ],
)
def test_which_methods_count(
    methods: list[str] | None, method: str, headers: dict[str, str], counts: bool
) -> None:
    limiter = limiter_of()
    ask(limiter, RateLimitRule("g", methods=methods), method=method, headers=headers)
    assert used(limiter) == counts


def test_a_rule_that_leaves_requests_out_does_not_stand_in_for_a_header_that_nothing_verifies() -> None:
    """Clients could otherwise send a new header with each request that the other rule does not count."""
    by_header = RateLimitRule("g", key=limit_by_header("X-API-Key"))
    for incomplete in (
        RateLimitRule("g", exempt=lambda request: False),
        RateLimitRule("g", final_cost=lambda request, response: 0),
        RateLimitRule("g", cost=0),
    ):
        with pytest.raises(ConfigurationError, match="limit_by_address"):
            RateLimitMiddleware(page, limiter=limiter_of(), rules=[by_header, incomplete])
    options = RateLimitRule("g", key=limit_by_header("X-API-Key"), methods=["OPTIONS"])
    with pytest.raises(ConfigurationError, match="limit_by_address"):
        RateLimitMiddleware(page, limiter=limiter_of(), rules=[options, RateLimitRule("g")])
    RateLimitMiddleware(page, limiter=limiter_of(), rules=[by_header, RateLimitRule("g")])


# --- exemption


def is_monitoring(request: dict[str, Any]) -> bool:
    token = request_header(request, "X-Monitoring")
    if token == "raise":
        raise LookupError(token)
    found: Any = asynchronous() if token == "coroutine" else token == "secret"
    return found  # type: ignore[no-any-return]  # what functions of applications return


@pytest.mark.parametrize(("token", "counts"), [("secret", 0), ("", 1), ("raise", 1), ("coroutine", 1)])
def test_an_exempt_request_is_not_counted_and_an_error_exempts_nobody(token: str, counts: int) -> None:
    limiter = limiter_of()
    rule = RateLimitRule("g", exempt=is_monitoring)
    assert ask(limiter, rule, headers={"X-Monitoring": token}) == 200
    assert used(limiter) == counts


def test_an_exempt_request_passes_a_limit_that_has_been_reached() -> None:
    limiter = limiter_of(g="1 per minute")
    rule = RateLimitRule("g", exempt=is_monitoring)
    assert [ask(limiter, rule) for _ in range(2)] == [200, 429]
    assert ask(limiter, rule, headers={"X-Monitoring": "secret"}) == 200


# --- cost after the response


def nonsense(value: Any) -> Any:
    return lambda request, response: value


NO_COSTS: tuple[Any, ...] = (None, -1, 1.0, "3", [])


def fails(request: dict[str, Any], response: LimitedResponse) -> int:
    raise RuntimeError("cost")


@pytest.mark.parametrize(
    ("app", "cost", "final_cost", "expected"),
    [
        (answering("401 Unauthorized"), 1, lambda request, response: response.status == 401, 1),
        (answering("303 See Other"), 1, lambda request, response: response.status == 401, 0),
        (answering("401 Unauthorized"), 3, lambda request, response: response.status == 401, 3),
        (page, 1, nonsense(0), 0),
        (page, 3, nonsense(0), 0),
        (page, 3, nonsense(2), 2),
        (page, 1, nonsense(4), 4),
        (page, 1, nonsense(5), 5),
        (page, 1, nonsense(6), 5),  # what is left
        (page, 1, nonsense(10**9), 5),
        (page, 3, nonsense(99), 5),
        (page, 1, lambda request, response: response.body_bytes, 5),
        (answering("200 OK", b""), 1, lambda request, response: response.body_bytes, 0),
        (answering("200 OK", cost=4), 1, lambda request, response: response.handler_cost, 4),
        (answering("200 OK", cost=0), 1, lambda request, response: response.handler_cost, 0),
        (page, 1, lambda request, response: 2 if response.handler_cost is None else 0, 2),
        (page, 1, lambda request, response: 3 if response.complete else 0, 3),
        # an error costs what was reserved
        *((page, 2, nonsense(wrong), 2) for wrong in NO_COSTS),
        (page, 2, fails, 2),
        (page, 2, lambda request, response: asynchronous(), 2),
    ],
)
def test_the_response_decides_what_a_request_costs(
    app: Any, cost: int, final_cost: Any, expected: int
) -> None:
    limiter = limiter_of()
    rule = RateLimitRule("g", cost=cost, final_cost=final_cost)
    assert ask(limiter, rule, app=app) in (200, 303, 401)
    assert used(limiter) == expected


def test_only_failures_count_and_at_the_limit_even_a_success_is_refused_before() -> None:
    limiter, calls = limiter_of(g="2 per minute"), []

    def sign_in(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ["QUERY_STRING"])
        app = answering("200 OK" if "ok" in environ["QUERY_STRING"] else "401 Unauthorized")
        body: list[bytes] = app(environ, start_response)
        return body

    rule = RateLimitRule("g", final_cost=lambda request, response: response.status == 401)
    queries = ["ok", "ok", "ok", "bad", "ok", "bad", "ok", "bad"]
    statuses = [ask(limiter, rule, app=sign_in, query=query) for query in queries]
    assert statuses == [200, 200, 200, 401, 200, 401, 429, 429]
    assert calls == queries[:6]


def test_a_handler_that_fails_costs_what_was_reserved() -> None:
    """Otherwise a client that makes it fail, or leaves before the response, would try again for nothing."""

    def broken(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise RuntimeError("broken")

    limiter = limiter_of()
    with pytest.raises(RuntimeError, match="broken"):
        ask(limiter, RateLimitRule("g", final_cost=nonsense(0)), app=broken)
    assert used(limiter) == 1


def test_a_body_that_fails_is_not_complete() -> None:
    seen: list[LimitedResponse] = []

    def broken(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"123"
        raise RuntimeError("broken")

    def final_cost(request: dict[str, Any], response: LimitedResponse) -> int:
        seen.append(response)
        return response.body_bytes

    limiter = limiter_of()
    with pytest.raises(RuntimeError, match="broken"):
        ask(limiter, RateLimitRule("g", final_cost=final_cost), app=broken)
    assert seen == [LimitedResponse(status=200, body_bytes=3, complete=False)]
    assert used(limiter) == 3


def test_a_streamed_body_is_counted_once_although_two_limits_count_it() -> None:
    def stream(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"1"
        yield b"23"
        yield b"45"

    limiter = limiter_of(outer="100 per minute", inner="100 per minute")
    by_bytes: Any = lambda request, response: response.body_bytes  # noqa: E731 - used twice
    inside = RateLimitMiddleware(stream, limiter=limiter, rules=[RateLimitRule("inner", final_cost=by_bytes)])
    outside = RateLimitMiddleware(
        inside, limiter=limiter, rules=[RateLimitRule("outer", final_cost=by_bytes)]
    )
    assert call_wsgi(outside).body == b"12345"
    assert (used(limiter, "outer"), used(limiter, "inner")) == (5, 5)


def test_a_request_that_a_limit_further_in_refuses_costs_nothing() -> None:
    limiter = limiter_of(outer="9 per minute", inner="1 per minute")
    inside = RateLimitMiddleware(page, limiter=limiter, rules=[RateLimitRule("inner")])
    outside = RateLimitMiddleware(
        inside, limiter=limiter, rules=[RateLimitRule("outer", final_cost=nonsense(4))]
    )
    assert [call_wsgi(outside).status for _ in range(3)] == [200, 429, 429]
    assert (used(limiter, "outer"), used(limiter, "inner")) == (4, 1)


def test_a_limiter_that_cannot_give_hits_back_is_refused() -> None:
    class Plain:
        def hit(self, group: str, key: str, *, cost: int = 1) -> Any: ...

    with pytest.raises(ConfigurationError, match="reserve"):
        RateLimitMiddleware(page, limiter=Plain(), rules=[RateLimitRule("g", final_cost=nonsense(0))])


class WithoutAsyncio:
    """A limiter as applications write them: ``hit`` and ``reserve``."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.hit = limiter.hit
        self.reserve = limiter.reserve


@pytest.mark.parametrize(("final", "expected"), [(0, 0), (3, 3), (9, 5)])
def test_limiters_without_asyncio_are_corrected_too(final: int, expected: int) -> None:
    limiter = limiter_of()
    rule = RateLimitRule("g", final_cost=nonsense(final))
    assert ask(WithoutAsyncio(limiter), rule) == 200
    assert used(limiter) == expected


class Raising:
    """A limiter of an application, written over another client of Redis."""

    def __init__(self, *methods: str) -> None:
        for method in methods:
            setattr(self, method, self._raise)

    def hit(self, group: str, key: str, *, cost: int = 1) -> Any:
        self._raise()

    def _raise(self, *given: Any, **options: Any) -> Any:
        raise LookupError(f"the account of {PERSON}")


@pytest.mark.parametrize("limiter", [Raising(), Raising("reserve"), Raising("areserve"), Raising("ahit")])
def test_a_request_that_a_limiter_cannot_count_is_refused_with_503(
    limiter: Any, caplog: pytest.LogCaptureFixture
) -> None:
    response = call_wsgi(
        page, wrap=lambda app: RateLimitMiddleware(app, limiter=limiter, rules=[RateLimitRule("g")])
    )
    assert (response.status, response.header("Retry-After")) == (503, "2")
    assert "LookupError" in caplog.text
    assert PERSON not in caplog.text + response.body.decode()


@pytest.mark.parametrize("failing", ["cancel", "reserve"])
def test_the_reserved_cost_remains_when_hits_cannot_be_corrected(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = limiter_of()

    class Failing(WithoutAsyncio):
        def __init__(self) -> None:
            super().__init__(limiter)
            self.calls = 0
            self.reserve = self._reserve

        def _reserve(self, group: str, key: str, *, cost: int = 1, recheck: bool = True) -> Any:
            self.calls += 1
            if self.calls > 1:
                raise ConnectionError(PERSON)
            taken = limiter.reserve(group, key, cost=cost)
            if failing == "reserve":
                return taken

            class Stuck:
                decision = taken.decision

                def cancel(self) -> None:
                    raise ConnectionError(PERSON)

            return Stuck()

    final = 0 if failing == "cancel" else 4
    assert ask(Failing(), RateLimitRule("g", final_cost=nonsense(final))) == 200
    assert used(limiter) == 1
    assert "could not be counted" in caplog.text
    assert PERSON not in caplog.text


def test_in_a_dry_run_a_cost_that_does_not_fit_is_counted_as_far_as_it_fits() -> None:
    limiter = RateLimiter({"g": "5 per minute"}, dry_run=["g"], clock=FrozenClock())
    assert ask(limiter, RateLimitRule("g", final_cost=nonsense(9))) == 200
    assert used(limiter) == 5
    assert ask(limiter, RateLimitRule("g", final_cost=nonsense(9))) == 200


class WithOthers:
    """A limiter that others use too: one hit of theirs is counted before each of the first corrections."""

    def __init__(self, limiter: RateLimiter, hits: int) -> None:
        self.limiter = limiter
        self.hits = hits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.limiter, name)

    def reserve(self, group: str, key: str, cost: int = 1, **how: Any) -> Any:
        if cost > 1 and self.hits > 0:
            self.hits -= 1
            self.limiter.hit(group, key)
        return self.limiter.reserve(group, key, cost=cost, **how)

    async def areserve(self, group: str, key: str, cost: int = 1, **how: Any) -> Any:
        return self.reserve(group, key, cost, **how)


@pytest.mark.parametrize("others", range(7))
def test_what_fits_is_counted_although_others_take_some_of_it(others: int) -> None:
    limiter = WithOthers(RateLimiter({"g": "8 per minute"}, clock=FrozenClock()), others)
    assert ask(limiter, RateLimitRule("g", final_cost=nonsense(9))) == 200
    assert used(limiter.limiter) == 8


# --- WSGI only


def environ_of(**more: Any) -> dict[str, Any]:
    return {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": HERE, **more}


def test_a_client_that_leaves_has_the_bytes_so_far_counted() -> None:
    closed: list[int] = []

    class Stream:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"12", b"34", b"56"])

        def close(self) -> None:
            closed.append(1)

    def app(environ: dict[str, Any], start_response: Any) -> Stream:
        start_response("200 OK", [])
        return Stream()

    seen: list[bool] = []

    def final_cost(request: dict[str, Any], response: LimitedResponse) -> int:
        seen.append(response.complete)
        return response.body_bytes

    limiter = limiter_of()
    rule = RateLimitRule("g", final_cost=final_cost)
    body = RateLimitMiddleware(app, limiter=limiter, rules=[rule])(environ_of(), lambda *arguments: print)
    assert next(iter(body)) == b"12"
    assert used(limiter) == 1  # reserved
    body.close()  # type: ignore[attr-defined]  # as servers call it
    assert (used(limiter), seen, closed) == (2, [False], [1])


def test_a_server_that_reads_nothing_settles_at_close() -> None:
    limiter = limiter_of()
    rule = RateLimitRule("g", final_cost=nonsense(0))
    body = RateLimitMiddleware(page, limiter=limiter, rules=[rule])(environ_of(), lambda *arguments: print)
    body.close()  # type: ignore[attr-defined]  # as servers call it
    assert used(limiter) == 0


def test_bytes_that_are_written_count() -> None:
    def writes(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])(b"123")
        return [b"4"]

    limiter = limiter_of()
    rule = RateLimitRule("g", final_cost=lambda request, response: response.body_bytes)
    assert ask(limiter, rule, app=writes) == 200
    assert used(limiter) == 4


@pytest.mark.parametrize(("final", "counted"), [(0, 0), (1, 2), (3, 5)])
def test_parallel_requests_together_exceed_the_limit_by_their_extra_cost_only(
    final: int, counted: int
) -> None:
    """Each has reserved its hit, so a third that would not fit is refused; what both cost more is not prevented."""
    limiter, inside, go = limiter_of(g="5 per minute"), threading.Barrier(3), threading.Event()

    def slow(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        inside.wait(30)
        go.wait(30)
        return page(environ, start_response)

    rule = RateLimitRule("g", cost=1, final_cost=nonsense(final))
    reserving = RateLimitRule("g", cost=4)
    threads = [threading.Thread(target=ask, args=(limiter, rule), kwargs={"app": slow}) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(30)
    assert used(limiter) == 2
    assert ask(limiter, reserving) == 429  # 2 + 4 > 5
    go.set()
    for thread in threads:
        thread.join()
    assert used(limiter) == counted


@settings(deadline=None)
@given(
    quota=st.integers(1, 9),
    reserved=st.integers(1, 4),
    costs=st.lists(st.one_of(st.integers(0, 12), st.none()), max_size=12),
)
def test_any_sequence_of_costs_fills_the_bucket_and_no_more(
    quota: int, reserved: int, costs: list[int | None]
) -> None:
    limiter, count = limiter_of(g=f"{quota} per minute"), 0
    for cost in costs:
        status = ask(limiter, RateLimitRule("g", cost=reserved, final_cost=nonsense(cost)))
        if count + reserved > quota:
            assert status == 429
        else:
            assert status == 200
            count = count + reserved if cost is None else min(quota, count + cost)
        assert used(limiter) == count
