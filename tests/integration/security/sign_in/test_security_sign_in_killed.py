"""A process that is killed in the middle of a new password leaves no session of a thief open."""

from __future__ import annotations

import os
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.security import (
    CredentialChanges,
    MemorySignInStore,
    SignIn,
    SignInAccount,
    SignInClient,
    SignInNotice,
)
from mks_hardening.wsgi import RedisSessionStore, SessionManager, SessionTimeoutMiddleware
from sign_in_scenario import RIGHT, Passwords
from wsgi_session_apps import Browser

pytestmark = pytest.mark.redis

NEW = "an entirely new sentence"
HERE = SignInClient(address="192.0.2.1")
MOST_STEPS = 60


class Accounts:
    """Accounts in a file that outlives the process."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with self.connect() as connection:
            connection.execute("CREATE TABLE accounts (id TEXT PRIMARY KEY, hash TEXT)")

    @contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            yield connection

    def find(self, name: str, /) -> SignInAccount | None:
        return self.get(name)

    def get(self, user_id: str, /) -> SignInAccount | None:
        with self.connect() as connection:
            row = connection.execute("SELECT hash FROM accounts WHERE id = ?", (user_id,)).fetchone()
        if row is None:
            return None
        return SignInAccount(user_id=user_id, name=user_id, email="x@example.com", password_hash=row[0])

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        with self.connect() as connection:
            changed = connection.execute(
                "UPDATE accounts SET hash = ? WHERE id = ? AND hash = ?", (stored, user_id, expected)
            )
            return changed.rowcount == 1


class Killing:
    """Kills this process before or after a certain call of the wrapped objects."""

    steps_left: int | None = None
    after = False

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inside, name)
        if not callable(found):
            return found

        def called(*args: Any, **options: Any) -> Any:
            if Killing.steps_left is None:
                return found(*args, **options)
            Killing.steps_left -= 1
            if Killing.steps_left == 0 and not Killing.after:
                os._exit(9)
            result = found(*args, **options)
            if Killing.steps_left == 0:
                os._exit(9)
            return result

        return called


class Site:
    """An application with sessions in Redis."""

    def __init__(self, url: str, folder: Path) -> None:
        self.accounts = Accounts(folder / "accounts.sqlite3")
        self.store = RedisSessionStore(url, store_budget=5)
        self.tokens: list[str] = []
        store: Any = Killing(self.store)
        self.sign_in = SignIn(
            Killing(self.accounts),
            store=MemorySignInStore(),
            limiter=None,
            factors=None,
            end_sessions=SessionManager(store).end_user,
            passwords=Passwords(),
            on_notice=self.post,
        )
        self.changes = CredentialChanges(self.sign_in)
        self.app = SessionTimeoutMiddleware(self.view, store=store)

    def post(self, notice: SignInNotice) -> None:
        self.tokens.append(notice.token or "")

    def view(self, environ: Any, start_response: Any) -> list[bytes]:
        session, path = environ["mks_hardening.session"], environ["PATH_INFO"]
        result: object = session.user_id
        if path.startswith("/sign-in/"):
            result = self.sign_in.password(path.rpartition("/")[2], RIGHT, client=HERE, session=session).state
        elif path == "/change":
            result = self.changes.change_password(session, RIGHT, NEW, client=HERE).state
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(result).encode()]

    def signed_in(self, name: str) -> Browser:
        browser = Browser(self.app)
        assert browser.get(f"/sign-in/{name}").body == b"done"
        return browser


def change(site: Site, name: str) -> Callable[[], object]:
    browser = site.signed_in(name)
    return lambda: browser.get("/change")


def reset(site: Site, name: str) -> Callable[[], object]:
    site.changes.request_reset(name, client=HERE)
    return lambda: site.changes.reset_password(site.tokens[-1], NEW, client=HERE)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", [change, reset])
def test_a_new_password_ends_other_sessions_wherever_the_process_is_killed(
    redis_url: str, tmp_path: Path, act: Callable[[Site, str], Callable[[], object]], after: bool
) -> None:
    site = Site(redis_url, tmp_path)
    outcomes: list[tuple[bool, bool]] = []
    for step in range(1, MOST_STEPS):
        name = f"user{step}"
        with site.accounts.connect() as connection:
            connection.execute("INSERT INTO accounts VALUES (?, ?)", (name, f"h:{RIGHT}"))
        thief = site.signed_in(name)
        work = act(site, name)
        child = os.fork()
        if child == 0:
            Killing.steps_left, Killing.after = step, after
            try:
                work()
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        account = site.accounts.get(name)
        assert account is not None
        is_new = account.password_hash != f"h:{RIGHT}"
        is_open = thief.get("/").body == name.encode()
        assert not (is_new and is_open), step
        outcomes.append((is_new, is_open))
        if code == 0:
            break
    site.store.close()
    assert (False, True) in outcomes  # killed early: nothing has changed
    assert outcomes.count((True, False)) >= 2  # killed late, or not at all
