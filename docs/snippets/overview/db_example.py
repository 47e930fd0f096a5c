import sqlalchemy as sa

from mks_hardening.db import hardened_engine, query_budget

engine = hardened_engine("sqlite://", workers=2, threads=4)
with query_budget(1, engine), engine.connect() as connection:  # a second statement would raise an error
    assert connection.scalar(sa.text("SELECT 1")) == 1
