"""Additions to a header policy: in code, for certain paths, from a file, and by what an application says itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mks_hardening import compose
from mks_hardening._edge.headers.header_rule import headers_of_file
from mks_hardening.asgi import SecurityHeadersMiddleware as AsgiSecurityHeaders
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import ContentSecurityPolicy, HeaderPolicy, HeaderRule, SecurityHeadersMiddleware


def csp_of(policy: HeaderPolicy) -> dict[str, str]:
    assert policy.csp is not None
    return {name: " ".join(sources) for name, sources in policy.csp.directives.items()}


class Application:
    """Sends the fields that it is told, as WSGI and as ASGI application."""

    def __init__(self, *fields: tuple[str, str]) -> None:
        self.fields = [("Content-Type", "text/html"), *fields]

    def wsgi(self, _environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", list(self.fields))
        return [b"page"]

    async def asgi(self, _scope: Any, _receive: Any, send: Any) -> None:
        fields = [(name.lower().encode(), value.encode()) for name, value in self.fields]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"page"})

    def answers(self, path: str, policy: HeaderPolicy, *rules: HeaderRule) -> dict[str, str]:
        """Return the fields of a response, which are the same for both kinds."""
        wsgi = SecurityHeadersMiddleware(self.wsgi, policy=policy, rules=rules)
        answer = call_wsgi(wsgi, path, scheme="https", headers={"Host": "example.com"})
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "scheme": "https", "path": path, "headers": [(b"host", b"example.com")]}
        app: Any = AsgiSecurityHeaders(self.asgi, policy=policy, rules=rules)
        asyncio.run(app(scope, None, send))
        found = {name.lower(): value for name, value in answer.headers}
        asgi = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        nonces = [fields.pop("content-security-policy") for fields in (found, asgi)]
        assert {**found, "content-length": ""} == {**asgi, "content-length": ""}
        assert len(set(nonces)) == (2 if "nonce-" in nonces[0] else 1)
        return {**found, "content-security-policy": nonces[0]}


# Additions, directive, sources then; of the preset for pages.
ADDITIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"img-src": "https://tiles.example.com"}, "img-src", "'self' data: https://tiles.example.com"),
    ({"img-src": ["https://a.example", "data:"]}, "img-src", "'self' data: https://a.example"),
    ({"script-src-elem": "'unsafe-inline'"}, "script-src-elem", "'self' 'unsafe-inline'"),
    ({"object-src": "'self'"}, "object-src", "'self'"),
    ({"form-action": "https://pay.example"}, "form-action", "'self' https://pay.example"),
    ({"frame-ancestors": "https://portal.example"}, "frame-ancestors", "https://portal.example"),
    ({"font-src": "data:"}, "font-src", "'self' data:"),
]


@pytest.mark.parametrize(("added", "name", "sources"), ADDITIONS)
def test_sources_are_added_to_those_of_the_policy(added: Any, name: str, sources: str) -> None:
    before = csp_of(HeaderPolicy.web())
    assert csp_of(HeaderPolicy.web().plus(csp=added)) == {**before, name: sources}
    assert csp_of(HeaderPolicy.web()) == before


def test_a_missing_directive_begins_with_what_browsers_use_in_its_place() -> None:
    policy = ContentSecurityPolicy({"default-src": "'none'", "script-src": "'self'", "child-src": "blob:"})
    more = policy.plus({"script-src-attr": "'unsafe-hashes'", "worker-src": "data:", "font-src": "data:"})
    assert more.directives["script-src-attr"] == ("'self'", "'unsafe-hashes'")
    assert more.directives["worker-src"] == ("blob:", "data:")
    assert more.directives["font-src"] == ("data:",)


def test_inline_scripts_beside_a_nonce_are_allowed_as_browsers_read_it() -> None:
    """Browsers ignore 'unsafe-inline' beside a nonce, a hash or 'strict-dynamic' (CSP 3, 6.7.3.2)."""
    policy = HeaderPolicy.strict().plus(csp={"script-src": ["'self'", "'unsafe-inline'"]})
    assert csp_of(policy)["script-src"] == "'self' 'unsafe-inline'"
    assert policy.csp is not None
    assert not policy.csp.nonce
    kept = HeaderPolicy.strict().plus(csp={"img-src": "data:"})
    assert kept.csp is not None
    assert kept.csp.nonce
    assert "'nonce-abc'" in kept.csp.header_value("abc")


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"csp": {"img-src": "'none'"}}, "csp"),
        ({"csp": {"image-src": "data:"}}, "csp"),
        ({"csp": {"sandbox": "allow-forms"}}, "csp"),
        ({"csp": {"img-src": "self"}}, "csp"),
        ({"csp": {"img-src": ""}}, "csp"),
        ({"csp": "img-src data:"}, "csp"),
        ({"frame": "everybody"}, "frame"),
        ({"frame": []}, "frame"),
        ({"frame": ["*"]}, "frame"),
        ({"frame": 1}, "frame"),
        ({"corp": "all"}, "corp"),
        ({"coop": True}, "coop"),
        ({"coep": "none"}, "coep"),
    ],
)
def test_an_addition_that_browsers_would_ignore_is_refused(options: Any, parameter: str) -> None:
    for make in (HeaderPolicy.web().plus, lambda **values: HeaderRule("/a", **values)):
        with pytest.raises(ConfigurationError) as refused:
            make(**options)
        assert refused.value.parameter == parameter


def test_sources_cannot_be_added_to_no_policy() -> None:
    with pytest.raises(ConfigurationError, match="this policy has none"):
        HeaderPolicy().plus(csp={"img-src": "data:"})
    rule = HeaderRule("/a", csp={"img-src": "data:"})
    with pytest.raises(ConfigurationError, match="this policy has none"):
        SecurityHeadersMiddleware(Application().wsgi, policy=HeaderPolicy(), rules=[rule])


# --- by path


def test_a_rule_changes_the_fields_of_its_path_only() -> None:
    rules = (
        HeaderRule("/admin/login", frame="deny"),
        HeaderRule(["/admin/", "/embed"], csp={"script-src-elem": "'unsafe-inline'"}, frame="same-origin"),
        HeaderRule("/static/", corp="cross-origin"),
        HeaderRule("/widget", frame=["https://portal.example:8443"], coop="unsafe-none", coep="unsafe-none"),
    )
    app, policy = Application(), HeaderPolicy.web()
    plain = app.answers("/", policy)
    assert app.answers("/", policy, *rules) == plain
    admin = app.answers("/admin/pages", policy, *rules)
    assert admin == app.answers("/embed", policy, *rules)
    assert admin["x-frame-options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'; " in admin["content-security-policy"]
    assert "script-src-elem 'self' 'unsafe-inline'" in admin["content-security-policy"]
    assert app.answers("/admin/login", policy, *rules) == plain
    assert app.answers("/static/x.png", policy, *rules) == {
        **plain,
        "cross-origin-resource-policy": "cross-origin",
    }
    widget = app.answers("/widget", policy, *rules)
    assert "x-frame-options" not in widget
    assert "frame-ancestors https://portal.example:8443" in widget["content-security-policy"]
    assert widget["cross-origin-opener-policy"] == widget["cross-origin-embedder-policy"] == "unsafe-none"


@pytest.mark.parametrize(
    "path",
    ["/x/../admin/", "//admin/", "/./admin/", "/admin/../", "/admin\\x", "/Admin/", "/admin", "/x/admin/"],
)
def test_another_spelling_of_a_path_gets_nothing_added(path: str) -> None:
    rule = HeaderRule("/admin/", csp={"script-src-elem": "'unsafe-inline'"}, frame="same-origin")
    app, policy = Application(), HeaderPolicy.web()
    assert app.answers(path, policy, rule) == app.answers(path, policy)


def test_a_nonce_in_some_places_only() -> None:
    rule = HeaderRule("/old/", csp={"script-src": "'unsafe-inline'"})
    app, policy = Application(), HeaderPolicy.strict()
    assert "'nonce-" in app.answers("/", policy, rule)["content-security-policy"]
    assert "'nonce-" not in app.answers("/old/", policy, rule)["content-security-policy"]


# --- by what the application says


@pytest.mark.parametrize(
    "policy", [HeaderPolicy.web(), HeaderPolicy.strict(), HeaderPolicy.web().plus(frame="same-origin")]
)
@pytest.mark.parametrize(
    ("sent", "source"), [("SAMEORIGIN", "'self'"), ("sameorigin ", "'self'"), ("DENY", "'none'")]
)
def test_frame_options_of_the_application_become_its_frame_ancestors(
    policy: HeaderPolicy, sent: str, source: str
) -> None:
    """Browsers ignore X-Frame-Options beside frame-ancestors (CSP 3, 6.4.2), so one contradicted the other."""
    answer = Application(("X-Frame-Options", sent)).answers("/", policy)
    assert answer["x-frame-options"].strip() == sent.strip()
    assert f"frame-ancestors {source}" in answer["content-security-policy"]


@pytest.mark.parametrize("sent", ["ALLOWALL", "ALLOW-FROM https://x.example", "", "DENY, SAMEORIGIN"])
def test_frame_options_that_browsers_ignore_change_nothing(sent: str) -> None:
    answer = Application(("X-Frame-Options", sent)).answers("/", HeaderPolicy.web())
    assert "frame-ancestors 'none'" in answer["content-security-policy"]


def test_a_policy_of_the_application_stays_as_it_is() -> None:
    own = [("Content-Security-Policy", "default-src *"), ("X-Frame-Options", "SAMEORIGIN")]
    answer = Application(*own).answers("/", HeaderPolicy.web())
    assert answer["content-security-policy"] == "default-src *"


# --- from settings


def settings(**changes: str) -> HardeningSettings:
    return HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "example.com", **changes})


FILE = """
csp.img-src = ["https://tiles.example.com"]
coep = "unsafe-none"

