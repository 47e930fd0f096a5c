"""Nobody is locked out for ever: what a stranger with the password can do, and who helps the owner."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from knowledge_system.services.identity import accounts
from knowledge_system.services.identity.user_accounts import UserAccounts
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

    monkeypatch.setattr(UserAccounts, "find", away)
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


REMEMBERED = {"username": "tanaka", "password": DEMO_PASSWORD, "next": "/articles", "remember": "on"}


def listed(person: Any) -> list[str]:
    page = person.get("/account").get_data(as_text=True)
    return re.findall(r'name="device" value="([0-9a-f]+)"', page)


def test_remembered_devices_are_listed_and_revoked_one_by_one(
    app: Any, browser: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    assert browser.post("/sign-in", REMEMBERED).status_code == 303
    clock.advance(60)
    lost = type(browser)(app)
    assert lost.post("/sign-in", REMEMBERED).status_code == 303
    page = browser.get("/account").get_data(as_text=True)
    (section,) = re.findall(r'aria-labelledby="devices">(.+?)</section>', page, re.DOTALL)
    assert section.count("この端末</span>") == 1
    assert section.index("ほかの端末") < section.index("この端末</span>")  # the latest first
    other, own = listed(browser)
    stranger = visit("suzuki")
    assert listed(stranger) == []
    assert stranger.post("/account/devices/revoke", {"device": other}).status_code == 404
    assert stranger.post("/account/devices/revoke-all").status_code == 303
    assert listed(browser) == [other, own]
    for wrong, status in (("0" * 16, 404), ("../x", 422), ("", 422)):
        assert browser.post("/account/devices/revoke", {"device": wrong}).status_code == status
    forged = {"data": {"device": other}, "headers": {"Origin": "https://evil.example"}}
    unsigned = browser.send("POST", "/account/devices/revoke", **forged)
    assert unsigned.status_code == 403
    done = browser.post("/account/devices/revoke", {"device": other})
    assert done.headers["Location"] == "/account?done=device-revoked"
    assert "覚えた端末を 1 台解除しました。" in browser.get(done.headers["Location"]).get_data(as_text=True)
    assert listed(browser) == [own]
    browser.post("/sign-out")
    lost.post("/sign-out")
    besieged(app)
    assert lost.sign_in("tanaka").status_code == 401
    assert browser.sign_in("tanaka").status_code == 303
    log = visit("ito").get("/admin/audit?q=device.revoke").get_data(as_text=True)
    assert log.count("覚えた端末を解除") == 1


def test_all_remembered_devices_are_revoked_and_the_factor_is_asked_for(
    owner: Owner, app: Any, browser: Any
) -> None:
    assert browser.post("/sign-in", REMEMBERED).status_code == 303
    assert browser.post("/sign-in/code", {"code": owner.code, "next": "/articles"}).status_code == 303
    assert len(listed(browser)) == 1
    done = browser.post("/account/devices/revoke-all")
    assert done.headers["Location"] == "/account?done=devices-revoked"
    assert listed(browser) == []
    assert browser.client.get_cookie("__Host-knowledge_device") is None
    browser.post("/sign-out")
    assert browser.sign_in("tanaka").headers["Location"].startswith("/sign-in/code")
    assert browser.get("/account").status_code == 303
    besieged(app)
    assert type(browser)(app).sign_in("tanaka").status_code == 401


def test_a_stale_session_revokes_no_device(browser: Any, clock: FrozenClock) -> None:
    assert browser.post("/sign-in", REMEMBERED).status_code == 303
    (device,) = listed(browser)
    clock.advance(901)
    for path, form in (("revoke", {"device": device}), ("revoke-all", {})):
        asked = browser.post(f"/account/devices/{path}", form)
        assert asked.headers["Location"] == "/account/confirm?next=%2Faccount"
        assert listed(browser) == [device]
    browser.get("/account/confirm?next=/account")
    browser.post("/account/confirm", {"proof": DEMO_PASSWORD, "next": "/account"})
    assert browser.post("/account/devices/revoke", {"device": device}).status_code == 303
    assert listed(browser) == []


def test_an_operator_lists_and_revokes_devices(
    app: Any, browser: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    def run(*arguments: str) -> Any:
        return app.test_cli_runner().invoke(args=["knowledge", "devices", *arguments])

    for _ in range(3):
        assert type(browser)(app).post("/sign-in", REMEMBERED).status_code == 303
        clock.advance(1)
    devices = [line.split()[0] for line in run("tanaka").output.splitlines()]
    assert len(devices) == 3
    assert run("suzuki").output == ""
    assert run("nobody").exit_code == 1
    assert run("tanaka", "--revoke", devices[0]).exit_code == 2
    assert run("suzuki", "--revoke", devices[0], "--actor", "ito").exit_code == 1
    revoked = run("tanaka", "--revoke", devices[0], "--actor", "ito")
    assert revoked.output.startswith("1 台の端末を解除しました。")
    assert [line.split()[0] for line in revoked.output.splitlines()[1:]] == devices[1:]
    assert run("tanaka", "--revoke-all", "--actor", "ito").output == "2 台の端末を解除しました。\n"
    log = visit("ito").get("/admin/audit?q=device.revoke").get_data(as_text=True)
    assert log.count("覚えた端末を解除") == 2


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
