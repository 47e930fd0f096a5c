"""The tables' revisions, on SQLite and PostgreSQL: there and back, beside people at work, and after accidents."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, func, inspect, select, table, text
from sqlalchemy.exc import OperationalError

from knowledge_system import app as application
from knowledge_system import database
from knowledge_system.migrations import indexes, runner
from knowledge_system.migrations.runner import MigrationError, Migrations, is_ours
from knowledge_system.models import Base
from knowledge_system.settings import DEMO_PASSWORD, AppSettings
from mks_check import MigrationLinter
from mks_hardening.db import LockRetry, SearchIndex
from mks_hardening.security import SecretBox
from mks_hardening.settings import HardeningSettings

INDEXES = "0002"
"""The revision that builds indexes beside people at work."""


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(
    request: pytest.FixtureRequest, settings_at: Callable[..., AppSettings], tmp_path: Path
) -> AppSettings:
    if request.param == "postgresql":
        return settings_at(request.getfixturevalue("postgres_url"))
    return settings_at(f"sqlite:///{tmp_path / 'tables.db'}")


@pytest.fixture
def engine(settings: AppSettings) -> Iterator[Engine]:
    with application.open_database(settings) as (opened, _):
        yield opened


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    engine = create_engine(postgres_url)
    yield engine
    engine.dispose()


def shape(engine: Engine) -> dict[str, Any]:
    """Columns, keys and indexes of every table, and the triggers."""
    seen = inspect(engine)
    asked = "SELECT name, 'O' FROM sqlite_master WHERE type = 'trigger'"
    if engine.dialect.name == "postgresql":
        asked = "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal"
    with engine.connect() as connection:
        triggers = sorted((name, str(on)) for name, on in connection.execute(text(asked)))
    # Of all tables at once: one table after the other, PostgreSQL spends three statements on each.
    columns, indexes, keys = seen.get_multi_columns(), seen.get_multi_indexes(), seen.get_multi_foreign_keys()
    tables: dict[str, Any] = {
        table[1]: (
            {column["name"]: (str(column["type"]), column["nullable"]) for column in columns[table]},
            sorted((index["name"] or "", tuple(index["column_names"])) for index in indexes[table]),
            sorted((key["name"] or "", key["referred_table"]) for key in keys[table]),
        )
        for table in columns
        if table[1] != "alembic_version"
    }
    return tables | ({"triggers": triggers} if triggers else {})


def rows(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(table(name))) or 0
            for name in inspect(engine).get_table_names()
            if name in Base.metadata.tables
        }


def fill(engine: Engine, settings: AppSettings) -> None:
    with application.open_database(settings) as (_, search):
        database.fill(application.session_factory(engine), search, password=DEMO_PASSWORD, clock=time)


def test_of_each_tag_the_spelling_of_most_articles_stays(engine: Engine, settings: AppSettings) -> None:
    migrations = Migrations(engine)
    migrations.upgrade()
    fill(engine, settings)
    migrations.downgrade("0007")
    spellings = {1: ("ＲＣ", "rc"), 2: ("RC",), 3: ("RC", "スラブ"), 4: ("ｽﾗﾌﾞ",), 5: ("スラブ",)}
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM article_tags"))
        for article, names in spellings.items():
            for name in names:
                values = {"article": article, "name": name}
                connection.execute(text("INSERT INTO article_tags VALUES (:article, :name, 0)"), values)
    migrations.upgrade()
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT article_id, name FROM article_tags ORDER BY article_id, name")
        )
        assert [tuple(row) for row in found] == [
            (1, "RC"),
            (2, "RC"),
            (3, "RC"),
            (3, "スラブ"),
            (4, "スラブ"),
            (5, "スラブ"),
        ]
        kept = dict(tuple(row) for row in connection.execute(text("SELECT key, name FROM tags")))
        assert kept == {"rc": "RC", "スラブ": "スラブ"}


def test_the_chain_has_no_branch_and_files_are_named_by_their_number() -> None:
    migrations = Migrations(create_engine("sqlite://"))
    assert migrations.revisions == [f"{number:04d}" for number in range(1, len(migrations.revisions) + 1)]
    folder = Path(database.__file__).parent / "migrations" / "versions"
    numbers = sorted(file.name[1:5] for file in folder.glob("r*.py"))
    assert numbers == migrations.revisions


def test_no_revision_blocks_a_running_application_without_a_reason() -> None:
    linter = MigrationLinter(server_version=15, has_lock_timeout=True)
    assert linter.lint_alembic(Path(runner.__file__).parent).failures("note") == ()


def test_revisions_and_models_agree(engine: Engine) -> None:
    """What is missing in the newest revision is shown as it would be written there."""
    Migrations(engine).upgrade()
    with engine.connect() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: is_ours(name, kind),
        }
        found = produce_migrations(MigrationContext.configure(connection, opts=options), Base.metadata)
    assert found.upgrade_ops is not None
    assert found.upgrade_ops.is_empty(), render_python_code(found.upgrade_ops)


def test_each_revision_can_be_taken_back_and_keeps_what_was_there(
    engine: Engine, settings: AppSettings
) -> None:
    migrations = Migrations(engine)
    migrations.upgrade()
    fill(engine, settings)
    newest, filled = shape(engine), rows(engine)
    for revision in migrations.revisions[-2::-1]:
        before = shape(engine)
        migrations.downgrade(revision)
        assert migrations.current() == revision
        assert shape(engine) != before
        kept = rows(engine)
        assert kept == {name: number for name, number in filled.items() if name in kept}
        migrations.upgrade("+1")
        assert shape(engine) == before
        migrations.downgrade(revision)
    assert migrations.upgrade() == migrations.revisions[1:]
    assert shape(engine) == newest
    again = kept.keys() | {"tags"}  # found again in the articles
    assert rows(engine) == {name: filled[name] if name in again else 0 for name in filled}
    migrations.downgrade("base")
    assert shape(engine) == {}
    assert migrations.upgrade() == migrations.revisions


def test_tables_from_before_there_were_revisions_are_taken_over(
    engine: Engine, settings: AppSettings
) -> None:
    migrations = Migrations(engine)
    migrations.upgrade("0001")
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        connection.execute(
            text(
                "INSERT INTO users (username, display_name, department, role, password_hash, created_at) "
                "VALUES ('tanaka', 'T', '', 'writer', 'x', :now)"
            ),
            {"now": datetime.now(UTC).isoformat(" ")},
        )
    assert not migrations.is_empty()
    assert migrations.current() is None
    migrations.upgrade()
    assert migrations.current() == migrations.newest
    assert rows(engine)["users"] == 1


def test_a_strange_database_is_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE users (id integer PRIMARY KEY)"))
    with pytest.raises(MigrationError, match="articles"):
        Migrations(engine).upgrade()
    assert inspect(engine).get_table_names() == ["users"]


def test_a_database_that_is_newer_than_the_program_is_left_alone(engine: Engine) -> None:
    migrations = Migrations(engine)
    migrations.upgrade()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrations.pending() == []
    assert migrations.upgrade() == []


def test_a_step_that_fails_changes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on SQLite, whose driver would commit each CREATE TABLE by itself."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(SearchIndex, "create", refuse)
    with pytest.raises(RuntimeError, match="no room"):
        Migrations(engine).upgrade()
    monkeypatch.undo()
    assert shape(engine) == {}
    assert Migrations(engine).upgrade()


def test_what_was_set_for_the_step_is_taken_back(engine: Engine) -> None:
    asked = "SHOW statement_timeout" if engine.dialect.name == "postgresql" else "PRAGMA foreign_keys"
    with engine.connect() as connection:
        usual = connection.scalar(text(asked))
    Migrations(engine).upgrade()
    with engine.connect() as connection:
        assert connection.scalar(text(asked)) == usual


# --- PostgreSQL beside people at work


def test_tables_are_analyzed_after_a_step(postgres: Engine) -> None:
    migrations = Migrations(postgres)
    migrations.upgrade("0001")
    with postgres.begin() as connection:
        connection.execute(text("ALTER TABLE users SET (autovacuum_enabled = off)"))
        connection.execute(
            text(
                "INSERT INTO users (username, display_name, department, role, password_hash, created_at)"
                " SELECT 'u' || n, 'x', 'x', 'viewer', 'x', now() FROM generate_series(1, 500) n"
            )
        )
    migrations.upgrade()
    with postgres.connect() as connection:
        known = connection.scalar(text("SELECT count(*) FROM pg_stats WHERE tablename = 'users'"))
    assert known


def test_an_index_that_a_failed_build_left_behind_is_built_anew(postgres: Engine) -> None:
    migrations = Migrations(postgres)
    migrations.upgrade("0001")
    with postgres.connect() as connection:
        connection.execute(text("CREATE INDEX ix_comments_created_at ON comments (created_at)"))
        connection.execute(
            text(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_comments_created_at'::regclass"
            )
        )
        connection.commit()
    migrations.upgrade(INDEXES)
    with postgres.connect() as connection:
        valid = connection.scalars(
            text("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'comments'::regclass")
        )
        assert valid.one() is True


def test_a_table_in_use_is_waited_for_briefly_and_tried_again(postgres: Engine) -> None:
    """The lock time-out lets everybody else through; the step comes when the table is free."""
    migrations = Migrations(postgres, pause=lambda _: free.set())
    migrations.upgrade("0005")
    free, held = threading.Event(), threading.Event()

    def hold() -> None:
        with postgres.connect() as connection:
            connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
            held.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(60)
        assert migrations.upgrade("0006") == ["0006"]
    finally:
        free.set()
        holder.join()


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_a_table_that_is_never_free_is_told(
    postgres: Engine, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    monkeypatch.setattr(indexes, "LOCK_RETRY", LockRetry(total=0.1))
    migrations = Migrations(postgres, attempts=1, pause=lambda _: None)
    migrations.upgrade(revision)
    with postgres.connect() as connection:
        connection.execute(text("LOCK TABLE comments, users IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(MigrationError, match=r"in use|held by process \d+"):
            migrations.upgrade()
    assert migrations.current() == revision


def test_one_process_changes_the_tables_at_a_time(postgres: Engine) -> None:
    applied: list[list[str]] = []

    def work() -> None:
        applied.append(Migrations(postgres, attempts=600, pause=lambda _: time.sleep(0.05)).upgrade())

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(applied) == 4
    assert Migrations(postgres).current() == Migrations(postgres).newest


def test_another_error_of_the_database_is_not_tried_again(postgres: Engine) -> None:
    pauses: list[float] = []
    read_only = create_engine(postgres.url, connect_args={"options": "-c default_transaction_read_only=on"})
    with pytest.raises(Exception, match="read-only") as caught:
        Migrations(read_only, pause=pauses.append).upgrade()
    read_only.dispose()
    assert not isinstance(caught.value, OperationalError)
    assert pauses == []


# --- production


def production(settings: AppSettings, **changed: Any) -> AppSettings:
    hard = HardeningSettings.from_env(
        environ={"MKS_ENV": "production", "DATABASE_URL": settings.hardening.db.url or ""}
    )
    return replace(settings, hardening=hard, demo=False, **changed)


def test_production_is_changed_only_after_a_fresh_backup(
    engine: Engine, settings: AppSettings, tmp_path: Path
) -> None:
    Migrations(engine).upgrade("0001")
    folder = tmp_path / "backups"
    real = production(settings, backups=folder, backup_max_age=3600)

    def refused(**options: Any) -> str:
        with pytest.raises(MigrationError) as caught:
            database.upgrade(engine, real, clock=time, **options)
        assert Migrations(engine).current() == "0001"
        return str(caught.value)

    assert "MKS_BACKUPS" in _message(engine, replace(real, backups=None))
    assert "1 hours" in refused()
    mark = folder / "20261126T030000Z" / "complete"
    mark.parent.mkdir(parents=True)
    assert str(folder) in refused()
    mark.touch()
    os.utime(mark, (time.time() - 4000, time.time() - 4000))
    assert str(folder) in refused()
    os.utime(mark)
    assert database.upgrade(engine, real, clock=time) == Migrations(engine).revisions[1:]
    assert database.upgrade(engine, replace(real, backups=None), clock=time) == []


def _message(engine: Engine, settings: AppSettings) -> str:
    with pytest.raises(MigrationError) as caught:
        database.upgrade(engine, settings, clock=time)
    return str(caught.value)


def test_an_empty_database_and_a_named_reason_need_no_backup(engine: Engine, settings: AppSettings) -> None:
    real = production(settings)
    Migrations(engine).upgrade("0001")
    assert database.upgrade(engine, real, clock=time, without_backup="restored an hour ago")
    Migrations(engine).downgrade("base")
    assert database.upgrade(engine, real, clock=time)


def test_the_command_refuses_in_one_line(run_command: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'real.db'}"
    engine = create_engine(url)
    Migrations(engine).upgrade("0001")
    real = {
        "DATABASE_URL": url,
        "MKS_ALLOWED_HOSTS": "knowledge.example",
        "MKS_SECRET_KEYS": SecretBox.generate_key(),
        "MKS_ENV": "production",
        "MKS_AREAS_OFF": "logging",
        "MKS_BACKUPS": str(tmp_path),
    }
    done = run_command("upgrade", **real)
    assert (done.returncode, "Traceback" in done.stderr) == (5, False)
    assert "26 hours" in done.stderr
    assert run_command("upgrade", "--without-backup", "nothing in it", **real).returncode == 0
    assert Migrations(engine).pending() == []
    engine.dispose()
    refused = run_command("seed", **real)
    assert refused.returncode == 2
    assert "--demo" in refused.stderr
