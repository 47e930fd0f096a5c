"""Rules for paths: what loosens applies to the path as it is, and what restricts to every spelling."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from hypothesis import example, given
from hypothesis import strategies as st

from mks_hardening._core.web.paths import exemptions
from mks_hardening._edge.cors.cors_policy import CORSPolicy, CORSRule, CORSRules
from mks_hardening._edge.csrf.csrf_rules import CSRFRules
from mks_hardening._edge.request_limits.request_limits import (
    BodyLimit,
    RequestHeadSize,
    RequestLimitRule,
    RequestLimits,
    RequestLimitsRules,
    broken_limit,
)
from mks_hardening._edge.request_timeout.request_timeout_rule import RequestTimeoutRule, RequestTimeoutRules

PAGE, FOLDER = "/api/upload", "/files/"
USUAL, LOOSE, STRICT = 1000, 10**9, 10
ANYBODY, PARTNER = CORSPolicy("*"), CORSPolicy("https://partner.example", credentials=True)

SEGMENTS = st.sampled_from(["api", "upload", "files", "login", "API", "a"])
NOISE = st.sampled_from(
    [
        "", ".", "..", "..;", "..;x=1", ".;", ";x", "x/..", "x/..;", "%2e%2e", "%2E.", "%2f", "%5c..", "upload;v=1",
        "files;x", "%2561", "..\\", "\\", "\x00", "upload/", "\xe6\xae",
    ]
)  # fmt: skip
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
PATHS = st.lists(SEGMENTS | NOISE, max_size=7).map(lambda segments: "/" + "/".join(segments))


def readings(path: str) -> set[str]:
    """The path as it is, and as applications and proxies may read it."""
    found = set[str]()
    decoded = (path, unquote(path, "latin-1"))
    for text in (*decoded, *(CONTROLS.sub("", one) for one in decoded)):
        kept: list[str] = []
        for segment in text.replace("\\", "/").split("/"):
            step = segment.partition(";")[0] if segment.startswith((".", ";")) else segment
            if step == "..":
                del kept[-1:]
            elif step not in ("", "."):
                kept.append(segment)
        found |= {text, "/" + "/".join(kept)}
    return found


def is_listed(path: str) -> bool:
    return path == PAGE or path.startswith(FOLDER)


def may_loosen(path: str) -> bool:
    """Whether the path is listed, and everybody reads it as it is, perhaps without its last slash."""
    return (
        is_listed(path)
        and path.isprintable()
        and {each.removesuffix("/") for each in readings(path)} == {path.removesuffix("/")}
    )


def head(body: int) -> RequestHeadSize:
    return RequestHeadSize("POST", "/", "", 1, [], str(body), False, None, "1.1")


def largest(rules: RequestLimitsRules, path: str) -> int:
    limits = rules.limits(path)
    accepted = [size for size in (STRICT, USUAL, LOOSE) if broken_limit(limits, head(size)) is None]
    counted = BodyLimit(limits, head(0), 0.0)
    assert counted.count(max(accepted), 0.0)
    assert not counted.count(1, 0.0)
    assert str(max(accepted)) in counted.exceeded().response.detail
    return max(accepted)


@given(PATHS)
@example("/api/..;/files/x")
@example("/api/%2e%2e/files/")
@example("/files//x")
@example("/files/../login")
@example("/api/upload/")
@example("/api/upload")
@example("/files/x")
def test_what_loosens_never_applies_to_another_spelling(path: str) -> None:
    paths = [PAGE, FOLDER]
    allowed = may_loosen(path)
    limits = RequestLimitsRules(
        RequestLimits(body=USUAL), [RequestLimitRule(paths, RequestLimits(body=LOOSE))]
    )
    assert largest(limits, path) == (LOOSE if allowed else USUAL)
    times = RequestTimeoutRules(10, [RequestTimeoutRule(paths, None)], can_cancel=True)
    deadline = times.deadline(path)
    assert (deadline is None) == allowed
    assert exemptions(paths, parameter="paths").match(path) == allowed
    csrf = CSRFRules(allowed_origins=(), exempt_paths=paths, max_form_bytes=0, secure_cookie=True)
    assert csrf.checks("POST", path) != allowed
    for everywhere in (None, ANYBODY):
        policy = CORSRules(everywhere, [CORSRule(paths, PARTNER)]).policy(path)
        assert (policy is PARTNER) == allowed
        assert policy in (PARTNER, everywhere) or not policy.grants("https://partner.example")


@given(PATHS)
@example("/x/..;/files/y")
@example("/files/..;/x")
@example("/x/%2e%2e/files/y")
@example("/api/upload/")
def test_what_restricts_applies_to_every_spelling(path: str) -> None:
    paths = [PAGE, FOLDER]
    is_meant = any(is_listed(each) or is_listed(each + "/") or each == PAGE + "/" for each in readings(path))
    limits = RequestLimitsRules(
        RequestLimits(body=USUAL),
        [
            RequestLimitRule("/login", RequestLimits(body=LOOSE)),
            RequestLimitRule(paths, RequestLimits(body=STRICT)),
        ],
    )
    if is_meant:
        assert largest(limits, path) == STRICT
    options: dict[str, Any] = {"whole_response": True}
    rules = [RequestTimeoutRule("/login", 100), RequestTimeoutRule(paths, 50, **options)]
    found = RequestTimeoutRules(20, rules, can_cancel=True).deadline(path)
    assert found is not None
    assert found.seconds == (50 if may_loosen(path) else 100 if path == "/login" else 20)
    assert found.whole_response or not is_meant
    policy = CORSRules(ANYBODY, [CORSRule(paths, PARTNER)]).policy(path)
    assert policy is not None
    assert policy.grants("https://evil.example") != is_meant
