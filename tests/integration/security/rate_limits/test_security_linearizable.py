"""What may be used once is used once, whatever happens to the server meanwhile.

Four processes of eight threads use the same TOTP steps, recovery codes, challenges and versions of sessions at
once, while Redis is killed, stopped, loses answers or fails over. Every answer must be explained by some order of
all operations, in which those without an answer happened at any time or never.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from linearizability import (
    CompareAndSet,
    HighestStep,
    Operation,
    SingleUse,
    unexplained_keys,
)
from mks_hardening._core.operations import run
from mks_hardening.protocols import SessionRecord
from mks_hardening.security import totp_code
from security_history import Tools

pytestmark = [pytest.mark.redis, pytest.mark.slow]

PROCESSES, OBJECTS, SLOT = 4, 100, 0.06
MODELS: dict[str, Any] = {
    "step": HighestStep(),
    "recovery": SingleUse(),
    "challenge": SingleUse(),
    "passkey": SingleUse(),
    "session": CompareAndSet(),
}


def made_things(url: str) -> dict[str, list[dict[str, Any]]]:
    """Objects of each kind, fresh on the server."""
    tools = Tools(url, budget=5)
    things: dict[str, list[dict[str, Any]]] = {kind: [] for kind in MODELS}
    clock: Any = tools.manager._records._clock
    for number in range(OBJECTS):
        user = f"user{number}"
        clock.step_wall(-3600)  # so that no step of the race is used by the enrolment
        secret = tools.manager.begin_enrolment(user, account_name=user).secret
        codes = tools.manager.confirm_enrolment(user, totp_code(secret, at=clock.time()))
        clock.step_wall(3600)
        things["step"].append({"key": user, "user": user, "secret": secret})
        things["recovery"].append({"key": user, "user": user, "code": next(iter(codes))})
        token = run(tools.entries.issue("challenge", {"user": user}, ttl=500))
        things["challenge"].append({"key": token, "token": token})
        key = secrets.token_hex(32)
        tools.passkeys.save_challenge(key, b"{}", ttl=500)
        things["passkey"].append({"key": key})
        now = time.time()
        tools.sessions.create(SessionRecord(key, user, now, now, now + 3600), now=now)
        things["session"].append({"key": key})
    return things


def histories(url: str, things: Any, folder: Path, trouble: Callable[[], None]) -> list[Any]:
    """What all threads wrote down while ``trouble`` was made again and again."""
    orders = folder / "orders.json"
    orders.write_text(
        json.dumps({"url": url, "things": things, "slot": SLOT, "slots": OBJECTS, "budget": 0.25})
    )
    program = Path(__file__).parents[3] / "support" / "security_history.py"
    children = [
        subprocess.Popen(
            [sys.executable, str(program), str(orders), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    over = threading.Event()

    def make_trouble() -> None:
        while not over.is_set():
            trouble()

    troubled = threading.Thread(target=make_trouble)
    begin = time.monotonic() + 0.1
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{begin}\n")
        child.stdin.flush()
    troubled.start()
    rows = []
    for child in children:
        rows += [json.loads(line) for line in child.communicate(timeout=120)[0].splitlines()]
    over.set()
    troubled.join()
    return rows


def judge(rows: list[Any], *, least: int) -> None:
    assert len(rows) >= least
    for kind, model in MODELS.items():
        some = [
            Operation(key, call, answer, *times) for what, key, call, answer, *times in rows if what == kind
        ]
        assert unexplained_keys(some, model) == [], kind
        if kind != "session":
            assert any(one.answer is True for one in some), kind


@pytest.fixture
def durable(make_redis: Any) -> Any:
    """A server that has written down what it answers."""
    return make_redis(options={"appendonly": "yes", "appendfsync": "always"})


def test_while_the_server_is_killed(durable: Any, tmp_path: Path) -> None:
    def trouble() -> None:
        time.sleep(0.7)
        durable.kill()
        durable.start()

    judge(histories(durable.url, made_things(durable.url), tmp_path, trouble), least=2_500)


def test_while_the_server_stands_still(redis_server: Any, tmp_path: Path) -> None:
    def trouble() -> None:
        time.sleep(0.4)
        redis_server.pause()
        time.sleep(0.35)
        redis_server.resume()

    judge(histories(redis_server.url, made_things(redis_server.url), tmp_path, trouble), least=2_500)


def test_while_answers_are_lost(redis_server: Any, fault_proxy: Any, tmp_path: Path) -> None:
    things = made_things(redis_server.url)

    def trouble() -> None:
        fault_proxy.lose_reply(matching=b"EVALSHA")
        time.sleep(0.02)

    judge(histories(fault_proxy.through(redis_server.url), things, tmp_path, trouble), least=2_500)


def test_while_another_server_takes_over(redis_sentinels: Any, tmp_path: Path) -> None:
    hosts = ",".join(f"{host}:{port}" for host, port in redis_sentinels.addresses)
    url = f"redis+sentinel://{hosts}/{redis_sentinels.name}/0"
    things = made_things(url)
    turns: Iterator[int] = iter(range(1))

    def trouble() -> None:
        time.sleep(1.0)
        if next(turns, None) is not None:
            # Replication is asynchronous: what a master has answered and not sent on yet is lost with it, which is
            # Redis's affair and not ours. So it answers no more writes before it dies.
            with suppress(Exception):
                redis_sentinels.master.command("CLIENT", "PAUSE", 400, "WRITE")
            time.sleep(0.2)
            redis_sentinels.fail_over()

    judge(histories(url, things, tmp_path, trouble), least=2_500)
