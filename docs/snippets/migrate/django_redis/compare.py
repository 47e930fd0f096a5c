import importlib
import json
import subprocess
import sys
from datetime import date

from mks_hardening.exceptions import EncodeError


class Crane:
    """An object that only pickle can store."""


def facts(name):
    importlib.import_module(name)
    from django.core.cache import cache

    def tried(action):
        try:
            return action()
        except (EncodeError, TypeError, ValueError) as error:
            return type(error).__name__

    price = {"net": 1200, "on": date(2026, 4, 1), "sizes": (10, 13)}
    cache.set("price:1", price, timeout=60)
    yield "a value with a date and a tuple comes back equal", cache.get("price:1") == price
    yield "its time to live is 54 to 60 seconds", 54 <= cache.ttl("price:1") <= 60
    yield "no value", f"{cache.get('none')} {cache.ttl('none')}"
    yield "add, twice", f"{cache.add('once', 1)} {cache.add('once', 2)}"
    cache.set("views", 41, timeout=60)
    before = cache.ttl("views")
    yield (
        "incr, and its time to live goes down",
        f"{cache.incr('views')} {before - 2 <= cache.ttl('views') <= before}",
    )
    yield "incr without a value", tried(lambda: cache.incr("nobody"))
    yield "get_or_set", f"{cache.get_or_set('total', lambda: 7)} {cache.get_or_set('total', lambda: 8)}"
    cache.set_many({"price:2": 2, "price:3": 3})
    yield "keys", sorted(cache.keys("price:*"))
    yield "touch prolongs", f"{cache.touch('price:2', 600)} {cache.ttl('price:2') > 500}"
    yield "delete_pattern", cache.delete_pattern("price:*")
    yield "what is left", sorted(cache.keys("*"))
    with cache.lock("report", timeout=60):
        yield "a lock that is taken", cache.lock("report", timeout=60, blocking_timeout=0.01).acquire()
    yield "an object", tried(lambda: cache.set("crane", Crane()) and "a pickle")
    yield "set with nx", tried(lambda: cache.set("once", 3, nx=True))


if sys.argv[1:]:  # each side in a process of its own: Django has one configuration
    print(json.dumps([*facts(sys.argv[1])]))
else:
    sides = [
        json.loads(subprocess.check_output([sys.executable, __file__, side]))  # noqa: S603 - this program
        for side in ("before", "after")
    ]
    for (what, old), (_, new) in zip(*sides, strict=True):
        print(f"{what}: {old} | {new}")
