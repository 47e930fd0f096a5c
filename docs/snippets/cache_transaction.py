from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from mks_hardening.cache import MemoryCache, cached

engine = create_engine("sqlite://", poolclass=StaticPool)
cache = MemoryCache()


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "article"
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


Base.metadata.create_all(engine)
session = Session(engine)
with session.begin():
    session.add(Article(number=7, title="Old"))


@cached(cache=cache, ttl=60, tags=("articles",))
def titles():
    return [article.title for article in session.query(Article)]


assert titles() == ["Old"]
article = session.get(Article, 7)
session.commit()

with cache.transaction() as change, session.begin():
    article.title = "New"
    change.invalidate(tags=["articles"])
    titles()  # computed from the change, and not stored

assert cache.stats().misses > 0
assert titles() == ["New"]
session.close()
engine.dispose()
