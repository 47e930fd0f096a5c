from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pytest

from mks_hardening import settings as module
from mks_hardening.exceptions import ConfigurationError, SettingsError, SettingsWarning
from mks_hardening.settings import HardeningSettings, register_variables, variables

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
    "MKS_SECRET_KEYS": "hunter7,hunter8",
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
    assert settings.security.secret_keys == ("hunter7", "hunter8")


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
    named = [fault.split()[0] for fault in error.faults]
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
    assert all(str(error).count(fault) == 1 for fault in error.faults)
    assert "hunter" not in str(error)


@pytest.mark.parametrize("unsafe", [{"MKS_FORCE_HTTPS": "0"}, {"MKS_LOG_LEVEL": "DEBUG"}])
def test_unsafe_is_refused_in_production_only(unsafe: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="production"):
        HardeningSettings.from_env(environ=unsafe)
    HardeningSettings.from_env(environ={**unsafe, "MKS_ENV": "development"})


def test_unknown_variables_are_warned_about_with_a_hint() -> None:
    with pytest.warns(SettingsWarning, match="MKS_REDIS_ULR; did you mean MKS_REDIS_URL"):
        HardeningSettings.from_env(environ={"MKS_REDIS_ULR": "redis://localhost"})


def test_applications_register_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_registered", set())
    register_variables("MKS_CRANES")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        HardeningSettings.from_env(environ={"MKS_CRANES": "3", "MKS_LOG_LEVEL": "INFO"})


def test_secrets_from_files(tmp_path: Path) -> None:
    path = tmp_path / "redis"
    path.write_text("redis://localhost:6379/3\n", encoding="utf-8")
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
