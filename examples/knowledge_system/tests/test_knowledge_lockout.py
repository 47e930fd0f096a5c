"""Nobody is locked out for ever: what a stranger with the password can do, and who helps the owner."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from knowledge_system.services.identity import accounts
from knowledge_system.services.identity.directory import Directory
from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import SignInClient, totp_code
from mks_hardening.testing import FrozenClock

HELP = "/admin/second-factor"


class Owner:
    """A person with a second factor, whose password a stranger knows."""

    def __init__(self, app: Any, person: Any, clock: FrozenClock) -> None:
        self.factor = app.extensions["knowledge"].two_factor
        self.person, self.clock = person, clock
        person.post("/account/second-factor/begin")
        page = person.get("/account/second-factor").get_data(as_text=True)
        self.secret = re.search(r'id="secret">([^<]+)<', page)[1].replace(" ", "")  # type: ignore[index]
        done = person.post("/account/second-factor/confirm", {"code": self.code})
        self.recovery = re.findall(r"<li><code>([^<]+)</code></li>", done.get_data(as_text=True))
        clock.advance(30)
        with app.extensions["knowledge"].sessions() as session:
            self.id = str(accounts.id_of(session, "tanaka"))

    @property
    def code(self) -> str:
        return totp_code(self.secret, at=self.clock.time())

    def attacked(self) -> None:
        """100 wrong codes from 20 addresses."""
        wrong = "000000" if self.code != "000000" else "111111"
        for number in range(100):
            self.factor.verify(self.id, wrong, client=f"203.0.113.{number % 20}")
            self.clock.advance(3600 if number % 20 == 19 else 0)
        assert self.factor.status(self.id).retry_after is None
        assert self.factor.status(self.id).locked


@pytest.fixture
def owner(app: Any, visit: Callable[..., Any], clock: FrozenClock) -> Owner:
    return Owner(app, visit("tanaka"), clock)


def test_the_owner_passes_the_lock_of_a_stranger_with_a_recovery_code(owner: Owner, browser: Any) -> None:
    owner.attacked()
    owner.clock.advance(30 * 86400)
    browser.sign_in("tanaka")
    refused = browser.post("/sign-in/code", {"code": owner.code})
    assert refused.status_code == 429
    assert "Retry-After" not in refused.headers
    assert "リカバリーコード" in refused.get_data(as_text=True)
    assert browser.post("/sign-in/code", {"code": owner.recovery[0]}).status_code == 303
    assert browser.get("/articles").status_code == 200
    assert not owner.factor.status(owner.id).locked


def test_the_administrator_unlocks(owner: Owner, visit: Callable[..., Any], browser: Any) -> None:
    owner.attacked()
    form = {"owner": "tanaka", "help": "unlock", "reason": "本人から電話"}
    administrator = visit("ito")
    assert visit("sato").post(HELP, form).status_code == 403
    for change, status in (
        ({"owner": "nobody"}, 422),
        ({"help": "both"}, 422),
        ({"reason": ""}, 422),
        ({}, 303),
    ):
        answer = administrator.post(HELP, {**form, **change})
        assert answer.status_code == status, change
    assert "ロックを解除しました" in administrator.get(answer.headers["Location"]).get_data(as_text=True)
    browser.sign_in("tanaka")
    assert browser.post("/sign-in/code", {"code": owner.code}).status_code == 303


def test_the_administrator_takes_it_off_and_sessions_end(
    owner: Owner, visit: Callable[..., Any], browser: Any
) -> None:
    owner.attacked()
    form = {"owner": "tanaka", "help": "reset", "reason": "端末の紛失"}
    assert visit("ito").post(HELP, form).status_code == 303
    assert owner.person.get("/articles").status_code == 303
    assert browser.sign_in("tanaka").status_code == 303
    assert browser.get("/articles").status_code == 200


def test_so_does_an_operator(owner: Owner, app: Any) -> None:
    def run(*arguments: str) -> Any:
        return app.test_cli_runner().invoke(args=["knowledge", "second-factor", *arguments])

    owner.attacked()
    assert "on / 有効, locked" in run("tanaka").output
    assert run("nobody").exit_code == 1
    assert run("tanaka", "--unlock").exit_code == 2
    assert run("tanaka", "--reset", "--actor", "ito").exit_code == 2
    unlocked = run("tanaka", "--unlock", "--actor", "ito")
    assert (unlocked.exit_code, "locked" in unlocked.output) == (0, False)
    taken_off = run("tanaka", "--reset", "--actor", "ito", "--reason", "lost")
    assert "off / 無効" in taken_off.output
    assert owner.person.get("/articles").status_code == 303


@pytest.mark.parametrize(
    "trouble",
    [
        OperationalError("select", {}, Exception("away")),
        BackendUnavailableError("database", "timeout"),
        KeyboardInterrupt(),
    ],
)
def test_trouble_is_nobodys_wrong_password(
    app: Any, monkeypatch: pytest.MonkeyPatch, trouble: BaseException
) -> None:
    parts = app.extensions["knowledge"]

    def away(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr(Directory, "find", away)
    for _ in range(10):
        with pytest.raises(type(trouble)):
            parts.sign_in.password("tanaka", "x", client=SignInClient(address="192.0.2.1"))
    assert parts.limiter.test("auth_login", "192.0.2.1 tanaka").remaining == (5, 20, 50)


# --- the lock of the password --------------------------------------------------------------------------


def besieged(app: Any) -> None:
    """Strangers from many networks have guessed the password of tanaka; here is the last of them."""
    parts = app.extensions["knowledge"]
    with parts.sessions() as session:
        owner = accounts.id_of(session, "tanaka")
    parts.limiter.hit("auth_login_account", f"user {owner}", cost=49)
    parts.sign_in.password("tanaka", "guess", client=SignInClient(address="203.0.113.9"))


def test_strangers_do_not_lock_out_a_device_that_is_known(app: Any, browser: Any, caplog: Any) -> None:
    form = {"username": "tanaka", "password": DEMO_PASSWORD, "next": "/articles", "remember": "on"}
    assert browser.post("/sign-in", form).status_code == 303
    browser.post("/sign-out")
    besieged(app)
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records].count("locked") == 1
    stranger = type(browser)(app)
    refused, unknown = stranger.sign_in("tanaka"), stranger.sign_in("nobody")
    assert (refused.status_code, unknown.status_code) == (401, 401)
    assert browser.sign_in("tanaka").status_code == 303


def test_a_device_is_known_that_was_ticked_before_the_second_factor(
    owner: Owner, app: Any, browser: Any
) -> None:
    form = {"username": "tanaka", "password": DEMO_PASSWORD, "next": "/articles", "remember": "on"}
    assert browser.post("/sign-in", form).status_code == 303
    assert browser.post("/sign-in/code", {"code": owner.recovery[0], "next": "/articles"}).status_code == 303
    browser.post("/sign-out")
    besieged(app)
    assert type(browser)(app).sign_in("tanaka").status_code == 401
    assert browser.sign_in("tanaka").status_code == 303


def test_a_recovery_code_passes_the_lock(owner: Owner, app: Any, browser: Any) -> None:
    besieged(app)
    assert browser.sign_in("tanaka").status_code == 401
    credentials = {"username": "tanaka", "password": DEMO_PASSWORD, "recovery_code": owner.recovery[0]}
    answer = browser.api("POST", "/api/auth/login", credentials)
    assert answer.json["second_factor_required"] is False
    assert browser.get("/articles").status_code == 200


def test_the_administrator_lifts_the_lock(app: Any, visit: Callable[..., Any], browser: Any) -> None:
    besieged(app)
    form = {"owner": "tanaka", "help": "unlock", "reason": "本人から電話"}
    assert visit("ito").post(HELP, form).status_code == 303
    assert browser.sign_in("tanaka").status_code == 303


# --- who is it, once more --------------------------------------------------------------------------------


def test_a_stale_session_sets_up_no_second_factor(visit: Callable[..., Any], clock: FrozenClock) -> None:
    person = visit("tanaka")
    clock.advance(901)
    assert person.api("POST", "/api/auth/2fa/setup").status_code == 403
    asked = person.post("/account/second-factor/begin")
    assert asked.headers["Location"] == "/account/confirm?next=%2Faccount%2Fsecond-factor"
    person.get(asked.headers["Location"])
    wrong = person.post("/account/confirm", {"proof": "guess", "next": "/account/second-factor"})
    assert (wrong.status_code, "本人確認ができません" in wrong.get_data(as_text=True)) == (403, True)
    right = person.post("/account/confirm", {"proof": DEMO_PASSWORD, "next": "/account/second-factor"})
    assert right.headers["Location"] == "/account/second-factor"
    assert person.api("POST", "/api/auth/2fa/setup").status_code == 200
    clock.advance(901)
    assert person.api("POST", "/api/auth/confirm", {"proof": DEMO_PASSWORD}).json["confirmed"] is True


def test_a_changed_password_ends_other_sessions(visit: Callable[..., Any], browser: Any) -> None:
    person, other = visit("suzuki"), visit("suzuki")
    page = person.get("/account/password").get_data(as_text=True)
    assert "現在のパスワード" in page
    new = {"password": DEMO_PASSWORD, "new_password": "足場の点検は毎朝八時から"}
    for change, status in (({"password": "guess"}, 403), ({"new_password": "password1234"}, 422), ({}, 303)):
        assert person.post("/account/password", {**new, **change}).status_code == status
    assert person.get("/account").status_code == 200
    assert other.get("/account").status_code == 303
    assert browser.sign_in("suzuki").status_code == 401
    assert browser.sign_in("suzuki", new["new_password"]).status_code == 303
    again = {"password": new["new_password"], "new_password": "足場の点検は毎朝九時から"}
    assert person.api("POST", "/api/auth/password", again).json["changed"] is True


def test_an_owner_of_a_factor_confirms_with_a_code(owner: Owner) -> None:
    change = {"password": DEMO_PASSWORD, "new_password": "足場の点検は毎朝八時から"}
    asked = owner.person.post("/account/password", change)
    assert asked.headers["Location"] == "/account/confirm?next=%2Faccount%2Fpassword"
    assert "認証コード" in owner.person.get(asked.headers["Location"]).get_data(as_text=True)
    assert owner.person.post("/account/confirm", {"proof": DEMO_PASSWORD}).status_code == 403
    assert owner.person.post("/account/confirm", {"proof": owner.code}).status_code == 303
    assert owner.person.post("/account/password", change).status_code == 303


def test_a_half_sign_in_is_no_session_and_is_listed_nowhere(owner: Owner, app: Any, browser: Any) -> None:
    manager = app.extensions["knowledge"].session_manager
    before = len(manager.sessions(owner.id))
    assert browser.sign_in("tanaka").status_code == 303
    assert len(manager.sessions(owner.id)) == before
    challenge = browser.client.get_cookie("__Host-knowledge_challenge", domain="localhost").value
    assert browser.post("/sign-in/code", {"code": owner.code}).status_code == 303
    assert browser.client.get_cookie("__Host-knowledge_challenge", domain="localhost") is None
    stolen = type(browser)(app)
    stolen.client.set_cookie("__Host-knowledge_challenge", challenge, domain="localhost")
    owner.clock.advance(30)
    assert stolen.post("/sign-in/code", {"code": owner.code}).headers["Location"] == "/sign-in"
    assert stolen.api("POST", "/api/auth/2fa/verify", {"code": owner.code}).status_code == 401
