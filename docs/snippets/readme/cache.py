from mks_hardening.cache import MemoryCache, cached

cache = MemoryCache()  # RedisCache("redis://localhost:6379/0") shares it over all processes


@cached(cache=cache, ttl=60, tags=("articles",))
def titles(category: str) -> list[str]:
    return [f"{category}: 鉄筋の継手"]


print(titles("品質"), titles(category="品質"), cache.stats().hits)
# -> ['品質: 鉄筋の継手'] ['品質: 鉄筋の継手'] 1
