"""A fork at the worst moment: other threads hold every lock of the package, and the child must work."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mks_hardening.db
from mks_hardening import cache, notify, security, wsgi
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.process.after_fork import register_after_fork
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening._core.resilience.breaker import CircuitBreaker
from mks_hardening.logging import BoundedQueueHandler
from mks_hardening.testing import FlakyRedis, call_wsgi

LOCKS = (type(threading.Lock()), type(threading.RLock()))
Place = tuple[object, str]


def application(_environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b""]


def build() -> list[Any]:
    """One of each public object that keeps a lock, and of the core's."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine("sqlite://")
    monitor = mks_hardening.db.SlowQueryMonitor(engine)
    monitor.install()
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("select 1"))
    sessions = wsgi.SessionTimeoutMiddleware(application, store=wsgi.MemorySessionStore())
    health = wsgi.HealthMiddleware(application, required={"one": lambda: True})
    call_wsgi(health, "/readyz")
    memory = cache.MemoryCache()
    memory.get_or_compute("a", lambda: 1)
    alerts = notify.WebhookNotificationHandler("http://127.0.0.1:9/", allow_plaintext=True)
    limiter = security.RateLimiter({"a": [security.Limit("a", 1, 1)]})
    limiter.hit("a", "a")
    return [
        engine,
        monitor,
        sessions,
        health,
        memory,
        alerts,
        limiter,
        security.MemoryTwoFactorStore(),
        security.MemoryPasskeyStore(),
        security.PasswordHasher(),
        CircuitBreaker("redis"),
        RedisClient(FlakyRedis()),
        BackgroundWorker(print, name="idle"),
        BoundedQueueHandler([logging.NullHandler()]),
    ]


def places() -> Iterator[Place]:
    """Where the package keeps locks: globals of its modules and attributes of its living objects."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "mks_hardening":
            yield from ((module, key) for key, value in vars(module).items() if isinstance(value, LOCKS))
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).partition(".")[0] != "mks_hardening":
            continue
        slots = [slot for base in kind.__mro__ for slot in getattr(base, "__slots__", ())]
        for key in (*getattr(thing, "__dict__", {}), *slots):
            # The lock of a handler is the standard library's business, which renews it.
            if isinstance(getattr(thing, key, None), LOCKS) and (key != "lock" or not is_handler(thing)):
                yield thing, key


def is_handler(thing: object) -> bool:
    return isinstance(thing, logging.Handler)


def free(place: Place) -> bool:
    lock = getattr(*place)
    return bool(lock.acquire(blocking=False) and (lock.release() or True))


def names(found: list[Place]) -> set[str]:
    return {f"{getattr(owner, '__name__', type(owner).__qualname__)}.{key}" for owner, key in found}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_with_every_lock_of_the_package_held() -> None:
    others = {id(owner) for owner, _ in places() if not inspect.ismodule(owner)}  # parts of other tests
    objects = build()
    found = [place for place in places() if id(place[0]) not in others]
    assert len(names(found)) >= 8, names(found)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        locks = [getattr(*place) for place in found]
        for lock in locks:
            lock.acquire()
        held.set()
        go_on.wait(30)
        for lock in reversed(locks):
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(5)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        found.clear()  # what was replaced as a whole is gone with its lock
        gc.collect()
        still = names([place for place in places() if id(place[0]) not in others and not free(place)])
        os.write(write, " ".join(sorted(still)).encode())
        os._exit(0)
    go_on.set()
    holder.join()
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as report:
        assert report.read() == ""
    for thing in objects:
        getattr(thing, "close", lambda: None)()
    objects[1].uninstall()
    objects[0].dispose()


class Fragile:
    def reset_after_fork(self) -> None:
        raise ValueError("planted")


class Sound:
    renewed = False

    def reset_after_fork(self) -> None:
        self.renewed = True


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_one_that_cannot_be_renewed_does_not_keep_the_others_from_it() -> None:
    things = [Sound(), Fragile(), Sound(), Fragile(), Sound()]
    for thing in things:
        register_after_fork(thing)
    child = os.fork()
    if child == 0:
        os._exit(0 if all(thing.renewed for thing in things if isinstance(thing, Sound)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
