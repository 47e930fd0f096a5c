"""The pytest plugin: cheap for those who do not use it, ready for those who do."""

from __future__ import annotations

import json
import os
import re
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

def test_check(mks_check):
    assert mks_check(environ={"MKS_ALLOWED_HOSTS": "a.example"}).findings == ()
"""


BUDGETS = """
import pytest
from sqlalchemy import create_engine, text
from mks_hardening.db import hardened_engine

@pytest.fixture
def engine():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:  # not counted
        connection.execute(text("select 0"))
    yield engine
    engine.dispose()

def ask(engine):
    with engine.connect() as connection:
        connection.execute(text("select 1"))

@pytest.mark.mks_query_budget(1, "engine")
def test_within(engine):
    ask(engine)

@pytest.mark.mks_query_budget(1, "engine")
def test_beyond(engine):
    ask(engine)
    ask(engine)

@pytest.mark.mks_query_budget(1, "engine")
def test_a_failure_of_its_own_goes_first(engine):
    ask(engine)
    ask(engine)
    raise LookupError("its own")

@pytest.mark.mks_query_budget(1)
def test_beyond_on_an_engine_of_the_test():
    engine = hardened_engine("sqlite://")
    ask(engine)
    ask(engine)

@pytest.mark.mks_query_budget(1, "nowhere")
def test_unknown_fixture(engine):
    pass

@pytest.mark.mks_query_budget(limit=1)
def test_wrong_use(engine):
    pass
"""

ISOLATED = """
import logging
from mks_hardening._core import hooks
from mks_hardening.events import PoolEvent

def test_one(mks_events, mks_records, mks_alerts):
    hooks.emit(PoolEvent("exhausted", 1, 1))
    assert mks_events.of(PoolEvent) == mks_events.events
    logging.getLogger("mks_hardening.x").info("password=hunter2")
    logging.getLogger("app").error("no")
    logging.getLogger("app").error("no")
    assert mks_records.messages == ["password=[REDACTED]", "no", "no"]
    assert [line["logger"] for line in mks_records.of("mks_hardening")] == ["mks_hardening.x"]
    assert mks_records.of("mks") == []
    assert len(mks_alerts.subjects) == 2  # the second is a digest of repetitions
    for recorded in (mks_events, mks_records, mks_alerts):
        recorded.clear()
    assert (mks_events.of(PoolEvent), mks_records.text, mks_alerts.texts) == ([], "", [])
    mks_records.set_level("DEBUG")
    logging.getLogger().debug("more")
    assert mks_records.messages == ["more"]

def test_nothing_is_left():
    assert not hooks.observers
    assert logging.getLogger().level == logging.WARNING
    assert logging.getLogger("mks_hardening").level == logging.NOTSET
    assert [type(h).__name__ for h in logging.getLogger().handlers if "mks" in type(h).__module__] == []
"""


def _pytest(folder: Path, *arguments: str, status: int = 0) -> str:
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
    assert done.returncode == status, done.stdout + done.stderr
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
    assert "6 passed" in _pytest(foreign_project, "-W", "error")


def test_the_fixtures_are_listed_with_their_meaning(foreign_project: Path) -> None:
    listing: Any = _pytest(foreign_project, "--fixtures", "-v")
    sections = re.split(r"-+ fixtures defined from (\S+) -+", listing)[1:]
    ours = "".join(
        text for place, text in zip(sections[::2], sections[1::2], strict=True) if "mks_hardening" in place
    )
    for name in (
        "mks_alerts",
        "mks_check",
        "mks_clock",
        "mks_events",
        "mks_outbox",
        "mks_records",
        "mks_redis",
        "mks_wsgi",
    ):
        assert name in ours
    assert "no docstring available" not in ours


def test_the_marker_holds_a_test_to_its_budget(foreign_project: Path) -> None:
    (foreign_project / "test_it.py").write_text(BUDGETS)
    result = _pytest(foreign_project, "--strict-markers", "-rf", status=1)
    assert "1 passed" in result
    assert "5 failed" in result
    assert len(re.findall(r"(?m)^E .*QueryBudgetError: 2 statements, 1 allowed", result)) == 2
    assert "LookupError: its own" in result
    assert "the test does not use the fixture nowhere" in result
    assert "write @pytest.mark.mks_query_budget(limit, *engines)" in result


def test_events_records_and_alerts_are_recorded_and_nothing_is_left(foreign_project: Path) -> None:
    (foreign_project / "test_it.py").write_text(ISOLATED)
    assert "2 passed" in _pytest(foreign_project, "-W", "error")


def test_the_marker_is_listed(foreign_project: Path) -> None:
    assert "mks_query_budget(limit, *engines)" in _pytest(foreign_project, "--markers")
