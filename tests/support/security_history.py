"""One of several processes that use one-time values concurrently and record the results.

Started as a program: it reads its orders from the file that its first argument names, says ``ready``, begins when a
line comes, and writes one line of JSON for each operation. Threads of all processes go over the same objects at the
same time.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from linearizability import UNKNOWN
from mks_hardening._core.operations import run
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import (
    RedisPasskeyStore,
    RedisSignInStore,
    RedisTwoFactorStore,
    SecretBox,
    TwoFactorManager,
    totp_code,
)
from mks_hardening.security.sign_in._one_time_tokens import OneTimeTokens
from mks_hardening.testing import FrozenClock
from mks_hardening.wsgi import RedisSessionStore

NOON = 1_700_000_010.0
BOX_KEY = bytes(range(32))


class Tools:
    """The objects that a process uses."""

    def __init__(self, url: str, *, budget: float) -> None:
        options: Any = {"store_budget": budget}
        self.factors = RedisTwoFactorStore(url, **options)
        self.manager = TwoFactorManager(
            self.factors, issuer="MKS", secret_box=SecretBox(BOX_KEY), clock=FrozenClock(NOON)
        )
        self.entries = OneTimeTokens(RedisSignInStore(url, **options), FrozenClock(NOON))
        self.passkeys = RedisPasskeyStore(url, **options)
        self.sessions = RedisSessionStore(url, **options)

    def use(self, kind: str, thing: dict[str, Any], chance: random.Random) -> tuple[Any, Any]:
        """Run one operation, and record the call and the result."""
        if kind == "step":
            step = chance.choice([-1, 0, 1])
            PENDING[threading.get_ident()] = step
            code = totp_code(thing["secret"], at=NOON + 30 * step)
            return step, self._verified(thing["user"], code, str(chance.random()))
        if kind == "recovery":
            return "use", self._verified(thing["user"], thing["code"], str(chance.random()))
        if kind == "challenge":
            found = run(self.entries.find("challenge", thing["token"]))
            return "use", found is not None and run(self.entries.use(found))
        if kind == "passkey":
            return "use", self.passkeys.consume_challenge(thing["key"]) is not None
        raise AssertionError(kind)

    def _verified(self, user: str, code: str, client: str) -> Any:
        result = self.manager.verify(user, code, client=client)
        if result or result.reason in ("replayed", "wrong"):
            return bool(result)
        return UNKNOWN  # locked: whatever the code was worth


def work(tools: Tools, orders: dict[str, Any], seed: int, begin: float, out: list[Any]) -> None:
    """Run one thread: at each moment, use the object of that moment, of each kind in turn."""
    chance, slot = random.Random(seed), orders["slot"]
    things: dict[str, list[dict[str, Any]]] = orders["things"]
    kinds, number = list(things), seed
    versions: dict[str, int] = {}
    while (at := int((time.monotonic() - begin) / slot)) < orders["slots"]:
        number += 1
        kind = kinds[number % len(kinds)]
        thing = things[kind][at % len(things[kind])]
        call: Any = "use"
        PENDING.pop(threading.get_ident(), None)
        began = time.monotonic()
        try:
            if kind == "session":
                call, answer = session_operation(tools, thing, versions, chance, f"{seed}-{number}")
            else:
                call, answer = tools.use(kind, thing, chance)
        except BackendUnavailableError as error:
            time.sleep(0.002)
            if not error.sent:
                continue
            answer = UNKNOWN
            call = PENDING.pop(threading.get_ident(), call)
        out.append([kind, thing["key"], call, answer, began, time.monotonic()])


PENDING: dict[int, Any] = {}
"""What a thread was about to ask, for an answer that does not come."""


def session_operation(
    tools: Tools, thing: dict[str, Any], versions: dict[str, int], chance: random.Random, text: str
) -> tuple[Any, Any]:
    """Read a session, or write it with the version last read."""
    key = thing["key"]
    if key not in versions or chance.random() < 0.4:
        PENDING[threading.get_ident()] = ("load",)
        record = tools.sessions.load(key)
        answer = None if record is None else [record.version, record.data]
        versions[key] = -1 if record is None else record.version
        return ("load",), answer
    # A text of its own, or one that others write as well: a lost update must not be taken for one's own.
    data = {"by": text} if chance.random() < 0.5 else {"count": versions[key] + 1}
    call = ("set", versions[key], json.dumps(data))
    PENDING[threading.get_ident()] = call
    written = tools.sessions.update(key, version=call[1], data=call[2])
    versions[key] += written
    if not written:
        del versions[key]
    return call, written


def main() -> None:
    """Run as described in the module."""
    orders = json.loads(Path(sys.argv[1]).read_text())
    tools = Tools(orders["url"], budget=orders["budget"])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    begin = float(sys.stdin.readline())
    results: list[list[Any]] = [[] for _ in range(8)]
    threads = [
        threading.Thread(target=work, args=(tools, orders, int(sys.argv[2]) * 8 + number, begin, result))
        for number, result in enumerate(results)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        for row in result:
            sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
