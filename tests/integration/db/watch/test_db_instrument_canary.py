"""The private names of SQLAlchemy that the instrument stands on; the first thing to break with a new version."""

from __future__ import annotations

import pytest
import sqlalchemy
from sqlalchemy.engine.cursor import CursorFetchStrategy, CursorResult, ResultFetchStrategy
from sqlalchemy.engine.default import DefaultDialect, DefaultExecutionContext
from sqlalchemy.orm.context import QueryContext

from mks_hardening.db.engine._supervised_drivers import _OF_CONNECTION, _OF_CURSOR, _OF_STREAM
from mks_hardening.db.watch._sqlalchemy_internals import (
    CONTEXT_METHODS,
    STRATEGY_METHODS,
    TimedFetch,
    missing_parts,
)


def test_the_execution_context_has_what_is_extended() -> None:
    assert CONTEXT_METHODS.keys() == {"pre_exec", "_setup_result_proxy", "handle_dbapi_exception"}
    assert STRATEGY_METHODS.keys() <= set(dir(ResultFetchStrategy))
    assert missing_parts() == ()
    assert hasattr(DefaultExecutionContext, "_rowcount")
    assert isinstance(DefaultDialect.execution_ctx_cls, type)


def test_the_timed_fetch_has_every_method_of_a_strategy() -> None:
    public = {
        name for name in vars(ResultFetchStrategy) | vars(CursorFetchStrategy) if not name.startswith("_")
    }
    assert public <= set(dir(TimedFetch))


def test_a_result_keeps_its_strategy_in_the_known_place() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        result = connection.execute(sqlalchemy.text("SELECT 1"))
        assert isinstance(result, CursorResult)
        assert isinstance(result.cursor_strategy, CursorFetchStrategy)
        assert result._soft_closed is False
        result.all()
        assert result._soft_closed is True
        assert result.context.compiled_parameters == [{}]
    engine.dispose()


def test_the_pool_keeps_its_size_and_its_queue_in_the_known_place(tmp_path: object) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/canary.sqlite")
    with engine.connect():
        pass
    assert len(engine.pool._pool.queue) == 1  # type: ignore[attr-defined]
    assert isinstance(engine.pool._max_overflow, int)  # type: ignore[attr-defined]
    engine.dispose()


def test_the_orm_notes_the_source_of_a_lazy_load_in_the_known_place() -> None:
    assert QueryContext.default_load_options._lazy_loaded_from is None


def test_results_and_selects_have_what_paging_looks_at() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 1"))._unique_filter_state is None
    column = sqlalchemy.column("a")
    assert not sqlalchemy.select(column)._group_by_clauses
    assert sqlalchemy.select(column).group_by(column)._group_by_clauses
    engine.dispose()


def test_drivers_wait_for_the_server_in_the_known_places() -> None:
    psycopg = pytest.importorskip("psycopg")
    for kind in (psycopg.Connection, psycopg.AsyncConnection):
        assert callable(kind.wait)
        assert "__slots__" not in vars(kind)
    asyncpg = pytest.importorskip("asyncpg")
    assert {"_protocol", "_transport"} <= set(asyncpg.Connection.__slots__)
    extensions = pytest.importorskip("psycopg2").extensions
    assert all(hasattr(extensions.connection, name) for name in _OF_CONNECTION)
    assert all(hasattr(extensions.cursor, name) for name in (*_OF_CURSOR, *_OF_STREAM))
