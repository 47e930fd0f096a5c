"""The same application file with each area switched off, and what the settings refuse."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knowledge_system.settings import AREAS, AppSettings
from mks_hardening.exceptions import SettingsError
from mks_hardening.security import SecretBox
from testbed.forked_programs import ForkedPrograms

QUIET = AREAS - {"logging", "notify"}
GOOD = {
    "DATABASE_URL": "sqlite:///x.db",
    "MKS_ALLOWED_HOSTS": "localhost",
    "MKS_SECRET_KEYS": SecretBox.generate_key(),
}


@pytest.mark.parametrize("off", sorted(QUIET))
def test_it_runs_without_an_area(make_app: Callable[..., Any], visit: Callable[..., Any], off: str) -> None:
    app = make_app(areas=QUIET - {off})
    person = visit("tanaka", at=app)
    page = person.get("/articles")
    assert page.status_code == 200
    assert person.get("/articles?q=養生").status_code == 200
    assert person.get("/articles/1").status_code == 200
    body = {"title": "確認", "category": "土工", "body": "本文", "tags": "", "status": "draft", "summary": ""}
    made = person.post("/articles", body)
    assert made.status_code == 303
    assert person.get("/account").status_code == 200
    assert person.get("/nothing").status_code == 404
    person.get("/articles")
    missing = {
        "cache": person.get("/articles").headers["X-Cache"] == "miss",
        "security": person.get("/account/second-factor").status_code == 503,
        "wsgi": "Content-Security-Policy" not in page.headers,
        "db": not app.extensions["knowledge"].engine.hide_parameters,
    }
    assert missing == {area: area == off for area in missing}
    assert person.post("/sign-out").status_code == 303
    assert person.api("GET", "/api/auth/me").status_code == 401


def test_it_runs_without_any_area(make_app: Callable[..., Any], visit: Callable[..., Any]) -> None:
    person = visit("sato", at=make_app(areas=frozenset()))
    assert person.get("/articles?q=養生").status_code == 200
    assert person.post("/articles/1/comments", {"body": "確認"}).status_code == 303


@pytest.mark.parametrize("off", ["logging", "notify", "logging,notify"])
def test_it_runs_without_logging_or_alerts(
    off: str, tmp_path: Path, own_database: Path, forked_programs: ForkedPrograms
) -> None:
    """In a process of its own, since logging belongs to the process."""
    script = (
        "from knowledge_system.app import from_env\n"
        "from werkzeug.test import Client\n"
        "answer = Client(from_env()).get('/sign-in', base_url='https://localhost')\n"
        "assert answer.status_code == 200, answer.status\n"
        "import logging; logging.shutdown()\n"
    )
    environ = {
        **GOOD,
        "DATABASE_URL": f"sqlite:///{own_database}",
        "MKS_AREAS_OFF": off,
        "MKS_LOG_FILE": str(tmp_path / "app.log"),
        "MKS_SMTP_HOST": "127.0.0.1",
        "MKS_SMTP_SECURITY": "plain",
        "MKS_ALERT_TO": "ops@example.com",
        "MKS_ALERT_FROM": "app@example.com",
    }
    done = forked_programs.run("-c", script, env=environ)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "app.log").exists() is ("logging" not in off)


def test_the_templates_of_a_list_and_an_article_are_compiled_before_the_first_request(
    own_database: Path, forked_programs: ForkedPrograms
) -> None:
    script = (
        "from knowledge_system.app import from_env\n"
        "app = from_env()\n"
        "def refuse(*given, **named): raise AssertionError(given)\n"
        "app.jinja_env.compile = refuse\n"
        "for name in ('base', 'articles', 'article', '_list', '_parts'):\n"
        "    app.jinja_env.get_template(f'{name}.html')\n"
    )
    done = forked_programs.run("-c", script, env={**GOOD, "DATABASE_URL": f"sqlite:///{own_database}"})
    assert done.returncode == 0, done.stderr


def test_good_settings() -> None:
    settings = AppSettings.from_env({**GOOD, "MKS_AREAS_OFF": "cache, notify", "MKS_DEMO": "1"})
    assert settings.areas == AREAS - {"cache", "notify"}
    assert settings.demo
    assert settings.demo_password not in repr(settings)
    assert AppSettings.from_env(GOOD).demo_password == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"MKS_ALLOWED_HOSTS": ""}, "MKS_ALLOWED_HOSTS"),
        ({"MKS_SECRET_KEYS": ""}, "MKS_SECRET_KEYS"),
        ({"MKS_SECRET_KEYS": "abc"}, "MKS_SECRET_KEYS"),
        ({"MKS_AREAS_OFF": "kitchen"}, "kitchen"),
        ({"MKS_DEMO": "perhaps"}, "MKS_DEMO"),
        ({"MKS_CELERY_BROKER_URL": "http://broker:6379/1"}, "MKS_CELERY_BROKER_URL"),
        ({"MKS_CELERY_BROKER_URL_FILE": "/nowhere/broker"}, "MKS_CELERY_BROKER_URL"),
        ({"MKS_GUNICORN_WORKERS": "4"}, "MKS_REDIS_URL"),
        ({"MKS_GUNICORN_WORKERS": "many"}, "MKS_GUNICORN_WORKERS"),
    ],
)
def test_invalid_settings(change: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AppSettings.from_env({**GOOD, **change})
    assert len(caught.value.errors) == 1
    assert named in caught.value.errors[0]


def test_the_broker_may_stand_in_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "broker"
    file.write_text("redis://:hunter22-hunter22@broker:6379/1\n")
    settings = AppSettings.from_env({**GOOD, "MKS_CELERY_BROKER_URL_FILE": str(file)})
    assert settings.broker_url == "redis://:hunter22-hunter22@broker:6379/1"
    assert "hunter22-hunter22" not in repr(settings)
    assert AppSettings.from_env({**GOOD, "MKS_CELERY_BROKER_URL": ""}).broker_url is None


def test_all_errors_are_told_at_once_and_switched_off_areas_need_nothing() -> None:
    with pytest.raises(SettingsError) as caught:
        AppSettings.from_env({})
    assert len(caught.value.errors) == 3
    AppSettings.from_env({"DATABASE_URL": "sqlite:///x.db", "MKS_AREAS_OFF": "wsgi,security"})


def test_quiet_tests_leave_the_root_logger_alone(make_app: Callable[..., Any]) -> None:
    before = list(logging.getLogger().handlers)
    make_app()
    assert logging.getLogger().handlers == before
