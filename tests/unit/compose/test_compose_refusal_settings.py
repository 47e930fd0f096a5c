"""A refusal names the setting that decides, in the response and on the log record; that setting lifts it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from edge_shells import hardened
from mks_hardening import compose
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import FrozenClock, WSGIResponse, call_wsgi
from mks_hardening.wsgi import BanRule, MemorySessionStore, RateLimitRule, RequestLimits, request_deadline

HOST = "example.com"
CLIENT = "203.0.113.7"
BASE = {"MKS_ALLOWED_HOSTS": HOST}
PAGE = "https://app.example.net"
both_shells = pytest.mark.parametrize("shell", ["wsgi", "asgi"])


@dataclass(frozen=True)
class Case:
    """A request that is refused under ``before``, and served once ``after`` is set as well."""

    rule: str
    status: int
    after: dict[str, str]
    before: dict[str, str] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    options: Callable[[HardeningSettings], dict[str, Any]] = lambda _: {}


def posted(**headers: str) -> dict[str, Any]:
    return {"method": "POST", "headers": {name.replace("_", "-"): value for name, value in headers.items()}}


def preflight(method: str) -> dict[str, Any]:
    headers = {"Origin": PAGE, "Access-Control-Request-Method": method}
    return {"method": "OPTIONS", "headers": headers}


def counted(settings: HardeningSettings) -> dict[str, Any]:
    limiter = compose.rate_limiter(settings, {"pages": "1 per minute"})
    limiter.hit("pages", CLIENT)
    return {"limiter": limiter, "rate_limits": [RateLimitRule("pages")]}


def banned(settings: HardeningSettings) -> dict[str, Any]:
    bans = compose.ban_list(settings, [BanRule("missing", when={404})])
    bans.ban(CLIENT, 60)
    return {"bans": bans}


UPLOAD = {
    "method": "POST",
    "path": "/uploads/1",
    "body": b"0123456789",
    "headers": {"Origin": f"https://{HOST}"},
}
CASES = [
    Case("host", 400, {"MKS_ALLOWED_HOSTS": f"{HOST},b.example"}, request={"headers": {"Host": "b.example"}}),
    Case("origin", 403, {"MKS_ALLOWED_ORIGINS": PAGE}, request=posted(Origin=PAGE)),
    Case("referer", 403, {"MKS_ALLOWED_ORIGINS": PAGE}, request=posted(Referer=f"{PAGE}/form")),
    Case("fetch_site", 403, {"MKS_CSRF_EXEMPT_PATHS": "=/"}, request=posted(Sec_Fetch_Site="cross-site")),
    Case("token", 403, {"MKS_CSRF_EXEMPT_PATHS": "=/"}, request=posted(Cookie="a=b")),
    Case(
        "origin",
        403,
        {"MKS_CORS_ORIGINS": PAGE},
        before={"MKS_CORS_ORIGINS": "https://other.example"},
        request=preflight("GET"),
    ),
    Case("body", 413, {"MKS_MAX_BODY": "1KiB"}, before={"MKS_MAX_BODY": "4"}, request=UPLOAD),
    Case("body", 413, {"MKS_MAX_BODY_PATHS": "/uploads/=1KiB"}, before={"MKS_MAX_BODY": "4"}, request=UPLOAD),
    Case(
        "denied",
        403,
        {"MKS_DENY_NETWORKS": "198.51.100.0/24"},
        before={"MKS_DENY_NETWORKS": "203.0.113.0/24"},
    ),
    Case("banned", 403, {"MKS_ALLOW_NETWORKS": CLIENT}, options=banned),
    Case("pages", 429, {"MKS_RATE_LIMITS": "pages=9 per minute"}, options=counted),
    Case("pages", 429, {"MKS_LIMIT_EXEMPT_PATHS": "=/"}, options=counted),
    *(
        Case(
            reason,
            401,
            after,
            request={"path": "/news"},
            options=lambda settings, reason=reason: session_options(settings, reason),
        )
        for reason, after in (
            ("idle", {"MKS_SESSION_IDLE_TIMEOUT": "3h"}),
            ("idle", {"MKS_PUBLIC_PATHS": "/news"}),
            ("absolute", {"MKS_SESSION_IDLE_TIMEOUT": "20h", "MKS_SESSION_ABSOLUTE_TIMEOUT": "20h"}),
            ("revoked", {"MKS_PUBLIC_PATHS": "/news"}),
        )
    ),
]
AGES = {"idle": 2 * 3600, "absolute": 9 * 3600, "revoked": 0}


def application(environ: Any, start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read(100)
    if environ["PATH_INFO"] == "/sign-in":
        environ["mks_hardening.session"].start("tanaka")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]


class _Signed:
    """The options with a store in which a session has ended, and its cookie."""

    cookie = ""


def session_options(settings: HardeningSettings, reason: str) -> dict[str, Any]:
    clock = FrozenClock()
    options = {"store": MemorySessionStore(clock=clock), "clock": clock}
    with_one = compose.harden_wsgi(application, settings, **options)
    _Signed.cookie = (call(with_one, path="/sign-in").header("Set-Cookie") or "").partition(";")[0]
    if reason == "revoked":
        options["store"] = MemorySessionStore(clock=clock)
    elif reason == "absolute":
        for _ in range(18 if settings.wsgi.session_idle_timeout == 1800 else 0):
            clock.advance(1700)
            call(with_one, headers={"Cookie": _Signed.cookie})
    clock.advance(AGES[reason])
    return options


def call(app: Any, **request: Any) -> WSGIResponse:
    headers = {"Host": HOST, **request.pop("headers", {})}
    environ = {"wsgi.url_scheme": "https", "REMOTE_ADDR": CLIENT, **request.pop("environ", {})}
    return call_wsgi(app, headers=headers, environ=environ, **request)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]  # a handler that keeps what it gets
    logger = logging.getLogger("mks_hardening")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield seen
    logger.removeHandler(handler)
    logger.setLevel(before)


@both_shells
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}-{','.join(case.after)}")
def test_the_named_setting_lifts_the_refusal(
    case: Case, shell: str, records: list[logging.LogRecord]
) -> None:
    refused = answer(case, shell, case.before)
    assert refused.status == case.status
    named = json.loads(refused.body)["setting"].split(", ")
    assert set(named) & set(case.after), named
    record = next(each for each in records if getattr(each, "refused_rule", "") == case.rule)
    assert record.__dict__["refused_setting"].split(", ") == named
    assert record.getMessage().endswith(f"; see {', '.join(named)}")
    served = answer(case, shell, case.before | case.after)
    assert served.status in (200, 204), served.body


def answer(case: Case, shell: str, variables: dict[str, str]) -> WSGIResponse:
    settings = HardeningSettings.from_env(environ={**BASE, **variables})
    _Signed.cookie = ""
    app = hardened(shell)(application, settings, **case.options(settings))
    request = dict(case.request)
    if _Signed.cookie:
        request["headers"] = {**request.get("headers", {}), "Cookie": _Signed.cookie}
    return call(app, **request)


@both_shells
def test_browsers_read_the_setting_as_text(shell: str) -> None:
    settings = HardeningSettings.from_env(environ=BASE)
    headers = {"Host": "b.example", "Accept": "text/html"}
    assert call(hardened(shell)(application, settings), headers=headers).body.decode() == (
        "Bad Request\n\nThis server does not serve the requested host.\n\nSetting: MKS_ALLOWED_HOSTS\n"
    )


def test_further_methods_of_other_origins() -> None:
    variables = {**BASE, "MKS_CORS_ORIGINS": PAGE}
    for after, expected in (({}, False), ({"MKS_CORS_METHODS": "MKCOL,PROPPATCH"}, True)):
        settings = HardeningSettings.from_env(environ={**variables, **after})
        allowed = call(compose.harden_wsgi(application, settings), **preflight("MKCOL"))
        assert ("MKCOL" in (allowed.header("Access-Control-Allow-Methods") or "")) is expected


class _Slow(io.BytesIO):
    """A body of which each read takes a minute."""

    def __init__(self, content: bytes, clock: FrozenClock) -> None:
        super().__init__(content)
        self._clock = clock

    def read(self, size: int | None = -1, /) -> bytes:
        self._clock.advance(60)
        return super().read(size)


@pytest.mark.parametrize(("after", "status"), [({}, 408), ({"MKS_BODY_TIMEOUT": "5m"}, 200)])
def test_a_body_that_takes_long(after: dict[str, str], status: int) -> None:
    settings = HardeningSettings.from_env(environ={**BASE, "MKS_MAX_BODY": "1KiB", **after})
    clock = FrozenClock()
    app = compose.harden_wsgi(application, settings, request_clock=clock)
    slow = {"wsgi.input": _Slow(b"0123456789", clock), "CONTENT_LENGTH": "10"}
    answered = call(app, method="POST", headers={"Origin": f"https://{HOST}"}, environ=slow)
    assert answered.status == status
    assert status == 200 or json.loads(answered.body)["setting"] == "MKS_BODY_TIMEOUT"


@pytest.mark.parametrize(("seconds", "status"), [("5s", 504), ("60s", 200)])
def test_an_application_that_takes_long(seconds: str, status: int) -> None:
    settings = HardeningSettings.from_env(environ={**BASE, "MKS_REQUEST_TIMEOUT": seconds})
    clock = FrozenClock()

    def slow(environ: Any, start_response: Any) -> list[bytes]:
        clock.advance(30)
        deadline = request_deadline(environ)
        assert deadline is not None
        deadline.timeout(1)  # raises after the deadline
        return application(environ, start_response)

    answered = call(compose.harden_wsgi(slow, settings, timeout_clock=clock))
    assert answered.status == status
    assert status == 200 or json.loads(answered.body)["setting"] == "MKS_REQUEST_TIMEOUT"


@pytest.mark.parametrize(("most", "status"), [("1", 503), ("2", 200)])
def test_a_request_beside_others(most: str, status: int) -> None:
    settings = HardeningSettings.from_env(environ={**BASE, "MKS_MAX_REQUESTS": most})
    inside: list[WSGIResponse] = []

    def nested(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/":
            inside.append(call(app, path="/other"))
        return application(environ, start_response)

    app = compose.harden_wsgi(nested, settings)
    call(app)
    assert [each.status for each in inside] == [status]
    assert status == 200 or "MKS_MAX_REQUESTS" in json.loads(inside[0].body)["setting"]


@both_shells
def test_maintenance_names_its_file(shell: str, tmp_path: Any) -> None:
    switch = tmp_path / "maintenance"
    settings = HardeningSettings.from_env(environ={**BASE, "MKS_MAINTENANCE_FILE": str(switch)})
    switch.touch()
    refused = call(hardened(shell)(application, settings))
    assert (refused.status, json.loads(refused.body)["setting"]) == (503, "MKS_MAINTENANCE_FILE")
    switch.unlink()
    assert call(hardened(shell)(application, settings)).status == 200


@both_shells
@pytest.mark.parametrize(
    ("limits", "request_"),
    [
        (RequestLimits(methods=["GET"]), {"method": "PUT", "headers": {"Authorization": "Bearer x"}}),
        (RequestLimits(content_types=["image/*"]), UPLOAD),
        (RequestLimits(header_count=1), {"headers": {"A": "b", "C": "d"}}),
        (RequestLimits(header_bytes=20), {"headers": {"A": "b" * 30}}),
        (RequestLimits(field_bytes=20), {"headers": {"A": "b" * 30}}),
        (RequestLimits(target_bytes=3), {"path": "/long"}),
        (RequestLimits(plain_paths=True), {"path": "/a//b"}),
    ],
    ids=["methods", "content_types", "header_count", "header_bytes", "field_bytes", "target_bytes", "path"],
)
def test_limits_of_code_name_their_option(
    shell: str, limits: RequestLimits, request_: dict[str, Any]
) -> None:
    settings = HardeningSettings.from_env(environ=BASE)
    refused = call(hardened(shell)(application, settings, request_limits=limits), **request_)
    assert json.loads(refused.body)["setting"] == "request_limits"
    assert (
        call(hardened(shell)(application, settings, request_limits=RequestLimits()), **request_).status == 200
    )


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("CSRF_EXEMPT_PATHS", "/", "not / for all"),
        ("PUBLIC_PATHS", "news", "'news' is not"),
        ("MAX_BODY_PATHS", "/uploads", "'/uploads' is not"),
        ("MAX_BODY_PATHS", "/uploads/=much", "'/uploads/=much' is not"),
        ("MAX_BODY_PATHS", "/uploads/=1GB", "requires MKS_MAX_BODY"),
        ("ALLOWED_ORIGINS", "*", "'\\*' is not"),
        ("CORS_METHODS", "mkcol", "'mkcol' is not"),
    ],
)
def test_bad_values_are_refused(name: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"MKS_{name}.*{reason}"):
        HardeningSettings.from_env(environ={**BASE, f"MKS_{name}": value})


def test_options_add_to_the_settings() -> None:
    settings = HardeningSettings.from_env(
        environ={**BASE, "MKS_CSRF_EXEMPT_PATHS": "/hook", "MKS_ALLOWED_ORIGINS": PAGE}
    )
    app = compose.harden_wsgi(
        application, settings, csrf_exempt_paths=["/other"], allowed_origins=["https://b.example"]
    )
    assert [call(app, path=path, **posted(Cookie="a=b")).status for path in ("/hook", "/other", "/x")] == [
        200,
        200,
        403,
    ]
    for origin in (PAGE, "https://b.example"):
        assert call(app, **posted(Origin=origin)).status == 200
