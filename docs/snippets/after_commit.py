from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from mks_hardening.cache import AfterCommit, MemoryCache, cached
from mks_hardening.contrib.sqlalchemy_session import after_commit

engine = create_engine("sqlite://", poolclass=StaticPool)
change = text("CREATE TABLE article (number INTEGER)")
cache = MemoryCache()


@cached(cache=cache)
def article(number):
    return number


article(7)
cache.set("list", [7], tags=["articles"])

with AfterCommit() as later, engine.begin() as connection:
    connection.execute(change)
    later.add(cache.invalidate_tags, "articles")
    later.add(article.invalidate, 7)

assert cache.get("list") is None

cache.set("list", [7], tags=["articles"])
with Session(engine) as session:
    session.execute(text("INSERT INTO article VALUES (7)"))
    after_commit(session).add(cache.invalidate_tags, "articles")
    assert cache.get("list") == [7]
    session.commit()
assert cache.get("list") is None
engine.dispose()
