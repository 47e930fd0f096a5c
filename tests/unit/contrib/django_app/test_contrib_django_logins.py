"""Limits of failed sign-ins for Django's own login."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from queue import Queue
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from contrib_django_site import Site, project

import django.contrib.auth  # isort: skip
from django.contrib.auth import authenticate, get_user_model, login  # isort: skip
from django.core import mail
from django.core.management import call_command
from django.http import HttpResponse
from django.test import RequestFactory

from mks_hardening.contrib.django_app.login_limits import login_attempts, unlock_login
from mks_hardening.events import SignInEvent, add_observer, remove_observer
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError
from mks_hardening.security import SIGN_IN_LIMITS, RateLimiter
from mks_hardening.testing import FrozenClock, call_wsgi

OURS = "mks_hardening.contrib.django_app.login_limits.LoginLimitBackend"
DJANGO = "django.contrib.auth.backends.ModelBackend"
CHECKS = f"{__name__}.Checks"
aauthenticate: Any = getattr(django.contrib.auth, "aauthenticate", None)
asynchronous = pytest.mark.skipif(aauthenticate is None, reason="Django before 5.0 has no aauthenticate")
RIGHT = "long enough for all"


@pytest.fixture(autouse=True, scope="module")
def database() -> None:
    call_command("migrate", verbosity=0)


@pytest.fixture(autouse=True)
def user() -> Iterator[Any]:
    model = get_user_model()
    made = model.objects.create_user("alice", password=RIGHT)
    model.objects.create_user("bob", password=RIGHT)
    yield made
    model.objects.all().delete()


class Checks:
    """A backend without a database."""

    def authenticate(self, request: object, username: str, password: str) -> Any:
        return SimpleNamespace(pk=7, backend="") if password == RIGHT else None

    async def aauthenticate(self, request: object, username: str, password: str) -> Any:
        return self.authenticate(request, username, password)


class Logins:
    """A project with a login view, visited from any address."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cookies: dict[str, str] = {}
        self.seen: list[Any] = []

    def view(self, request: Any) -> HttpResponse:
        found = authenticate(request, **self.credentials)
        self.seen.append(request.login_retry_after)
        if found is None:
            return HttpResponse("the form, with an error", status=self.status)
        login(request, found)
        return HttpResponse("welcome")

    def attempt(
        self,
        name: Any = "alice",
        password: str = "wrong",
        *,
        address: str = "192.0.2.1",
        cookies: dict[str, str] | None = None,
        status: int = 200,
        scheme: str = "http",
    ) -> Any:
        self.credentials, self.status = {"username": name, "password": password}, status
        self.site.do = self.view
        headers = {"Host": "localhost"}
        if cookies:
            headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in cookies.items())
        environ = {"REMOTE_ADDR": address, "wsgi.url_scheme": scheme}
        return call_wsgi(self.site.app, "/", headers=headers, environ=environ)

    def statuses(self, number: int, *args: Any, **options: Any) -> list[int]:
        return [self.attempt(*args, **options).status for _ in range(number)]


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def logins(clock: FrozenClock) -> Iterator[Logins]:
    limiter = RateLimiter({**SIGN_IN_LIMITS}, clock=clock)
    with project(AUTHENTICATION_BACKENDS=[OURS, DJANGO], MKS_HARDENING={"limiter": limiter}) as site:
        yield Logins(site)


@pytest.fixture
def events() -> Iterator[list[SignInEvent]]:
    found: list[SignInEvent] = []

    def note(event: object) -> None:
        if isinstance(event, SignInEvent):
            found.append(event)

    add_observer(note)
    yield found
    remove_observer(note)


def device_cookie(response: Any) -> dict[str, str]:
    (line,) = [
        value for name, value in response.headers if name == "Set-Cookie" and "mks_login_device" in value
    ]
    name, _, rest = line.partition("=")
    return {name.strip(): rest.partition(";")[0]}


def test_wrong_passwords_of_one_client_are_limited(logins: Logins, clock: FrozenClock) -> None:
    assert logins.statuses(7) == [200] * 5 + [429] * 2
    refused = logins.attempt()
    assert int(refused.header("Retry-After")) == logins.seen[-1] == 60
    assert refused.body == b"the form, with an error"
    # Correct credentials do not get past the limit; other clients and other names do.
    assert logins.attempt(password=RIGHT).status == 429
    assert logins.attempt(password=RIGHT, address="198.51.100.7").body == b"welcome"
    assert logins.attempt("bob", RIGHT).body == b"welcome"
    clock.advance(61)
    assert logins.attempt(password=RIGHT).body == b"welcome"
    assert logins.seen[-1] is None


