from mks_hardening.cache import MemoryCache, cached

cache = MemoryCache()  # RedisCache("redis://localhost:6379/0") in production


@cached(ttl=60, cache=cache, tags=["articles"])
def title(article: int) -> str:
    return f"Article {article}"


assert title(7) == title(article=7) == "Article 7"
assert cache.stats().hits == 1
cache.invalidate_tags("articles")
