from sqlalchemy import text

from mks_hardening.db import hardened_engine, retry_on_serialization_failure

engine = hardened_engine("sqlite://")
INSERT = text("INSERT INTO orders (key) VALUES (:key) ON CONFLICT DO NOTHING")
with engine.begin() as connection:
    connection.execute(text("CREATE TABLE orders (key TEXT PRIMARY KEY)"))


@retry_on_serialization_failure(idempotent=True)
def place_order(key: str) -> None:
    with engine.begin() as connection:
        connection.execute(INSERT, {"key": key})


for _ in range(2):
    place_order("2026-0001")
with engine.begin() as connection:
    assert connection.execute(text("SELECT count(*) FROM orders")).scalar() == 1
