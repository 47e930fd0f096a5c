"""Rate limits of ``deploy.toml``: rendered, read as the unit reads them, and in force in the application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.settings.credentials import make_missing
from mks_deploy.settings.settings_file import read_settings
from mks_hardening._core import hooks
from mks_hardening.events import RateLimitDecided
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
