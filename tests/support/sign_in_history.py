"""Threads that sign in while others reset, change, disable and unlock accounts, and record the results.

Used within a process over stores in memory, and as a program: several processes over one Redis, and accounts in
SQL or in Redis. A check of a password takes a while here, as a real one does, so that everything else happens
during it.
"""

from __future__ import annotations

import json
import random
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from linearizability import Operation
from mks_hardening.protocols import SessionRecord
from mks_hardening.security import (
    CredentialChanges,
    MemorySignInStore,
    RedisSignInStore,
    SignIn,
    SignInAccount,
    SignInClient,
    SignInNotice,
    VerificationResult,
)
from mks_hardening.wsgi import MemorySessionStore, RedisSessionStore

CLIENT = SignInClient(address="192.0.2.1")
FIRST = "first password of all"
_STEPS = 8
"""Of one thread at one account."""


class Model:
    """One account, one operation at a time: ``(password, enabled, factor, sessions, changes, open)``.

    Changing an account is two operations in this order, ``("set", number, ...)`` and ``("end", number, spared)``:
    sign-ins see the change at once, and the sessions are ended by the time it returns. A session that is found
    alive then must have been begun under what holds; one that is found dead says nothing.
    """

    start = (FIRST, True, False, frozenset[str](), 0, frozenset[str]())

    def step(self, state: Any, call: Any) -> tuple[Any, Any]:
        password, enabled, factor, sessions, changes, begun = state
        name, *args = call
        if name == "alive":
            return args[0] in sessions, state
        if name == "sign_in":
            given, session = args
            if given != password or not enabled:
                return "", state
            after = (password, enabled, factor, sessions | {session}, changes + 1, begun)
            return ("mfa" if factor else "pwd"), after
        number = args[0]
        if name == "end":
            spared = sessions & {args[1]}
            return number in begun, (password, enabled, factor, spared, changes + 1, begun - {number})
        what, current, new = args[1:]
        if what == "change" and current != password:
            return False, state
        if what in {"change", "reset"}:
            password = new
        enabled = {"disable": False, "enable": True}.get(what, enabled)
        factor = {"enrol": True, "admin_reset": False}.get(what, factor)
        return True, (password, enabled, factor, sessions, changes + 1, begun | {number})


# --- what an application brings


class Row(NamedTuple):
    """An account in storage."""

    stored: str
    disabled: bool = False
    factor: bool = False

    def text(self) -> str:
        return json.dumps(self)


class Table:
    """Accounts as one text each, replaced atomically."""

    def read(self, user: str) -> str:
        raise NotImplementedError

    def replace(self, user: str, old: str, new: str) -> bool:
        raise NotImplementedError

    def row(self, user: str) -> Row:
        return Row(*json.loads(self.read(user)))

    def change(self, user: str, expected: str | None = None, **changes: Any) -> bool:
        while True:
            text = self.read(user)
            row = Row(*json.loads(text))
            if expected is not None and row.stored != expected:
                return False
            if self.replace(user, text, row._replace(**changes).text()):
                return True

    # --- Accounts

    def find(self, name: str, /) -> SignInAccount | None:
        return self.get(name)

    def get(self, user_id: str, /) -> SignInAccount | None:
        row = self.row(user_id)
        return SignInAccount(
            user_id=user_id,
            name=user_id,
            password_hash=row.stored,
            disabled=row.disabled,
            email="a@example.com",
        )

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        return self.change(user_id, expected=expected, stored=stored)


class MemoryTable(Table):
    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.lock = threading.RLock()

    def read(self, user: str) -> str:
        return self.rows[user]

    def replace(self, user: str, old: str, new: str) -> bool:
        with self.lock:
            if self.rows.get(user, "") != old:
                return False
            self.rows[user] = new
            return True


class SqliteTable(Table):
    def __init__(self, path: str) -> None:
        self.path = path
        with self._opened() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS accounts (id TEXT PRIMARY KEY, data TEXT)")

    def _opened(self) -> closing[sqlite3.Connection]:
        """Open a connection for one statement and close it: threads are short-lived."""
        return closing(sqlite3.connect(self.path, timeout=30, isolation_level=None))

    def read(self, user: str) -> str:
        with self._opened() as connection:
            text: str = connection.execute("SELECT data FROM accounts WHERE id = ?", [user]).fetchone()[0]
        return text

    def replace(self, user: str, old: str, new: str) -> bool:
        with self._opened() as connection:
            if not old:
                connection.execute("INSERT INTO accounts VALUES (?, ?)", [user, new])
                return True
            done = connection.execute(
                "UPDATE accounts SET data = ? WHERE id = ? AND data = ?", [new, user, old]
            )
            return done.rowcount == 1


