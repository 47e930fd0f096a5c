import json
from pathlib import Path

import sqlalchemy as sa

from mks_hardening.db import PoolMonitor, SlowQueryMonitor, client_report, hardened_engine

engine = hardened_engine("sqlite://")
with SlowQueryMonitor(engine) as statements, PoolMonitor(engine) as pool, engine.connect() as connection:
    connection.execute(sa.text("SELECT 1 WHERE 'secret' = :value"), {"value": "secret"})
    Path("report.json").write_text(client_report(statements, pool), "utf-8")

report = json.loads(Path("report.json").read_text("utf-8"))
assert report["statements"][0]["statement"] == "select ? where ? = ?"
assert report["holders"][0]["caller"]  # file:line
