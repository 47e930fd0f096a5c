"""Connections to PostgreSQL: what the check warns of, and a pooler in transaction mode."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from knowledge_system import app as application
from knowledge_system import configuration_check, database
from testbed.pgbouncer_server import PgBouncer
from testbed.postgres_server import PostgresServer


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, []),
        (
            {"MKS_DB_MAX_CONNECTIONS": "90000"},
            ["MKS_DB_MAX_CONNECTIONS=90000, but the server allows"],
        ),
        ({"MKS_DB_GENERATIONS": "1"}, ["MKS_DB_GENERATIONS=1: during a reload"]),
        (
            {"MKS_DB_MAX_CONNECTIONS": "19", "MKS_GUNICORN_THREADS": "16"},
            ["16 threads of a worker share 8 database connections"],
        ),
    ],
)
def test_what_does_not_fit_is_found(
    settings_at: Callable[..., Any], postgres_url: str, variables: dict[str, str], said: list[str]
) -> None:
    settings = settings_at(postgres_url, **variables)
    with application.open_database(settings) as (engine, _):
        database.upgrade(engine, settings, clock=time)
    found = [
        finding
        for finding in configuration_check.findings(settings, clock=time)
        if "onnection" in finding.text
    ]
    assert not any(finding.error for finding in found)
    assert len(found) == len(said)
    assert all(finding.text.startswith(start) for finding, start in zip(found, said, strict=True))


@pytest.mark.postgres
def test_the_application_works_behind_a_pooler(
    make_pgbouncer: Callable[..., PgBouncer],  # first, to be stopped after its clients
    make_app: Callable[..., Any],
    visit: Callable[..., Any],
    postgres_url: str,
) -> None:
    """PgBouncer accepts no limits at the start of a connection, and gives each transaction another one."""
    make_app(database_url=postgres_url)  # migrations go around the pooler
    pooled = make_pgbouncer().through(postgres_url)
    site = make_app(database_url=pooled, is_filled=True, MKS_DB_TRANSACTION_POOLING="1")
    writer = visit("tanaka", at=site)
    for number in range(1, 4):
        comment = {"body": f"プーラー経由の {number} 件目"}
        assert writer.post("/articles/1/comments", comment).status_code == 303
        assert comment["body"] in writer.get("/articles/1").get_data(as_text=True)
    for path in ("/", "/articles", "/articles?q=養生", "/account"):
        assert writer.get(path).status_code == 200
    with site.extensions["knowledge"].sessions() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "30s"


@pytest.mark.postgres
def test_a_read_only_database_is_read_and_refuses_writes_for_now(
    make_app: Callable[..., Any],
    visit: Callable[..., Any],
    postgres_url: str,
    postgres_server: PostgresServer,
) -> None:
    """As the old primary of a failover, or a standby."""
    make_app(database_url=postgres_url)  # creates the tables
    site = make_app(database_url=postgres_url, is_filled=True)
    writer, database_name = visit("tanaka", at=site), postgres_url.rpartition("/")[2]
    for mode, status in (("on", 503), ("off", 303)):
        postgres_server.execute(f"ALTER DATABASE {database_name} SET default_transaction_read_only = {mode}")
        site.extensions["knowledge"].engine.dispose()
        assert writer.get("/articles/1").status_code == 200
        response = writer.post("/articles/1/comments", {"body": "フェイルオーバー中"})
        assert (response.status_code, "Retry-After" in response.headers) == (status, status == 503)
