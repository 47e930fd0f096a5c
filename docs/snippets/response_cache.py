from flask import Flask, session

from mks_hardening.cache import MemoryCache
from mks_hardening.contrib.flask_app import Hardening
from mks_hardening.settings import HardeningSettings
from mks_hardening.wsgi import CacheRule, ResponseCacheMiddleware

settings = HardeningSettings.from_env(environ={"MKS_ENV": "development"})
app = Flask(__name__)
cache = MemoryCache()
made = []


@app.get("/news/today")
def today():
    made.append("today")
    return "the same for all"


@app.get("/news/basket")
def basket():
    made.append("basket")
    session.setdefault("basket", 1)
    return "for one visitor"


app.wsgi_app = ResponseCacheMiddleware(app.wsgi_app, cache=cache, rules=[CacheRule("/news/", ttl=60)])
Hardening(app, settings)

for page in ("/news/today", "/news/today", "/news/basket", "/news/basket"):
    assert app.test_client().get(page, buffered=True).status_code == 200
assert made == ["today", "basket", "basket"]
