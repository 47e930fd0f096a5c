"""``mks-hardening db`` against PostgreSQL servers with the defects that it reports."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from mks_check.commands.database_reports import _connection
from mks_hardening.cli import main
from mks_hardening.db import (
    PoolMonitor,
    SlowQueryMonitor,
    client_report,
    hardened_async_engine,
    hardened_engine,
)
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.logging import bound
from testbed import services
from testbed.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture
def run(postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("DATABASE_URL", postgres_url)

    def command(*arguments: str) -> tuple[int, Any]:
        status = main(["db", *arguments, "--format", "json"])
        out = capsys.readouterr()
        assert not out.err, out.err
        content = json.loads(out.out)
        rows = {one["title"].partition(" ")[0].strip(":"): one["rows"] for one in content["sections"]}
        return status, rows | {"notes": content["notes"]}

    return command


@pytest.fixture
def sql(postgres_dsn: str) -> Iterator[Any]:
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        yield connection


COMMANDS = ["top", "n+1", "locks", "indexes", "bloat", "plans"]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_database_has_no_findings(run: Any, command: str) -> None:
    status, found = run(command)
    # Without pg_stat_statements, nothing is known of repeated statements.
    assert status == (3 if command in {"n+1", "plans"} else 0)
    assert bool(found["notes"]) is (command in {"top", "n+1", "plans"})


def test_indexes_that_cost_more_than_they_give(run: Any, sql: Any) -> None:
    sql.execute('CREATE TABLE "T t" (id int PRIMARY KEY, a int, b int, c text)')
    sql.execute('INSERT INTO "T t" SELECT n, n % 2, n, n::text FROM generate_series(1, 2000) n')
    sql.execute('CREATE INDEX again ON "T t" (id)')
    sql.execute('CREATE INDEX short ON "T t" (a)')
    sql.execute('CREATE INDEX long ON "T t" (a, b)')
    sql.execute('CREATE INDEX by_c ON "T t" (c)')
    sql.execute('CREATE INDEX pattern ON "T t" (c text_pattern_ops)')
    with pytest.raises(psycopg.errors.UniqueViolation):
        sql.execute('CREATE UNIQUE INDEX CONCURRENTLY broken ON "T t" (a)')
    status, found = run("indexes", "--min-size", "0")
    assert status == 1
    assert [row["index"] for row in found["INVALID"]] == ["broken"]
    assert [(row["index"], row["replaced by"]) for row in found["duplicate"]] == [
        ("again", "T t_pkey"),
        ("short", "long"),
    ]
    assert found["duplicate"][0]["table"] == 'public."T t"'
    assert {row["index"] for row in found["unused"]} == {"long", "by_c", "pattern"}
    sql.execute("DROP INDEX broken, again, short")
    assert run("indexes")[0] == 0  # the others are small


def test_who_blocks_whom_and_who_is_idle(run: Any, postgres_dsn: str, sql: Any) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY, secret text)")
    sql.execute("INSERT INTO t VALUES (1, 'x')")
    update = "UPDATE t SET secret = 'S3CRET' WHERE id = 1"
    with ExitStack() as stack:
        holder, waiter, last = (
            stack.enter_context(psycopg.connect(postgres_dsn, application_name=name))
            for name in ("holder", "waiter", "last")
        )
        holder.execute(update)
        threads: list[threading.Thread] = []
        for connection in (waiter, last):
            threads.append(threading.Thread(target=connection.execute, args=(update,)))
            threads[-1].start()
            _until_waiting(sql, connection.info.backend_pid)
        status, found = run("locks", "--idle", "0")
        assert status == 1
        tree = {row["application"]: row for row in found["blocking"]}
        assert next(iter(tree)) == "holder"
        assert set(tree) == {"holder", "waiter", "last"}
        assert tree["holder"]["pid"] == str(holder.info.backend_pid)
        assert tree["waiter"]["pid"].startswith("  ")
        assert "ShareLock" in tree["waiter"]["waits for"]
        assert tree["holder"]["last statement"] == "update t set secret = ? where id = ?"
        assert [row["application"] for row in found["idle"]] == ["holder"]
        assert "S3CRET" not in str(found)
        # Not yet idle for long: only the tree is a finding.
        assert run("locks", "--idle", "1000")[1]["idle"] == []
        running = run("top")[1]["running"]
        assert [row["application"] for row in running] == ["waiter", "last"]
        assert "S3CRET" not in str(running)
        holder.rollback()
        threads[0].join(20)
        waiter.rollback()
        threads[1].join(20)
    assert run("locks", "--idle", "1000")[0] == 0


def _until_waiting(sql: Any, pid: int) -> None:
    for _ in range(5000):
        if sql.execute("SELECT FROM pg_locks WHERE pid = %s AND NOT granted", (pid,)).fetchone() is not None:
            return
    raise AssertionError("the session does not wait")


def test_a_table_that_wastes_space(run: Any, sql: Any) -> None:
    sql.execute("CREATE TABLE wasteful (id int, body text) WITH (autovacuum_enabled = off)")
    sql.execute("INSERT INTO wasteful SELECT n, repeat('x', 200) FROM generate_series(1, 10000) n")
    sql.execute("CREATE TABLE fresh WITH (autovacuum_enabled = off) AS SELECT * FROM wasteful")
    sql.execute("CREATE TABLE unknown (id int) WITH (autovacuum_enabled = off)")
    sql.execute("DELETE FROM wasteful WHERE id % 10 <> 0")
    sql.execute("VACUUM ANALYZE wasteful")
    sql.execute("ANALYZE fresh")
    status, found = run("bloat", "--min-size", "1")
    assert status == 1
    (row,) = found["tables"]
    assert row["table"] == "public.wasteful"
    assert 80 <= row["wasted %"] <= 95
    assert found["notes"] == ["1 tables have no statistics: run ANALYZE"]
    assert found["databases"] == []
    assert found["oldest"][0]["of the wraparound %"] < 1


def test_an_index_that_wastes_space(run: Any, sql: Any) -> None:
    sql.execute("CREATE TABLE t (id int, name text, none text) WITH (autovacuum_enabled = off)")
    sql.execute("INSERT INTO t SELECT n, n::text FROM generate_series(1, 100000) n")
    sql.execute("CREATE INDEX loose ON t (id, name)")
    sql.execute("DELETE FROM t WHERE id % 10 <> 0")
    sql.execute("CREATE INDEX fresh ON t (id, name)")
    sql.execute("CREATE INDEX full_again ON t (name, id) WITH (fillfactor = 50)")
    sql.execute("CREATE INDEX of_expression ON t (lower(name))")
    sql.execute("CREATE INDEX of_nothing ON t (none)")
    sql.execute("VACUUM ANALYZE t")
    status, found = run("bloat", "--min-size", "0.05")
    assert status == 1
    (row,) = found["indexes"]
    assert row["index"] == "public.loose"
    assert 80 <= row["wasted %"] <= 95
    sql.execute("REINDEX INDEX loose")
    assert run("bloat", "--min-size", "0.05")[1]["indexes"] == []


@pytest.fixture(scope="module")
def counting_server() -> Iterator[str]:
    """URL of a server with ``pg_stat_statements``."""
    services.program("postgres")
    server = PostgresServer(shared_preload_libraries="pg_stat_statements")
    server.start()
    try:
        yield server.url("postgres")
    finally:
        server.stop()


def test_statements_by_total_time_and_candidates_for_n_plus_one(
    run: Any, counting_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", counting_server)
    assert "is not available" in run("top")[1]["notes"][0]
    engine = create_engine(counting_server)
    with engine.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Of stats"'))
        connection.execute(text('CREATE EXTENSION pg_stat_statements SCHEMA "Of stats"'))
        connection.execute(text("CREATE TABLE t (id int PRIMARY KEY)"))
        connection.execute(text("INSERT INTO t SELECT generate_series(1, 100)"))
        for number in range(50):
            connection.execute(text("SELECT * FROM t WHERE id = :id"), {"id": number}).all()
        connection.execute(text("SELECT pg_sleep(0.2), 'S3CRET'")).all()
    engine.dispose()
    status, found = run("top", "--most", "3")
    assert status == 0
    assert found["notes"] == []
    statements = found["statements"]
    assert len(statements) == 3
    assert statements[0]["statement"] == "select pg_sleep(?), ?"
    assert statements[0]["total ms"] >= 200
    status, found = run("n+1", "--calls", "50")
    assert status == 1
    (row,) = found["statements"]
    assert (row["statement"], row["calls"]) == ("select * from t where id = ?", 50)
    assert run("n+1", "--calls", "51")[0] == 0


def test_the_application_stands_beside_the_server(
    run: Any, counting_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    autocommit = create_engine(counting_server, isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        connection.execute(text("CREATE DATABASE beside"))
    autocommit.dispose()
    url = f"{counting_server.rpartition('/')[0]}/beside"
    monkeypatch.setenv("DATABASE_URL", url)
    engine = hardened_engine(url, threads=4)
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION pg_stat_statements"))
    files = [str(tmp_path / name) for name in ("one.json", "two.json")]
    with SlowQueryMonitor(engine) as slow, PoolMonitor(engine) as pool, bound(route="/orders/<id>"):
        with engine.connect() as connection:
            for number in range(30):
                connection.execute(text("SELECT 'S3CRET', :n AS beside"), {"n": number}).all()
        for file in files:
            Path(file).write_text(client_report(slow, pool), "utf-8")
    _, found = run("top", "--most", "100", "--client", files[0], "--client", files[1])
    with engine.begin() as connection:  # for the other tests of this server
        connection.execute(text("SELECT pg_stat_statements_reset()"))
    engine.dispose()
    (row,) = [row for row in found["statements"] if "beside" in row["statement"]]
    assert (row["calls"], row["client calls"]) == (30, 60)
    assert row["client p95 ms"] > 0
    assert row["client caller"].endswith(" /orders/<id>")
    assert "test_db_report_postgres.py:" in row["client caller"]
    monkeypatch.setenv("DATABASE_URL", counting_server.rpartition("/")[0] + "/template1")
    _, found = run("top", "--client", files[0])  # another database: the server knows nothing of it
    assert [row["calls"] for row in found["other"] if "beside" in row["statement"]] == [30]
    assert "S3CRET" not in str(found)


@pytest.fixture
def planned(counting_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Connection to a database with a table of 40,000 rows without indexes, whose statements are counted."""
    with _planned(counting_server, monkeypatch) as connection:
        yield connection


