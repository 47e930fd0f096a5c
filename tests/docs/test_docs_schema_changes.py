"""The page about schema changes: its migrations, judged by the linter and executed by a server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, inspect, text

from mks_check import MigrationLinter

SNIPPETS = Path(__file__).parents[2] / "docs" / "snippets" / "change_a_schema"

pytestmark = pytest.mark.skipif(not SNIPPETS.exists(), reason="the documentation is not part of the wheel")


def test_the_first_migration_is_dangerous_and_the_second_is_not(tmp_path: Path) -> None:
    (tmp_path / "versions").mkdir()
    shutil.copy(SNIPPETS / "orders.py", tmp_path / "versions")
    linter = MigrationLinter(server_version=16)
    assert {one.rule_id for one in linter.lint_sql_files([SNIPPETS / "before.sql"]).failures()} == {
        "MG205",
        "MG301",
    }
    assert linter.lint_alembic(tmp_path).failures("note") == ()


@pytest.mark.postgres
def test_the_safe_revision_does_what_the_first_one_wanted(postgres_url: str) -> None:
    code = (SNIPPETS / "orders.py").read_text(encoding="utf-8")
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE orders (id bigint PRIMARY KEY, day date, note text)"))
        connection.execute(text("INSERT INTO orders VALUES (1, now(), NULL)"))
        connection.commit()
        context = MigrationContext.configure(connection)
        names: dict[str, object] = {}
        exec(compile(code, "orders.py", "exec"), names)  # noqa: S102 - our own snippet
        with context.begin_transaction(_per_migration=True), Operations.context(context):
            upgrade = names["upgrade"]
            assert callable(upgrade)
            upgrade()
    assert [index["name"] for index in inspect(engine).get_indexes("orders")] == ["ix_orders_day"]
    assert [one["nullable"] for one in inspect(engine).get_columns("orders")] == [False, True, False]
    engine.dispose()
