"""Two ways round what guards the audit log are closed.

SQLite's ``REPLACE`` removes the row that is in its way without asking the trigger that refuses a ``DELETE``, and a
session of PostgreSQL with ``session_replication_role = replica`` asks only triggers that are always enabled.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TRIGGERS = ("audit_entries_stay", "audit_entries_stay_all")
_REPLACED = (
    "CREATE TRIGGER audit_entries_stay_replace BEFORE INSERT ON audit_entries "
    "WHEN EXISTS (SELECT 1 FROM audit_entries WHERE id = NEW.id OR previous = NEW.previous) "
    "BEGIN SELECT RAISE(ABORT, 'audit entries stay'); END"
)


def upgrade() -> None:
    """Refuse an entry in the place of another one."""
    if op.get_context().dialect.name == "postgresql":
        _enable("ENABLE ALWAYS")
    else:
        op.execute(_REPLACED)


def downgrade() -> None:
    """Leave both ways open again."""
    if op.get_context().dialect.name == "postgresql":
        _enable("ENABLE")
    else:
        op.execute("DROP TRIGGER audit_entries_stay_replace")


def _enable(how: str) -> None:
    for trigger in _TRIGGERS:
        op.execute(f"ALTER TABLE audit_entries {how} TRIGGER {trigger}")
