"""Never run: what type checkers see of cached functions, pages, searches and watched queries."""

from __future__ import annotations

from typing import Any, assert_type

from sqlalchemy import Engine, Integer, column, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from mks_hardening.cache import (
    CacheStats,
    FastlyCDN,
    MemoryCache,
    NullCache,
    PurgeQueue,
    PurgeResult,
    PurgeStats,
    RedisCache,
    TagInvalidator,
    cached,
    set_default_cache,
)
from mks_hardening.cache.cdn.cdn_manager import CDNManager
from mks_hardening.db import (
    Page,
    PoolPlan,
    StatementStats,
    fingerprint,
    hardened_engine,
    keyset_page,
    plan_pool,
    query_budget,
    retry_on_serialization_failure,
    watch_queries,
)

cache = MemoryCache(max_entries=10)
set_default_cache(cache)
set_default_cache(None)

# --- a cached function keeps its arguments and its answer


@cached(cache=cache, ttl=5, tags=("a",))
def article(number: int, *, draft: bool = False) -> str | None:
    return None


assert_type(article(1), str | None)
assert_type(article(1, draft=True), str | None)
assert_type(article.cache_key(1), str)
article.invalidate(1, draft=True)
article("1")  # type: ignore[arg-type]
article(1, True)  # type: ignore[call-arg]


class Shop:
    """Methods are cached like functions."""

    @cached(cache=cache)
    def price(self, number: int, *, net: bool = False) -> float:
        return 1.0

    @cached(cache=cache)
    async def later(self, number: int) -> list[int]:
        return [number]

    @classmethod
    @cached(cache=cache)
    def of_class(cls, number: int) -> str:
        return ""

    @classmethod
    @cached(cache=cache)
    async def of_class_later(cls, number: int) -> str:
        return ""

    @staticmethod
    @cached(cache=cache)
    def static(number: int) -> bytes:
        return b""


async def of_methods() -> None:
    shop = Shop()
    assert_type(shop.price(1), float)
    assert_type(shop.price(1, net=True), float)
    assert_type(await shop.later(1), list[int])
    assert_type(Shop.of_class(1), str)
    assert_type(await shop.of_class_later(1), str)
    assert_type(Shop.static(1), bytes)
    assert_type(Shop.price(shop, 1), float)
    assert_type(Shop.price.cache_key(shop, 1), str)
    assert_type(Shop.of_class.cache_key(Shop, 1), str)
    Shop.price.invalidate(shop, 1)
    await Shop.later.ainvalidate(shop, 1)
    shop.price("1")  # type: ignore[arg-type]
    shop.price(shop, 1)  # type: ignore[call-arg, arg-type]
    Shop.price.invalidate(1)  # type: ignore[call-arg]
    await article.ainvalidate(1)


def tags_of(number: int) -> tuple[str, ...]:
    return (f"article:{number}",)


@cached(tags=tags_of)
async def later(number: int) -> list[int]:
    return [number]


async def main() -> None:
    assert_type(await later(1), list[int])
    assert_type(await cache.aget_or_compute("k", lambda: later(1)), list[int])


# --- caches are interchangeable

caches: list[MemoryCache | NullCache | RedisCache] = [cache, NullCache(), RedisCache("redis://localhost/0")]
assert_type(cache.get_or_compute("k", lambda: 1), int)
assert_type(cache.stats(), CacheStats)
assert_type(cache.delete("a", "b"), int)
assert_type(CDNManager("0" * 32, api_token="t" * 20).purge_cache(["https://example.com/"]), PurgeResult)

with PurgeQueue(FastlyCDN("a", api_token="t" * 20)) as purges:
    assert_type(purges, PurgeQueue)
    assert_type(purges.purge_cache([{"url": "https://example.com/", "headers": {"a": "b"}}]), PurgeResult)
    assert_type(purges.flush(), PurgeStats)
    purges.purge_cache([{"url": "https://example.com/"}])  # type: ignore[list-item]
    TagInvalidator(cache, cdn=purges)

# --- databases

engine = hardened_engine("sqlite://", pool_size=3)
assert_type(engine, Engine)
assert_type(plan_pool(workers=1, threads=1, max_connections=10), PoolPlan)
assert_type(fingerprint("select 1", dialect="sqlite"), str)
fingerprint("select 1", dialect="oracle")  # type: ignore[arg-type]
number: Any = column("n", Integer)
assert_type(keyset_page(select(number), order_by=[number]), Page)


class Base(DeclarativeBase):
    pass


class Article(Base):
    __tablename__ = "articles"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


assert_type(keyset_page(select(Article), order_by=[Article.id]), Page)
assert_type(keyset_page(select(Article), order_by=[Article.id.desc()]), Page)
assert_type(keyset_page(select(Article.id, Article.title), order_by=[Article.id]), Page)
assert_type(keyset_page(select(Article, Article.title), order_by=[Article.id]), Page)

with watch_queries(engine, action="raise") as log, query_budget(3):
    assert_type(log.statements[0].rows, int)


@retry_on_serialization_failure(attempts=3)
def transfer(amount: int) -> bool:
    return amount > 0


assert_type(transfer(3), bool)
stats: list[StatementStats] = []
