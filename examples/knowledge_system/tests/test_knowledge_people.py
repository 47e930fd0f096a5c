"""Many people at once: invitations from a file of a spreadsheet, and the groups that approve a category."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from knowledge_system.domain import people_csv, permissions, workflow
from knowledge_system.domain.people_csv import Account
from knowledge_system.domain.permissions import Actor
from knowledge_system.domain.problems import Problem
from knowledge_system.models import User
from knowledge_system.services.identity import groups
from knowledge_system.settings import AREAS
from mks_hardening.tasks import TaskWorker

HEADING = "ユーザー名,氏名,役割,メールアドレス,部署,グループ\r\n"
MORI = "mori,森 直子,執筆,Mori@knowledge.example,土木部,夜間班 品質班\r\n"
HATA = "hata,秦 髙志,reviewer,hata@knowledge.example,,\r\n"


def states(text: str, accounts: dict[str, Account] | None = None) -> list[tuple[int, str, list[str]]]:
    return [
        (line.number, line.state, [f"{error.field} {error.code}" for error in line.errors])
        for line in people_csv.report(text, accounts or {})
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_a_file_of_any_spreadsheet_is_read(encoding: str) -> None:
    text = people_csv.decoded((HEADING + MORI).encode(encoding))
    [line] = people_csv.report(text, {})
    assert line.state == "new"
    assert line.values == {
        "username": "mori",
        "display_name": "森 直子",
        "role": "writer",
        "email": "Mori@knowledge.example",
        "department": "土木部",
        "groups": ["夜間班", "品質班"],
    }


@pytest.mark.parametrize(
    ("row", "errors"),
    [
        ("a,森,執筆,a@x.example,,", ["username too-short"]),
        ("mori,=cmd|' /C calc'!A0,執筆,a@x.example,,", ["display_name formula"]),
        ("mori,森,執筆,a@x.example,＝1+1,", ["department formula"]),
        ("mori,森,執筆,a@x.example,,@x", ["groups formula"]),
        ("mori,森,社長,a@x.example,,", ["role choice"]),
        ("mori,森,執筆,,,", ["email missing"]),
        ("mori,森,執筆,sato@x.example,,", ["email taken"]),
        ("hata,森,執筆,b@x.example,,", ["username repeated"]),
        ("mori,森,執筆,HATA@knowledge.example,,", ["email repeated"]),
        ("mori,森\u202e,執筆,a@x.example,,", ["display_name characters"]),
        ("mori,森,執筆,a@x.example,,,x", ["line unknown"]),
        ('mori,"森\n直子",執筆,a@x.example,,', ["display_name characters"]),
    ],
)
def test_each_fault_is_named_with_its_line(row: str, errors: list[str]) -> None:
    accounts = {"sato": Account("sato@x.example", waiting=False)}
    assert states(f"{HEADING}{HATA}\r\n{row}\r\n", accounts) == [(2, "new", []), (4, "bad", errors)]


def test_people_with_accounts_stay_as_they_are() -> None:
    accounts = {"mori": Account("other@x.example", waiting=False), "hata": Account("", waiting=True)}
    assert [state for _, state, _ in states(HEADING + MORI + HATA, accounts)] == ["known", "waiting"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "csv-heading"),
        (b"username,display_name,role\n", "csv-heading"),
        (b"username,username,role,email,display_name\n", "csv-heading"),
        (b"username,display_name,role,email,password\n", "csv-heading"),
        (HEADING.encode(), "file-empty"),
        (HEADING.encode("utf-16"), "csv-text"),
        (b"\x00" * 10, "csv-text"),
        (b"\x81\xff", "csv-text"),
        (HEADING.encode() + b'mori,"' + b"x" * 10, "csv-line"),
        (b"x" * (people_csv.MOST_BYTES + 1), "csv-too-large"),
        ((HEADING + "a,b,c,d\n" * 301).encode(), "csv-too-many"),
    ],
)
def test_what_is_no_list_of_people_is_refused(content: bytes, code: str) -> None:
    with pytest.raises(Problem) as refused:
        people_csv.report(people_csv.decoded(content), {})
    assert [error.code for error in refused.value.errors] == [code]


CELLS = st.text(alphabet='a1@. =\n",森\u202e', max_size=8)


@given(st.lists(st.lists(CELLS, min_size=1, max_size=8), max_size=6))
def test_any_table_gives_a_line_for_each_row_or_a_reason(rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    filled = sum(any(cell.strip() for cell in row) for row in rows)
    if not filled:
        with pytest.raises(Problem):
            people_csv.report(HEADING + text.getvalue(), {})
        return
    lines = people_csv.report(HEADING + text.getvalue(), {})
    assert len(lines) == filled
    assert all((line.state == "bad") == bool(line.errors) for line in lines)
    assert len({line.number for line in lines}) == len(lines)


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
    made.server = server
    return made


def mails(app: Any) -> list[str]:
    list(TaskWorker(app.extensions["knowledge"].background.tasks, schedule=False).run_pending())
    return sorted(address for mail in app.server.received for address in mail.rcpt_tos)


def number_of_users(app: Any) -> int:
    with app.extensions["knowledge"].sessions() as session:
        return session.scalar(select(func.count(User.id))) or 0


def checked(person: Any, text: str) -> Any:
    person.get("/admin/invitations")
    fields = {"csrf_token": person.token, "file": (io.BytesIO(text.encode("cp932")), "people.csv")}
    return person.send("POST", "/admin/invitations", data=fields, content_type="multipart/form-data")


def test_a_file_is_checked_line_by_line_and_then_people_are_invited(
    app: Any, visit: Callable[..., Any]
) -> None:
    admin, before = visit("ito"), number_of_users(app)
    shown = checked(admin, HEADING + MORI + "sato,佐藤,承認,sato@x.example,,\r\nx,y,z,=1,,\r\n")
    assert shown.status_code == 200
    page = shown.get_data(as_text=True)
    assert re.findall(r"<tr[^>]*><td>(\d+)</td><td><span[^>]*>([^<]+)", page) == [
        ("2", "招待します"),
        ("3", "登録済み(変更しません)"),
        ("4", "直してください"),
    ]
    assert "/admin/invitations/send" not in page
    assert (number_of_users(app), mails(app)) == (before, [])
    faults = {"people": HEADING + MORI + "x,y,z,=1,,\r\n", "again": ""}
    assert admin.post("/admin/invitations/send", faults).status_code == 422
    assert number_of_users(app) == before

    good = HEADING + MORI + HATA
    assert 'action="/admin/invitations/send"' in checked(admin, good).get_data(as_text=True)
    sent = {"people": good, "again": "", "once": "0123456789abcdef"}
    for _ in range(2):  # a double click
        answer = admin.post("/admin/invitations/send", sent)
        assert answer.headers["Location"] == "/admin/accounts?done=people-invited"
    assert (
        admin.post("/admin/invitations/send", {**sent, "once": ""}).status_code == 303
    )  # the file once more
    both = ["Mori@knowledge.example".lower(), "hata@knowledge.example"]
    assert number_of_users(app) == before + 2
    assert mails(app) == sorted(both)
    assert admin.post("/admin/invitations/send", {**sent, "once": "", "again": "on"}).status_code == 303
    assert mails(app) == sorted(both * 2)
    with app.extensions["knowledge"].sessions() as session:
        assert {group.name: list(group.members) for group in groups.groups(session)} == {
            "品質班": ["mori"],
            "夜間班": ["mori"],
        }
    audit = admin.get("/admin/audit").get_data(as_text=True)
    assert "利用者をまとめて招待" in audit
    assert re.search(r"mori \(執筆, 夜間班, 品質班\)、hata \(承認\)", audit)


def test_more_people_than_may_ask_for_a_reset_are_invited(app: Any, visit: Callable[..., Any]) -> None:
    admin = visit("ito")
    admin.get("/admin/invitations")
    rows = "".join(f"person{n},人 {n},閲覧,p{n}@knowledge.example,,\r\n" for n in range(40))
    assert admin.post("/admin/invitations/send", {"people": HEADING + rows, "again": ""}).status_code == 303
    assert len(mails(app)) == 40


def test_only_administrators_invite_and_group(visit: Callable[..., Any]) -> None:
    reviewer = visit("sato")
    reviewer.get("/articles")
    for path in ("/admin/invitations", "/admin/groups"):
        assert reviewer.get(path).status_code == 403
        assert reviewer.post(path, {}).status_code == 403
    assert reviewer.post("/admin/invitations/send", {"people": HEADING + MORI}).status_code == 403
    assert reviewer.post("/admin/groups/approvers", {}).status_code == 403


# --- groups

SUBMITTED = {"title": "試し", "category": "土工", "summary": "", "body": "x", "tags": "", "status": "review"}


@pytest.mark.parametrize(
    ("role", "approvers", "allowed"),
    [
        ("reviewer", (), True),
        ("reviewer", ({1, 2},), True),
        ("reviewer", ({2},), False),
        ("reviewer", ({1}, {2}), False),
        ("reviewer", (set(),), False),
        ("admin", (set(),), True),
        ("writer", ({1},), False),
    ],
)
def test_who_reviews_what_a_group_approves(role: str, approvers: Any, allowed: bool) -> None:  # noqa: FBT001 - a table
    actor = Actor(1, "x", "", role)
    assert permissions.may_review(actor, approvers) is allowed
    subject = workflow.Subject("review", 9, frozenset(), approvers)
    assert (workflow.refusal("approve", actor, subject) == "") is allowed


def approve(person: Any, place: str, revision: int = 1) -> int:
    person.get("/articles")
    step = {"step": "approve", "revision": str(revision), "comment": "", "files": ""}
    return int(person.post(f"{place}/steps", step).status_code)


def test_only_the_group_of_a_category_approves_it(app: Any, visit: Callable[..., Any]) -> None:
    admin, writer, sato, yamamoto = (visit(name) for name in ("ito", "tanaka", "sato", "yamamoto"))
    admin.get("/admin/groups")
    group = {"group": "0", "name": "品質班", "members": "sato、tanaka", "step": "save"}
    assert admin.post("/admin/groups", group).status_code == 303
    assert admin.post("/admin/groups", group).status_code == 422  # the name is taken
    assert admin.post("/admin/groups", {**group, "members": "nobody"}).status_code == 422
    with app.extensions["knowledge"].sessions() as session:
        [made] = groups.groups(session)
    assert list(made.members) == ["sato", "tanaka"]
    chosen = {f"category-{n}": "0" for n in range(len(permissions.CATEGORIES))}
    soil = {**chosen, "category-0": str(made.id)}
    assert admin.post("/admin/groups/approvers", {**chosen, "category-0": "99"}).status_code == 404
    assert admin.post("/admin/groups/approvers", soil).status_code == 303

    def submit(**changed: str) -> str:
        writer.get("/articles/new")
        return str(
            writer.post("/articles/new", {**SUBMITTED, **changed}).headers["Location"].partition("?")[0]
        )

    place = submit()
    assert place in sato.get("/reviews").get_data(as_text=True)
    assert place not in yamamoto.get("/reviews").get_data(as_text=True)
    assert 'value="approve"' not in yamamoto.get(place).get_data(as_text=True)
    assert approve(yamamoto, place) == 403
    assert approve(sato, place) == 303
    # A next version cannot leave the category, nor enter it, without its group.
    for before, after in (("土工", "積算"), ("積算", "土工")):
        other = submit(category=before)
        assert approve(admin, other) == 303
        writer.get(f"{other}/edit")
        moved = {**SUBMITTED, "category": after, "revision": "1"}
        assert writer.post(f"{other}/edit", moved).status_code == 303
        assert f"{other}/" not in yamamoto.get("/reviews").get_data(as_text=True)
        assert approve(yamamoto, other, 2) == 403
        assert approve(sato, other, 2) == 303

    renamed = {"group": str(made.id), "name": "検査班", "members": "sato", "step": "save"}
    assert admin.post("/admin/groups", renamed).status_code == 303
    removed = {"group": str(made.id), "name": "別の名", "members": "", "step": "remove"}
    assert admin.post("/admin/groups", removed).status_code == 303
    assert approve(yamamoto, submit()) == 303
    audit = admin.get("/admin/audit").get_data(as_text=True)
    assert "承認グループを変更" in audit
    assert "グループを削除" in audit
    assert "メンバー: sato、tanaka → sato; 名前: 品質班 → 検査班" in audit
    assert re.search(r"分類: 土工; [^<]*名前: 検査班", audit)
    assert "別の名" not in audit


def test_a_single_reviewer_publishes_only_what_the_group_lets_him(
    make_app: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    """Without four eyes a text is published by saving it: the group of its category counts there too."""
    app = make_app(four_eyes=False)
    with app.extensions["knowledge"].sessions.begin() as session:
        groups.save(session, 0, "品質班", ["sato"])
        [made] = groups.groups(session)
        groups.set_approvers(session, {"土工": made.id})
    admin, sato, yamamoto = (visit(name, at=app) for name in ("ito", "sato", "yamamoto"))

    def save(person: Any, place: str, **changed: str) -> Any:
        person.get("/articles/new")
        return person.post(place, {**SUBMITTED, "status": "published", **changed})

    for person, code in ((admin, 303), (sato, 303), (yamamoto, 422)):
        assert save(person, "/articles").status_code == code
    assert save(yamamoto, "/articles", status="draft").status_code == 303
    place = save(yamamoto, "/articles", category="積算").headers["Location"].partition("?")[0]
    # A published text cannot enter the category, nor leave it.
    assert save(yamamoto, f"{place}/edit", revision="1").status_code == 422
    assert save(sato, f"{place}/edit", revision="1").status_code == 303
    assert save(yamamoto, f"{place}/edit", revision="2", category="積算").status_code == 422


def test_a_page_from_before_overwrites_no_group(app: Any, visit: Callable[..., Any]) -> None:
    """Who was taken out of a group does not come back with another administrator's page from before."""
    admin = visit("ito")
    with app.extensions["knowledge"].sessions.begin() as session:
        groups.save(session, 0, "品質班", ["sato", "yamamoto"])
        [made] = groups.groups(session)
    page = admin.get("/admin/groups").get_data(as_text=True)
    seen_group, _, seen_approvers = re.findall(r'name="seen" value="(\w*)"', page)
    group = {"group": str(made.id), "name": "品質班", "members": "sato", "step": "save", "seen": seen_group}
    chosen = {f"category-{n}": "0" for n in range(len(permissions.CATEGORIES))}
    soil = {**chosen, "category-0": str(made.id), "seen": seen_approvers}
    assert admin.post("/admin/groups", group).status_code == 303
    assert admin.post("/admin/groups", {**group, "members": "sato、yamamoto"}).status_code == 409
    for _ in range(2):  # a double click
        assert admin.post("/admin/groups/approvers", soil).status_code == 303
    stale = admin.post("/admin/groups/approvers", {**chosen, "seen": seen_approvers})
    assert stale.status_code == 409
    assert 'role="alert"' in stale.get_data(as_text=True)
    with app.extensions["knowledge"].sessions() as session:
        assert list(groups.groups(session)[0].members) == ["sato"]
        assert groups.approvers(session) == {"土工": made.id}


