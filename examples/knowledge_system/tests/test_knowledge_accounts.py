"""Accounts: invitations, forgotten passwords and addresses by mail, roles, and accounts out of use."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from knowledge_system.api.route_table import ROUTES
from knowledge_system.domain import permissions
from knowledge_system.models import AuditEntry, User
from knowledge_system.services.identity import accounts
from knowledge_system.settings import AREAS, DEMO_PASSWORD
from knowledge_system.web import access
from mks_hardening.security import PasswordHasher, SignInClient, totp_code
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock
from soft_authenticator import SoftAuthenticator

NEW_PASSWORD = "足場-養生-配筋-2026"
NEW_DEVICE = "新しい端末からサインインがありました"
NEWCOMER = {
    "username": "mori",
    "display_name": "森 直子",
    "department": "土木部",
    "role": "writer",
    "email": "Mori@knowledge.example",
    "password": "",
}


class Post:
    """The mail server: what has come for an address, after the queue has been worked."""

    def __init__(self, app: Any, server: Any) -> None:
        self.app, self.server = app, server

    def to(self, address: str) -> list[tuple[str, str]]:
        tasks = self.app.extensions["knowledge"].background.tasks
        list(TaskWorker(tasks, schedule=False).run_pending())
        return [
            (str(mail.message["Subject"]), mail.message.get_body(("plain",)).get_content())
            for mail in self.server.received
            if address in mail.rcpt_tos
        ]

    def link(self, address: str) -> str:
        """The path that the last mail leads to."""
        found = re.search(r"https://localhost:8443(/\S+)", self.to(address)[-1][1])
        assert found is not None
        return found[1]


@pytest.fixture
def app(make_app: Callable[..., Any], make_smtp: Callable[..., Any]) -> Any:
    server = make_smtp()
    made = make_app(
        areas=AREAS - {"logging"},
        MKS_SMTP_HOST="localhost",
        MKS_SMTP_PORT=str(server.port),
        MKS_SMTP_SECURITY="plain",
        MKS_ALERT_FROM="system@knowledge.example",
        MKS_ALERT_TO="ops@knowledge.example",
    )
    made.post = Post(made, server)
    return made


def id_of(app: Any, username: str) -> str:
    with app.extensions["knowledge"].sessions() as session:
        return str(accounts.id_of(session, username))


def choose(browser: Any, link: str, password: str = NEW_PASSWORD) -> Any:
    page = browser.get(link).get_data(as_text=True)
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    return browser.post("/password/reset", {"token": token[1], "new_password": password})


# --- invitations and passwords by mail


def test_a_form_of_before_another_change_does_not_undo_it(visit: Callable[..., Any], app: Any) -> None:
    first, second = visit("ito"), visit("ito")
    page = "/admin/accounts/suzuki"
    [seen] = re.findall(r'name="seen" value="(\w{32})"', first.get(page).text)
    second.get(page)
    form = {"display_name": "鈴木 美咲", "department": "建築部", "role": "writer", "email": "", "seen": seen}
    assert second.post(page, form).status_code == 303  # put out of use
    late = first.post(page, {**form, "department": "土木部", "active": "on"})
    assert late.status_code == 409
    assert "ほかの人が先に更新しました" in late.text
    assert "停止中" in late.text
    with app.extensions["knowledge"].sessions() as session:
        assert session.scalar(select(User.active).filter_by(username="suzuki")) is False
    [now] = re.findall(r'name="seen" value="(\w{32})"', late.text)
    assert first.post(page, {**form, "active": "on", "seen": now}).status_code == 303


def test_an_invitation_works_once_and_leads_to_a_first_password(
    app: Any, browser: Any, visit: Callable[..., Any]
) -> None:
    assert visit("ito").post("/admin/accounts", NEWCOMER).headers["Location"].endswith("registered")
    assert browser.sign_in("mori", "").status_code in {401, 422}
    link = app.post.link("mori@knowledge.example")
    with app.extensions["knowledge"].sessions() as session:
        asked = select(AuditEntry.action, AuditEntry.actor_name).where(AuditEntry.subject == "user mori")
        assert ("account.invite", "ito") in session.execute(asked).all()
        assert "account.reset-asked" not in session.scalars(asked).all()
    assert choose(browser, link, "short").status_code == 422
    assert choose(browser, link).headers["Location"].endswith("password-set")
    assert choose(browser, link).status_code == 403
    assert browser.sign_in("mori", NEW_PASSWORD).status_code == 303
    assert browser.get("/articles/new").status_code == 200


def test_an_invitation_ends_after_a_day_and_can_be_sent_again(
    app: Any, browser: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    admin = visit("ito")
    admin.post("/admin/accounts", NEWCOMER)
    first = app.post.link("mori@knowledge.example")
    clock.advance(86_401)
    assert choose(browser, first).status_code == 403
    again = visit("ito")
    assert "招待をもう一度送る" in again.get("/admin/accounts/mori").get_data(as_text=True)
    assert again.post("/admin/accounts/mori/invite", {}).status_code == 303
    assert choose(browser, app.post.link("mori@knowledge.example")).status_code == 303


def test_a_forgotten_password_is_set_anew_and_every_session_ends(
    app: Any, browser: Any, visit: Callable[..., Any]
) -> None:
    signed_in = visit("tanaka")
    for name in ("tanaka", "nobody"):
        answer = browser.post("/password/forgotten", {"username": name})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in?done=reset-mailed")
    assert choose(browser, app.post.link("tanaka@knowledge.example")).status_code == 303
    assert signed_in.get("/articles").status_code == 303
    assert browser.sign_in("tanaka").status_code == 401
    assert browser.sign_in("tanaka", NEW_PASSWORD).status_code == 303
    subjects = [subject for subject, _ in app.post.to("tanaka@knowledge.example")]
    assert subjects == ["パスワードの再設定", "パスワードを変更しました"]


@pytest.mark.parametrize("case", ["reset, browser", "reset, program", "disable, browser", "disable, program"])
def test_a_sign_in_under_way_does_not_survive_a_reset(
    app: Any, browser: Any, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The old password is being checked when the new one is set: no session and no token is left with it."""
    other = type(browser)(app)
    admin = visit("ito")
    other.post("/password/forgotten", {"username": "tanaka"})
    link = app.post.link("tanaka@knowledge.example")
    page = "/admin/accounts/tanaka"
    [seen] = re.findall(r'name="seen" value="(\w{32})"', admin.get(page).text)
    form = {"display_name": "田中 健", "department": "土木部", "role": "writer", "email": "", "seen": seen}
    verify = PasswordHasher.verify
    meanwhile: list[int] = []

    def change() -> None:
        changed = choose(other, link) if case.startswith("reset") else admin.post(page, form)
        meanwhile.append(changed.status_code)

    def slowly(hasher: PasswordHasher, password: str, stored: str | None, /) -> bool:
        right = verify(hasher, password, stored)
        if not meanwhile:
            thread = Thread(target=change)
            thread.start()
            thread.join()
        return right

    monkeypatch.setattr(PasswordHasher, "verify", slowly)
    asked = {"username": "tanaka", "password": DEMO_PASSWORD, "tokens": case.endswith("program")}
    answer = browser.api("POST", "/api/auth/login", asked)
    assert (meanwhile, answer.status_code) == ([303], 401)
    assert browser.get("/articles").status_code == 303
    services = app.extensions["knowledge"]
    assert list(services.session_manager.sessions(id_of(app, "tanaka"))) == []
    assert services.tokens.families(id_of(app, "tanaka")) == []


