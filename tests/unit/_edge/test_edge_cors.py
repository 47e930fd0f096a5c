"""CORS after the Fetch standard, through both shells."""

from __future__ import annotations

import asyncio
import json
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


@pytest.mark.parametrize("all_names", ["*", ["*"], ("*",)])
def test_a_star_means_the_same_in_a_list(ask: Callable[..., Reply], all_names: Any) -> None:
    chosen = CORSPolicy(all_names, methods=all_names, headers=all_names, expose=all_names)
    asked = [("Access-Control-Request-Headers", "authorization, x-a")]
    assert granted(preflight(ask, FOREIGN, policy=chosen, more=asked)) == [
        ("access-control-allow-headers", "authorization, x-a"),
        ("access-control-allow-methods", "*"),
        ("access-control-allow-origin", "*"),
        ("access-control-max-age", "600"),
    ]
    reply = ask(policy=chosen, headers=[("Origin", FOREIGN)])
    assert values(reply, "Access-Control-Expose-Headers") == ["*"]
    listed = policy(headers=all_names, credentials=True)
    assert values(preflight(ask, policy=listed, more=asked), "Access-Control-Allow-Headers") == [
        "authorization, x-a"
    ]
    with pytest.raises(ConfigurationError, match="cannot be combined with credentials"):
        CORSPolicy(all_names, credentials=True)


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
        ({"headers": ["*", "X-A"]}, "headers"),
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

    with pytest.raises(ConfigurationError, match=r"^give either a policy or rules for paths$"):
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


def test_without_options_three_methods_and_no_field_are_allowed_for_ten_minutes(
    ask: Callable[..., Reply],
) -> None:
    for origins in (OURS, [OURS]):
        more = [
            ("Access-Control-Request-Headers", "x-a"),
            ("Access-Control-Request-Private-Network", "true"),
        ]
        reply = preflight(ask, policy=CORSPolicy(origins), more=more)
        assert granted(reply) == [
            ("access-control-allow-methods", "GET, HEAD, POST"),
            ("access-control-allow-origin", OURS),
            ("access-control-max-age", "600"),
        ]
        assert values(reply, "Vary") == ["Origin"]


def test_a_preflight_for_everybody_does_not_vary(ask: Callable[..., Reply]) -> None:
    reply = preflight(ask, FOREIGN, policy=CORSPolicy("*", expose=["X-Total", "X-Page"]))
    assert granted(reply) == [
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-allow-origin", "*"),
        ("access-control-max-age", "600"),
    ]
    assert values(reply, "Vary") == []


def test_exposed_fields_are_named_in_responses_alone(ask: Callable[..., Reply]) -> None:
    chosen = policy(expose=["X-Total", "X-Page"])
    reply = ask(policy=chosen, headers=[("Origin", OURS)])
    assert values(reply, "Access-Control-Expose-Headers") == ["X-Total, X-Page"]
    assert values(preflight(ask, policy=chosen), "Access-Control-Expose-Headers") == []


@pytest.mark.parametrize(("asked", "sent"), [("true", ["true"]), ("True", []), ("false", []), ("", [])])
def test_a_private_network_is_asked_for_by_one_word(
    ask: Callable[..., Reply], asked: str, sent: list[str]
) -> None:
    more = [("Access-Control-Request-Private-Network", asked)]
    reply = preflight(ask, policy=policy(private_network=True), more=more)
    assert values(reply, "Access-Control-Allow-Private-Network") == sent


def test_requested_fields_are_bounded(ask: Callable[..., Reply]) -> None:
    longest = "x" * 256
    for asked, allowed in (
        (f"{longest}, {longest}y, x-a", f"{longest}, x-a"),
        ("," * 4094 + "ab,x-c", "ab"),
        ("," * 4095 + "ab", "a"),
        ("\tX-A , x-b", "x-a, x-b"),
    ):
        more = [("Access-Control-Request-Headers", asked)]
        reply = preflight(ask, policy=policy(headers="*"), more=more)
        assert values(reply, "Access-Control-Allow-Headers") == [allowed]


@pytest.mark.parametrize("max_age", [0, 86_400])
def test_the_limits_of_the_age_are_allowed(ask: Callable[..., Reply], max_age: int) -> None:
    assert values(preflight(ask, policy=policy(max_age=max_age)), "Access-Control-Max-Age") == [str(max_age)]


