"""Bans in four processes that share a real Redis."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from mks_hardening.cli import main
from testbed.polling import wait_until
from testbed.redis_server import RedisServer

ATTACKER, OTHER = "198.51.100.7", "198.51.100.8"
PROGRAM = """
import sys, time
from mks_hardening.testing import call_wsgi
from mks_hardening.wsgi import BanList, BanRule, ClientRulesMiddleware

def application(environ, start_response):
    start_response(environ["QUERY_STRING"] + " X", [("Content-Type", "text/plain")])
    return [b"x"]

bans = BanList([BanRule("sweep", strikes=8, when={404})], store=sys.argv[1])
app = ClientRulesMiddleware(application, bans=bans)
print("ready", flush=True)
for line in sys.stdin:
    client, status = line.split()
    began = time.monotonic()
    found = call_wsgi(app, path="/?" + status, environ={"REMOTE_ADDR": client, "QUERY_STRING": status}).status
    print(found, time.monotonic() - began, flush=True)
"""


class Workers:
    """Four processes with the same application."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-c", PROGRAM, url]
        self._children = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        for child in self._children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        self.longest = 0.0

    def ask(self, number: int, client: str, answer: int = 200) -> int:
        child = self._children[number]
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{client} {answer}\n")
        child.stdin.flush()
        status, took = child.stdout.readline().split()
        self.longest = max(self.longest, float(took))
        return int(status)

    def ask_all(self, client: str, answer: int = 200) -> list[int]:
        return [self.ask(number, client, answer) for number in range(4)]

    def close(self) -> None:
        for child in self._children:
            child.kill()
            child.communicate()


@pytest.fixture
def workers(redis_url: str) -> Iterator[Workers]:
    found = Workers(redis_url)
    yield found
    found.close()


def within(seconds: float, condition: Callable[[], bool]) -> None:
    wait_until(condition, timeout=seconds, what="the same in all processes")


def all_say(workers: Workers, client: str, status: int) -> Callable[[], bool]:
    return lambda: workers.ask_all(client) == [status] * 4


def test_bans_and_their_end_reach_all_processes_within_a_second(
    workers: Workers, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workers.ask_all(ATTACKER) == [200] * 4
    assert main(["bans", "add", ATTACKER, "--for", "1h", "--redis", redis_url]) == 0
    within(1, all_say(workers, ATTACKER, 403))
    assert workers.ask_all(OTHER) == [200] * 4
    assert main(["bans", "list", "--redis", redis_url]) == 0
    assert main(["bans", "lift", ATTACKER, "--redis", redis_url]) == 0
    within(1, all_say(workers, ATTACKER, 200))
    assert main(["bans", "lift", ATTACKER, "--redis", redis_url]) == 1
    shown = capsys.readouterr().out
    assert "banned for 1h" in shown
    assert "manual\n1 ban\n" in shown
    assert f"{ATTACKER}  ban lifted\n{ATTACKER}  was not banned\n" in shown


def test_offences_of_all_processes_count_together(workers: Workers) -> None:
    workers.ask_all(ATTACKER, 404)
    time.sleep(0.6)  # several exchanges
    assert workers.ask_all(ATTACKER) == [200] * 4
    workers.ask_all(ATTACKER, 404)
    within(1.5, all_say(workers, ATTACKER, 403))


@pytest.mark.parametrize(("outage", "recovery"), [("kill", "restart"), ("pause", "resume")])
def test_no_request_waits_while_redis_is_gone_and_bans_continue(
    workers: Workers, redis_server: RedisServer, redis_url: str, outage: str, recovery: str
) -> None:
    workers.ask_all(OTHER)
    assert main(["bans", "add", ATTACKER, "--for", "1h", "--redis", redis_url]) == 0
    within(1, all_say(workers, ATTACKER, 403))
    getattr(redis_server, outage)()
    workers.longest = 0.0
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert workers.ask_all(ATTACKER) == [403] * 4
        workers.ask(0, OTHER, 404)
        workers.ask(1, "203.0.113.9")
    assert workers.ask(0, OTHER) == 403  # this process counts alone
    assert workers.ask(1, OTHER) == 200
    assert workers.longest < 0.1
    getattr(redis_server, recovery)()
    within(15, all_say(workers, OTHER, 403))
    assert workers.ask_all(ATTACKER) == [403] * 4

    def is_lifted() -> bool:
        main(["bans", "lift", OTHER, "--redis", redis_url])
        time.sleep(1)
        return workers.ask_all(OTHER) == [200] * 4

    # More than once: the process that was alone may store its ban again when it is back.
    within(15, is_lifted)
    assert workers.ask_all(ATTACKER) == [403] * 4
