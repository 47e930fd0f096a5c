from __future__ import annotations

import base64
import dataclasses
import inspect
import warnings
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from mks_hardening import notify, wsgi
from mks_hardening.cache import RedisCache
from mks_hardening.db import SlowQueryMonitor, hardened_engine
from mks_hardening.exceptions import ConfigurationError, SettingsError, SettingsWarning
from mks_hardening.logging import Rotation, setup_logging
from mks_hardening.settings import (
    CoreSettings,
    HardeningSettings,
    WsgiSettings,
    register_variables,
    variables,
)
from mks_hardening.settings import variable_table as module

KEYS = ",".join(base64.b64encode(bytes(range(first, first + 32))).decode() for first in (65, 97))

FULL = {
    "MKS_ENV": "staging",
    "MKS_REDIS_URL": "rediss://:hunter2@redis.example.com/0",
    "MKS_ALLOWED_HOSTS": "knowledge.example.com, .example.jp",
    "MKS_TRUSTED_PROXIES": "",
    "MKS_SESSION_IDLE_TIMEOUT": "45",
    "MKS_SESSION_ABSOLUTE_TIMEOUT": "12",
    "MKS_SMTP_HOST": "mail.example.com",
    "MKS_SMTP_USER": "alerts",
    "MKS_SMTP_PASSWORD": "hunter3",
    "MKS_ALERT_FROM": "alerts@example.com",
    "MKS_ALERT_TO": "a@example.com,b@example.com",
    "MKS_SLACK_WEBHOOK_URL": "https://hooks.example.com/hunter4",
    "MKS_LOG_FILE": "app.log",
    "MKS_LOG_MAX_BYTES": "100MiB",
    "DATABASE_URL": "postgresql+psycopg://u:hunter5@db/knowledge",
    "CLOUDFLARE_ZONE_ID": "0" * 32,
    "CLOUDFLARE_API_TOKEN": "hunter6",
    "MKS_SECRET_KEYS": KEYS,
}


def test_defaults_are_the_safe_ones() -> None:
    settings = HardeningSettings.from_env(environ={})
    assert settings == HardeningSettings()
    assert settings.core.environment == "production"
    assert settings.wsgi.force_https
    assert settings.wsgi.trusted_proxies == ()
    assert not settings.core.allow_plaintext


def test_everything_set() -> None:
    settings = HardeningSettings.from_env(environ=FULL)
    assert settings.core.environment == "staging"
    assert settings.wsgi.allowed_hosts == ("knowledge.example.com", ".example.jp")
    assert settings.wsgi.trusted_proxies == ()
    assert settings.wsgi.session_idle_timeout == 45 * 60
    assert settings.wsgi.session_absolute_timeout == 12 * 3600
    assert settings.notify.alert_to == ("a@example.com", "b@example.com")
    assert settings.logging.max_bytes == 100 * 1024**2
    assert settings.db.url is not None
    assert settings.security.secret_keys == tuple(KEYS.split(","))


def test_no_secret_is_shown() -> None:
    assert "hunter" not in repr(HardeningSettings.from_env(environ=FULL))


def test_all_faults_come_in_one_message_once_each() -> None:
    with pytest.raises(SettingsError) as caught:
        HardeningSettings.from_env(
            environ={
                "MKS_FORCE_HTTPS": "ture",
                "MKS_LOG_LEVEL": "LOUD",
                "MKS_SESSION_IDLE_TIMEOUT": "-1",
                "MKS_REDIS_URL": "hunter2",
                "MKS_SMTP_USER": "only",
                "MKS_SMTP_HOST": "mail",
                "CLOUDFLARE_ZONE_ID": "1",
                "MKS_LOG_MAX_BYTES": "1MiB",
            }
        )
    error = caught.value
    assert isinstance(error, ConfigurationError)
    named = [fault.split()[0] for fault in error.errors]
    assert sorted(named) == sorted(
        [
            "MKS_FORCE_HTTPS",
            "MKS_LOG_LEVEL",
            "MKS_SESSION_IDLE_TIMEOUT",
            "MKS_REDIS_URL",
            "MKS_ALERT_TO",
            "MKS_ALERT_FROM",
            "MKS_SMTP_USER",
            "CLOUDFLARE_ZONE_ID",
            "MKS_LOG_MAX_BYTES",
        ]
    )
    assert all(str(error).count(fault) == 1 for fault in error.errors)
    assert "hunter" not in str(error)