@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_a_refusal_is_429_whatever_the_view_sent(logins: Logins, status: int) -> None:
    assert logins.statuses(6, status=status) == [status] * 5 + [429]
    assert logins.attempt(status=503).status == 503


def test_right_credentials_are_not_counted(logins: Logins) -> None:
    assert logins.statuses(100, password=RIGHT) == [200] * 100
    assert logins.statuses(6) == [200] * 5 + [429]


@pytest.mark.parametrize(
    "name", ["ALICE", " alice ", "\uff41lice", "alice", "\xe0li\u0301ce", "al\u0131ce", "a\u200bli\xadce"]
)
def test_spellings_of_a_name_share_a_limit(logins: Logins, name: str) -> None:
    logins.statuses(5)
    assert logins.attempt(name).status == 429


@pytest.mark.parametrize("name", ["nobody", "", "x" * 400, "a\ud800", 7, ["a"], "nul\0"])
def test_names_without_an_account_are_counted_as_well(logins: Logins, name: Any) -> None:
    assert logins.statuses(6, name)[-1] == 429


def test_credentials_without_a_name_are_not_counted(logins: Logins) -> None:
    def view(request: Any) -> HttpResponse:
        return HttpResponse(str(authenticate(request, token="t")))

    assert {logins.site.visit(view).body for _ in range(100)} == {b"None"}


@pytest.mark.parametrize(
    ("field", "credentials"),
    [
        ("username", {"email": "alice@example.org"}),  # as django-allauth calls it
        ("username", {"code": "{}", "email": "alice@example.org"}),
        ("username", {"phone": "+81 3 1234 5678"}),
        ("email", {"email": "alice"}),
        ("email", {"username": "alice", "email": None}),
        (
            "email",
            {"username": "alice", "email": "{}"},
        ),  # another for each attempt; the backend looks up the first
    ],
)
def test_whatever_names_the_user_beside_a_password_is_counted(
    monkeypatch: pytest.MonkeyPatch, field: str, credentials: dict[str, Any]
) -> None:
    monkeypatch.setattr(get_user_model(), "USERNAME_FIELD", field)

    numbers = count()

    def view(request: Any) -> HttpResponse:
        number = next(numbers)
        given = {key: value and value.format(number) for key, value in credentials.items()}
        authenticate(request, **given, password="wrong")
        return HttpResponse("")

    with project(AUTHENTICATION_BACKENDS=[OURS, DJANGO]) as site:
        assert [site.visit(view).status for _ in range(6)] == [200] * 5 + [429]


def test_many_addresses_are_limited_together(logins: Logins) -> None:
    addresses = [f"192.0.{network}.{host}" for network in range(10) for host in range(10)]
    assert [logins.attempt(address=address).status for address in addresses].count(429) == 50


def test_a_browser_that_has_signed_in_cannot_be_locked_out(logins: Logins) -> None:
    cookie = device_cookie(logins.attempt(password=RIGHT))
    for network in range(60):
        logins.attempt(address=f"10.0.{network}.1")
    assert logins.attempt(password=RIGHT).status == 429
    answer = logins.attempt(password=RIGHT, cookies=cookie)
    assert answer.body == b"welcome"
    assert "mks_login_device" not in str(answer.headers)  # it still has one
    # It has a limit of its own, and its cookie is worth nothing for another name.
    assert logins.statuses(11, cookies=cookie) == [200] * 10 + [429]
    logins.statuses(5, "bob")
    assert logins.attempt("bob", RIGHT, cookies=cookie).status == 429


def test_a_browser_is_remembered_for_one_spelling_of_a_name(logins: Logins) -> None:
    """Django's names are case-sensitive, so that another account can have another spelling."""
    get_user_model().objects.create_user("ALICE", password=RIGHT)
    cookie = device_cookie(logins.attempt("ALICE", RIGHT))
    logins.statuses(5)
    assert logins.attempt(password=RIGHT, cookies=cookie).status == 429
    assert logins.attempt("ALICE", RIGHT, cookies=cookie).status == 200


@pytest.mark.parametrize("forged", ["", "x", "alice", "WyJhbGljZSIsIngiXQ:1u:x"])
def test_a_forged_cookie_is_no_device(logins: Logins, forged: str) -> None:
    logins.statuses(5)
    assert logins.attempt(password=RIGHT, cookies={"mks_login_device": forged}).status == 429


