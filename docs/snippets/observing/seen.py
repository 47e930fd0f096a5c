from urllib.request import urlopen

from mks_hardening.cache import MemoryCache
from mks_hardening.contrib.prometheus_observer import PrometheusObserver
from mks_hardening.events import add_observer

metrics = PrometheusObserver()
add_observer(metrics)
listener = metrics.serve(8000)

cache = MemoryCache(namespace="articles")
cache.get("not there")
cache.set("key", "value")
cache.get("key")

with urlopen("http://127.0.0.1:8000/metrics") as page:
    print("".join(line for line in page.read().decode().splitlines(keepends=True) if "cache_reads" in line))
listener.close()
