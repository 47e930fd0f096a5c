from sqlalchemy import text

from mks_hardening.db import hardened_engine

engine = hardened_engine("postgresql+psycopg://app@pooler:6432/app", transaction_pooling=True)
assert engine.dialect.name == "postgresql"

# The option also exists on SQLite, where it has no effect.
with hardened_engine("sqlite://", transaction_pooling=True).connect() as connection:
    assert connection.execute(text("SELECT 1")).scalar() == 1