def test_a_program_sets_a_forgotten_password_anew(
    app: Any, browser: Any, visit: Callable[..., Any], clock: FrozenClock
) -> None:
    signed_in = visit("tanaka")
    asked = {"username": "tanaka", "password": DEMO_PASSWORD, "tokens": True}
    tokens = browser.api("POST", "/api/auth/login", asked).json
    answers = [
        browser.api("POST", "/api/auth/password-reset", {"username": name}) for name in ("tanaka", "nobody")
    ]
    assert [(each.status_code, each.json) for each in answers] == [(202, {"requested": True})] * 2
    token = app.post.link("tanaka@knowledge.example").partition("token=")[2]

    def confirm(token: str, password: str) -> Any:
        body = {"token": token, "new_password": password}
        return browser.api("POST", "/api/auth/password-reset/confirm", body)

    weak = confirm(token, "tanaka")
    assert (weak.status_code, weak.json["errors"][0]["field"]) == (422, "new_password")
    assert confirm(token[:-1], NEW_PASSWORD).status_code == 401
    assert confirm(token, NEW_PASSWORD).json == {"changed": True}
    assert confirm(token, NEW_PASSWORD).status_code == 401, "works once"
    clock.advance(60)
    assert signed_in.get("/articles").status_code == 303
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert browser.api("GET", "/api/auth/me", **bearer).status_code == 401
    refresh = {"refresh_token": tokens["refresh_token"]}
    assert browser.api("POST", "/api/auth/token/refresh", refresh).status_code == 401
    assert browser.api("POST", "/api/auth/login", asked).status_code == 401
    assert browser.api("POST", "/api/auth/login", {**asked, "password": NEW_PASSWORD}).status_code == 200


