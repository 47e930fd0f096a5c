import sys
import time

from mks_hardening.cache import MemoryCache, RedisCache, TieredCache

url = sys.argv[1]
cache = TieredCache(MemoryCache(max_entries=10_000), RedisCache(url), l1_ttl=300, client_tracking=True)
elsewhere = RedisCache(url)  # another process, as far as Redis is concerned
deadline = time.monotonic() + 20
for price in (100, 120):
    assert elsewhere.set("price", price)
    while cache.get("price") != price or cache.peek("price") != price:  # until it comes from memory
        assert time.monotonic() < deadline
        time.sleep(0.01)
elsewhere.close()
cache.close()
