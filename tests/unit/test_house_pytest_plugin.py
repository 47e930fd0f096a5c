"""The pytest plugin: cheap for those who do not use it, ready for those who do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFTEST = """
import json, sys

def pytest_sessionfinish(session):
    with open("modules.json", "w") as file:
        json.dump(sorted(sys.modules), file)
"""

USES_ALL = """
def test_clock(mks_clock):
    before = mks_clock.monotonic()
    mks_clock.advance(5)
    assert mks_clock.monotonic() == before + 5

def test_redis(mks_redis):
    mks_redis.set("a", "b")
    assert mks_redis.get("a") == b"b"

def test_redis_is_empty_again(mks_redis):
    assert mks_redis.dbsize() == 0

def test_outbox(mks_outbox):
    mks_outbox.send("alert")
    assert list(mks_outbox.messages) == ["alert"]

def test_wsgi(mks_wsgi):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    assert mks_wsgi(app, "/here").body == b"/here"
"""


def _pytest(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-q", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _modules(folder: Path, *arguments: str) -> set[str]:
    _pytest(folder, *arguments)
    return set(json.loads((folder / "modules.json").read_text()))


@pytest.fixture
def foreign_project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert True\n")
    return tmp_path


def test_it_costs_a_foreign_project_five_modules_at_most(foreign_project: Path) -> None:
    without = _modules(foreign_project, "-p", "no:mks_hardening")
    added = _modules(foreign_project) - without
    assert "mks_hardening.pytest_plugin" in added
    assert len(added) <= 5, added


def test_no_fixture_runs_unasked(foreign_project: Path) -> None:
    assert "mks_" not in _pytest(foreign_project, "--setup-show")


def test_each_fixture_works(foreign_project: Path) -> None:
    (foreign_project / "test_it.py").write_text(USES_ALL)
    assert "5 passed" in _pytest(foreign_project, "-W", "error")


def test_the_fixtures_are_listed_with_their_meaning(foreign_project: Path) -> None:
    listing: Any = _pytest(foreign_project, "--fixtures", "-v")
    for name in ("mks_clock", "mks_redis", "mks_outbox", "mks_wsgi"):
        assert name in listing
    assert "no docstring available" not in listing.partition("mks_clock")[2].partition("conftest")[0]