def test_mails_come_in_the_language_of_their_reader(
    app: Any, browser: Any, visit: Callable[..., Any]
) -> None:
    assert visit("tanaka").post("/language", {"language": "en"}).status_code == 303
    browser.get("/sign-in")
    for name in ("tanaka", "suzuki"):
        assert browser.post("/password/forgotten", {"username": name}).status_code == 303
    mails = [app.post.to(f"{name}@knowledge.example")[0] for name in ("tanaka", "suzuki")]
    assert [subject for subject, _ in mails] == ["Reset your password", "パスワードの再設定"]
    assert mails[0][1].startswith("Use this link to reset the password of the account tanaka.")


def test_the_owner_hears_of_every_change_of_the_second_factor(app: Any, visit: Callable[..., Any]) -> None:
    parts, person = app.extensions["knowledge"], visit("tanaka")

    def code() -> str:
        parts.clock.advance(30)
        return totp_code(secret, at=parts.clock.time())

    person.post("/account/second-factor/begin")
    page = person.get("/account/second-factor").get_data(as_text=True)
    secret = re.search(r'id="secret">([^<]+)<', page)[1].replace(" ", "")  # type: ignore[index]
    assert person.post("/account/second-factor/confirm", {"code": code()}).status_code == 200
    owner = id_of(app, "tanaka")
    parts.two_factor.regenerate_recovery_codes(owner, proof=code())
    parts.two_factor.disable(owner, proof=code())
    mails = app.post.to("tanaka@knowledge.example")
    assert [subject for subject, _ in mails] == [
        "二段階認証を登録しました",
        "リカバリーコードを作り直しました",
        "二段階認証を無効にしました",
    ]
    assert secret not in "".join(text for _, text in mails)


