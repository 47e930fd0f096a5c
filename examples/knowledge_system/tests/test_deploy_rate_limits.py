"""Rate limits of ``deploy.toml``: rendered, read as the unit reads them, and in force in the application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy_settings import deployed
from knowledge_system.services.identity.rate_limits import OfficeLimiter
from knowledge_system.settings import AppSettings
from mks_deploy.cli import main
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import make_missing
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.versions import Installed
from mks_hardening._core import hooks
from mks_hardening.events import RateLimitDecided
from mks_hardening.exceptions import ConfigurationError, SettingsError
from mks_hardening.security import DEFAULT_RATE_LIMITS, SIGN_IN_LIMITS

KNOWN = read_settings(deployed())
SETTINGS = """
[site]
hosts = ["localhost"]
[edge]
listen_address = "loopback"
[tls]
source = "own"
certificate = "/etc/ssl/site.pem"
key = "/etc/ssl/site.key"
[upkeep]
alert_mail = "o@a.example"
[variables]
MKS_RATE_LIMITS = "search=2 per minute; 900 per hour | api_open=7 per minute"
MKS_RATE_LIMITS_DRY_RUN = "api_open, admin"
"""


@pytest.fixture
def rendered(tmp_path: Path) -> dict[str, str]:
    """The variables of the rendered files, as systemd and kustomize read them."""
    (tmp_path / "deploy.toml").write_text(deployed(SETTINGS, without=("tls",)))
    make_missing(tmp_path / "secrets", KNOWN)
    out = tmp_path / "out"
    words = [
        "render",
        "--settings",
        tmp_path / "deploy.toml",
        "--secrets",
        tmp_path / "secrets",
        "--out",
        out,
    ]
    assert main([str(word) for word in words]) == 0
    found = []
    for file in ("etc/knowledge-system/knowledge-system.env", "kubernetes/settings.env"):
        lines = (out / file).read_text().splitlines()
        found.append(dict(line.split("=", 1) for line in lines if line and not line.startswith("#")))
    host, kubernetes = found
    for name in ("MKS_RATE_LIMITS", "MKS_RATE_LIMITS_DRY_RUN"):
        assert host[name] == kubernetes[name]
        assert f'{name}: "{host[name]}"' in (out / "docker/compose.yml").read_text()
    return host


def test_limits_and_dry_runs_reach_the_application(
    rendered: dict[str, str], make_app: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    limits = {name: rendered[name] for name in ("MKS_RATE_LIMITS", "MKS_RATE_LIMITS_DRY_RUN")}
    app = make_app(**limits)
    limiter = app.extensions["knowledge"].limiter
    assert [limit.quota for limit in limiter.groups["search"]] == [2, 900]
    assert limiter.dry_run == {"api_open", "admin"}
    seen: list[RateLimitDecided] = []

    def note(event: object) -> None:
        if isinstance(event, RateLimitDecided) and event.group == "api_open":
            seen.append(event)

    hooks.add_observer(note)
    try:
        person = visit("tanaka", at=app)
        assert [person.get("/articles?q=a").status_code for _ in range(3)] == [200, 200, 429]
        stranger = type(person)(app)
        answers = [stranger.api("GET", "/api/openapi.json").status_code for _ in range(9)]
    finally:
        hooks.remove_observer(note)
    assert set(answers) == {200}
    assert [(event.allowed, event.dry_run) for event in seen[-2:]] == [(False, True)] * 2


def test_the_kit_knows_all_groups_of_the_application(make_app: Callable[..., Any]) -> None:
    groups = make_app().extensions["knowledge"].limiter.groups
    assert set(groups) == {*DEFAULT_RATE_LIMITS, *SIGN_IN_LIMITS, *KNOWN.app.limits}


OFFICES = {"203.0.113.8/29": 600, "203.0.113.12/32": 60, "2001:db8:1::/48": 120}


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("203.0.113.9", 600),
        ("203.0.113.12", 60),  # the most specific network counts
        ("2001:db8:1:7::/64", 120),
        ("203.0.113.7", 60),
        ("2001:db8:2::/64", 60),
        ("unknown", 60),
    ],
)
def test_an_office_has_its_own_limit_of_failed_sign_ins(
    make_app: Callable[..., Any], key: str, allowed: int
) -> None:
    app = make_app(offices=OFFICES).extensions["knowledge"]
    counted = OfficeLimiter(app.limiter, app.settings.offices)
    decisions = [counted.reserve("auth_login_address", key).decision.allowed for _ in range(allowed + 1)]
    assert decisions == [*[True] * allowed, False]
    counted.reset("auth_login_address", key)
    assert counted.reserve("auth_login_address", key).decision.allowed


def test_addresses_of_an_office_are_counted_together_and_accounts_as_everywhere(
    make_app: Callable[..., Any],
) -> None:
    app = make_app(offices={"203.0.113.8/29": 60}).extensions["knowledge"]
    counted = OfficeLimiter(app.limiter, app.settings.offices)
    keys = [f"203.0.113.{8 + number % 8}" for number in range(61)]
    assert [counted.reserve("auth_login_address", key).decision.allowed for key in keys].count(False) == 1
    name = [counted.reserve("auth_login", "203.0.113.9 sato").decision.allowed for _ in range(6)]
    account = [counted.reserve("auth_login_account", "user 7").decision.allowed for _ in range(51)]
    assert (name.count(False), account.count(False)) == (1, 1)


def test_a_hundred_mistyped_passwords_of_an_office_keep_nobody_out(
    make_app: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    app = make_app(offices={"127.0.0.0/29": 600})
    visitor = type(visit("tanaka", at=app))(app)
    for number in range(100):
        answer = visitor.api("POST", "/api/auth/login", {"username": f"n{number}", "password": "wrong"})
        assert answer.status_code == 401, number


@pytest.mark.parametrize(
    "text",
    [
        "203.0.113.8/29",
        "203.0.113.8/29=59",
        "203.0.113.9/29=60",
        "x=60",
        "10.0.0.1=60,10.0.0.1/32=60",
        "10.0.0.1=６０",
    ],
)
def test_offices_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="MKS_OFFICES"):
        AppSettings.from_env({"DATABASE_URL": "sqlite://", "MKS_OFFICES": text})


def test_sign_ins_of_offices_are_never_only_reported(make_app: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="must not contain auth_login_address"):
        make_app(offices=OFFICES, MKS_RATE_LIMITS_DRY_RUN="auth_login_address")


def test_offices_of_the_edge_reach_the_application() -> None:
    text = deployed(
        SETTINGS, '[edge]\noffices = { "203.0.113.8/29" = 1200, "2001:db8:1::/48" = 600 }', without=("tls",)
    )
    files = {file.path: file.text for file in render(read_settings(text), Installed())}
    environment = files["etc/knowledge-system/knowledge-system.env"]
    assert "\nMKS_OFFICES=203.0.113.8/29=1200,2001:db8:1::/48=600\n" in environment
    assert "MKS_OFFICES=203" in files["kubernetes/settings.env"]