class RedisTable(Table):
    SCRIPT = (
        "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end "
        "redis.call('SET', KEYS[1], ARGV[2]) return 1"
    )

    def __init__(self, url: str) -> None:
        import redis

        self.client = redis.Redis.from_url(url)

    def read(self, user: str) -> str:
        found: bytes = self.client.get(f"account:{user}")  # type: ignore[assignment]  # not async
        return found.decode()

    def replace(self, user: str, old: str, new: str) -> bool:
        return bool(self.client.eval(self.SCRIPT, 1, f"account:{user}", old, new))


class SlowPasswords:
    """A check with a random duration."""

    def verify(self, password: str, stored: str | None, /) -> bool:
        time.sleep(random.random() * 0.006)
        return stored is not None and stored.partition(":")[2] == password

    def hash(self, password: str, /) -> str:
        time.sleep(random.random() * 0.003)
        return f"{secrets.token_hex(4)}:{password}"

    def needs_rehash(self, stored: str, /) -> bool:
        return stored.startswith("old")


class Factor:
    """A second factor that accepts every code."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def status(self, user_id: str, /) -> Any:
        class Standing(NamedTuple):
            enabled: bool

        return Standing(self.table.row(user_id).factor)

    def verify(self, user_id: str, code: str, /, *, client: str | None = None) -> VerificationResult:
        if not self.table.row(user_id).factor:
            return VerificationResult(ok=False, reason="not_enrolled")
        return VerificationResult(ok=True, method="totp")

    def unlock(self, user_id: str, *, actor: str) -> bool:
        return False

    def admin_reset(self, user_id: str, *, actor: str, reason: str) -> bool:
        return self.table.change(user_id, factor=False)


class StoredSession:
    """A session with the interface of ``SignInSession`` over a store of the library."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.key: str | None = None
        self.user_id: str | None = None
        self.data: Mapping[str, Any] = {}

    @property
    def reference(self) -> str | None:
        return self.key

    def start(self, user_id: str, *, data: Mapping[str, Any]) -> None:
        now, key = time.time(), secrets.token_hex(32)
        self.store.create(SessionRecord(key, user_id, now, now, now + 3600, json.dumps(dict(data))), now=now)
        self.key, self.user_id, self.data = key, user_id, data

    def rotate(self) -> bool:
        key = secrets.token_hex(32)
        moved = self.store.rotate(self.key, key, now=time.time())
        if moved is not None:
            self.key = key
        return moved is not None

    def update_data(self, **changes: Any) -> bool:
        self.data = {**self.data, **changes}
        return self.alive()

    def end(self) -> bool:
        ended: bool = self.store.end(self.key, reason="revoked")
        return ended

    def end_others(self) -> int:
        ended: int = self.store.end_user(self.user_id, now=time.time(), keep=self.key)
        return ended

    def alive(self) -> bool:
        record = self.store.load(self.key)
        return record is not None and not record.ended


class Tools:
    """The objects that a process uses."""

    def __init__(self, table: Table, store: Any, sessions: Any) -> None:
        self.table, self.sessions = table, sessions
        self.mailed = threading.local()
        self.sign_in = SignIn(
            table,
            store=store,
            limiter=None,
            factors=Factor(table),
            end_sessions=self.end_sessions,
            passwords=SlowPasswords(),
            on_notice=self.post,
        )
        self.changes = CredentialChanges(self.sign_in)

    @classmethod
    def in_memory(cls) -> Tools:
        return cls(MemoryTable(), MemorySignInStore(), MemorySessionStore())

    @classmethod
    def shared(cls, url: str, accounts: str) -> Tools:
        table: Table = RedisTable(url) if accounts == "redis" else SqliteTable(accounts)
        options: Any = {"store_budget": 10}
        return cls(table, RedisSignInStore(url, **options), RedisSessionStore(url, **options))

    def post(self, notice: SignInNotice) -> None:
        self.mailed.token = notice.token

    def end_sessions(self, user_id: str) -> int:
        ended: int = self.sessions.end_user(user_id, now=time.time())
        return ended

    def invite(self, users: list[str]) -> None:
        for user in users:
            self.table.replace(user, "", Row(f"old:{FIRST}").text())