def test_a_mailed_link_names_the_configured_host_and_stands_in_no_log(
    app: Any, browser: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    browser.post("/password/forgotten", {"username": "tanaka"})
    link = app.post.link("tanaka@knowledge.example")
    browser.get(link)
    token = link.partition("token=")[2]
    assert len(token) > 20
    assert any(record.name == "mks_hardening.request" for record in caplog.records)
    assert not any(token in str(vars(record)) for record in caplog.records)


def test_another_address_is_confirmed_from_there_and_told_to_the_former_one(
    app: Any, visit: Callable[..., Any]
) -> None:
    person = visit("tanaka")
    assert person.post("/account/email", {"email": "nonsense"}).status_code == 422
    assert person.post("/account/email", {"email": "t@site.example"}).status_code == 303
    link = app.post.link("t@site.example")
    token = link.partition("token=")[2]
    person.get(link)
    assert person.post("/account/email/confirm", {"token": token}).status_code == 303
    assert person.post("/account/email/confirm", {"token": token}).status_code == 403
    assert app.post.to("tanaka@knowledge.example")[-1][0] == "メールアドレスを変更しました"
    with app.extensions["knowledge"].sessions() as session:
        assert accounts.member(session, "tanaka").email == "t@site.example"


def test_an_address_that_somebody_else_has_by_now_is_said_to_be_taken(
    app: Any, visit: Callable[..., Any]
) -> None:
    links = []
    for name in ("tanaka", "sato"):
        person = visit(name)
        assert person.post("/account/email", {"email": "t@site.example"}).status_code == 303
        links.append((person, app.post.link("t@site.example")))
    answers = []
    for person, link in links:
        person.get(link)
        answers.append(person.post("/account/email/confirm", {"token": link.partition("token=")[2]}))
    assert [answer.status_code for answer in answers] == [303, 409]
    assert "すでに使われています" in answers[1].get_data(as_text=True)
    with app.extensions["knowledge"].sessions() as session:
        assert accounts.member(session, "sato").email != "t@site.example"
    assert all("変更しました" not in subject for subject, _ in app.post.to("sato@knowledge.example"))


def test_a_stale_session_must_prove_itself_before_another_address(
    visit: Callable[..., Any], clock: FrozenClock
) -> None:
    person = visit("tanaka")
    clock.advance(400)
    answer = person.post("/account/email", {"email": "t@site.example"})
    assert answer.headers["Location"] == "/account/confirm?next=%2Faccount%2Femail"


def test_the_owner_hears_of_a_sign_in_on_a_new_device_once(app: Any, visit: Callable[..., Any]) -> None:
    visit("tanaka")
    sign_in = app.extensions["knowledge"].sign_in
    for _ in range(2):
        client = SignInClient(address="203.0.113.9")
        assert sign_in.password("tanaka", DEMO_PASSWORD, client=client)
        app.post.to("tanaka@knowledge.example")
    [mail] = [mail for mail in app.post.server.received if mail.message["Subject"] == NEW_DEVICE]
    assert mail.rcpt_tos == ("tanaka@knowledge.example",)
    text = mail.message.get_body(("plain",)).get_content()
    assert "tanaka" in text
    assert "203.0.113.9" in text


def test_the_owner_of_a_locked_account_gets_one_mail(app: Any, visit: Callable[..., Any]) -> None:
    parts = app.extensions["knowledge"]
    parts.limiter.hit("auth_login_account", f"user {id_of(app, 'tanaka')}", cost=49)
    for number in range(3):
        parts.sign_in.password("tanaka", "guess", client=SignInClient(address=f"203.0.113.{number}"))
    (subject, text) = app.post.to("tanaka@knowledge.example")[0]
    assert len(app.post.to("tanaka@knowledge.example")) == 1
    assert subject == "アカウントを一時的に止めました"
    assert "tanaka" in text
    form = {"owner": "tanaka", "help": "unlock", "reason": "本人から電話"}
    assert visit("ito").post("/admin/second-factor", form).status_code == 303
    subject, text = app.post.to("tanaka@knowledge.example")[-1]
    assert subject == "アカウントのロックを解除しました"
    assert "ito" in text
    assert "本人から電話" in text


# --- out of use, roles


def edited(**changed: str) -> dict[str, str]:
    return {
        "display_name": "田中 健一",
        "department": "土木部",
        "role": "writer",
        "email": "",
        "active": "on",
        **changed,
    }


def test_a_deactivated_account_is_recorded_with_who_did_it(
    app: Any, visit: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    visit("suzuki")
    administrator, page = visit("ito"), "/admin/accounts/suzuki"
    [seen] = re.findall(r'name="seen" value="(\w{32})"', administrator.get(page).text)
    form = {"display_name": "鈴木", "department": "", "role": "writer", "email": "", "seen": seen}
    with caplog.at_level("INFO", "mks_hardening.security"):
        assert administrator.post(page, form).status_code == 303
    # The sign-ins before are among them where an earlier test has set the level of the logger.
    events: list[Any] = [each.__dict__ for each in caplog.records if each.name == "mks_hardening.security"]
    (result,) = [event for event in events if event["security_event"] == "sign_in.disabled"]
    assert (result["user_id"], result["actor"]) == (id_of(app, "suzuki"), id_of(app, "ito"))
    assert list(app.extensions["knowledge"].session_manager.sessions(id_of(app, "suzuki"))) == []


def test_who_is_put_out_of_use_is_out_at_once(app: Any, visit: Callable[..., Any]) -> None:
    person, admin = visit("tanaka"), visit("ito")
    program = visit("tanaka")
    assert admin.post("/admin/accounts/tanaka", edited(active="")).status_code == 303
    assert person.get("/articles").status_code == 303
    assert program.api("GET", "/api/auth/me").status_code == 401
    assert app.extensions["knowledge"].session_manager.sessions(id_of(app, "tanaka")) == []
    assert type(person)(app).sign_in("tanaka").status_code == 401
    assert "停止中" in admin.get("/admin/accounts").get_data(as_text=True)
    assert admin.post("/admin/accounts/tanaka", edited()).status_code == 303
    assert type(person)(app).sign_in("tanaka").status_code == 303


def test_a_session_that_could_not_be_ended_is_refused_all_the_same(
    app: Any, visit: Callable[..., Any]
) -> None:
    person = visit("tanaka")
    with app.extensions["knowledge"].sessions.begin() as session:
        session.execute(update(User).where(User.username == "tanaka").values(active=False))
    assert person.get("/articles").status_code == 303
    assert person.api("GET", "/api/auth/me").status_code == 401


def test_nobody_takes_the_own_rights_away(visit: Callable[..., Any]) -> None:
    admin = visit("ito")
    mine = edited(display_name="伊藤 直樹", role="admin")
    for changed in ({"role": "viewer"}, {"active": ""}):
        assert admin.post("/admin/accounts/ito", {**mine, **changed}).status_code == 409
    assert admin.post("/admin/accounts/ito", mine).status_code == 303
    assert admin.get("/admin/accounts/nobody").status_code == 404


def test_another_role_holds_from_the_next_request(visit: Callable[..., Any]) -> None:
    person, admin = visit("tanaka"), visit("ito")
    assert person.get("/articles/new").status_code == 200
    admin.post("/admin/accounts/tanaka", edited(role="viewer"))
    assert person.get("/articles/new").status_code == 403
    admin.post("/admin/accounts/tanaka", edited(role="admin"))
    assert person.get("/admin/accounts").status_code == 200


def test_two_people_have_no_address_in_common(visit: Callable[..., Any]) -> None:
    admin = visit("ito")
    assert admin.post("/admin/accounts/tanaka", edited(email="a@site.example")).status_code == 303
    assert admin.post("/admin/accounts/suzuki", edited(email="A@site.example")).status_code == 409


# --- the table


def test_every_view_stands_in_the_table(app: Any) -> None:
    """Whoever adds a view says there who may call it."""
    missing = {
        rule.endpoint for rule in app.url_map.iter_rules() if access.required_role(rule.endpoint) is None
    }
    assert missing == set()


def test_a_view_that_is_not_in_the_table_is_refused(app: Any, visit: Callable[..., Any]) -> None:
    app.add_url_rule("/forgotten-view", "forgotten_view", lambda: "secret")
    assert visit("ito").get("/forgotten-view").status_code == 403


@pytest.mark.parametrize("role", [None, *permissions.ROLES])
def test_each_page_answers_each_role_as_the_table_says(
    app: Any, browser: Any, visit: Callable[..., Any], role: str | None
) -> None:
    names = {"viewer": "kobayashi", "writer": "tanaka", "reviewer": "sato", "admin": "ito"}
    person = browser if role is None else visit(names[role])
    allowed = {
        "anybody": True,
        "members": role is not None,
        "writers": role not in {None, "viewer"},
        "reviewers": role in {"reviewer", "admin"},
        "administrators": role == "admin",
    }
    for rule in app.url_map.iter_rules():
        who = access.required_role(rule.endpoint)
        if rule.arguments or "GET" not in (rule.methods or ()) or who == "own table" or who is None:
            continue
        answer = person.get(rule.rule)
        refused = answer.status_code == 403 or answer.headers.get("Location", "").startswith("/sign-in?next=")
        assert refused is not allowed[who], (rule.rule, answer.status_code)


def test_each_form_of_administrators_has_a_limit_and_refuses_other_roles(
    app: Any, visit: Callable[..., Any]
) -> None:
    reviewer, checked = visit("sato"), 0
    for rule in app.url_map.iter_rules():
        if access.required_role(rule.endpoint) == "administrators" and "POST" in (rule.methods or ()):
            checked += 1
            assert access.limit_group(rule.endpoint) or rule.endpoint.startswith("demo."), rule.endpoint
            answer = reviewer.post(re.sub("<[^>]+>", "1", rule.rule), {})
            assert answer.status_code == 403, rule.rule
    assert checked > 10


# --- a second factor for roles


def test_a_role_that_needs_a_second_factor_gets_no_further_without_one(
    app: Any, visit: Callable[..., Any]
) -> None:
    parts = app.extensions["knowledge"]
    app.extensions["knowledge"] = replace(
        parts, settings=replace(parts.settings, second_factor_roles=frozenset({"admin"}))
    )
    assert visit("tanaka").get("/articles").status_code == 200
    admin = visit("ito")
    assert admin.get("/articles").headers["Location"] == "/account/second-factor?required=1"
    assert admin.post("/admin/accounts", NEWCOMER).status_code == 403
    assert admin.api("GET", "/api/knowledge").status_code == 403
    page = admin.get("/account/second-factor?required=1")
    assert "この役割では二段階認証が必要です" in page.get_data(as_text=True)
    admin.post("/account/second-factor/begin")
    page = admin.get("/account/second-factor").get_data(as_text=True)
    secret = re.search(r'id="secret">([^<]+)<', page)[1].replace(" ", "")  # type: ignore[index]
    code = totp_code(secret, at=parts.clock.time())
    assert admin.post("/account/second-factor/confirm", {"code": code}).status_code == 200
    assert admin.get("/admin/accounts").status_code == 200
    # Once it is off again, so are the rights that hang on it, in this session too.
    parts.clock.advance(60)
    proof = {"code": totp_code(secret, at=parts.clock.time())}
    assert admin.post("/account/second-factor/disable", proof).status_code == 303
    assert admin.get("/admin/accounts").headers["Location"].startswith("/sign-in")
    assert admin.sign_in("ito").status_code == 303
    assert admin.get("/admin/accounts").headers["Location"] == "/account/second-factor?required=1"


def test_before_its_factor_a_role_does_nothing_to_other_accounts(app: Any, visit: Callable[..., Any]) -> None:
    parts = app.extensions["knowledge"]
    app.extensions["knowledge"] = replace(
        parts, settings=replace(parts.settings, second_factor_roles=frozenset({"admin"}))
    )
    admin = visit("ito")
    token = admin.api("GET", "/api/auth/me").json["csrf_token"]
    refused = admin.api("POST", "/api/auth/register", NEWCOMER, **{"X-CSRF-Token": token})
    assert refused.status_code == 403
    assert refused.json["type"] == "/problems/second-factor-required"
    own = {f"api.{route.name}" for route in ROUTES if route.path.startswith("/api/auth/")}
    assert own - access.BEFORE_FACTOR == {"api.auth.register"}


# --- passkeys; a browser makes and uses one in test_knowledge_browser.py


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/account/passkeys/options", {}, 401),
        ("/account/passkeys", {"answer": "{}", "name": ""}, 401),
        ("/account/passkeys/remove", {"passkey": "x", "code": "1"}, 401),
        ("/sign-in/code/passkey", {}, 401),
        ("/sign-in/passkey/options", {}, 200),
        ("/sign-in/passkey", {"answer": "{}", "next": "/"}, 403),
        ("/sign-in/passkey", {"answer": "nonsense", "next": "/"}, 403),
    ],
)
def test_a_stranger_gets_nothing_by_a_made_up_passkey(
    browser: Any, path: str, fields: dict[str, str], status: int
) -> None:
    browser.get("/sign-in")
    assert browser.post(path, fields).status_code == status
    assert browser.api("GET", "/api/auth/me").status_code == 401


