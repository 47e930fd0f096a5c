"""Table of tasks in an application's metadata, for its migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.checks import instance, text_of
from mks_hardening._core.optional_imports import optional

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

__all__ = ["task_table"]


def task_table(metadata: MetaData, *, name: str = "mks_task", schema: str | None = None) -> Table:
    """Define the table of tasks, one row per task.

    ``due_at`` is the only time that matters for scheduling: the time from which a waiting task may run, or the
    expiry of a running task's lease; ``NULL`` once the task has ended. One index therefore finds all due tasks,
    however many rows have ended.

    Raises:
        ConfigurationError: an argument has the wrong type, or a name is empty.
        MissingDependencyError: SQLAlchemy is not installed.
    """
    with optional("sqlalchemy", extra="db"):
        from sqlalchemy import (
            Boolean,
            Column,
            Float,
            Index,
            Integer,
            MetaData,
            SmallInteger,
            String,
            Table,
            Text,
            text,
        )
    instance(metadata, MetaData, parameter="metadata")
    text_of(name, parameter="name", empty=False)
    if schema is not None:
        text_of(schema, parameter="schema", empty=False)
    return Table(
        name,
        metadata,
        Column("id", String(32), primary_key=True),
        Column("name", String(200), nullable=False),
        Column("arguments", Text, nullable=False),
        Column("context", Text, nullable=False),
        Column("state", String(9), nullable=False),
        Column("queue", String(40), nullable=False),
        Column("priority", SmallInteger, nullable=False),
        # Seconds as a double instead of a timestamp: SQLite has no such type, and comparing texts with time zones
        # is error-prone. A double holds microseconds until the year 2242.
        Column("due_at", Float(53)),
        Column("created_at", Float(53), nullable=False),
        Column("started_at", Float(53)),
        Column("finished_at", Float(53)),
        Column("owner", String(32)),
        Column("deliveries", Integer, nullable=False, server_default=text("0")),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("unique_key", String(200)),
        Column("user_id", String(255)),
        Column("progress", Float(53), nullable=False, server_default=text("0")),
        Column("stage", String(200), nullable=False, server_default=text("''")),
        Column("result", Text),
        Column("error", String(500)),
        Column("cancel_requested", Boolean, nullable=False, server_default=text("false")),
        Column("rung_at", Float(53)),
        Column("unknown_since", Float(53)),
        # In this order: equality on queue and priority, then a range, as in the lease statement.
        Index(f"ix_{name}_due", "queue", "priority", "due_at"),
        Index(f"ix_{name}_rung", "queue", "rung_at", "priority", "due_at"),
        Index(f"ix_{name}_ended", "state", "finished_at"),
        Index(f"uq_{name}_key", "name", "unique_key", unique=True),
        schema=schema,
    )