@pytest.mark.parametrize(
    "unsafe",
    [
        {"MKS_FORCE_HTTPS": "0"},
        {"MKS_LOG_LEVEL": "DEBUG"},
        {"MKS_TRUSTED_PROXIES": "0.0.0.0/0"},
        {"MKS_TRUSTED_PROXIES": "unix,0.0.0.0/1,128.0.0.0/1"},
        {"MKS_TRUSTED_PROXIES": "::/0"},
        {"MKS_TRUSTED_PROXIES": "::ffff:0:0/96"},
    ],
)
def test_unsafe_is_refused_in_production_only(unsafe: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="production"):
        HardeningSettings.from_env(environ=unsafe)
    HardeningSettings.from_env(environ={**unsafe, "MKS_ENV": "development"})


@pytest.mark.parametrize("proxies", ["10.0.0.0/8", "fc00::/7", "unix", "172.16.0.0/12,2001:db8::/32", ""])
def test_networks_of_proxies_are_taken_in_production(proxies: str) -> None:
    HardeningSettings.from_env(environ={"MKS_TRUSTED_PROXIES": proxies})


# --- what is well formed and still cannot be meant


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        (
            {"MKS_TRUSTED_PROXIES": "10.0.0.0/8,10.0.0.256"},
            "MKS_TRUSTED_PROXIES must be .*'10.0.0.256' is not",
        ),
        ({"MKS_TRUSTED_PROXIES": "10.0.0.1/8"}, "MKS_TRUSTED_PROXIES must be .*'10.0.0.1/8' is not"),
        (
            {"MKS_ALLOWED_HOSTS": "www.example.com,https://www.example.com"},
            "MKS_ALLOWED_HOSTS must be comma-separated host names",
        ),
        ({"MKS_ALLOWED_HOSTS": "*"}, "MKS_ALLOWED_HOSTS must be comma-separated host names .*'\\*' is not"),
        (
            {"MKS_ALLOWED_HOSTS": "a.example.com", "MKS_CANONICAL_HOST": "b.example.com"},
            "MKS_CANONICAL_HOST must",
        ),
        ({"MKS_CANONICAL_HOST": "a b"}, "MKS_CANONICAL_HOST must be a host name or an IP address"),
        ({"MKS_SESSION_IDLE_TIMEOUT": "1800"}, r"MKS_SESSION_IDLE_TIMEOUT \(30h\) must not be longer"),
        ({"MKS_SESSION_WARN_BEFORE": "31m"}, r"MKS_SESSION_WARN_BEFORE \(31m\) must not be longer"),
        ({"MKS_REDIS_URL": "redis://cache.example.com/0"}, "MKS_REDIS_URL must begin with rediss://"),
        ({"MKS_CACHE_URL": "redis://:hunter2@localhost:99999"}, "MKS_CACHE_URL must be a Redis URL: .*port"),
        (
            {"MKS_RATE_LIMIT_URL": "redis+sentinel://localhost"},
            "MKS_RATE_LIMIT_URL must be .*contains the service name",
        ),
        ({"MKS_SLACK_WEBHOOK_URL": "http://hooks.example.com/hunter2"}, "MKS_SLACK_WEBHOOK_URL: clear text"),
        ({"MKS_SECRET_KEYS": "hunter2"}, "MKS_SECRET_KEYS must be base64 of 32 random bytes.*item 1 is not"),
        ({"MKS_SECRET_KEYS": "A" * 43}, "MKS_SECRET_KEYS must be base64 of 32 random bytes"),
        ({"MKS_CACHE_SIGNING_KEYS": "hunter2"}, "MKS_CACHE_SIGNING_KEYS must be random secrets"),
        (
            {"MKS_CACHE_SIGNING_KEYS": "please-changeme-hunter2"},
            "MKS_CACHE_SIGNING_KEYS must be random secrets",
        ),
        ({"MKS_SMTP_HOST": "mail server"}, "MKS_SMTP_HOST must be a host name or an IP address"),
        ({"MKS_ALERT_TO": "ops@example.com"}, "MKS_SMTP_HOST must be a mail server when MKS_ALERT_TO is set"),
        ({"MKS_ALERT_FROM": "alerts"}, "MKS_ALERT_FROM must be a mail address"),
        (
            {"MKS_ALERT_TO": "ops@example.com, ops"},
            "MKS_ALERT_TO must be comma-separated mail addresses; 'ops' is not",
        ),
        ({"DATABASE_URL": "postgresql://db:port/x"}, "DATABASE_URL must be a URL"),
    ],
)
def test_semantic_faults_come_with_the_others(variables: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault) as caught:
        HardeningSettings.from_env(environ={**variables, "MKS_FORCE_HTTPS": "ture"})
    assert any(text.startswith("MKS_FORCE_HTTPS") for text in caught.value.errors)
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    "variables",
    [
        {"MKS_TRUSTED_PROXIES": "10.0.0.0/8,unix,::1,fd00::/8"},
        {"MKS_ALLOWED_HOSTS": "localhost,.example.com,[::1],::1,建設.example.jp,www.example.com:8443"},
        {"MKS_ALLOWED_HOSTS": ".example.com", "MKS_CANONICAL_HOST": "www.example.com"},
        {"MKS_SESSION_IDLE_TIMEOUT": "1800", "MKS_SESSION_ABSOLUTE_TIMEOUT": "48"},
        {"MKS_SESSION_IDLE_TIMEOUT": "60s", "MKS_SESSION_WARN_BEFORE": "2m"},  # warned from the first second
        {"MKS_REDIS_URL": "redis://cache.example.com/0", "MKS_ALLOW_PLAINTEXT": "1"},
        {"MKS_REDIS_URL": "redis+cluster://127.0.0.1:7000,127.0.0.1:7001"},
        {"MKS_CACHE_SIGNING_KEYS": "q7Jt0vB3xLm9sKd2"},
    ],
)
def test_what_can_be_meant_is_accepted(variables: dict[str, str]) -> None:
    HardeningSettings.from_env(environ=variables)


