from sqlalchemy import text
from sqlalchemy.orm import Session

from mks_hardening.db import ReadReplicas, ReadToken, hardened_engine

RENAME = text("UPDATE orders SET name = :name WHERE id = :order")
SHOW = text("SELECT name FROM orders WHERE id = :order")
primary = hardened_engine("postgresql+psycopg://app@primary/app")
replica = hardened_engine("postgresql+psycopg://app@replica/app")

replicas = ReadReplicas(primary, [replica])


def rename(order: int, name: str) -> str:
    with Session(primary) as session, session.begin():
        session.execute(RENAME, {"order": order, "name": name})
    return str(replicas.token())  # keep it in the session of the user


def show(order: int, token: str) -> str:
    with Session(replicas.engine(after=ReadToken.parse(token))) as session:
        return session.execute(SHOW, {"order": order}).scalar_one()