@pytest.fixture
def passkey(app: Any) -> SoftAuthenticator:
    """A device with a passkey of tanaka."""
    parts, device = app.extensions["knowledge"], SoftAuthenticator("https://localhost:8443")
    with parts.sessions() as session:
        owner = str(session.scalar(select(User.id).where(User.username == "tanaka")))
    asked = parts.passkeys.begin_registration(owner, session="s", account_name="tanaka")
    parts.passkeys.finish_registration(owner, device.create(asked.json), session="s")
    return device


def question(browser: Any) -> str:
    browser.get("/sign-in")
    answer = browser.post("/sign-in/passkey/options", {})
    assert answer.status_code == 200
    return str(answer.get_data(as_text=True))


def test_of_two_tabs_that_ask_for_a_passkey_the_first_may_answer(
    browser: Any, passkey: SoftAuthenticator
) -> None:
    first, _second = question(browser), question(browser)
    assert browser.post("/sign-in/passkey", {"answer": "{}", "next": "/"}).status_code == 403  # the second
    answer = json.dumps(passkey.get(first))
    assert browser.post("/sign-in/passkey", {"answer": answer, "next": "/"}).status_code == 303
    assert browser.get("/account").status_code == 200


@pytest.mark.parametrize("cookie", ["", "%20", "x" * 2000, "x" * 43])
def test_an_answer_of_another_browser_is_refused(
    browser: Any, passkey: SoftAuthenticator, cookie: str
) -> None:
    answer = json.dumps(passkey.get(question(browser)))
    browser.client.set_cookie("__Host-knowledge_passkey", cookie, domain="localhost", path="/", secure=True)
    assert browser.post("/sign-in/passkey", {"answer": answer, "next": "/"}).status_code == 403


