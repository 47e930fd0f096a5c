"""Find the orders of a day, and require a note."""

from alembic import op

from mks_hardening.db import SafeOperations

revision = "0007"
down_revision = None


def upgrade() -> None:
    """Every step continues where it stopped, so the revision may be repeated."""
    with op.get_context().autocommit_block():
        safe = SafeOperations(op.get_bind())
        safe.add_index("ix_orders_day", "orders", ["day"])
        safe.backfill("orders", {"note": "''"}, where="note IS NULL")
        safe.set_not_null("orders", "note")
