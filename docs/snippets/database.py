import sqlalchemy as sa

from mks_hardening.db import SlowQueryMonitor, fingerprint, hardened_engine

engine = hardened_engine("sqlite://", workers=2, threads=4)
monitor = SlowQueryMonitor(engine, threshold=0.1)
monitor.install()
with engine.connect() as connection:
    connection.execute(sa.text("SELECT 1 WHERE 'secret' = :value"), {"value": "secret"})
monitor.uninstall()
writing = engine.execution_options(sqlite_transaction_mode="IMMEDIATE")
with writing.begin() as connection:
    assert connection.execute(sa.text("SELECT 1")).scalar() == 1

assert fingerprint("SELECT * FROM a WHERE id = 7") == fingerprint("select * from a where id=42")
