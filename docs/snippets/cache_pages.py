from mks_hardening.cache import MemoryCache, TagInvalidator
from mks_hardening.compose import harden_wsgi
from mks_hardening.settings import HardeningSettings
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import CacheRule

made = []
cache = MemoryCache()  # RedisCache("redis://localhost:6379/0") shares the pages among all processes


def news(environ, start_response):
    made.append(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Tag", "news")])
    return [f"page {len(made)}".encode()]


app = harden_wsgi(
    news,
    HardeningSettings.from_env(environ={"MKS_ALLOWED_HOSTS": "localhost"}),
    cache=cache,
    cache_rules=[
        CacheRule(
            "/news/",
            ttl=60,
            query=["page"],
            tags=["news"],
            stale_while_revalidate=30,
            stale_if_error=600,
            ignore_cookies=["_ga", "_ga_*"],
        )
    ],
)
pages = TagInvalidator(cache)  # cdn=CDNManager(...) purges the CDN as well


def get(path, **headers):
    return call_wsgi(app, path, scheme="https", headers={"Host": "localhost", **headers}).body


assert [get("/news/1"), get("/news/1"), get("/news/1", Cookie="_ga=1")] == [b"page 1"] * 3
assert get("/news/1", Cookie="session=1") == b"page 2"  # of one user: neither served nor stored
assert pages.invalidate(["news"])
assert get("/news/1") == b"page 3"
