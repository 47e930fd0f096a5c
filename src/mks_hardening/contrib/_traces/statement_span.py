"""Name and attributes of the span of a statement (database semantic conventions 1.33)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mks_hardening._core.memo import Memo
from mks_hardening.contrib._traces.request_span import Attributes

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from mks_hardening.db.statement.fingerprints import Dialect
    from mks_hardening.db.watch._execution import Execution

__all__ = ["StatementSpans", "labels_of"]

_SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
"""Names of database systems that differ from those in SQLAlchemy."""
_LONGEST_SUMMARY: Final = 255
_TARGETS: Final = re.compile(r"\b(from|join|into|update|table)\s+([\w.\"`]+)", re.IGNORECASE).findall
_OF_THE_METRIC: Final = frozenset(
    {
        "db.system.name",
        "db.namespace",
        "db.query.summary",
        "db.response.status_code",
        "error.type",
        "server.address",
        "server.port",
    }
)


def labels_of(attributes: Attributes) -> Attributes:
    """Return the attributes of a statement that are labels of the metric."""
    return {name: value for name, value in attributes.items() if name in _OF_THE_METRIC}


class StatementSpans:
    """Reporter of the statements of an engine, for spans and metrics.

    Args:
        engine: engine to observe.
        tell: takes the summary, the attributes and the duration in seconds of a statement that has ended.
    """

    def __init__(self, engine: Engine | AsyncEngine, tell: Callable[[str, Attributes, float], None]) -> None:
        from mks_hardening.db.statement.fingerprints import known_dialect
        from mks_hardening.db.watch._instrument import engine_of

        url = engine_of(engine).url
        dialect = url.get_dialect().name
        self._tell = tell
        self._dialect: Dialect = known_dialect(dialect)
        self._fixed: Attributes = {"db.system.name": _SYSTEMS.get(dialect, dialect)}
        for name, value in (
            ("db.namespace", url.database),
            ("server.address", url.host),
            ("server.port", url.port),
        ):
            if value:
                self._fixed[name] = value
        self._texts: Memo[str, tuple[str, str]] = Memo(self._text_and_summary, longest=4096)

    def finished(self, execution: Execution) -> None:
        """Report a statement that has ended; called by the engine's watch."""
        text, summary = self._texts[execution.statement]
        attributes = {**self._fixed, "db.query.text": text, "db.query.summary": summary}
        if execution.executemany:
            attributes["db.operation.batch.size"] = len(execution.context.parameters)
        error = execution.error
        if error is not None:
            attributes["error.type"] = type(error).__name__
            state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
            if isinstance(state, str):
                attributes["db.response.status_code"] = state
        self._tell(summary, attributes, execution.duration)

    def _text_and_summary(self, statement: str) -> tuple[str, str]:
        from mks_hardening.db import normalize_sql

        text = normalize_sql(statement, dialect=self._dialect)
        operation = text.partition(" ")[0].upper()
        targets = dict.fromkeys(target for _, target in _TARGETS(text))
        return text, " ".join([operation, *targets])[:_LONGEST_SUMMARY]