@pytest.fixture
def planned_with_hypopg(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The same on a server that can propose indexes."""
    programs = services.postgres_with_hypopg()
    server = PostgresServer(programs, shared_preload_libraries="pg_stat_statements")
    server.start()
    try:
        with _planned(server.url("postgres"), monkeypatch) as connection:
            yield connection
    finally:
        server.stop()


@contextmanager
def _planned(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS planned"))
        connection.execute(text("CREATE DATABASE planned"))
    url = f"{server.rpartition('/')[0]}/planned"
    monkeypatch.setenv("DATABASE_URL", url)
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE EXTENSION pg_stat_statements"))
        connection.execute(text('CREATE TABLE "Of t" (id int, "Kind" text, made timestamptz)'))
        connection.execute(
            text("""INSERT INTO "Of t" SELECT n, 'k' || n % 5000, now() FROM generate_series(1, 40000) n""")
        )
        connection.execute(text('ANALYZE "Of t"'))
        yield connection
        connection.execute(text("SELECT pg_stat_statements_reset()"))
    engine.dispose()
    admin.dispose()


FIND = text("""SELECT id FROM "Of t" WHERE "Kind" = :kind AND made > :made AND id % 1 = 0""")


def test_a_plan_that_changed_is_found(run: Any, planned: Any, tmp_path: Path) -> None:
    planned.execute(FIND, {"kind": "S3CRET", "made": datetime(2020, 1, 1, tzinfo=UTC)}).all()
    file = str(tmp_path / "plans.json")
    status, found = run("plans", "--save", file, "--min-size", "1000")
    assert (status, found["plans"]) == (0, [])
    assert run("plans", "--baseline", file, "--min-size", "1000")[0] == 0
    planned.execute(text('CREATE INDEX by_kind ON "Of t" ("Kind")'))
    status, found = run("plans", "--baseline", file, "--min-size", "1000")
    assert status == 1
    (row,) = found["plans"]
    assert row["before"] == "Seq Scan Of t"
    assert "by_kind" in row["now"]
    assert row["statement"].startswith("select id from ")
    assert "S3CRET" not in str(found) + Path(file).read_text()


INDEX = 'CREATE INDEX ON "public"."Of t" ("Kind", made)'


def test_a_missing_index_is_only_proven_by_hypopg(run: Any, planned: Any) -> None:
    planned.execute(FIND, {"kind": "S3CRET", "made": datetime(2020, 1, 1, tzinfo=UTC)}).all()
    planned.execute(text('SELECT count(*) FROM "Of t" WHERE id > :id'), {"id": 5}).all()
    planned.execute(text('SELECT count(*) FROM "Of t" WHERE id = 1 OR "Kind" = :kind'), {"kind": "x"}).all()
    status, found = run("plans", "--min-size", "0")
    assert (status, found["missing"]) == (0, [])
    others = 'CREATE INDEX ON "public"."Of t" (id)'
    assert {row["index"] for row in found["sequential"]} == {INDEX, others}
    assert any("hypopg is not installed" in note for note in found["notes"])
    assert run("plans", "--min-size", "1000")[1]["sequential"] == []


def test_an_index_that_helps_is_told_from_one_that_does_not(run: Any, planned_with_hypopg: Any) -> None:
    planned = planned_with_hypopg
    planned.execute(FIND, {"kind": "S3CRET", "made": datetime(2020, 1, 1, tzinfo=UTC)}).all()
    planned.execute(text('SELECT count(*) FROM "Of t" WHERE id > :id'), {"id": 5}).all()
    planned.execute(text('CREATE SCHEMA "Of hypo"'))
    planned.execute(text('CREATE EXTENSION hypopg SCHEMA "Of hypo"'))
    status, found = run("plans", "--min-size", "0")
    assert (status, found["sequential"]) == (1, [])
    (row,) = found["missing"]  # the range selects too much
    assert row["index"] == INDEX
    assert row["cost with it"] < row["cost"] / 2
    assert "S3CRET" not in str(found)
    planned.execute(text(INDEX))
    planned.execute(text('ANALYZE "Of t"'))
    assert run("plans", "--min-size", "0")[0] == 0


@pytest.mark.parametrize("option", ["--baseline", "--save"])
def test_a_file_of_plans_that_cannot_be_used_is_refused(
    planned: Any, capsys: Any, tmp_path: Path, option: str
) -> None:
    del planned
    place = tmp_path / "folder"
    place.mkdir()
    assert main(["db", "plans", option, str(place)]) == 2
    assert f"{option} must be a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"statements": [{}], "holders": []}', '{"statements": 5}']
)
def test_a_file_that_is_no_report_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any, content: str | None
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    if content is not None:
        (tmp_path / "report.json").write_text(content, "utf-8")
    assert main(["db", "top", "--client", str(tmp_path / "report.json")]) == 2
    assert "--client must be a file with the text of client_report()" in capsys.readouterr().err


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "psycopg async", "asyncpg async"])
def test_a_blocking_tree_names_the_lines_that_hold(
    run: Any, postgres_url: str, sql: Any, tmp_path: Path, driver: str
) -> None:
    name, _, kind = driver.partition(" ")
    make: Any = hardened_async_engine if kind else hardened_engine
    engine = make(postgres_url.replace("+psycopg", f"+{name}"))
    report = tmp_path / "report.json"

    def look() -> None:
        report.write_text(client_report(monitor), "utf-8")
        seen.extend(run("locks", "--idle", "0", "--client", str(report))[1]["idle"])

    async def hold() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            look()
        await engine.dispose()

    seen: list[Any] = []
    with PoolMonitor(engine) as monitor:
        if kind:
            asyncio.run(hold())
        else:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                look()
            engine.dispose()
    (row,) = seen
    assert "test_db_report_postgres.py:" in row["held by"]
    assert row["held by"].endswith(" (MainThread)")


@pytest.fixture(params=["pooler", "standby"])
def other_way(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, postgres_url: str, postgres_database: str
) -> Callable[[], None]:
    """Point the commands to the same database through PgBouncer or on a standby."""
    place: Any = request.getfixturevalue(
        {"pooler": "make_pgbouncer", "standby": "make_standby"}[request.param]
    )()
    url = place.through(postgres_url) if request.param == "pooler" else place.url(postgres_database)

    def point() -> None:
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("MKS_DB_TRANSACTION_POOLING", str(int(request.param == "pooler")))

    return point


def test_the_commands_work_through_a_pooler_and_on_a_standby(run: Any, other_way: Callable[[], None]) -> None:
    expected = {command: run(command)[0] for command in COMMANDS}
    other_way()
    assert {command: run(command)[0] for command in COMMANDS} == expected


@pytest.mark.parametrize(
    ("statement", "state"), [("INSERT INTO t VALUES (1)", "25006"), ("SELECT pg_sleep(20)", "57014")]
)
def test_the_connection_can_only_read_and_ends_slow_statements(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, sql: Any, statement: str, state: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    sql.execute("CREATE TABLE t (id int)")
    states: list[object] = []
    with pytest.raises(BackendUnavailableError), _connection(0.3) as connection:
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            states.append(getattr(error.orig, "sqlstate", ""))
            raise
    assert states == [state]
    assert sql.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize(
    ("url", "arguments", "expected"),
    [
        (None, ["top"], (2, "DATABASE_URL must point to a PostgreSQL database")),
        ("sqlite:///app.db", ["top"], (2, "DATABASE_URL must point to a PostgreSQL database")),
        ("postgresql+psycopg://user:hunter2@127.0.0.1:1/db", ["locks"], (3, "database")),
        ("postgresql+psycopg://user@127.0.0.1:1/db", ["bloat", "--timeout", "0"], (2, "--timeout must be")),
        (
            "postgresql+psycopg://user@127.0.0.1:1/db",
            ["indexes", "--min-size", "nan"],
            (2, "--min-size must be"),
        ),
        ("postgresql+psycopg://user@127.0.0.1:1/db", ["top", "--most", "-1"], (2, "--most must be")),
    ],
)
def test_what_cannot_run_says_why_without_the_password(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str | None,
    arguments: list[str],
    expected: tuple[int, str],
) -> None:
    status, message = expected
    monkeypatch.delenv("DATABASE_URL", raising=False)
    if url is not None:
        monkeypatch.setenv("DATABASE_URL", url)
    assert main(["db", *arguments]) == status
    out = capsys.readouterr()
    assert message in out.err
    assert "hunter2" not in out.out + out.err


def test_a_role_with_few_rights_sees_what_it_may(
    run: Any, postgres_url: str, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql.execute("CREATE TABLE t (id int PRIMARY KEY)")
    sql.execute("DROP ROLE IF EXISTS mks_reader")
    sql.execute("CREATE ROLE mks_reader LOGIN")
    monkeypatch.setenv("DATABASE_URL", postgres_url.replace("//postgres", "//mks_reader", 1))
    for command in ("top", "locks", "indexes", "bloat"):
        assert run(command)[0] == 0
    sql.execute("DROP ROLE mks_reader")