def test_types_can_be_read_at_run_time() -> None:
    for kind in (CoreSettings, WsgiSettings, HardeningSettings):
        assert get_type_hints(kind).keys() == {item.name for item in dataclasses.fields(kind)}


def test_every_default_is_what_its_own_text_means() -> None:
    for row in variables():
        if row.default_text and not row.secret:
            settings = HardeningSettings.from_env(environ={row.name: row.default_text})
            assert getattr(getattr(settings, row.area), row.field) == row.default


def test_unknown_variables_are_warned_about_with_a_hint() -> None:
    with pytest.warns(SettingsWarning, match="MKS_REDIS_ULR; did you mean MKS_REDIS_URL"):
        HardeningSettings.from_env(environ={"MKS_REDIS_ULR": "redis://localhost"})


def test_applications_register_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_registered", set())
    register_variables("MKS_CRANES")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HardeningSettings.from_env(environ={"MKS_CRANES": "3", "MKS_LOG_LEVEL": "INFO"})


@pytest.mark.parametrize("written", ["{}", "{}\n", "\ufeff{}\r\n", "{}\n\n"])
def test_secrets_from_files(tmp_path: Path, written: str) -> None:
    path = tmp_path / "redis"
    path.write_text(written.format("redis://localhost:6379/3"), encoding="utf-8")
    settings = HardeningSettings.from_env(environ={"MKS_REDIS_URL_FILE": str(path)})
    assert settings.core.redis_url == "redis://localhost:6379/3"