def test_a_new_passkey_takes_a_fresh_proof_and_an_answer_of_this_session(
    visit: Callable[..., Any], clock: FrozenClock
) -> None:
    person = visit("tanaka")
    assert person.post("/account/passkeys/options", {"name": "x"}).status_code == 200
    assert person.post("/account/passkeys", {"answer": "{}", "name": "x"}).status_code == 403
    clock.advance(1000)
    assert person.post("/account/passkeys/options", {}).status_code == 403


def test_accounts_are_searched_and_paged(app: Any, visit: Callable[..., Any], clock: FrozenClock) -> None:
    with app.extensions["knowledge"].sessions.begin() as session:
        created = {"role": "viewer", "created_at": datetime.fromtimestamp(clock.time(), UTC)}
        session.add_all(
            User(username=f"x{number:03d}", display_name=f"新人 {number}", department="100%部", **created)
            for number in range(150)
        )
    admin = visit("ito")
    first = admin.get("/admin/accounts")
    names = re.findall(r'href="/admin/accounts/([a-z0-9]+)"', first.text)
    [link] = re.findall(r'rel="next" href="([^"]+)"', first.text)
    second = admin.get(html.unescape(link))
    names += re.findall(r'href="/admin/accounts/([a-z0-9]+)"', second.text)
    assert 'rel="next"' not in second.text
    assert names == sorted(names)
    assert len(set(names)) == len(names) == 156
    for query, found in (("X00", 10), ("新人 14", 11), ("0%部", 100), ("情報システム", 1), ("zzz", 0)):
        page = admin.get(f"/admin/accounts?q={quote(query)}").text
        assert len(re.findall(r'href="/admin/accounts/[a-z0-9]+"', page)) == found, query
    assert admin.get("/admin/accounts?after=x").status_code == 400
