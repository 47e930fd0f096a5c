"""``mks-hardening tasks``, on a database of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mks_hardening.cli import main
from mks_hardening.db import hardened_engine
from mks_hardening.security import SecretBox
from mks_hardening.tasks import TaskRun, Tasks, TaskWorker
from mks_hardening.testing import FrozenClock

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = f"sqlite:///{tmp_path / 'tasks.db'}"
    monkeypatch.setenv("DATABASE_URL", url)
    return url


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str) -> tuple[int, str]:
        code = main(["tasks", *arguments])
        return code, capsys.readouterr().out

    return command


def test_a_dead_task_is_found_run_again_and_removed(url: str, run: Run) -> None:
    engine = hardened_engine(url)
    tasks = Tasks(engine)
    tasks.create_table()
    fail = [True]

    @tasks.task("report")
    def report(run: TaskRun) -> str:
        if fail:
            raise ValueError("token=hunter2hunter2")
        return "made"

    with tasks.begin() as connection:
        task_id = report.enqueue(connection)
    worker = TaskWorker(tasks, schedule=False)
    worker.run_pending()

    code, listed = run("list", "--state", "dead")
    assert code == 0
    assert listed.startswith(f"{task_id}  dead")
    assert "report  ValueError: token=" in listed
    assert "hunter2" not in listed
    assert listed.endswith("dead: 1\n")

    assert run("retry", task_id) == (0, f"{task_id}  queued again\n")
    fail.clear()
    worker.run_pending()
    code, shown = run("show", task_id)
    assert code == 0
    assert "state        done" in shown
    assert "result       made" in shown
    assert run("retry", task_id)[0] == 1
    assert run("cancel", task_id)[0] == 1
    assert run("discard", task_id) == (0, f"{task_id}  removed\n")
    assert run("show", task_id) == (1, "no task has this id\n")
    assert run("list") == (0, "no tasks\n")
    engine.dispose()


def test_without_a_database_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert main(["tasks", "list"]) == 2
    assert capsys.readouterr().err.startswith("DATABASE_URL must point to")


def test_a_table_that_is_not_there_is_said_in_one_line(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "tasks.db").touch()
    assert main(["tasks", "list"]) == 2
    assert capsys.readouterr().err.startswith("there is no table mks_task; ")


def test_a_mistyped_file_is_not_created(url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tasks", "list"]) == 2
    assert capsys.readouterr().err.startswith(f"there is no database {tmp_path / 'tasks.db'}; ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["tasks", "list"], ["second-factor", "re-encrypt"]])
def test_a_server_that_is_unavailable_ends_with_three(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg://user:hunter2@127.0.0.1:1/name")
    monkeypatch.setenv("MKS_SECRET_KEYS", SecretBox.generate_key())
    assert main(command) == 3
    said = capsys.readouterr().err
    assert said.startswith("database is unavailable")
    assert "hunter2" not in said


def test_a_driver_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    monkeypatch.setenv("DATABASE_URL", "postgresql+psycopg2://user:hunter2@127.0.0.1:1/name")
    assert main(["tasks", "list"]) == 2
    said = capsys.readouterr().err
    assert "psycopg2" in said
    assert "hunter2" not in said


def test_a_database_on_which_no_limit_would_be_set_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql+pymysql://user:hunter2@127.0.0.1:1/name")
    assert main(["tasks", "list"]) == 2
    said = capsys.readouterr().err
    assert "url must name postgresql or sqlite: on mysql" in said
    assert "hunter2" not in said


def test_a_number_that_no_database_takes_is_refused(
    url: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = hardened_engine(url)
    Tasks(engine).create_table()
    engine.dispose()
    assert main(["tasks", "list", "--most", "9" * 30]) == 2
    assert "most must be" in capsys.readouterr().err


def test_times_are_told_in_the_zone_of_the_machine(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hardened_engine(url)
    tasks = Tasks(engine, clock=FrozenClock(datetime(2026, 4, 1, tzinfo=UTC)))
    tasks.create_table()

    @tasks.task("report")
    def report(run: TaskRun) -> None: ...

    with tasks.begin() as connection:
        task_id = report.enqueue(connection)
    engine.dispose()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert "2026-04-01 09:00:00+09:00" in run("show", task_id)[1]
    finally:
        monkeypatch.undo()
        time.tzset()