def test_the_cookie_is_for_this_host_and_not_for_scripts(logins: Logins) -> None:
    plain = str(logins.attempt(password=RIGHT).headers)
    assert "HttpOnly" in plain
    assert "SameSite=Lax" in plain
    secure = logins.attempt(password=RIGHT, scheme="https")
    (line,) = [
        value for name, value in secure.headers if name == "Set-Cookie" and "mks_login_device" in value
    ]
    assert line.strip().startswith("__Host-mks_login_device=")
    assert "Secure" in line
    assert "Path=/" in line


def test_parallel_guesses_do_not_exceed_a_limit() -> None:
    reached, done, go = [], Queue[int](), Event()

    def check(request: object, username: str, password: str) -> None:
        reached.append(username)
        go.wait(30)

    with (
        patch.object(Checks, "authenticate", staticmethod(check)),
        project(AUTHENTICATION_BACKENDS=[OURS, CHECKS]) as site,
        ThreadPoolExecutor(20) as pool,
    ):
        logins = Logins(site)
        waiting = [pool.submit(logins.attempt) for _ in range(20)]
        for each in waiting:
            each.add_done_callback(lambda each: done.put(each.result().status))
        assert [done.get(timeout=30) for _ in range(15)] == [429] * 15
        go.set()
        assert [done.get(timeout=30) for _ in range(5)] == [200] * 5
    assert len(reached) == 5


def test_every_attempt_is_recorded(logins: Logins, user: Any, events: list[SignInEvent]) -> None:
    logins.statuses(6)
    logins.attempt("bob", RIGHT)
    assert [(event.change, event.reason) for event in events] == [
        *[("refused", "wrong")] * 5,
        ("limited", ""),
        ("signed_in", ""),
    ]
    assert {event.client for event in events} == {"192.0.2.1"}
    assert "alice" not in str(events)


def test_two_attempts_in_one_request_count_one_by_one(logins: Logins) -> None:
    """A view that tries two names: one is wrong and one right."""

    def view(request: Any) -> HttpResponse:
        first = authenticate(request, username="alice", password="wrong")
        second = authenticate(request, username="bob", password=RIGHT)
        return HttpResponse(f"{first} {second}")

    assert {logins.site.visit(view).body for _ in range(5)} == {b"None bob"}
    assert logins.statuses(1, address="127.0.0.1") == [429]
    assert logins.attempt("bob", address="127.0.0.1").status == 200


def test_a_refused_attempt_does_not_blame_the_one_before_it(logins: Logins) -> None:
    logins.statuses(5, address="127.0.0.1")

    def view(request: Any) -> HttpResponse:
        authenticate(request, username="bob", password=RIGHT)
        authenticate(request, username="alice", password="wrong")
        return HttpResponse("")

    assert {logins.site.visit(view).status for _ in range(9)} == {429}
    assert logins.statuses(6, "bob", address="127.0.0.1") == [200] * 5 + [429]


def test_a_sign_in_after_a_refused_attempt_is_no_429(logins: Logins) -> None:
    """A view that tries the input as a name and then as an e-mail address."""
    logins.statuses(5, address="127.0.0.1")

    def view(request: Any) -> HttpResponse:
        found = authenticate(request, username="alice", password=RIGHT)
        found = found or authenticate(request, username="bob", password=RIGHT)
        login(request, found)
        return HttpResponse("welcome")

    answer = logins.site.visit(view)
    assert (answer.status, answer.body) == (200, b"welcome")


def test_a_browser_is_not_remembered_for_a_name_that_it_guessed(logins: Logins, user: Any) -> None:
    """A view that registers a user, and signs in without credentials, after a wrong guess."""

    def view(request: Any) -> HttpResponse:
        assert authenticate(request, username="alice", password="wrong") is None
        login(request, get_user_model().objects.get(username="bob"), backend=DJANGO)
        return HttpResponse("welcome")

    answer = logins.site.visit(view)
    assert answer.body == b"welcome"
    assert "mks_login_device" not in str(answer.headers)


@asynchronous
def test_guesses_at_the_same_time_in_one_request_are_all_counted() -> None:
    request: Any = RequestFactory().post("/")

    async def check(request: object, username: str, password: str) -> None:
        await asyncio.sleep(0)  # the others begin

    async def guess(number: int) -> list[Any]:
        guesses = (aauthenticate(request, username="alice", password="wrong") for _ in range(number))
        return await asyncio.gather(*guesses)

    with (
        patch.object(Checks, "aauthenticate", staticmethod(check)),
        project(AUTHENTICATION_BACKENDS=[OURS, CHECKS]),
    ):
        asyncio.run(guess(4))
        attempts = login_attempts(request)
        assert attempts is not None
        attempts.finish(request, HttpResponse(""))
        asyncio.run(guess(2))
        assert attempts.is_refused


