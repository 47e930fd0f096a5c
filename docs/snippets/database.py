import sqlalchemy as sa

from mks_hardening.db import SlowQueryMonitor, fingerprint, hardened_engine, query_budget, watch_queries

engine = hardened_engine("sqlite://", workers=2, threads=4)
monitor = SlowQueryMonitor(engine, threshold=0.1)
monitor.install()
with engine.connect() as connection:
    connection.execute(sa.text("SELECT 1 WHERE 'secret' = :value"), {"value": "secret"})
monitor.uninstall()
writing = engine.execution_options(sqlite_transaction_mode="IMMEDIATE")
with writing.begin() as connection:
    assert connection.execute(sa.text("SELECT 1")).scalar() == 1


@query_budget(5, engine, action="log")  # on a view, for example
def names(numbers):
    with engine.connect() as connection:
        statement = sa.text("SELECT name FROM sqlite_master WHERE rootpage = :id")
        return [connection.execute(statement, {"id": one}).scalar() for one in numbers]


with watch_queries(engine) as log:
    names([1, 2, 3])
(found,) = log.n_plus_one
with watch_queries(engine, action="raise", baseline={"select name *": "becomes one statement"}):
    names([1, 2, 3])
assert (found.times, found.hint) == (3, "fetch all rows with one statement: a join, or IN with a list")

assert fingerprint("SELECT * FROM a WHERE id = 7") == fingerprint("select * from a where id=42")