def test_the_refusal_of_a_preflight_says_what_is_refused() -> None:
    def application(_environ: Any, _start_response: Any) -> list[bytes]: ...

    headers = {"Origin": FOREIGN, "Access-Control-Request-Method": "PUT"}
    reply = call_wsgi(wsgi.CORSMiddleware(application, policy=policy()), method="OPTIONS", headers=headers)
    assert reply.status == 403
    assert json.loads(reply.body)["detail"] == "This origin is not allowed to use this server."


@pytest.mark.parametrize(
    "pattern",
    [
        r"https://[a-z]+\.example\.com", r"http://[a-z]+\.example\.com", r"https?://[a-z]+\.example\.com",
        r"^https://[a-z]+\.example\.com$", r"\Ahttps://[a-z]+\.example\.com\Z", r"https://[a-z.]+\.example\.com",
        r"https://[].a-z]+\.example\.com",
    ],
)  # fmt: skip
def test_patterns_that_begin_with_the_scheme_are_accepted(ask: Callable[..., Reply], pattern: str) -> None:
    scheme = "http" if pattern.startswith("http:") else "https"
    origin = f"{scheme}://app.example.com"
    chosen = policy(origins=[], patterns=[pattern])
    assert values(ask(policy=chosen, headers=[("Origin", origin)]), "Access-Control-Allow-Origin") == [origin]


def test_fields_are_spelled_as_the_standard_spells_them() -> None:
    """Over ASGI they are in small letters, which a server may not change back."""
    chosen = policy(expose=["X-Total"], private_network=True)
    headers = {
        "Origin": OURS,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Private-Network": "true",
    }

    def application(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    names = {
        method: [
            name
            for name, _ in call_wsgi(
                wsgi.CORSMiddleware(application, policy=used), method=method, headers=headers
            ).headers
            if name.lower().startswith(("access-control", "vary"))
        ]
        for method, used in (("OPTIONS", chosen), ("GET", chosen), ("HEAD", CORSPolicy("*")))
    }
    assert names == {
        "OPTIONS": [
            *(
                "Access-Control-Allow-Origin",
                "Access-Control-Allow-Credentials",
                "Access-Control-Allow-Methods",
            ),
            *(
                "Access-Control-Allow-Headers",
                "Access-Control-Allow-Private-Network",
                "Access-Control-Max-Age",
            ),
            "Vary",
        ],
        "GET": [
            *(
                "Access-Control-Allow-Origin",
                "Access-Control-Allow-Credentials",
                "Access-Control-Expose-Headers",
            ),
            "Vary",
        ],
        "HEAD": ["Access-Control-Allow-Origin"],
    }


def test_a_policy_shows_its_origins() -> None:
    assert repr(policy(origins=[OURS, "https://a.example.com"])) == (
        f"CORSPolicy(['https://a.example.com', '{OURS}'])"
    )
    assert repr(CORSPolicy("*")) == "CORSPolicy('*')"


def test_a_policy_says_whom_it_grants() -> None:
    assert [policy().grants(origin) for origin in (OURS, FOREIGN, None)] == [True, False, False]
    assert [CORSPolicy("*").grants(origin) for origin in (OURS, FOREIGN, None)] == [True, True, True]


NO_ORIGIN = (
    "origins: {!r} is not an origin; write scheme and host, such as https://www.example.com, without a path or a "
    "trailing slash"
)
WEAK_PATTERN = (
    "patterns: {!r} must begin with the scheme and escape each dot, such as "
    r"https://[a-z0-9-]+\.example\.com; a dot matches any character, also in host names of other owners"
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"origins": "*"},
            (
                "'*' cannot be combined with credentials: every site could read the pages of the signed-in "
                "user; list the origins"
            ),
        ),
        ({"origins": ["*", OURS], "credentials": False}, "'*' already allows every other origin"),
        (
            {"origins": "*", "patterns": [r"https://a\.test"], "credentials": False},
            "'*' already allows every other origin",
        ),
        ({"origins": []}, "origins must contain at least one origin"),
        ({"origins": [f"{OURS}."]}, NO_ORIGIN.format(f"{OURS}.")),
        ({"origins": [f"{OURS}.:8443"]}, NO_ORIGIN.format(f"{OURS}.:8443")),
        ({"origins": [f"{OURS}/"]}, NO_ORIGIN.format(f"{OURS}/")),
        ({"patterns": [r"https://a.test"]}, WEAK_PATTERN.format(r"https://a.test")),
        ({"patterns": [r"https://[a].test"]}, WEAK_PATTERN.format(r"https://[a].test")),
        ({"patterns": [r"ftp://a\.test"]}, WEAK_PATTERN.format(r"ftp://a\.test")),
        (
            {"patterns": ["https://("]},
            (
                "patterns: 'https://(' is not a valid regular expression: "
                "missing ), unterminated subpattern at position 8"
            ),
        ),
        ({"methods": ["GET", "track"]}, "methods: browsers never send TRACK"),
        ({"methods": ["Connect"]}, "methods: browsers never send CONNECT"),
        ({"methods": ["TRACE", "CONNECT"]}, "methods: browsers never send CONNECT"),
        ({"methods": ["G T"]}, "methods: 'G T' is not a token (RFC 9110, 5.6.2)"),
        ({"headers": ["X Y"]}, "headers: 'X Y' is not a token (RFC 9110, 5.6.2)"),
        *(
            (
                {name: names},
                f"{name}: list the names, since browsers take '*' literally if credentials are sent",
            )
            for name in ("methods", "expose")
            for names in ("*", ["*"], ["*", "X-A"])
        ),
        ({"headers": ["X-A", "*"]}, "headers: '*' already includes every other name"),
        ({"methods": ["*", "PUT"], "credentials": False}, "methods: '*' already includes every other name"),
        ({"expose": ["x" * 257]}, f"expose: {'x' * 257!r} is not a token (RFC 9110, 5.6.2)"),
    ],
)
def test_a_refusal_says_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        policy(**options)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"max_age": 86_401}, "max_age"),
        ({"private_network": 1}, "private_network"),
        ({"origins": [5]}, "origins"),
        ({"patterns": r"https://a\.test"}, "patterns"),
        ({"methods": "GET"}, "methods"),
        ({"expose": [5]}, "expose"),
    ],
)
def test_values_of_a_wrong_kind_are_named(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError, match=parameter) as refused:
        policy(**options)
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    ("make", "parameter"),
    [
        (lambda: CORSRule("public", CORSPolicy("*")), "path"),
        (lambda: CORSRule("/public", "*"), "policy"),
        (lambda: wsgi.CORSMiddleware(lambda *_: [], rules=["/public"]), "rules"),
        (lambda: wsgi.CORSMiddleware(lambda *_: [], policy="*"), "policy"),
        (lambda: wsgi.CORSMiddleware(lambda *_: []), "policy"),
    ],
)
def test_rules_of_a_wrong_kind_are_named(make: Callable[[], object], parameter: str) -> None:
    with pytest.raises(ConfigurationError, match=parameter) as refused:
        make()
    assert refused.value.parameter == parameter


