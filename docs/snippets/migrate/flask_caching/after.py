from flask import Flask, request

from mks_hardening.cache import MemoryCache, cached
from mks_hardening.wsgi import CacheRule, ResponseCacheMiddleware

app = Flask(__name__)
cache = MemoryCache()  # RedisCache("redis://localhost:6379/0") shares it over all processes
computed = []


@cached(cache=cache, ttl=60, tags=lambda site, *_, **__: [site])
def total(site, year=2026):
    computed.append((site, year))
    return None if site == "empty" else f"{site} {year}"


@app.get("/report")
def report():
    return f"for {request.cookies.get('user')}: {request.args.get('year')}"


app.wsgi_app = ResponseCacheMiddleware(
    app.wsgi_app, cache=cache, rules=[CacheRule("/report", ttl=60, query=["year"])]
)


def forget(site):
    cache.invalidate_tags(site)  # whatever the year; Flask-Caching forgets only the call it is given
