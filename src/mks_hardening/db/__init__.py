"""SQL with limits: engines, slow queries, fingerprints, keyset paging, Japanese search and transaction retries."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening.db.watch.process_report": ["client_report"],
    "mks_hardening.db.engine.fork_guard": ["guard_fork"],
    "mks_hardening.db.engine.engines": ["hardened_async_engine", "hardened_engine"],
    "mks_hardening.db.watch.pool_monitor": ["PoolHolder", "PoolMonitor", "PoolStats"],
    "mks_hardening.db.engine.read_replicas": ["ReadReplicas", "ReadToken"],
    "mks_hardening.db.engine.pool_size": ["PoolPlan", "plan_pool"],
    "mks_hardening.db._search_text": ["ExcerptPiece", "SearchQueryError"],
    "mks_hardening.db.search_index": ["SearchHit", "SearchIndex"],
    "mks_hardening.db.migrations.lock_retry": ["LockRetry", "MigrationBlockedError"],
    "mks_hardening.db.migrations.advisory_lock": ["migration_lock"],
    "mks_hardening.db.migrations.safe_operations": ["BackfillProgress", "SafeOperations"],
    "mks_hardening.db.paging": ["InvalidCursorError", "Page", "PageResult", "RowCount", "keyset_page"],
    "mks_hardening.db.plan.query_plan": ["Plan", "aexplain", "explain"],
    "mks_hardening.db.retry": ["retry_on_serialization_failure"],
    "mks_hardening.db.statement.fingerprints": ["fingerprint", "normalize_sql"],
    "mks_hardening.db.watch.n_plus_one": ["NPlusOneError", "NPlusOneFinding", "allow_n_plus_one"],
    "mks_hardening.db.watch.queries": [
        "QueryBudgetError",
        "QueryLog",
        "WatchedStatement",
        "query_budget",
        "watch_queries",
    ],
    "mks_hardening.db.watch.slow_queries": ["SlowQueryMonitor", "slow_query_record"],
    "mks_hardening.db.watch.statement_stats": ["StatementCaller", "StatementStats"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
