"""CORS, request sizes and maintenance mode as ``harden_wsgi`` puts them together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.compose import harden_wsgi
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import WSGIAnswer, call_wsgi
from mks_hardening.wsgi import CORSPolicy, CORSRule, MaintenanceSwitch, RequestLimitRule, RequestLimits

HOST = {"Host": "example.com"}
SETTINGS = HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "example.com"})


def application(environ: Any, start_response: Any) -> list[bytes]:
    environ["wsgi.input"].read(100)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine"]


def ask(
    settings: HardeningSettings = SETTINGS, *, options: dict[str, Any] | None = None, **request: Any
) -> WSGIAnswer:
    app = harden_wsgi(application, settings, **(options or {}))
    headers = HOST | request.pop("headers", {})
    return call_wsgi(app, headers=headers, environ={"wsgi.url_scheme": "https"}, **request)


def settings_with(**changes: Any) -> HardeningSettings:
    return replace(SETTINGS, wsgi=replace(SETTINGS.wsgi, **changes))


def test_without_options_nothing_changes() -> None:
    answer = ask(headers={"Origin": "https://app.test"})
    assert answer.header("Access-Control-Allow-Origin") is None
    assert answer.header("Vary") is None


def test_settings_turn_them_on(tmp_path: Path) -> None:
    file = tmp_path / "maintenance"
    settings = settings_with(cors_origins=("https://app.test",), max_body=10, maintenance_file=str(file))
    origin = {"Origin": "https://app.test"}
    assert ask(settings, headers=origin).header("Access-Control-Allow-Origin") == "https://app.test"
    assert ask(settings, headers=origin).header("Access-Control-Allow-Credentials") is None
    assert ask(settings, method="POST", body=b"x" * 11).status == 413
    file.touch()
    assert ask(settings).status == 503
    assert ask(settings, path="/livez").status == 200


def test_refusals_and_errors_are_readable_by_allowed_origins() -> None:
    options = {"cors_policy": CORSPolicy("https://app.test"), "request_limits": RequestLimits(body=10)}
    answer = ask(options=options, method="POST", body=b"x" * 11, headers={"Origin": "https://app.test"})
    assert answer.status == 413
    assert answer.header("Access-Control-Allow-Origin") == "https://app.test"
    assert answer.header("X-Request-ID")


def test_one_list_of_origins_feeds_cors_and_csrf() -> None:
    origin = {"Origin": "https://app.test"}
    with_cookies = {"cors_policy": CORSPolicy("https://app.test", credentials=True)}
    assert ask(options=with_cookies, method="POST", headers=origin).status == 200
    by_rule = {"cors_rules": [CORSRule("/api/", CORSPolicy("https://app.test", credentials=True))]}
    assert ask(options=by_rule, method="POST", headers=origin).status == 200
    without = {"cors_policy": CORSPolicy("https://app.test")}
    assert ask(options=without, method="POST", headers=origin).status == 403


def test_the_options_of_each_are_passed_on(tmp_path: Path) -> None:
    switch = MaintenanceSwitch(tmp_path / "on", check_interval=0)
    switch.turn_on()
    options = {
        "maintenance_switch": switch,
        "maintenance_page": "<h1>later</h1>",
        "request_rules": [RequestLimitRule("/up/", RequestLimits(body=5))],
    }
    answer = ask(options=options, headers={"Accept": "text/html"})
    assert (answer.status, answer.body) == (503, b"<h1>later</h1>")
    switch.turn_off()
    assert ask(options=options, method="POST", path="/up/x", body=b"123456").status == 413
    with pytest.raises(ConfigurationError, match="cors_rules"):
        ask(options={"policy": None, "rules": ()})
