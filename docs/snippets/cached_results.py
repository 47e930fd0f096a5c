from dataclasses import dataclass

from mks_hardening.cache import MemoryCache, cached, set_default_cache

set_default_cache(MemoryCache())


@dataclass(frozen=True)
class Filter:
    category: str
    page: int = 1


@dataclass
class Article:
    number: int
    title: str


@cached(
    ttl=60,
    store_if=lambda articles: len(articles) > 0,  # an empty list is not stored
    stale_on_error=3600,  # the old list, while the database is down
    early_refresh=1,  # a popular list is recomputed shortly before it expires
)
def articles(wanted: Filter) -> list[Article]:
    return [Article(7, f"{wanted.category}: 鉄筋の継手")]


assert articles(Filter("品質")) == [Article(7, "品質: 鉄筋の継手")]
assert articles(Filter("品質")) == [Article(7, "品質: 鉄筋の継手")]
info = articles.cache_info()
assert (info.hits, info.misses) == (1, 1)
print(articles.refresh(Filter("品質"))[0].title)
