"""The application as a whole: what it opens it closes, and operators reach it through ``flask``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import knowledge_system
from knowledge_system import app as application
from knowledge_system.services.identity import sign_in_factory
from mks_hardening.cli import main
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.security import SecretBox
from testbed.polling import wait_until

_EXAMPLE = Path(__file__).parents[1]
_PACKAGE = Path(knowledge_system.__path__[0])


def test_every_file_that_the_readme_names_is_there() -> None:
    readme = (_EXAMPLE / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.(?:py|js)|/))`", readme))
    places = (_PACKAGE, _PACKAGE.parent, _EXAMPLE, _EXAMPLE.parents[1])
    assert len(named) > 20
    assert {name for name in named if not any((place / name).exists() for place in places)} == set()


def test_closing_gives_back_every_connection(
    make_app: Callable[..., Any], redis_server: Any, redis_url: str
) -> None:
    def connections() -> int:
        return len(redis_server.client().client_list())

    before = connections()
    app = make_app(MKS_REDIS_URL=redis_url)
    parts = app.extensions["knowledge"]
    assert parts.cache.ping()
    assert parts.limiter.hit("search", "somebody")
    with parts.engine.connect():
        assert parts.engine.pool.checkedout() == 1
    assert connections() > before
    parts.close()
    parts.close()
    assert parts.engine.pool.checkedin() == 0
    wait_until(lambda: connections() == before)  # a server sees an end a moment later


def test_nothing_stays_open_when_it_cannot_be_made(
    make_app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    disposed = list[bool]()
    open_database = application.open_database

    @contextmanager
    def watched(settings: Any) -> Iterator[Any]:
        try:
            with open_database(settings) as opened:
                yield opened
        finally:
            disposed.append(True)

    def refuse(_keys: object) -> None:
        raise ConfigurationError("no", parameter="keys")

    monkeypatch.setattr(application, "open_database", watched)
    monkeypatch.setattr(sign_in_factory, "SecretBox", refuse)
    with pytest.raises(ConfigurationError):
        make_app(demo=False)
    assert disposed == [True]


def test_operators_work_through_flask(app: Any, visit: Callable[..., Any]) -> None:
    def run(*arguments: str) -> Any:
        return app.test_cli_runner().invoke(args=["knowledge", *arguments])

    assert run("upgrade").exit_code == 0
    assert run("sessions", "nobody").exit_code == 1
    person = visit("tanaka")
    assert len(run("sessions", "tanaka").output.splitlines()) == 1
    assert person.get("/articles").status_code == 200
    assert run("sessions", "tanaka", "--end").exit_code == 0
    assert person.get("/articles").status_code == 303
    assert run("sessions", "tanaka").output == ""


def test_operators_help_through_the_command_of_the_library(
    own_database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {
        "DATABASE_URL": f"sqlite:///{own_database}",
        "MKS_ALLOWED_HOSTS": "localhost",
        "MKS_SECRET_KEYS": SecretBox.generate_key(),
        "MKS_AREAS_OFF": "logging,notify,cache",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    who = ["--actor", "ito", "--reason", "asked"]
    target = "knowledge_system.app:sign_in_from_env"
    assert main(["sign-in", "--target", target, "unlock", "1", *who]) == 1
    assert capsys.readouterr().out == "1  was not locked\n"
