"""The Django adapter: session, sign-in, limits, cache, checks."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest

from contrib_django_site import MIDDLEWARE, Site, project

from django.contrib import messages  # isort: skip
from django.contrib.auth import authenticate, get_user_model, login, logout, update_session_auth_hash
from django.core import checks, mail
from django.core.cache import caches
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.signals import request_finished
from django.http import HttpResponse, StreamingHttpResponse
from django.template import engines
from django.test.utils import override_settings
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from mks_hardening._core import hooks
from mks_hardening.contrib.django_app import hardened, limit, logging_config
from mks_hardening.contrib.django_app._components import components
from mks_hardening.contrib.django_app.cache import HardenedCache
from mks_hardening.events import RequestRefused, add_observer, remove_observer
from mks_hardening.exceptions import (
    BackendUnavailableError,
    ConfigurationError,
    EncodeError,
    RateLimitExceededError,
)
from mks_hardening.security import ConcurrencyLimiter, RateLimiter
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import HeaderPolicy, MemorySessionStore

Do = Callable[[Any], Any]


@pytest.fixture(autouse=True, scope="module")
def database() -> None:
    call_command("migrate", verbosity=0)


@pytest.fixture
def user() -> Iterator[Any]:
    model = get_user_model()
    made = model.objects.create_superuser("alice", password="long enough for all")
    yield made
    model.objects.all().delete()


@pytest.fixture
def site() -> Iterator[Site]:
    with project() as found:
        yield found


def put(**values: Any) -> Do:
    return lambda request: request.session.update(values)


def look(site: Site, **how: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def view(request: Any) -> None:
        found.update(request.session.items(), user=request.environ["mks_hardening.session"].user_id)

    site.visit(view, **how)
    return found


def signed_in(site: Site, user: Any) -> None:
    site.visit(lambda request: login(request, user))


# --- what is kept


def test_data_of_visitors_and_of_users_is_kept(site: Site) -> None:
    site.visit(put(basket=["helmet"], nothing=None))
    assert look(site) == {"user": None, "basket": ["helmet"], "nothing": None}

    def append(request: Any) -> None:
        request.session["basket"].append("gloves")
        request.session.modified = True

    site.visit(append)
    assert look(site)["basket"] == ["helmet", "gloves"]
    site.visit(lambda request: request.session.pop("nothing"))
    assert look(site) == {"user": None, "basket": ["helmet", "gloves"]}


def test_reading_sets_nothing_and_a_page_without_session_varies_by_nothing(site: Site) -> None:
    site.visit(put(x=1))
    read = site.visit(lambda request: request.session["x"])
    assert (read.header("Set-Cookie"), read.header("Vary")) == (None, "Cookie")
    assert site.visit(lambda request: None).header("Vary") is None


def test_what_is_no_data_is_told_by_name(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert site.visit(put(x=Decimal(1))).status == 500
    assert "request.session['x'] cannot be kept (Object of type Decimal" in caplog.text


def test_messages_come_once(site: Site) -> None:
    with override_settings(MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage"):
        site.visit(lambda request: messages.error(request, "wrong password"))
        heads: list[str] = []
        for _ in range(2):
            site.visit(lambda request: heads.extend(str(each) for each in messages.get_messages(request)))
    assert heads == ["wrong password"]


# --- who is signed in


def test_signing_in_gives_a_new_id_and_signing_out_ends_it_on_the_server(site: Site, user: Any) -> None:
    site.visit(put(basket=1))
    planted = dict(site.cookies)
    signed_in(site, user)
    assert site.cookies["mks-session"] != planted["mks-session"]
    found = look(site)
    assert (found["user"], found["basket"]) == (str(user.pk), 1)
    assert look(site, cookies=planted)["user"] is None
    assert [record.user_id for record in site.sessions.sessions(str(user.pk))] == [str(user.pk)]
    stolen = dict(site.cookies)
    site.visit(logout)
    assert site.cookie is None
    assert site.visit(lambda request: None, cookies=stolen).status == 401


def test_another_user_is_another_session(site: Site, user: Any) -> None:
    bob = get_user_model().objects.create_user("bob")
    signed_in(site, user)
    first = dict(site.cookies)
    signed_in(site, bob)
    assert look(site)["user"] == str(bob.pk)
    assert site.visit(lambda request: None, cookies=first).status == 401


def test_a_new_password_gives_a_new_id_and_keeps_who_is_signed_in(site: Site, user: Any) -> None:
    signed_in(site, user)
    site.visit(put(basket=1))
    before = site.cookie

    def change(request: Any) -> None:
        request.user.set_password("another one, as long")
        request.user.save()
        update_session_auth_hash(request, request.user)

    site.visit(change)
    assert site.cookie != before
    assert (look(site)["user"], look(site)["basket"]) == (str(user.pk), 1)
    assert site.visit(lambda request: request.user.is_authenticated).body == b"True"


def test_limits_by_time_hold(site: Site, user: Any) -> None:
    signed_in(site, user)
    site.clock.advance(1800)
    assert site.visit(lambda request: None).status == 401
    site.visit(put(basket=1))
    site.clock.advance(1800)
    assert look(site) == {"user": None}


def test_who_has_to_sign_in_again_is_sent_to_the_login_url(user: Any) -> None:
    with project(LOGIN_URL="/admin/login/") as site:
        signed_in(site, user)
        site.clock.advance(1800)
        answer = site.visit(lambda request: None, path="/item/7", headers={"Accept": "text/html"})
        assert (answer.status, answer.header("Location")) == (303, "/admin/login/?next=%2Fitem%2F7")


@pytest.mark.parametrize("debug", [False, True])
def test_the_admin_site_signs_in_and_out(user: Any, debug: bool) -> None:
    with project(DEBUG=debug, LOGIN_URL="/admin/login/") as site:
        page = site.ask("/admin/login/")
        token = site.cookies["csrftoken"]
        assert page.status == 200
        assert b"csrfmiddlewaretoken" in page.body
        form = f"username=alice&password=long+enough+for+all&next=/admin/&csrfmiddlewaretoken={token}"
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://localhost"}
        answer = site.ask("/admin/login/", method="POST", body=form.encode(), headers=headers)
        assert (answer.status, answer.header("Location")) == (302, "/admin/")
        assert [name for name in site.cookies if name != "csrftoken"] == ["mks-session"]
        assert b"Log out" in site.ask("/admin/").body
        stolen = dict(site.cookies)
        form = f"csrfmiddlewaretoken={site.cookies['csrftoken']}"
        assert site.ask("/admin/logout/", method="POST", body=form.encode(), headers=headers).status == 200
        assert site.ask("/admin/", cookies=stolen).status == 401
        foreign = {**headers, "Origin": "https://evil.example"}
        assert site.ask("/admin/login/", method="POST", body=b"", headers=foreign).status == 403


# --- the cookie


def test_the_cookie_lives_as_long_as_django_says_but_not_longer_than_the_session(
    site: Site, user: Any
) -> None:
    def heads(do: Do) -> str:
        fields = [value for name, value in site.visit(do).headers if name == "Set-Cookie"]
        return next(field for field in fields if field.startswith("mks-session="))

    assert "Max-Age=28800;" in heads(lambda request: login(request, user))
    assert "Max-Age=300;" in heads(lambda request: request.session.set_expiry(300))
    assert "Max-Age" not in heads(lambda request: request.session.set_expiry(0))


# --- Django's own tools


def test_djangos_test_client_signs_in_and_has_a_session(site: Site, user: Any) -> None:
    mail.outbox = []  # as Django's test runner does
    try:
        client = site.client()
        client.force_login(user)
        site.do = lambda request: f"{request.user} {request.session.get('x')} {request.request_id}"
        assert client.get("/").content == b"alice None None"
        kept = client.session
        kept["x"] = 1
        kept.save()
        assert client.get("/").content == b"alice 1 None"
        assert client.login(username="alice", password="long enough for all")
        client.logout()
        assert client.get("/").content == b"AnonymousUser None None"
    finally:
        del mail.outbox


def test_a_session_can_be_opened_by_its_key(site: Site, user: Any) -> None:
    signed_in(site, user)
    store = site.visit(lambda request: request.session.session_key).body.decode()
    assert store == site.cookie
    engine = __import__("importlib").import_module("mks_hardening.contrib.django_app.sessions").SessionStore
    assert engine().exists(store)
    assert engine(store)["_auth_user_id"] == str(user.pk)
    engine().delete(store)
    assert not engine().exists(store)
    fresh = engine()
    fresh.create()
    assert engine().exists(fresh.session_key)
    engine.clear_expired()


# --- crossings


def test_requests_at_the_same_time_keep_what_each_other_changed(site: Site) -> None:
    site.visit(put(start=1))
    barrier = threading.Barrier(5)

    def change(number: int) -> None:
        barrier.wait()
        site.ask(f"/item/{number}", cookies=dict(site.cookies))

    def view(request: Any) -> None:
        request.session[f"n{request.resolver_match.kwargs['n']}"] = 1

    site.do = view
    threads = [threading.Thread(target=change, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(look(site)) == {"user", "start", *(f"n{number}" for number in range(5))}


def test_a_session_that_ended_while_a_request_was_under_way_is_told(site: Site, user: Any) -> None:
    signed_in(site, user)

    def slow(request: Any) -> None:
        request.session["late"] = 1
        site.sessions.end_user(str(user.pk))

    assert site.visit(slow).status == 400
    assert site.sessions.sessions(str(user.pk)) == []


def test_a_request_under_way_while_the_id_changes_undoes_nothing(site: Site, user: Any) -> None:
    signed_in(site, user)
    old = dict(site.cookies)

    def slow(request: Any) -> str:
        request.session["late"] = 1
        site.visit(lambda inner: (inner.session.cycle_key(), inner.session.update({"factor": 2})))
        return "done"

    answer = site.visit(slow, cookies=old)
    assert (answer.status, answer.body, answer.header("Set-Cookie")) == (200, b"done", None)
    assert "late" not in look(site)
    assert look(site)["factor"] == 2


class AwayStore(MemorySessionStore):
    """Answers until the test says otherwise."""

    __slots__ = ("away",)

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    def create(self, *arguments: Any, **options: Any) -> Any:
        self._here()
        return super().create(*arguments, **options)

    def update(self, *arguments: Any, **options: Any) -> Any:
        self._here()
        return super().update(*arguments, **options)

    def _here(self) -> None:
        if self.away:
            raise BackendUnavailableError("sessions", "refused", operation="create", retry_after=7)


@pytest.mark.parametrize("known", [False, True])
def test_an_outage_answers_503_and_keeps_the_cookie(known: bool) -> None:
    with project(AwayStore()) as site:
        if known:
            site.visit(put(x=1))
        before = dict(site.cookies)
        site.store.away = True

        def view(request: Any) -> StreamingHttpResponse:
            request.session["y"] = 1
            return StreamingHttpResponse(iter([b"well"]))

        finished = list[int]()

        def ended(**_: Any) -> None:
            finished.append(1)

        request_finished.connect(ended)
        answer = site.visit(view)
        request_finished.disconnect(ended)
        assert finished == [1]
        assert (answer.status, answer.header("Retry-After"), answer.header("Set-Cookie")) == (503, "7", None)
        assert site.cookies == before


def test_an_outage_inside_a_view_is_a_503(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mks_hardening.request")

    def view(request: Any) -> None:
        raise BackendUnavailableError("cache", "refused", operation="get", retry_after=3)

    answer = site.visit(view)
    assert (answer.status, answer.header("Retry-After")) == (503, "3")
    assert "application rule backend (cache is unavailable (refused) during get)" in caplog.messages[-1]


def test_a_stream_reads_the_session(site: Site) -> None:
    site.visit(put(x=7))
    answer = site.visit(lambda request: StreamingHttpResponse(str(request.session["x"]) for _ in range(3)))
    assert answer.body == b"777"


# --- the request at hand


def test_requests_know_origin_id_and_route(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mks_hardening.request")
    policy = HeaderPolicy.web(csp=HeaderPolicy.strict().csp)
    with project(MKS_HARDENING={"headers": policy}) as site:
        template = engines["django"].from_string("{{ csp_nonce }} {{ current_csrf_token }} {{ request_id }}")
        seen: list[Any] = []

        def view(request: Any) -> HttpResponse:
            seen.append(request.origin)
            return HttpResponse(template.render({}, request))

        answer = site.visit(view, path="/item/7")
    nonce, token, request_id = answer.body.decode().split()
    assert f"'nonce-{nonce}'" in answer.header("Content-Security-Policy")
    assert (len(token), request_id) == (64, answer.header("X-Request-ID"))
    assert seen[0].client_ip == "127.0.0.1"
    record = next(record for record in caplog.records if record.name == "mks_hardening.request")
    assert vars(record)["route"] == "/item/<int:n>"


def test_the_record_names_the_user(site: Site, user: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mks_hardening.request")
    site.visit(lambda request: None)
    signed_in(site, user)
    site.visit(lambda request: None)
    site.visit(logout)
    site.visit(lambda request: None)
    said = [vars(record) for record in caplog.records if record.name == "mks_hardening.request"]
    assert [one.get("user_id") for one in said] == [None, str(user.pk), str(user.pk), str(user.pk), None]


# --- limits


def test_beyond_the_limit_is_429(user: Any) -> None:
    events: list[Any] = []
    add_observer(events.append)
    try:
        with project(MKS_HARDENING={"groups": {"few": "2 per minute"}}) as site:
            view = limit("few")(lambda request: HttpResponse("ok"))
            first, _, third = (site.visit(view) for _ in range(3))
            signed_in(site, user)
            fourth = site.visit(view)
    finally:
        remove_observer(events.append)
    assert (first.status, first.header("X-RateLimit-Remaining")) == (200, "1")
    assert (third.status, third.header("Retry-After"), json.loads(third.body)["status"]) == (429, "60", 429)
    assert fourth.status == 200
    assert RequestRefused("rate_limit", "few", "127.0.0.1") in events


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"exempt": lambda request: True}, [200, 200, 200]),
        ({"key": lambda request: None}, [200, 200, 200]),
        ({"key": lambda request: "all", "cost": 2}, [200, 429, 429]),
        ({"key": lambda request: 7}, [200, 200, 429]),
        ({"key": lambda request: [7]}, [200, 200, 429]),
        ({"methods": ["post"]}, [200, 200, 200]),
        ({"methods": ["get"]}, [200, 200, 429]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_who_is_counted_and_what_it_costs(how: dict[str, Any], expected: list[int]) -> None:
    with project(MKS_HARDENING={"groups": {"few": "2 per minute"}}) as site:
        view = limit("few", **how)(lambda request: HttpResponse("ok"))
        assert [site.visit(view).status for _ in range(3)] == expected


def test_class_based_views_and_services_can_be_limited() -> None:
    limiter = RateLimiter({"few": "1 per minute"})
    with project(MKS_HARDENING={"limiter": limiter}) as site:

        @method_decorator(limit("few"), name="dispatch")
        class Page(View):
            def get(self, request: Any) -> HttpResponse:
                return HttpResponse("ok", headers={"X-RateLimit-Limit": "own"})

        page = Page.as_view()
        answers = [site.visit(page) for _ in range(2)]
        assert [answer.status for answer in answers] == [200, 429]
        assert answers[0].header("X-RateLimit-Limit") == "own"
        work = limiter.limit("few", key=lambda: "all")(lambda: "done")
        assert site.visit(lambda request: work()).body == b"done"
        refused = site.visit(lambda request: work())
        assert (refused.status, refused.header("Retry-After")) == (429, "60")
        assert RateLimitExceededError.__name__.encode() not in refused.body


def test_slots_and_turns_that_are_taken_are_a_503(site: Site) -> None:
    slots = ConcurrencyLimiter({"export": 1})
    limiter = RateLimiter({"mail": "1 per minute"}, clock=FrozenClock())

    @slots.limit("export", key=lambda request: "u")
    def export(request: Any) -> HttpResponse:
        return HttpResponse(f"{slots.held('export', 'u')} held")

    def mail(request: Any) -> HttpResponse:
        return HttpResponse(f"{limiter.pace('mail', timeout=20).wait():.0f}")

    with slots.hold("export", "u"):
        answer = site.visit(export)
        assert (answer.status, answer.header("Content-Type")) == (503, "application/problem+json")
        assert int(answer.header("Retry-After") or 0) >= 1
    assert [site.visit(export).body for _ in range(3)] == [b"1 held"] * 3
    assert site.visit(mail).body == b"0"
    answer = site.visit(mail)
    assert (answer.status, answer.header("Retry-After")) == (503, "40")


# --- bad use


def found(**settings: Any) -> list[str]:
    usual = {"SECRET_KEY": "x" * 60 + "y1", **settings}
    with override_settings(**usual):
        return [each.id for each in checks.run_checks(tags=["security"]) if each.id.startswith("mks_")]


@pytest.fixture
def sound(site: Site) -> None:
    """The project of the tests, as it should be."""


THEIRS = "django.contrib.sessions.middleware.SessionMiddleware"
CASES: list[tuple[dict[str, Any], str]] = [
    ({"MIDDLEWARE": MIDDLEWARE[1:]}, "E001"),
    ({"MIDDLEWARE": [MIDDLEWARE[0], *MIDDLEWARE]}, "E002"),
    ({"MIDDLEWARE": [THEIRS, *MIDDLEWARE]}, "E002"),
    ({"MIDDLEWARE": [*MIDDLEWARE[1:], MIDDLEWARE[0]]}, "E003"),
    ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, "E004"),
    ({"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}, "E005"),
    ({"USE_X_FORWARDED_HOST": True}, "E005"),
    ({"MKS_HARDENING": {"settings": HardeningSettings()}, "ALLOWED_HOSTS": []}, "E006"),
    ({"MIDDLEWARE": ["django.middleware.security.SecurityMiddleware", *MIDDLEWARE]}, "W001"),
    ({"MIDDLEWARE": [*MIDDLEWARE, "django.middleware.clickjacking.XFrameOptionsMiddleware"]}, "W002"),
    ({"SESSION_COOKIE_NAME": "mine"}, "W003"),
    ({"SESSION_SERIALIZER": "a.PickleSerializer"}, "W004"),
]


@pytest.mark.parametrize(
    ("settings", "expected"), CASES, ids=[f"{name}-{next(iter(how))}" for how, name in CASES]
)
def test_the_system_checks_find_it(sound: None, settings: dict[str, Any], expected: str) -> None:
    assert found() == []
    assert found(**settings) == [f"mks_hardening.{expected}"]
    if expected.startswith("E"):
        with override_settings(**settings), pytest.raises(ConfigurationError, match=expected):
            hardened(application)


def test_security_middleware_that_sends_nothing_is_no_double(sound: None) -> None:
    quiet = {
        "SECURE_CONTENT_TYPE_NOSNIFF": False,
        "SECURE_REFERRER_POLICY": None,
        "SECURE_CROSS_ORIGIN_OPENER_POLICY": None,
    }
    assert found(MIDDLEWARE=["django.middleware.security.SecurityMiddleware", *MIDDLEWARE], **quiet) == []


def test_a_limit_without_its_group_is_found_at_start(sound: None) -> None:
    @method_decorator(limit("nope"), name="dispatch")
    class Page(View):
        """Says nothing."""

    inner = path("inner/", include(([path("page", csrf_exempt(Page.as_view()))], "app")))
    with override_settings(ROOT_URLCONF=type("Urls", (), {"urlpatterns": [inner]})):
        assert found() == ["mks_hardening.E007"]
        with pytest.raises(
            ConfigurationError, match=r"view page: .*MKS_HARDENING = \{'groups': \{'nope': '5 per"
        ):
            hardened(WSGIHandler())
    with pytest.raises(ConfigurationError, match=r'@limit\("auth_login"\)'):
        limit("")


def application(environ: Any, start_response: Any) -> list[bytes]:
    return []


@pytest.mark.parametrize("is_hardened", [False, True])
def test_deploy_checks_look_at_the_application(
    site: Site, is_hardened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "application", site.app if is_hardened else application)
    with override_settings(WSGI_APPLICATION=f"{__name__}.application"):
        monkeypatch.setitem(
            __import__("sys").modules, __name__, __import__("types").SimpleNamespace(**globals())
        )
        ids = {
            each.id
            for each in checks.run_checks(include_deployment_checks=True)
            if each.id.startswith("mks_")
        }
    assert ids == {
        "mks_hardening.W006",
        "mks_hardening.W007",
        *([] if is_hardened else ["mks_hardening.W005"]),
    }


@pytest.mark.usefixtures("site")
def test_deploy_checks_name_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    found = [
        each for each in checks.run_checks(include_deployment_checks=True) if each.id == "mks_hardening.I001"
    ]
    assert [(each.level, each.msg) for each in found] == [
        (
            checks.INFO,
            "mks-check is not installed; it comes with the extra 'check': pip install 'mks-hardening[check]'",
        )
    ]


def test_deploy_checks_report_what_makes_the_application_refuse_to_start(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(ModuleType):
        @property
        def application(self) -> Any:
            return hardened(WSGIHandler())

    monkeypatch.setitem(sys.modules, "refusing", Refusing("refusing"))
    refused = {"MKS_HARDENING": {"settings": HardeningSettings()}, "ALLOWED_HOSTS": []}
    with override_settings(WSGI_APPLICATION="refusing.application", **refused):
        reported = [
            each.id
            for each in checks.run_checks(include_deployment_checks=True)
            if each.id.startswith("mks_") and each.level >= checks.ERROR
        ]
    assert reported == ["mks_hardening.E006"]

    class Broken(ModuleType):
        @property
        def application(self) -> Any:
            raise ConfigurationError("level must be the name of a level")

    monkeypatch.setitem(sys.modules, "refusing", Broken("refusing"))
    with override_settings(WSGI_APPLICATION="refusing.application"):
        reported = [
            each.msg
            for each in checks.run_checks(include_deployment_checks=True)
            if each.id == "mks_hardening.E006"
        ]
    assert reported == ["WSGI_APPLICATION refusing.application: level must be the name of a level"]


@pytest.mark.parametrize(
    ("ours", "djangos", "debug", "refused"),
    [
        ("development", [], False, ".localhost, 127.0.0.1, ::1"),
        ("development", [], True, ""),
        ("development", ["localhost", "127.0.0.1"], False, ""),
        ("development", ["www.example.com"], True, ".localhost, 127.0.0.1, ::1"),
        ("development", ["*"], False, ""),
        (["www.example.com"], ["www.example.com"], False, ""),
        (["www.example.com", ".example.org"], ["www.example.com", "example.org"], False, ".example.org"),
        (["www.example.com", "2001:db8::1"], [".example.com"], False, "2001:db8::1"),
        (["www.example.com"], [], False, "www.example.com"),
    ],
)
def test_hosts_that_django_would_refuse_are_named(
    site: Site, ours: str | list[str], djangos: list[str], debug: bool, refused: str
) -> None:
    environ = {"MKS_ENV": ours} if isinstance(ours, str) else {"MKS_ALLOWED_HOSTS": ",".join(ours)}
    settings = {"settings": HardeningSettings.from_env(environ=environ)}
    with override_settings(MKS_HARDENING=settings, ALLOWED_HOSTS=djangos, DEBUG=debug):
        heads = [each.msg for each in checks.run_checks() if each.id == "mks_hardening.W008"]
    assert [message.partition(", which the")[0] for message in heads] == (
        [f"Django refuses {refused}"] if refused else []
    )


def test_development_is_told_once_however_often_the_checks_look(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"settings": HardeningSettings.from_env(environ={"MKS_ENV": "development"})}
    with override_settings(MKS_HARDENING=settings):
        caplog.clear()
        for _ in range(2):
            checks.run_checks()
        hardened(WSGIHandler())
    assert [record.levelname for record in caplog.records if record.name == "mks_hardening.wsgi"] == [
        "WARNING"
    ]


def test_what_did_not_come_through_the_wrappers_is_refused(site: Site) -> None:
    site.app = WSGIHandler()
    with (
        override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True),
        pytest.raises(ConfigurationError, match=r"application = hardened\(get_wsgi_application"),
    ):
        site.visit(lambda request: None)


def test_another_engine_is_refused_by_the_middleware(site: Site) -> None:
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db"),
        pytest.raises(ConfigurationError, match="SESSION_ENGINE = 'mks"),
    ):
        WSGIHandler()


def test_groups_belong_to_the_limiter() -> None:
    both = {"limiter": RateLimiter({"few": "1 per minute"}), "groups": {"few": "1 per minute"}}
    with pytest.raises(ConfigurationError, match="not both"), project(MKS_HARDENING=both):
        pass


def test_hosts_are_those_of_django_where_ours_name_none() -> None:
    production = {"settings": HardeningSettings()}
    with project(MKS_HARDENING=production, ALLOWED_HOSTS=["a.example.com"]) as site:
        there = {"headers": {"Host": "a.example.com"}, "scheme": "https"}
        assert site.visit(lambda request: "here", **there).body == b"here"
        assert (
            site.visit(lambda request: "here", headers={"Host": "b.example.com"}, scheme="https").status
            == 400
        )


# --- cache and logging


@pytest.fixture
def cache() -> Iterator[Any]:
    backend = {
        "default": {"BACKEND": "mks_hardening.contrib.django_app.cache.HardenedCache", "KEY_PREFIX": "t"}
    }
    with project(CACHES=backend):
        found = caches["default"]
        found.clear()
        yield found


def test_the_cache_is_djangos(cache: Any) -> None:
    cache.set("a", {"x": (1, None)})
    assert cache.get("a") == {"x": (1, None)}
    assert (cache.get("b"), cache.get("b", 5), "a" in cache, cache.has_key("b")) == (None, 5, True, False)
    assert (cache.add("a", 1), cache.add("b", None), cache.add("b", 2)) == (False, True, False)
    assert cache.get("b", "absent") is None
    assert (cache.touch("a", 60), cache.touch("none")) == (True, False)
    assert cache.set_many({"m1": 1, "m2": 2}) == []
    assert cache.get_many(["m1", "m2", "m3"]) == {"m1": 1, "m2": 2}
    assert (cache.incr("m1"), cache.decr("m2", 5)) == (2, -3)
    cache.delete_many(["m1", "m2"])
    assert (cache.delete("a"), cache.delete("a")) == (True, False)
    assert cache.get_or_set("c", lambda: 9) == 9
    cache.set("v", 1, version=2)
    assert (cache.get("v"), cache.get("v", version=2)) == (None, 1)
    cache.set("gone", 1, timeout=0)
    assert cache.set_many({"gone": 1}, timeout=-1) == []
    assert (cache.get("gone"), cache.add("gone", 1, timeout=0), cache.get("gone")) == (None, False, None)
    cache.set("kept", 1, timeout=None)
    assert cache.get("kept") == 1
    cache.close()
    cache.clear()
    assert cache.get("kept") is None


def test_a_cache_is_one_for_all_threads_and_another_for_another_place(cache: Any) -> None:
    cache.set("a", 1)
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(caches["default"].get("a")))
    thread.start()
    thread.join()
    assert seen == [1]
    elsewhere = HardenedCache("redis://127.0.0.1:1/0", {})
    assert elsewhere.inner is HardenedCache("redis://127.0.0.1:1/0", {}).inner is not cache.inner
    assert elsewhere.get("a", "away") == "away"  # an outage is a miss


def test_what_is_no_data_is_not_cached(cache: Any) -> None:
    with pytest.raises(EncodeError):
        cache.set("a", object())


def test_logging_is_ours_for_django_too(capsys: pytest.CaptureFixture[str]) -> None:
    config = logging_config("shop", level="INFO")
    assert config["loggers"]["django.server"] == {"handlers": [], "propagate": True}
    before = logging.getLogger().handlers[:]
    try:
        logging.config.dictConfig(config)
        logging.getLogger("django.server").warning("password=%s", "hunter2")
        line = json.loads(capsys.readouterr().out)
    finally:
        logging.getLogger().handlers[:] = before
        for name in config["loggers"]:
            logging.getLogger(name).setLevel(logging.NOTSET)
    assert (line["logger"], "hunter2" in line["message"]) == ("django.server", False)


def test_signing_in_by_password_is_what_admin_does(site: Site, user: Any) -> None:
    assert authenticate(username="alice", password="long enough for all") == user


def test_one_list_of_bans_counts_however_often_the_project_is_wrapped() -> None:
    before = list(hooks.observers)
    settings = HardeningSettings.from_env(environ={"MKS_ENV": "development", "MKS_BANS": "1"})

    def app(_: Any, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return []

    try:
        with project(MKS_HARDENING={"settings": settings}):
            stacks = [components().wrap(app) for _ in range(3)]
            assert len(hooks.observers) == len(before) + 1
        statuses = [
            call_wsgi(
                stacks[number % 3], headers={"Host": "localhost"}, environ={"REMOTE_ADDR": "203.0.113.9"}
            ).status
            for number in range(101)
        ]
        assert (statuses[99], statuses[100]) == (404, 403)
    finally:
        hooks.observers[:] = before