@asynchronous
def test_asyncio() -> None:
    async def attempt(password: str) -> tuple[bool, int]:
        request: Any = RequestFactory().post("/")
        found = await aauthenticate(request, username="alice", password=password)
        response = HttpResponse("")
        attempts = login_attempts(request)
        assert attempts is not None
        await asyncio.to_thread(attempts.finish, request, response)
        return found is not None, response.status_code

    async def attempts() -> list[tuple[bool, int]]:
        return [await attempt(password) for password in [*[RIGHT] * 9, *["wrong"] * 6, RIGHT]]

    with project(AUTHENTICATION_BACKENDS=[OURS, CHECKS]):
        assert asyncio.run(attempts()) == [(True, 200)] * 9 + [(False, 200)] * 5 + [(False, 429)] * 2


@pytest.mark.parametrize("command", [True, False], ids=["command", "function"])
@pytest.mark.parametrize("address", [None, "192.0.2.1"])
def test_a_name_is_unlocked(logins: Logins, command: bool, address: str | None) -> None:
    for network in range(10):
        logins.statuses(5, address=f"192.0.{network}.1")
    assert logins.attempt(password=RIGHT, address="203.0.113.1").status == 429
    if command:
        call_command("unlock_login", "Alice", address=address)
    else:
        unlock_login("Alice", address=address)
    assert logins.attempt(password=RIGHT, address="203.0.113.1").body == b"welcome"
    assert logins.attempt(password=RIGHT).status == (200 if address else 429)


def test_an_outage_is_a_503_and_signs_nobody_in() -> None:
    limiter = RateLimiter({**SIGN_IN_LIMITS})

    def fail(*_: object, **__: object) -> Any:
        raise BackendUnavailableError("limits", "no response")

    with project(AUTHENTICATION_BACKENDS=[OURS, DJANGO], MKS_HARDENING={"limiter": limiter}) as site:
        logins = Logins(site)
        limiter.reserve = fail  # type: ignore[method-assign]
        assert logins.attempt(password=RIGHT).status == 503


def test_an_outage_after_the_check_signs_in() -> None:
    limiter = RateLimiter({**SIGN_IN_LIMITS})
    with project(AUTHENTICATION_BACKENDS=[OURS, DJANGO], MKS_HARDENING={"limiter": limiter}) as site:
        logins = Logins(site)
        inner = limiter.reserve

        def reserve(*args: Any, **options: Any) -> Any:
            made = inner(*args, **options)
            return type("Made", (), {"decision": made.decision, "cancel": fail})()

        def fail(_: object) -> None:
            raise BackendUnavailableError("limits", "no response")

        limiter.reserve = reserve  # type: ignore[method-assign]
        assert logins.attempt(password=RIGHT).body == b"welcome"


def test_an_attempt_without_a_request_is_an_error_except_in_tests(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "outbox", [], raising=False)  # as Django's test runner does
    client = logins.site.client()
    assert client.login(username="alice", password=RIGHT)
    monkeypatch.delattr(mail, "outbox")
    with pytest.raises(ConfigurationError, match="authenticate\\(request"):
        authenticate(username="alice", password=RIGHT)


def test_the_admin_login_of_django_is_limited(logins: Logins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "outbox", [], raising=False)  # as Django's test runner does
    client = logins.site.client()
    form = {"username": "alice", "password": "wrong"}
    statuses = [client.post("/admin/login/", form).status_code for _ in range(7)]
    assert statuses == [200] * 5 + [429] * 2


def test_own_groups_replace_those_of_the_backend() -> None:
    groups = {"auth_login": "2 per minute"}
    with project(AUTHENTICATION_BACKENDS=[OURS, DJANGO], MKS_HARDENING={"groups": groups}) as site:
        assert Logins(site).statuses(3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("backends", "options", "part"),
    [
        ([DJANGO, OURS], dict, "must begin with"),
        ([OURS], dict, "must begin with"),
        ([OURS, DJANGO], lambda: {"limiter": RateLimiter({"other": "1 per minute"})}, "auth_login"),
    ],
)
def test_a_wrong_set_up_is_found(
    backends: list[str], options: Callable[[], dict[str, Any]], part: str
) -> None:
    with (
        pytest.raises(ConfigurationError, match=f"E008.*{part}"),
        project(AUTHENTICATION_BACKENDS=backends, MKS_HARDENING=options()),
    ):
        pass


def test_without_the_backend_nothing_changes() -> None:
    with project(AUTHENTICATION_BACKENDS=[DJANGO]) as site:
        assert Logins(site).statuses(20) == [200] * 20
