"""The private names of SQLAlchemy that the instrument stands on; the first thing to break with a new version."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy.engine.cursor import CursorFetchStrategy, CursorResult, ResultFetchStrategy
from sqlalchemy.engine.default import DefaultDialect, DefaultExecutionContext

from mks_hardening.db.instrument import _TimedFetch


def test_the_execution_context_has_what_is_extended() -> None:
    for name in ("pre_exec", "_setup_result_proxy", "handle_dbapi_exception"):
        assert callable(getattr(DefaultExecutionContext, name)), name
    assert hasattr(DefaultExecutionContext, "_rowcount")
    assert isinstance(DefaultDialect.execution_ctx_cls, type)


def test_the_timed_fetch_has_every_method_of_a_strategy() -> None:
    public = {
        name for name in vars(ResultFetchStrategy) | vars(CursorFetchStrategy) if not name.startswith("_")
    }
    assert public <= set(dir(_TimedFetch))


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
