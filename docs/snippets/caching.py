from mks_hardening.cache import MemoryCache, cached, set_default_cache

cache = MemoryCache()  # or RedisCache("redis://localhost:6379/0"): the same, shared by all processes
set_default_cache(cache)


@cached(ttl=60, tags=("articles",))
def titles(category: str) -> list[str]:
    return [f"{category}: 鉄筋の継手"]


assert titles("品質") == titles(category="品質")  # however a call is spelled, it has one key
cache.invalidate_tags("articles")