class Worker:
    """One thread of a process."""

    def __init__(self, tools: Tools, seed: int) -> None:
        self.tools, self.chance = tools, random.Random(seed)
        self.seed, self.number = seed, 0
        self.out: list[Operation] = []
        self.held: dict[str, tuple[str, StoredSession]] = {}

    def note(self, user: str, call: tuple[str, ...], act: Callable[[], Any], *, only: Any = None) -> Any:
        began = time.monotonic()
        answer = act()
        ended = time.monotonic()
        if only is None or answer in only:
            self.out.append(Operation(user, call, answer, began, ended))
        return answer

    def step(self, user: str) -> None:
        """Do one thing to one account; only some accounts have second factors."""
        self.number += 1
        fresh = f"harbour lantern {self.seed} {self.number}"
        with_factor = int(user.partition("-")[2]) % 2 == 1
        others = ["reset", "change", "disable", "alive", *(["enrol", "admin_reset"] if with_factor else [])]
        # Most sign in; the checker's search is short because an account is changed by few.
        what = "sign_in" if self.chance.random() < 0.5 else self.chance.choice(others)
        getattr(self, what)(user, fresh, with_factor)
        if user in self.held:
            self.alive(user, fresh, with_factor)

    def sign_in(self, user: str, fresh: str, with_factor: bool) -> None:
        password = self.tools.table.row(user).stored.partition(":")[2]
        name = f"session {self.seed} {self.number}"
        session = StoredSession(self.tools.sessions)

        def act() -> str:
            step = self.tools.sign_in.password(user, password, client=CLIENT, session=session)
            if step.state == "challenged":
                step = self.tools.sign_in.second_factor(
                    step.challenge, "123456", client=CLIENT, session=session
                )
            return "" if not step else "mfa" if "mfa" in step.amr else "pwd"

        # A sign-in during which the factor was enrolled or taken off is refused and begun again.
        if self.note(user, ("sign_in", password, name), act, only=("mfa", "pwd") if with_factor else None):
            self.held[user] = name, session

    def alive(self, user: str, fresh: str, with_factor: bool) -> None:
        if user in self.held:
            name, session = self.held[user]
            self.note(user, ("alive", name), session.alive, only=(True,))

    def changed(
        self,
        user: str,
        what: str,
        act: Callable[[], object],
        *,
        current: str = "",
        new: str = "",
        kept: str = "",
    ) -> None:
        """Record a change of an account that also ends its sessions, unless it was refused."""
        began = time.monotonic()
        done = bool(act())
        ended = time.monotonic()
        number = f"{self.seed} {self.number}"
        if done:
            self.out.append(Operation(user, ("set", number, what, current, new), True, began, ended))
            self.out.append(Operation(user, ("end", number, kept), True, began, ended))

    def change(self, user: str, fresh: str, with_factor: bool) -> None:
        if user in self.held:
            name, session = self.held[user]
            current = self.tools.table.row(user).stored.partition(":")[2]
            change = self.tools.changes.change_password
            self.changed(
                user,
                "change",
                lambda: change(session, current, fresh, client=CLIENT),
                current=current,
                new=fresh,
                kept=name,
            )

    def reset(self, user: str, fresh: str, with_factor: bool) -> None:
        self.tools.mailed.token = None
        self.tools.changes.request_reset(user, client=CLIENT)
        token = self.tools.mailed.token
        if token:  # none is mailed for an account that is disabled
            reset = self.tools.changes.reset_password
            self.changed(user, "reset", lambda: reset(token, fresh, client=CLIENT), new=fresh)

    def disable(self, user: str, fresh: str, with_factor: bool) -> None:
        self.set_and_end(user, "disable", disabled=True)
        # Nothing ends with it.
        number = f"{self.seed} {self.number} on"
        self.note(
            user,
            ("set", number, "enable", "", ""),
            lambda: self.tools.table.change(user, disabled=False),
        )

    def enrol(self, user: str, fresh: str, with_factor: bool) -> None:
        self.set_and_end(user, "enrol", factor=True)

    def set_and_end(self, user: str, what: str, **changes: Any) -> None:
        def act() -> bool:
            self.tools.table.change(user, **changes)
            self.tools.end_sessions(user)
            return True

        self.changed(user, what, act)

    def admin_reset(self, user: str, fresh: str, with_factor: bool) -> None:
        help_ = self.tools.sign_in.admin_reset
        self.changed(user, "admin_reset", lambda: help_(user, actor="ito", reason="lost") or True)


def race(
    tools: Tools, users: list[str], *, slot: float, threads: int, seed: int, begin: float
) -> list[Operation]:
    """Run all threads on the same account simultaneously, account by account, this number of steps each."""
    workers = [Worker(tools, seed * threads + number) for number in range(threads)]
    together = threading.Barrier(threads)

    def work(worker: Worker) -> None:
        for number, user in enumerate(users):
            # Other processes begin with it then, too.
            time.sleep(max(0.0, begin + number * slot - time.monotonic()))
            together.wait(60)
            for _ in range(_STEPS):
                worker.step(user)

    running = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    # What lives when all is quiet, above all: a session that only now was given to its client.
    for worker in workers:
        for user in list(worker.held):
            worker.alive(user, "", with_factor=True)
    return [operation for worker in workers for operation in worker.out]


def main() -> None:
    """Run as described in the module."""
    orders = json.loads(Path(sys.argv[1]).read_text())
    tools = Tools.shared(orders["url"], orders["accounts"])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    begin = float(sys.stdin.readline())
    users, slot = orders["users"], orders["slot"]
    for row in race(tools, users, slot=slot, threads=3, seed=int(sys.argv[2]), begin=begin):
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
