"""One notation for every option that takes paths."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening._core.web.paths import PathRules, exemptions
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import (
    ConcurrencyRule,
    CORSPolicy,
    CORSRule,
    CSRFMiddleware,
    HTTPSRedirectMiddleware,
    MemorySessionStore,
    RateLimitRule,
    RequestLimitRule,
    RequestLimits,
    RequestLoggingMiddleware,
    RequestTimeoutRule,
    SessionTimeoutMiddleware,
)


@pytest.mark.parametrize(
    ("listed", "inside", "outside"),
    [
        ("/login", ["/login"], ["/login/", "/login/x", "/logins", "/", "/Login"]),
        ("/static/", ["/static/", "/static/a/b"], ["/static", "/static-x", "/"]),
        ("/static/*", ["/static/", "/static/a/b"], ["/static", "/static*", "/"]),
        ("=/news/", ["/news/"], ["/news", "/news/1", "/"]),
        ("=/", ["/"], ["/news", "//"]),
        ("=/news", ["/news"], ["/news/"]),
        ("/", ["/", "/anything"], ["//", "/a/../b"]),
        ("/写真/", ["/写真/1".encode().decode("latin-1")], ["/写真/1"]),
    ],
)
def test_pages_and_folders_are_told_apart(listed: str, inside: list[str], outside: list[str]) -> None:
    rules = PathRules([listed], parameter="paths")
    assert [path for path in inside + outside if rules.match(path)] == inside


@pytest.mark.parametrize("listed", ["/login", "/login/", "/"])
@pytest.mark.parametrize(
    "path",
    [
        "/login\n",  # Starlette, Django: a pattern that ends in "$" matches before a newline
        "/login%0a",
        "/log\x00in",
        "login",  # targets without a slash, and in absolute form, as some servers pass them on
        "http://localhost/login",
        "HTTPS://user@example.com:8443//login\r\n",
    ],
)
def test_no_spelling_avoids_a_rule_that_restricts(listed: str, path: str) -> None:
    rules = PathRules([listed], parameter="paths")
    assert rules.covers(path)
    assert not rules.match(path)
    if listed != "/":
        assert not any(map(rules.covers, ("/logins\n", "http://login", "http://login/x", "x/login", "")))


@pytest.mark.parametrize(
    "wrong", ["", "=", "x", "=x", "//x", "/a/../b", "==/", "/a*", "/*/x", "=/x/*", "/a\\b", "/\n"]
)
def test_what_is_no_path_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="must begin with '/'"):
        PathRules([wrong], parameter="paths")


@pytest.mark.parametrize("never", ["/a?b", "/a?", "/a#b", "/%2e", "/%E5%86%99", "/a/%2F/", "=/a%20b/"])
def test_what_no_request_path_contains_is_refused(never: str) -> None:
    with pytest.raises(ConfigurationError, match="would match no request") as refused:
        PathRules(["/fine", never], parameter="paths")
    assert repr(never) in str(refused.value)
    assert refused.value.parameter == "paths"


@pytest.mark.parametrize("fine", ["/100%", "/100%/", "/%zz", "/a&b=c;d"])
def test_other_signs_are_part_of_a_path(fine: str) -> None:
    assert PathRules([fine], parameter="paths").match(fine)


RULES: list[Any] = [
    lambda path: ConcurrencyRule("all", path=path),
    lambda path: CORSRule(path, CORSPolicy("*")),
    lambda path: RateLimitRule("all", path=path),
    lambda path: RequestLimitRule(path, RequestLimits()),
    lambda path: RequestTimeoutRule(path, 1),
]


@pytest.mark.parametrize("make", RULES)
@pytest.mark.parametrize("path", [[], (), "", [""], "/a?b", ["/a", "/%2e"]])
def test_a_rule_that_would_never_apply_is_refused(make: Any, path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^path") as refused:
        make(path)
    assert refused.value.parameter == "path"
    make(["/a", "/b/"])


def application(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"page"]


EXEMPTING = [
    (HTTPSRedirectMiddleware, {"allowed_hosts": ["localhost"]}, "exempt_paths"),
    (HTTPSRedirectMiddleware, {"allowed_hosts": ["localhost"]}, "probe_paths"),
    (CSRFMiddleware, {"allowed_origins": ["https://localhost"]}, "exempt_paths"),
    (RequestLoggingMiddleware, {}, "skip_paths"),
    (SessionTimeoutMiddleware, {"store": MemorySessionStore()}, "public_paths"),
    (SessionTimeoutMiddleware, {"store": MemorySessionStore()}, "passive_paths"),
]


@pytest.mark.parametrize(("wrapper", "needed", "option"), EXEMPTING)
def test_no_wrapper_lets_one_slash_exempt_everything(wrapper: Any, needed: Any, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option}: '/' would exempt every path; write '=/'"):
        wrapper(application, **needed, **{option: ["/"]})
    with pytest.raises(ConfigurationError, match="would exempt every path"):
        wrapper(application, **needed, **{option: ["/*"]})
    wrapper(application, **needed, **{option: ["=/"]})


def test_the_first_page_alone_is_public() -> None:
    app = SessionTimeoutMiddleware(application, store=MemorySessionStore(), public_paths=["=/"])
    headers = {"Cookie": "__Host-mks-session=dead"}
    statuses = [call_wsgi(app, path, headers=headers).status for path in ("/", "/account", "//", "/x/..")]
    assert statuses == [200, 401, 401, 401]


def test_one_text_is_no_list_of_paths() -> None:
    with pytest.raises(ConfigurationError, match="a list of paths"):
        exemptions("/static/", parameter="paths")