["/admin/"]
frame = "same-origin"
csp.script-src-elem = ["'unsafe-inline'"]

["=/"]
corp = "cross-origin"
"""


def test_a_file_adds_to_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "headers.toml"
    file.write_text(FILE, encoding="utf-8")
    app = compose.harden_wsgi(Application().wsgi, settings(MKS_HEADERS_FILE=str(file)))
    pages = {
        path: dict(call_wsgi(app, path, scheme="https", headers={"Host": "example.com"}).headers)
        for path in ("/", "/x", "/admin/")
    }
    for fields in pages.values():
        assert "img-src 'self' data: https://tiles.example.com" in fields["Content-Security-Policy"]
        assert fields["Cross-Origin-Embedder-Policy"] == "unsafe-none"
    assert [page["Cross-Origin-Resource-Policy"] for page in pages.values()] == [
        "cross-origin",
        "same-origin",
        "same-origin",
    ]
    assert [page["X-Frame-Options"] for page in pages.values()] == ["DENY", "DENY", "SAMEORIGIN"]


@pytest.mark.parametrize(
    "content",
    [
        "csp = 1 =",
        "image = 1",
        'frame = "x"',
        '["/a"]\nimg-src = "x"',
        '"/a" = 1',
        '["/a/../b"]\nframe = "deny"',
        "\xff",
    ],
)
def test_a_file_with_a_mistake_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "headers.toml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigurationError):
        compose.harden_wsgi(Application().wsgi, settings(MKS_HEADERS_FILE=str(file)))
    file.unlink()
    with pytest.raises(ConfigurationError, match="MKS_HEADERS_FILE cannot be read: FileNotFoundError"):
        compose.harden_wsgi(Application().wsgi, settings(MKS_HEADERS_FILE=str(file)))


def test_what_inserted_text_may_do_is_logged_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compose.harden_wsgi(Application().wsgi, settings())
    assert caplog.messages == []
    compose.harden_wsgi(Application().wsgi, settings(MKS_HEADER_PRESET="legacy"))
    [line] = caplog.messages
    assert line == (
        "the header policy allows script-src 'unsafe-inline', style-src 'unsafe-inline' on every page"
    )
    caplog.clear()
    file = tmp_path / "headers.toml"
    file.write_text(FILE, encoding="utf-8")
    compose.harden_wsgi(Application().wsgi, settings(MKS_HEADERS_FILE=str(file)))
    assert caplog.messages == ["the header policy allows script-src-elem 'unsafe-inline' on /admin/"]


def test_the_preset_for_older_applications_opens_nothing_else() -> None:
    web, legacy = csp_of(HeaderPolicy.web()), csp_of(HeaderPolicy.legacy())
    inline = {"script-src": "'self' 'unsafe-inline'", "style-src": "'self' 'unsafe-inline'"}
    assert legacy == {**web, **inline}
    assert HeaderPolicy.legacy().fields == HeaderPolicy.web().fields


def test_the_file_of_the_guide_is_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[4] / "docs/en/how-to/content-security-policy.md"
    if not page.exists():
        pytest.skip("the documentation is not part of the wheel")
    _, _, rest = page.read_text("utf-8").partition("```toml\n")
    file = tmp_path / "headers.toml"
    file.write_text(rest.partition("```")[0], "utf-8")
    policy, [rule] = headers_of_file(str(file), HeaderPolicy.web())
    assert policy.csp is not None
    assert "https://tile.openstreetmap.org" in policy.csp.directives["img-src"]
    assert rule.listed == ("/admin/",)
    assert ("X-Frame-Options", "SAMEORIGIN") in rule.applied_to(policy).fields


def test_features_replace_those_of_the_same_name() -> None:
    policy = HeaderPolicy.web().plus(permissions='geolocation=(self), camera=(self "https://a.example")')
    features = dict(policy.fields)["Permissions-Policy"].split(", ")
    assert {"geolocation=(self)", 'camera=(self "https://a.example")', "microphone=()"} <= {*features}
    assert len({feature.partition("=")[0] for feature in features}) == len(features)
    assert {"clipboard-write=(self)", "fullscreen=(self)"} <= {*features}
    assert "clipboard-write=()" in dict(HeaderPolicy.strict().fields)["Permissions-Policy"]
    with pytest.raises(ConfigurationError, match=r"^permissions: no browser knows geolocatoin") as caught:
        policy.plus(permissions="geolocatoin=(self)")
    assert caught.value.parameter == "permissions"
