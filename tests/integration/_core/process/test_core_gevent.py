"""Under gevent: patched before our import or after it, an outage blocks nobody but the caller."""

from __future__ import annotations

import pytest

from testbed.redis_server import RedisServer
from testbed.run_python import run_python

pytest.importorskip("gevent", reason="gevent is not installed")

pytestmark = pytest.mark.redis

IMPORTS = """
import mks_hardening.cache, mks_hardening.logging, mks_hardening.notify, mks_hardening.security, mks_hardening.wsgi
from mks_hardening._core.backend.redis_client import RedisClient
from mks_hardening._core.process.background_worker import BackgroundWorker
from mks_hardening.events import add_observer
"""
PATCH = """
from gevent import monkey
monkey.patch_all()
"""
WORK = """
import json, os, signal, sys, time
import gevent
url, server = sys.argv[1], int(sys.argv[2])
report = {}
client = RedisClient(url, store_budget=0.3)
add_observer(lambda event: gevent.sleep(0))

def answers():
    deadline = time.monotonic() + 20
    while not client.ping() and time.monotonic() < deadline:
        time.sleep(0.01)
    return client.ping()
assert answers()

ticks = []
def tick():
    while True:
        gevent.sleep(0.005)
        ticks.append(1)
gevent.spawn(tick)

def echo(text):
    return client.call("ECHO", text)
jobs = [gevent.spawn(echo, str(number)) for number in range(50)]
gevent.joinall(jobs, timeout=20)
report["answers"] = [job.value.decode() for job in jobs] == [str(number) for number in range(50)]

os.kill(server, signal.SIGSTOP)
reasons = []
def ask():
    try:
        client.call("GET", "a", idempotent=True)
    except Exception as error:
        reasons.append(error.reason)
before = len(ticks)
for _ in range(4):
    ask()
report["reasons"] = reasons
report["others went on"] = len(ticks) > before + 20
os.kill(server, signal.SIGCONT)
report["back"] = answers()

seen = []
worker = BackgroundWorker(seen.append, name="greenlet")
for number in range(10):
    worker.put(number)
report["worker"] = worker.flush(10) and seen == list(range(10)) and worker.close() == []
client.close()
print(json.dumps(report))
"""


@pytest.mark.parametrize("order", [IMPORTS + PATCH, PATCH + IMPORTS], ids=["patched late", "patched early"])
def test_an_outage_under_gevent(order: str, redis_server: RedisServer) -> None:
    outcome = run_python(order + WORK, redis_server.url, str(redis_server.process.pid))
    assert outcome.json() == {
        "answers": True,
        "reasons": ["timeout"] * 3 + ["open"],
        "others went on": True,
        "back": True,
        "worker": True,
    }