def test_another_prefix() -> None:
    settings = HardeningSettings.from_env(
        "ACME_", environ={"ACME_LOG_LEVEL": "WARNING", "MKS_LOG_LEVEL": "?"}
    )
    assert settings.logging.level == "WARNING"


def test_the_table_of_variables_is_complete_and_unique() -> None:
    table = variables()
    assert len({row.name for row in table}) == len(table)
    areas = [field.name for field in dataclasses.fields(HardeningSettings)]
    for area in areas:
        value: Any = getattr(HardeningSettings(), area)
        named = [row.field for row in table if row.area == area]
        assert named == [field.name for field in dataclasses.fields(value)]
    assert all(row.help.endswith(".") and row.form for row in table)
    for row in table:
        looks_secret = any(word in row.name for word in ("PASSWORD", "TOKEN", "KEYS", "_URL", "WEBHOOK"))
        assert row.secret == looks_secret, row.name


def test_a_blank_variable_leaves_the_default() -> None:
    blank = dict.fromkeys((variable.name for variable in variables()), "")
    assert HardeningSettings.from_env(environ=blank) == HardeningSettings()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"MKS_ENV": "test"},), "prefix must be a str, not dict"),
        ((None,), "prefix must be a str, not NoneType"),
        (("",), "prefix must not be empty"),
    ],
)
def test_a_prefix_is_text(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        HardeningSettings.from_env(*arguments)


def test_variables_are_a_mapping() -> None:
    wrong: Any = ["MKS_ENV=test"]
    with pytest.raises(ConfigurationError, match="environ must be a mapping of variables, not list"):
        HardeningSettings.from_env(environ=wrong)


@pytest.mark.parametrize(
    ("area", "field", "takes", "parameter"),
    [
        ("core", "store_budget", wsgi.RedisSessionStore, "store_budget"),
        ("wsgi", "session_idle_timeout", wsgi.SessionTimeoutMiddleware, "idle_timeout"),
        ("wsgi", "session_absolute_timeout", wsgi.SessionTimeoutMiddleware, "absolute_timeout"),
        ("wsgi", "session_warn_before", wsgi.SessionTimeoutMiddleware, "warn_before"),
        ("wsgi", "session_max", wsgi.SessionTimeoutMiddleware, "max_sessions"),
        ("wsgi", "hsts_max_age", wsgi.HSTS, "max_age"),
        ("wsgi", "force_https", wsgi.HTTPSRedirectMiddleware, "force_https"),
        ("wsgi", "https_port", wsgi.HTTPSRedirectMiddleware, "https_port"),
        ("logging", "backups", Rotation, "backups"),
        ("logging", "schema", setup_logging, "schema"),
        ("logging", "queue", setup_logging, "queue"),
        ("notify", "smtp_port", notify.EmailNotificationHandler, "smtp_port"),
        ("notify", "smtp_security", notify.EmailNotificationHandler, "security"),
        ("notify", "alert_window", notify.AlertPolicy, "dedup_window"),
        ("notify", "alert_level", notify.NotificationHandler, "level"),
        ("notify", "alert_language", notify.EmailNotificationHandler, "lang"),
        ("cache", "default_ttl", RedisCache, "default_ttl"),
        ("cache", "namespace", RedisCache, "namespace"),
        ("db", "statement_timeout", hardened_engine, "statement_timeout"),
        ("db", "slow_query", SlowQueryMonitor, "threshold"),
        ("db", "workers", hardened_engine, "workers"),
    ],
)
def test_a_default_is_the_same_with_settings_and_without(
    area: str, field: str, takes: Any, parameter: str
) -> None:
    """Settings lie below the areas and cannot ask them, so one number stands in two places."""
    asked = takes.__new__ if takes is notify.AlertPolicy else takes
    default = inspect.signature(asked).parameters[parameter].default
    assert getattr(getattr(HardeningSettings(), area), field) == default
