"""The audit log, whose rows the database neither changes nor removes.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

# mks: allow MG215 one entry a second for 60 years
revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_POSTGRESQL = (
    (
        "CREATE FUNCTION audit_entries_stay() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'audit entries stay'; END $$"
    ),
    (
        "CREATE TRIGGER audit_entries_stay BEFORE UPDATE OR DELETE ON audit_entries "
        "FOR EACH ROW EXECUTE FUNCTION audit_entries_stay()"
    ),
    (
        "CREATE TRIGGER audit_entries_stay_all BEFORE TRUNCATE ON audit_entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_stay()"
    ),
)
_SQLITE = tuple(
    f"CREATE TRIGGER audit_entries_stay_{change.lower()} BEFORE {change} ON audit_entries "
    "BEGIN SELECT RAISE(ABORT, 'audit entries stay'); END"
    for change in ("UPDATE", "DELETE")
)


def upgrade() -> None:
    """Create the table and what guards it."""
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Integer()),
        sa.Column("actor_name", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(100), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
        sa.UniqueConstraint("previous", name="uq_audit_entries_previous"),
    )
    for statement in _POSTGRESQL if op.get_context().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    """The whole log is lost."""
    op.drop_table("audit_entries")
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_entries_stay()")
