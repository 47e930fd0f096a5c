"""SQL that stays within its limits: engine, slow queries, fingerprints, paging, Japanese search, retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.facade import facade

if TYPE_CHECKING:
    from mks_hardening.db.engine import hardened_engine
    from mks_hardening.db.explain import Plan, explain
    from mks_hardening.db.fork import guard_fork
    from mks_hardening.db.paging import InvalidCursorError, Page, PageResult, keyset_page
    from mks_hardening.db.pool import PoolPlan, plan_pool
    from mks_hardening.db.pool_monitor import PoolHolder, PoolMonitor, PoolStats
    from mks_hardening.db.query_stats import StatementStats
    from mks_hardening.db.query_watch import (
        NPlusOneError,
        NPlusOneFinding,
        QueryBudgetError,
        QueryLog,
        WatchedStatement,
        allow_n_plus_one,
        query_budget,
        watch_queries,
    )
    from mks_hardening.db.retry import retry_on_serialization_failure
    from mks_hardening.db.slow_query import SlowQueryMonitor, slow_query_record
    from mks_hardening.db.sql_fingerprint import fingerprint, normalize_sql
    from mks_hardening.db.text_search import JapaneseSearch

__all__ = [
    "InvalidCursorError",
    "JapaneseSearch",
    "NPlusOneError",
    "NPlusOneFinding",
    "Page",
    "PageResult",
    "Plan",
    "PoolHolder",
    "PoolMonitor",
    "PoolPlan",
    "PoolStats",
    "QueryBudgetError",
    "QueryLog",
    "SlowQueryMonitor",
    "StatementStats",
    "WatchedStatement",
    "allow_n_plus_one",
    "explain",
    "fingerprint",
    "guard_fork",
    "hardened_engine",
    "keyset_page",
    "normalize_sql",
    "plan_pool",
    "query_budget",
    "retry_on_serialization_failure",
    "slow_query_record",
    "watch_queries",
]

_HOME = {
    "InvalidCursorError": "mks_hardening.db.paging",
    "JapaneseSearch": "mks_hardening.db.text_search",
    "NPlusOneError": "mks_hardening.db.query_watch",
    "NPlusOneFinding": "mks_hardening.db.query_watch",
    "Page": "mks_hardening.db.paging",
    "PageResult": "mks_hardening.db.paging",
    "Plan": "mks_hardening.db.explain",
    "PoolHolder": "mks_hardening.db.pool_monitor",
    "PoolMonitor": "mks_hardening.db.pool_monitor",
    "PoolPlan": "mks_hardening.db.pool",
    "PoolStats": "mks_hardening.db.pool_monitor",
    "QueryBudgetError": "mks_hardening.db.query_watch",
    "QueryLog": "mks_hardening.db.query_watch",
    "SlowQueryMonitor": "mks_hardening.db.slow_query",
    "StatementStats": "mks_hardening.db.query_stats",
    "WatchedStatement": "mks_hardening.db.query_watch",
    "allow_n_plus_one": "mks_hardening.db.query_watch",
    "explain": "mks_hardening.db.explain",
    "fingerprint": "mks_hardening.db.sql_fingerprint",
    "guard_fork": "mks_hardening.db.fork",
    "hardened_engine": "mks_hardening.db.engine",
    "keyset_page": "mks_hardening.db.paging",
    "normalize_sql": "mks_hardening.db.sql_fingerprint",
    "plan_pool": "mks_hardening.db.pool",
    "query_budget": "mks_hardening.db.query_watch",
    "retry_on_serialization_failure": "mks_hardening.db.retry",
    "slow_query_record": "mks_hardening.db.slow_query",
    "watch_queries": "mks_hardening.db.query_watch",
}

if not TYPE_CHECKING:  # so that a misspelt name is an error to type checkers
    __getattr__, __dir__ = facade(__name__, _HOME)
