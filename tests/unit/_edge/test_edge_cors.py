"""CORS after the Fetch standard, through both shells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening import asgi, wsgi
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import CORSPolicy, CORSRule

OURS = "https://app.example.com"
FOREIGN = "https://evil.test"
Headers = list[tuple[str, str]]
Reply = tuple[int, Headers]


def policy(**options: Any) -> CORSPolicy:
    given: dict[str, Any] = {
        "origins": [OURS, "https://admin.example.com"],
        "methods": ["GET", "POST", "PUT", "PATCH"],
        "headers": ["X-Token", "Content-Type"],
        "credentials": True,
        **options,
    }
    return CORSPolicy(given.pop("origins"), **given)


def through_wsgi(
    method: str, headers: Headers, *, status: int, own: Headers, path: str, **options: Any
) -> Reply:
    def application(_environ: Any, start_response: Any) -> list[bytes]:
        kind = [] if status == 304 else [("Content-Type", "text/plain")]
        start_response(f"{status} Text", [*own, *kind])
        return [b""]

    merged: dict[str, str] = {}
    for name, value in headers:  # servers join lines by a comma
        merged[name] = f"{merged[name]},{value}" if name in merged else value
    found = call_wsgi(wsgi.CORSMiddleware(application, **options), method=method, path=path, headers=merged)
    return found.status, list(found.headers)


def through_asgi(
    method: str, headers: Headers, *, status: int, own: Headers, path: str, **options: Any
) -> Reply:
    sent: list[Any] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        fields = [(name.lower().encode(), value.encode()) for name, value in own]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    fields = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": fields}
    asyncio.run(asgi.CORSMiddleware(application, **options)(scope, receive, send))
    return sent[0]["status"], [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]


@pytest.fixture(params=[through_wsgi, through_asgi], ids=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Reply]:
    def send(method: str = "GET", **given: Any) -> Reply:
        options = {"status": 200, "own": [], "path": "/", "headers": []} | given
        if "rules" not in options:
            options.setdefault("policy", policy())
        reply: Reply = request.param(method, options.pop("headers"), **options)
        return reply

    return send


def values(reply: Reply, name: str) -> list[str]:
    return [value for field, value in reply[1] if field.lower() == name.lower()]


def granted(reply: Reply) -> Headers:
    return sorted(
        (name.lower(), value) for name, value in reply[1] if name.lower().startswith("access-control-")
    )


def preflight(ask: Callable[..., Reply], origin: str = OURS, **given: Any) -> Reply:
    more = given.pop("more", [])
    return ask(
        "OPTIONS", headers=[("Origin", origin), ("Access-Control-Request-Method", "PUT"), *more], **given
    )


def test_a_listed_origin_may_read_with_credentials(ask: Callable[..., Reply]) -> None:
    reply = ask(headers=[("Origin", OURS)])
    assert granted(reply) == [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-origin", OURS),
    ]
    assert values(reply, "Vary") == ["Origin"]


@pytest.mark.parametrize(
    "origin",
    [
        FOREIGN, "null", f"{OURS}.", f"{OURS}:8443", "http://app.example.com", f"{OURS}/path", f"{OURS}.evil.test",
        "https://app.example.com@evil.test", "", "https://", "あ", "https://app.example.com,https://evil.test",
    ],
)  # fmt: skip
def test_another_origin_gets_nothing_but_vary(ask: Callable[..., Reply], origin: str) -> None:
    reply = ask(headers=[("Origin", origin.encode().decode("latin-1"))]) if origin.isascii() else ask()
    assert granted(reply) == []
    assert values(reply, "Vary") == ["Origin"]


@pytest.mark.parametrize("same", [f"{OURS}:443", "HTTPS://APP.example.com"])
def test_other_spellings_of_an_origin_are_the_same(ask: Callable[..., Reply], same: str) -> None:
    assert values(ask(headers=[("Origin", same)]), "Access-Control-Allow-Origin") == [same]


@pytest.mark.parametrize("origins", [[OURS], [OURS, "https://admin.example.com"]])
def test_responses_without_origin_vary_too(ask: Callable[..., Reply], origins: list[str]) -> None:
    reply = ask(policy=policy(origins=origins))
    assert granted(reply) == []
    assert values(reply, "Vary") == ["Origin"]


def test_two_lines_of_origin_grant_nothing(ask: Callable[..., Reply]) -> None:
    assert granted(ask(headers=[("Origin", OURS), ("Origin", FOREIGN)])) == []


def test_a_preflight_lists_methods_and_headers_whatever_was_asked(ask: Callable[..., Reply]) -> None:
    asked = "x-token ,\tCONTENT-TYPE,, x-other"
    reply = preflight(ask, more=[("Access-Control-Request-Headers", asked)])
    assert reply[0] == 204
    assert granted(reply) == [
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-headers", "X-Token, Content-Type"),
        ("access-control-allow-methods", "GET, POST, PUT, PATCH"),
        ("access-control-allow-origin", OURS),
        ("access-control-max-age", "600"),
    ]
    assert values(reply, "Content-Length") == []


def test_a_preflight_of_another_origin_is_refused_and_discloses_nothing(ask: Callable[..., Reply]) -> None:
    reply = preflight(ask, FOREIGN)
    assert reply[0] == 403
    assert granted(reply) == []
    assert "Origin" in ",".join(values(reply, "Vary"))


def test_options_of_the_application_are_no_preflight(ask: Callable[..., Reply]) -> None:
    assert ask("OPTIONS", headers=[("Origin", OURS)], status=207)[0] == 207
    assert ask("OPTIONS", headers=[("Access-Control-Request-Method", "PUT")], status=207)[0] == 207


@pytest.mark.parametrize("credentials", [True, False])
def test_all_headers_are_named_also_authorization(ask: Callable[..., Reply], *, credentials: bool) -> None:
    asked = [("Access-Control-Request-Headers", "authorization, x-a, bad name, x-a")]
    reply = preflight(ask, policy=policy(headers="*", credentials=credentials), more=asked)
    assert values(reply, "Access-Control-Allow-Headers") == ["authorization, x-a"]
    assert values(reply, "Vary") == ["Origin, Access-Control-Request-Headers"]
    plain = ask(policy=policy(headers="*", credentials=credentials), headers=[("Origin", OURS)])
    assert values(plain, "Vary") == ["Origin"]


def test_everybody_may_read_and_caches_may_share(ask: Callable[..., Reply]) -> None:
    everybody = CORSPolicy("*")
    for headers in ([], [("Origin", FOREIGN)], [("Origin", "null")]):
        reply = ask(policy=everybody, headers=headers)
        assert granted(reply) == [("access-control-allow-origin", "*")]
        assert values(reply, "Vary") == []


@pytest.mark.parametrize(
    ("origin", "on", "sent"), [(OURS, True, ["true"]), (OURS, False, []), (FOREIGN, True, [])]
)
def test_private_networks_only_where_allowed(
    ask: Callable[..., Reply], origin: str, sent: list[str], *, on: bool
) -> None:
    more = [("Access-Control-Request-Private-Network", "true")]
    reply = preflight(ask, origin, policy=policy(private_network=on), more=more)
    assert values(reply, "Access-Control-Allow-Private-Network") == sent


@pytest.mark.parametrize(
    ("own", "vary"),
    [
        ([("Vary", "Accept-Encoding")], ["Accept-Encoding, Origin"]),
        ([("vary", "accept, ORIGIN")], ["accept, ORIGIN"]),
        ([("Vary", "*")], ["*"]),
        ([("Vary", "accept,origin")], ["accept,origin"]),
    ],
)
def test_vary_is_merged(ask: Callable[..., Reply], own: Headers, vary: list[str]) -> None:
    assert values(ask(own=own), "Vary") == vary


def test_fields_of_the_application_are_replaced_and_cookies_kept(ask: Callable[..., Reply]) -> None:
    own = [("Access-Control-Allow-Origin", "*"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    reply = ask(own=own, headers=[("Origin", OURS)])
    assert values(reply, "Access-Control-Allow-Origin") == [OURS]
    assert values(reply, "Set-Cookie") == ["a=1", "b=2"]
    assert granted(ask(own=own, headers=[("Origin", FOREIGN)])) == []


@pytest.mark.parametrize("status", [304, 307, 401, 404, 500])
def test_every_status_is_readable(ask: Callable[..., Reply], status: int) -> None:
    reply = ask(status=status, headers=[("Origin", OURS)])
    assert reply[0] == status
    assert values(reply, "Access-Control-Allow-Origin") == [OURS]


def test_patterns_match_whole_origins(ask: Callable[..., Reply]) -> None:
    chosen = policy(origins=[], patterns=[r"https://[a-z0-9-]+\.example\.com"])
    assert granted(ask(policy=chosen, headers=[("Origin", OURS)]))
    for origin in (f"{OURS}.evil.test", "https://example.com", "https://a.b.example.com", f"{OURS}:8443"):
        assert not granted(ask(policy=chosen, headers=[("Origin", origin)]))


def test_rules_choose_the_policy_by_path(ask: Callable[..., Reply]) -> None:
    rules = [CORSRule("/public/", CORSPolicy("*")), CORSRule(["/api/", "/rpc"], policy(expose=["X-Total"]))]
    origin = [("Origin", OURS)]
    assert values(ask(rules=rules, path="/public/x", headers=origin), "Access-Control-Allow-Origin") == ["*"]
    found = ask(rules=rules, path="/api/x", headers=origin)
    assert values(found, "Access-Control-Expose-Headers") == ["X-Total"]
    assert granted(ask(rules=rules, path="/elsewhere", headers=origin)) == []


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"origins": "*", "credentials": True}, "origins"),
        ({"origins": ["*", OURS], "credentials": False}, "origins"),
        ({"origins": ["null"]}, "origins"),
        ({"origins": [f"{OURS}/"]}, "origins"),
        ({"origins": ["app.example.com"]}, "origins"),
        ({"origins": ["https://*.example.com"]}, "origins"),
        ({"origins": []}, "origins"),
        ({"patterns": [r"https://.*\.example\.com"]}, "patterns"),
        ({"patterns": [r"https://a.example\.com"]}, "patterns"),
        ({"patterns": [r"[a-z]+\.example\.com"]}, "patterns"),
        ({"patterns": [r"https://("]}, "patterns"),
        ({"methods": ["TRACE"]}, "methods"),
        ({"methods": ["G T"]}, "methods"),
        ({"headers": ["X Y"]}, "headers"),
        ({"headers": ["*"]}, "headers"),
        ({"expose": ["*"]}, "expose"),
        ({"max_age": -1}, "max_age"),
        ({"credentials": 1}, "credentials"),
    ],
)
def test_wrong_policies_are_refused_by_parameter(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        policy(**options)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize("shell", [wsgi, asgi])
def test_a_policy_or_rules_are_required(shell: Any) -> None:
    def application(_scope: Any, _receive: Any, _send: Any = None) -> Any: ...

    with pytest.raises(ConfigurationError, match="policy"):
        shell.CORSMiddleware(application)


def test_an_error_before_the_response_is_readable_and_reaches_the_server() -> None:
    sent: list[Any] = []

    async def broken(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ValueError("broken")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"origin", OURS.encode())]}
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(asgi.CORSMiddleware(broken, policy=policy())(scope, send, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 500
    assert (b"access-control-allow-origin", OURS.encode()) in sent[0]["headers"]
