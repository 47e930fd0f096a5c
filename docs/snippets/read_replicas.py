from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from mks_hardening.contrib.sqlalchemy_replicas import ReplicaSession
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


Sessions = sessionmaker(class_=ReplicaSession, replicas=replicas)


def rename_and_show(order: int, name: str) -> tuple[str, str]:
    with Sessions() as session:
        session.execute(RENAME, {"order": order, "name": name})
        session.commit()
        with session.on_replica() as reading:
            shown = reading.execute(SHOW, {"order": order}).scalar_one()
        return shown, str(session.read_token())  # for Sessions(after=ReadToken.parse(token))