@pytest.mark.parametrize(
    "pattern",
    [
        r"https://[a-z-]*example\.com", r"https://[a-z.]*example\.com", r"https://a\.example\.com[\s\S]*",
        r"https://[\w.-]+", r"https://\D+", r"https://[\x00-\xff]+", r"https://([a-z]+\.?)+",
        r"https://[a-z.]*|https://a\.example\.com", r"https://(x|[a-z.]+example\.com)", r"https://[a-z]+\.com",
    ],
)  # fmt: skip
def test_patterns_that_match_hosts_of_others_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="must end with a host name in full") as caught:
        CORSPolicy((), patterns=[pattern])
    assert caught.value.parameter == "patterns"


@pytest.mark.parametrize(
    "pattern", [r"https://([a-z]+-?)+\.example\.com", r"https://(?:[a-z]*)*\.example\.com"]
)
def test_patterns_that_take_exponential_time_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="exponential time"):
        CORSPolicy((), patterns=[pattern])


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        (r"https://(?:[a-z0-9-]+\.)?example\.com", "https://example.com"),
        (r"https://([a-z]+\.)*example\.com", "https://a.b.example.com"),
        (r"https://(a|b)\.example\.com:8443", "https://b.example.com:8443"),
        (r"https://[a-z]+\.example\.com(?::\d+)?", "https://a.example.com:8443"),
        (r"http://localhost:\d+", "http://localhost:5173"),
    ],
)
def test_patterns_may_have_optional_labels_and_ports(pattern: str, origin: str) -> None:
    assert CORSPolicy((), patterns=[pattern]).grants(origin)
