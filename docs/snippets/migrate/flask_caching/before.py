from flask import Flask, request
from flask_caching import Cache

app = Flask(__name__)
cache = Cache(app, config={"CACHE_TYPE": "SimpleCache", "CACHE_DEFAULT_TIMEOUT": 60})
computed = []


@cache.memoize(timeout=60)
def total(site, year=2026):
    computed.append((site, year))
    return None if site == "empty" else f"{site} {year}"


@app.get("/report")
@cache.cached(timeout=60, query_string=True)
def report():
    return f"for {request.cookies.get('user')}: {request.args.get('year')}"


def forget(site):
    cache.delete_memoized(total, site)
