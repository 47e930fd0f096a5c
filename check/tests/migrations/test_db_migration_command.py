"""``mks-hardening migrations lint`` for SQL files: exit status and formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mks_hardening.cli import main

VERSION = ("--server-version", "17")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1.sql").write_text("SET lock_timeout = '2s'; CREATE TABLE t (a json);", encoding="utf-8")
    (tmp_path / "2.sql").write_text("SET lock_timeout = '2s'; ALTER TABLE t DROP a;", encoding="utf-8")
    return tmp_path


def _lint(*arguments: str) -> int:
    return main(["migrations", "lint", *VERSION, *arguments])


def test_the_status_tells_whether_something_fails(folder: Path) -> None:
    assert _lint(str(folder / "1.sql")) == 0
    assert _lint("--fail-on", "warning", str(folder / "1.sql")) == 1
    assert _lint(str(folder)) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["none.sql"], ["--since", "1", "2.sql"], ["--alembic", "none"], ["--alembic", "a", "b.sql"]],
)
def test_a_wrong_use_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _lint(*arguments) == 2
    assert capsys.readouterr().err


def test_an_empty_folder_is_a_wrong_use(tmp_path: Path) -> None:
    assert _lint(str(tmp_path)) == 2


def test_programs_get_json_or_sarif(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _lint("--format", "json", str(folder))
    assert json.loads(capsys.readouterr().out)["migrations"] == ["1", "2"]
    _lint("--format", "sarif", str(folder))
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert {result["ruleId"] for result in run["results"]} == {"MG209", "MG210"}


def test_files_may_run_outside_of_a_transaction(tmp_path: Path) -> None:
    file = tmp_path / "1.sql"
    file.write_text("CREATE INDEX CONCURRENTLY i ON t (a);", encoding="utf-8")
    assert _lint(str(file)) == 1
    assert _lint("--no-transaction", str(file)) == 0