def test_two_administrators_choose_approvers_at_once(make_app: Callable[..., Any], postgres_url: str) -> None:
    sessions = make_app(database_url=postgres_url).extensions["knowledge"].sessions
    with sessions.begin() as session:
        groups.save(session, 0, "品質班", ["sato"])
        [made] = groups.groups(session)
        groups.set_approvers(session, {"土工": made.id})
        seen = groups.seen_approvers(groups.approvers(session))
    start = threading.Barrier(2)

    def choose(category: str) -> str:
        start.wait()
        try:
            with sessions.begin() as session:
                groups.set_approvers(session, {"土工": made.id, category: made.id}, seen=seen)
        except Problem as problem:
            return problem.code
        return ""

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(choose, ("積算", "安全"))) == ["", "conflict"]


def test_a_submission_tells_the_group_only(app: Any, visit: Callable[..., Any]) -> None:
    with app.extensions["knowledge"].sessions.begin() as session:
        groups.save(session, 0, "品質班", ["sato"])
        [made] = groups.groups(session)
        groups.set_approvers(session, {"土工": made.id})
    writer = visit("tanaka")
    writer.get("/articles/new")
    place = (
        writer.post("/articles/new", {**SUBMITTED, "status": "draft"}).headers["Location"].partition("?")[0]
    )
    submitted = {"step": "submit", "revision": "1", "comment": "", "files": ""}
    assert writer.post(f"{place}/steps", submitted).status_code == 303
    assert mails(app) == ["ito@knowledge.example", "sato@knowledge.example"]
