"""Going back for the schema and for the settings of a host, as ``mks-deploy rollback`` does for the version."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy_host import Host, as_released
from mks_deploy.cli import main
from mks_deploy.operations.operation_log import OperationLog
from mks_deploy.operations.release import ReleaseError, State
from mks_deploy.operations.schema_rollback import SchemaRollback
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings
from mks_deploy.setup.former_settings import find_former, keep_former, list_former

APP = 'schema = ["revise", "current"]\nmigrate_back = ["revise", "downgrade"]'
PROGRAM = """#!{python}
import pathlib, sys
file = pathlib.Path({revision!r})
if sys.argv[1] == "current":
    print("INFO  context")
    print(file.read_text())
elif sys.argv[2] == "unknown":
    sys.exit(3)
else:
    file.write_text(sys.argv[2])
"""


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host(app=APP)
    try:
        host.render()
        for version in ("1", "2"):
            folder = host.path("releases") / "versions" / version / "venv/bin"
            folder.mkdir(parents=True)
            revision = str(host.folder / "revision")
            (folder / "revise").write_text(PROGRAM.format(python=sys.executable, revision=revision))
            (folder / "revise").chmod(0o755)
        secrets = host.path("credentials")
        secrets.mkdir()
        for name in ("secret_keys", "database_url", "redis_url"):
            (secrets / name).write_text("x")
        (host.folder / "deploy.toml").write_text(host.settings_text())
        yield host
    finally:
        host.stop()


def back_up(host: Host) -> None:
    mark = host.path("backups") / "20261101T000000Z/complete"
    mark.parent.mkdir(parents=True)
    mark.touch()
    os.utime(mark, (time.time() - 60,) * 2)


def settings_of(host: Host) -> Settings:
    return read_settings(host.settings_text())


def revision(host: Host, text: str = "") -> str:
    file = host.folder / "revision"
    if text:
        file.write_text(text)
    return file.read_text()


def test_a_migration_is_taken_back_to_the_revision_before_it(host: Host) -> None:
    schema = SchemaRollback(settings_of(host))
    revision(host, "0015 (head)")
    schema.record("2")
    revision(host, "0016")
    schema.record("2")  # released again: what it finds now is its own
    back_up(host)
    assert schema.planned("2") == "0015"
    schema.go_back("2", "0015")
    assert revision(host) == "0015"
    with pytest.raises(ReleaseError, match="no revision from before version 2"):
        schema.planned("2")


def test_what_prints_no_revision_stops_the_migration(host: Host) -> None:
    schema = SchemaRollback(settings_of(host))
    revision(host, "; drop table")
    with pytest.raises(ReleaseError, match="printed no revision"):
        schema.record("2")
    (host.folder / "revision").unlink()
    with pytest.raises(ReleaseError, match="printed no revision"):
        schema.record("2")
    with pytest.raises(ReleaseError, match="No such file"):
        schema.record("3")


def test_the_schema_goes_back_after_the_requests_and_only_with_a_backup(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def moved(state: State, _steps: object, _trail: object) -> State:
        seen.append(revision(host))
        return replace(state, active="blue", before="2")

    monkeypatch.setattr("mks_deploy.cli.release_commands.rollback", moved)
    releases = host.path("releases")
    as_released(settings_of(host), State("green", "1", "2", "1"))
    words = ["rollback", "--schema", "--settings", str(host.folder / "deploy.toml")]
    assert main(words) == 1
    assert "no revision from before version 2 is recorded" in capsys.readouterr().err
    revision(host, "0015")
    SchemaRollback(settings_of(host)).record("2")
    revision(host, "0016")
    assert main(words) == 1
    assert "no backup is younger" in capsys.readouterr().err
    assert not seen
    back_up(host)
    assert main(words) == 0
    assert (seen, revision(host)) == (["0016"], "0015")
    (line,) = OperationLog(releases / "trail.jsonl").last(1)
    assert '"schema rollback"' in line
    assert '"done"' in line


def test_a_failing_downgrade_says_where_the_requests_are(host: Host) -> None:
    with pytest.raises(ReleaseError, match=r"revise downgrade unknown ended with 3: the previous version"):
        SchemaRollback(settings_of(host)).go_back("2", "unknown")


def test_without_the_commands_nothing_is_recorded_or_refused() -> None:
    host = Host()
    try:
        schema = SchemaRollback(settings_of(host))
        schema.record("2")
        assert not (host.path("releases") / "schema.json").exists()
        with pytest.raises(ReleaseError, match=r"app\.migrate_back names no command"):
            schema.planned("2")
        with pytest.raises(DeploySettingsError, match=r"app\.migrate_back needs"):
            read_settings(host.settings_text('[app]\nmigrate_back = ["alembic", "downgrade"]'))
    finally:
        host.stop()


def test_a_damaged_record_is_not_guessed(host: Host) -> None:
    file = host.path("releases") / "schema.json"
    for text in ("{", "[]"):
        file.write_text(text)
        with pytest.raises(ReleaseError, match="is damaged"):
            SchemaRollback(settings_of(host)).record("2")


NOW = datetime(2026, 11, 29, 10, 0, tzinfo=UTC)


def test_former_settings_are_kept_at_each_change(host: Host, capsys: Any) -> None:
    settings = settings_of(host)
    present = Path(settings.paths.config) / "deploy.toml"
    keep_former(settings, "first", now=NOW)
    assert list_former(settings) == []  # there was none before
    for number in range(25):
        present.write_text(f"# {number}\n{host.settings_text()}")
        keep_former(settings, present.read_text(), now=NOW)  # the same again
        keep_former(settings, "another", now=NOW + timedelta(minutes=number))
        keep_former(settings, "another", now=NOW + timedelta(hours=number))
    kept = list_former(settings)
    assert len(kept) == 20
    assert kept[-1].read_text().startswith("# 24")
    newest = find_former(settings)
    assert newest is not None
    assert newest.read_text().startswith("# 23")  # the newest that is not the present one
    words = ["--settings", str(present)]
    assert main(["settings", "list", *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20
    assert main(["settings", "diff", *words]) == 0
    assert "-# 24\n+# 23\n" in capsys.readouterr().out
    assert main(["settings", "rollback", "20010101T000000Z", *words]) == 2
    assert "mks-deploy settings list" in capsys.readouterr().err


def test_former_settings_are_applied_with_the_running_version(
    host: Host, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(host)
    present = Path(settings.paths.config) / "deploy.toml"
    present.write_text(host.settings_text())
    keep_former(settings, "new", now=NOW)
    present.write_text(host.settings_text("[upkeep]\nlog_days = 7"))
    as_released(settings, State("blue", "1"))
    applied: list[Any] = []

    def noted(options: Any) -> int:
        applied.append(options)
        return 0

    monkeypatch.setattr("mks_deploy.cli.setup_commands.apply_command", noted)
    monkeypatch.setattr("mks_deploy.cli.arguments.apply_command", noted)
    assert main(["settings", "rollback", "--settings", str(present)]) == 0
    assert main(["apply", "--settings", str(present), "--secrets", ".", "--version", "1"]) == 0
    options, of_apply = applied
    assert vars(of_apply).keys() - vars(options).keys() == set()
    assert read_settings(options.settings.read_text()).upkeep.log_days == 30
    assert (options.version, options.secrets) == ("1", Path(settings.paths.credentials))
