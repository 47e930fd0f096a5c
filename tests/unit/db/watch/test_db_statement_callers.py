"""What statistics say about statements: their text, the places that send them, and how much memory that takes."""

from __future__ import annotations

import tracemalloc

import pytest
from sqlalchemy import Connection, text

from mks_hardening.db import SlowQueryMonitor, StatementStats, hardened_engine
from mks_hardening.db.statement.fingerprints import fingerprint, normalize_sql
from mks_hardening.db.watch._stats_table import StatsTable
from mks_hardening.logging import bound


def _find(connection: Connection, number: int) -> None:
    connection.execute(text("SELECT 'S3CRET', :n AS found"), {"n": number}).all()


def test_statements_have_their_text_and_the_places_that_send_them() -> None:
    engine = hardened_engine("sqlite://")
    with SlowQueryMonitor(engine) as monitor, engine.connect() as connection:
        for number in range(3):
            _find(connection, number)
        with bound(route="/orders"):
            _find(connection, 1)
            _find(connection, 2)  # only the first four are looked at, then every 64th
    (found,) = [one for one in monitor.stats() if "found" in one.statement]
    assert found.statement == "select ?, ? as found"
    here, there = found.callers
    assert (here.route, here.share, there.route, there.share) == ("", 0.75, "/orders", 0.25)
    assert here.caller == there.caller
    assert "test_db_statement_callers.py:" in here.caller
    engine.dispose()


def test_places_are_sampled_and_their_number_is_limited() -> None:
    table = StatsTable(lambda text: text, capacity=10)
    for number in range(64 * 100):
        with bound(route=f"/{number}"):
            table.add("select", 0.001, 1, failed=False)
    (found,) = table.snapshot()
    assert len(found.callers) == 11
    assert found.callers[0].caller == "other"
    assert found.callers[0].share == pytest.approx(94 / 104)
    assert sum(one.share for one in found.callers) == pytest.approx(1)


def test_a_full_table_stays_below_five_mebibytes() -> None:
    columns = "a_long_column, " * 60
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    # The memo of fingerprints belongs to all engines, and has a limit of its own.
    table = StatsTable(lambda text: text.rpartition(" c")[2], capacity=1000, normalize=str.lower)
    for number in range(1500):
        for call in range(6):
            with bound(route=f"/a/long/route/{call}"):
                table.add(f"SELECT {number % 7}, {columns} c{number} FROM t", 60.0, 1, failed=False)  # noqa: S608 - no SQL is run
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(table.snapshot()) == 1001
    assert used <= 5 * 2**20
    assert all(len(one.statement) <= 600 for one in table.snapshot())


def test_what_was_not_distinguished_has_no_text() -> None:
    table = StatsTable(fingerprint, capacity=1, normalize=normalize_sql)
    for statement in ("SELECT a", "SELECT b"):
        table.add(statement, 0.001, 1, failed=False)
    texts: dict[str, StatementStats] = {one.fingerprint: one for one in table.snapshot()}
    assert texts["other"].statement == ""
    assert texts[fingerprint("SELECT a")].statement == "select a"


def test_a_full_bucket_goes_on_counting() -> None:
    table = StatsTable(lambda text: text, capacity=1)
    table.add("select", 0.001, 1, failed=False)
    row = table._rows["select"]
    bucket = next(number for number, count in enumerate(row.buckets) if count)
    row.buckets[bucket] = 2**32 - 1
    for _ in range(3):
        table.add("select", 0.001, 1, failed=False)
    assert row.buckets[bucket] == 2**32 + 2
    assert table.snapshot()[0].calls == 4
