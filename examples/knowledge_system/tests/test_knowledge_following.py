"""What people follow: favourites, watches and their notices, related articles, sites; and who may do none of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from knowledge_system import models
from knowledge_system.domain import related_articles
from knowledge_system.domain.related_articles import Candidate
from knowledge_system.settings import AREAS
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock

ARTICLE = {"title": "北工区の湧水", "category": "土工", "body": "x", "tags": ["湧水"], "site": "北工区"}


def candidate(
    number: int, text: str = "", *, category: str = "土工", site: str = "", tags: str = ""
) -> Candidate:
    return Candidate(number, text, text, category, site, frozenset(tags.split()))


@pytest.mark.parametrize(
    ("candidates", "found"),
    [
        ([candidate(1, tags="養生")], [1]),
        ([candidate(2, tags="養生"), candidate(3, tags="養生 打設")], [3, 2]),
        ([candidate(4, site="北工区")], [4]),
        ([candidate(5)], []),  # the category alone is not enough
        ([candidate(6, category="安全")], []),
        ([candidate(7, "寒中コンクリートの養生"), candidate(8, "足場の点検")], [7]),
        (
            [
                candidate(9, "ｺﾝｸﾘｰﾄの養生", category="品質", tags="養生"),
                candidate(10, category="品質", tags="養生"),
            ],
            [9, 10],
        ),
        ([candidate(0, "コンクリートの養生", tags="養生")], []),  # never itself
        ([candidate(n, tags="養生") for n in range(1, 9)], [8, 7, 6, 5, 4]),
        ([], []),
    ],
)
def test_the_nearest_articles(candidates: list[Candidate], found: list[int]) -> None:
    subject = candidate(0, "コンクリートの養生", site="北工区", tags="養生 打設")
    assert [one.id for one in related_articles.nearest(subject, candidates, most=5)] == found


def call(person: Any, method: str, path: str, body: Any = None) -> Any:
    return person.api(method, path, body, **{"X-CSRF-Token": person.token})


def published(app: Any, visit: Callable[..., Any], **changed: Any) -> tuple[Any, int]:
    """An article that a writer has written and a reviewer published."""
    writer, reviewer = visit("tanaka", at=app), visit("ito", at=app)
    writer.get("/articles/new"), reviewer.get("/articles/new")
    new = call(writer, "POST", "/api/knowledge", {**ARTICLE, **changed, "status": "review"}).json["id"]
    answer = call(
        reviewer, "POST", f"/api/knowledge/{new}/steps", {"step": "approve", "revision": 1, "comment": ""}
    )
    assert answer.status_code == 200, answer.json
    return reviewer, new


def notices(app: Any, username: str) -> list[tuple[str, int]]:
    with app.extensions["knowledge"].sessions() as session:
        asked = (
            select(models.Notice.kind, models.Notice.article_id)
            .join(models.User, models.User.id == models.Notice.user_id)
            .where(models.User.username == username)
            .order_by(models.Notice.id)
        )
        return [tuple(row) for row in session.execute(asked)]


def test_favourites_are_ones_own(visit: Callable[..., Any]) -> None:
    one, other = visit("kobayashi"), visit("tanaka")
    page = one.get("/articles/1")
    assert "お気に入りに加える" in page.get_data(as_text=True)
    assert one.post("/articles/1/favourite", {"on": "on"}).status_code == 303
    assert one.post("/articles/1/favourite", {"on": "on"}).status_code == 303  # sent twice
    assert "お気に入りから外す" in one.get("/articles/1").get_data(as_text=True)
    assert 'href="/articles/1"' in one.get("/favourites").get_data(as_text=True)
    assert "お気に入りはまだありません" in other.get("/favourites").get_data(as_text=True)
    assert "お気に入りに加える" in other.get("/articles/1").get_data(as_text=True)
    assert one.post("/articles/1/favourite", {"on": ""}).status_code == 303
    assert "お気に入りはまだありません" in one.get("/favourites").get_data(as_text=True)
    assert one.get("/favourites").headers["Cache-Control"] == "no-store"


def test_watchers_hear_of_articles_tags_and_sites(app: Any, visit: Callable[..., Any]) -> None:
    reader = visit("kobayashi")
    _, first = published(app, visit)
    watched = [("article", str(first)), ("tag", "湧水"), ("site", "北工区")]
    for kind, subject in watched:
        assert call(reader, "PUT", "/api/watches", {"kind": kind, "subject": subject}).status_code == 204
    listed = reader.api("GET", "/api/watches").json["items"]
    assert {(one["kind"], one["subject"]) for one in listed} == set(watched)
    before = len(notices(app, "kobayashi"))
    reviewer, second = published(app, visit, title="湧水の処理")
    _, elsewhere = published(app, visit, tags=["別"], site="南工区")
    call(reviewer, "POST", f"/api/knowledge/{first}/comments", {"body": "確認しました"})
    call(reviewer, "POST", f"/api/knowledge/{second}/comments", {"body": "見守られていない"})
    shown = call(reviewer, "GET", f"/api/knowledge/{first}").json
    step = {"step": "retire", "revision": shown["revision"], "comment": "古い"}
    assert call(reviewer, "POST", f"/api/knowledge/{first}/steps", step).status_code == 200
    heard = notices(app, "kobayashi")[before:]
    assert heard == [("watch-publish", second), ("watch-comment", first), ("watch-retire", first)]
    assert elsewhere not in {article for _, article in heard}
    page = reader.get("/notices").get_data(as_text=True)
    assert "確認しました" in page
    call(reader, "DELETE", f"/api/watches?kind=site&subject={quote('北工区')}")
    call(reader, "DELETE", f"/api/watches?kind=tag&subject={quote('湧水')}")
    published(app, visit, title="湧水の測り方")
    assert notices(app, "kobayashi")[before:] == heard


def test_notices_are_grouped_by_article_and_counted_on_every_page(
    app: Any, visit: Callable[..., Any]
) -> None:
    reader, reviewer, other = visit("kobayashi"), visit("sato"), visit("ito")
    reader.get("/account")
    for number in (1, 2):
        call(reader, "PUT", "/api/watches", {"kind": "article", "subject": str(number)})
    for person, number in ((reviewer, 1), (reviewer, 1), (other, 1), (other, 2)):
        person.get("/account")
        call(person, "POST", f"/api/knowledge/{number}/comments", {"body": f"{number} について"})
    assert len(notices(app, "kobayashi")) == 4
    badge = '<span class="badge"><span class="visually-hidden">未読 </span>2</span>'
    assert badge in reader.get("/articles").get_data(as_text=True)
    page = reader.get("/notices").get_data(as_text=True)
    assert page.count('<li class="unread">') == 2
    assert "伊藤 直樹、佐藤 誠 さんがコメントしました (3 回)" in page
    assert reader.post("/notices/read", {}).status_code == 303
    page = reader.get("/notices").get_data(as_text=True)
    assert "badge" not in page
    assert 'class="unread"' not in page
    english = reader.get("/notices", **{"Accept-Language": "en"}).get_data(as_text=True)
    assert "(3 times)" in english


def test_watchers_get_one_mail_each_in_their_language(
    make_app: Callable[..., Any], make_smtp: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    server = make_smtp()
    app = make_app(
        areas=AREAS - {"logging"},
        MKS_SMTP_HOST="localhost",
        MKS_SMTP_PORT=str(server.port),
        MKS_SMTP_SECURITY="plain",
        MKS_ALERT_FROM="system@knowledge.example",
        MKS_ALERT_TO="ops@knowledge.example",
    )

    def mails(username: str) -> list[tuple[str, str]]:
        list(TaskWorker(app.extensions["knowledge"].background.tasks, schedule=False).run_pending())
        return [
            (str(mail.message["Subject"]), mail.message.get_body(("plain",)).get_content())
            for mail in server.received
            if mail.rcpt_tos == (f"{username}@knowledge.example",)
        ]

    published(app, visit, title="湧水")  # only a tag that there is can be watched
    japanese, english = visit("kobayashi", at=app), visit("sato", at=app)
    assert english.post("/language", {"language": "en"}).status_code == 303
    for reader in (japanese, english):  # by tag and by site: told once all the same
        for kind, subject in (("tag", "湧水"), ("site", "北工区")):
            assert call(reader, "PUT", "/api/watches", {"kind": kind, "subject": subject}).status_code == 204

    # Not before it is published, and not about what another tag and site have.
    writer = visit("tanaka", at=app)
    call(writer, "POST", "/api/knowledge", {**ARTICLE, "title": "下書き"})
    published(app, visit, tags=["別"], site="南工区")
    assert mails("kobayashi") == mails("sato") == []

    reviewer, new = published(app, visit)
    ((subject, text),) = mails("kobayashi")
    assert subject == "見守っている記事が公開されました: 北工区の湧水"
    assert text.startswith("伊藤 直樹 さんが公開しました。")
    assert f"https://localhost:8443/articles/{new}" in text
    ((subject, text),) = mails("sato")
    assert subject.endswith(": 北工区の湧水")
    assert not subject.startswith("見守")
    assert "さんが" not in text
    assert f"https://localhost:8443/articles/{new}" in text

    # A remark reaches who watches the article itself, with its words; not who made it, nor who has stopped.
    for person in (japanese, english, reviewer):
        call(person, "PUT", "/api/watches", {"kind": "article", "subject": str(new)})
    call(english, "DELETE", f"/api/watches?kind=article&subject={new}")
    call(reviewer, "POST", f"/api/knowledge/{new}/comments", {"body": "水位を測りました\n.\n二行目"})
    assert [subject for subject, _ in mails("kobayashi")[1:]] == [
        "見守っている記事にコメントがつきました: 北工区の湧水"
    ]
    assert "水位を測りました" in mails("kobayashi")[1][1]
    assert len(mails("sato")) == 1
    assert mails("ito") == []


def test_who_did_it_or_is_told_anyway_hears_once(app: Any, visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    reviewer, first = published(app, visit)
    for person in (writer, reviewer):
        assert (
            call(person, "PUT", "/api/watches", {"kind": "article", "subject": str(first)}).status_code == 204
        )
    before = len(notices(app, "tanaka")), len(notices(app, "ito"))
    call(reviewer, "POST", f"/api/knowledge/{first}/comments", {"body": "どうでしたか"})
    assert [kind for kind, _ in notices(app, "tanaka")[before[0] :]] == ["comment"]
    assert notices(app, "ito")[before[1] :] == []


def test_an_article_that_goes_takes_what_followed_it_along(app: Any, visit: Callable[..., Any]) -> None:
    reader, admin = visit("kobayashi"), visit("ito")
    _, new = published(app, visit)
    call(reader, "PUT", f"/api/favourites/{new}")
    call(reader, "PUT", "/api/watches", {"kind": "article", "subject": str(new)})
    tag = admin.api("GET", f"/api/knowledge/{new}").headers["ETag"]
    gone = admin.api("DELETE", f"/api/knowledge/{new}", **{"X-CSRF-Token": admin.token, "If-Match": tag})
    assert gone.status_code == 204, gone.json
    assert reader.api("GET", "/api/favourites").json["items"] == []
    assert reader.api("GET", "/api/watches").json["items"] == []
    assert reader.get("/favourites").status_code == 200


ASKED_WRONGLY: list[tuple[str, str, Any, int]] = [
    ("PUT", "/api/favourites/{draft}", None, 404),
    ("PUT", "/api/favourites/999999", None, 404),
    ("PUT", "/api/favourites/0", None, 404),
    ("PUT", "/api/favourites/１", None, 404),
    ("PUT", "/api/favourites/2147483648", None, 404),
    ("DELETE", "/api/favourites/999999", None, 204),
    ("PUT", "/api/watches", {"kind": "article", "subject": "{draft}"}, 404),
    ("PUT", "/api/watches", {"kind": "article", "subject": "１"}, 404),
    ("PUT", "/api/watches", {"kind": "article", "subject": "01"}, 404),
    ("PUT", "/api/watches", {"kind": "article", "subject": "9" * 90}, 404),
    ("PUT", "/api/watches", {"kind": "article", "subject": "-1"}, 404),
    ("PUT", "/api/watches", {"kind": "article", "subject": "1; DROP TABLE watches"}, 404),
    ("PUT", "/api/watches", {"kind": "tag", "subject": "だれも使わないタグ"}, 404),
    ("PUT", "/api/watches", {"kind": "tag", "subject": "%"}, 404),
    ("PUT", "/api/watches", {"kind": "site", "subject": ""}, 422),
    ("PUT", "/api/watches", {"kind": "site", "subject": "%"}, 404),
    ("PUT", "/api/watches", {"kind": "user", "subject": "1"}, 422),
    ("PUT", "/api/watches", {"kind": "tag"}, 422),
    ("PUT", "/api/watches", {"kind": "tag", "subject": ["x"]}, 422),
    ("PUT", "/api/watches", {"kind": "tag", "subject": "x", "user_id": 1}, 422),
    ("DELETE", "/api/watches?kind=tag", None, 422),
    ("DELETE", "/api/watches?kind=tag&subject=x&user=2", None, 422),
    ("GET", "/api/tags?q=" + "x" * 41, None, 422),
    ("GET", "/api/tags?name=x", None, 422),
    ("GET", "/api/tags?q=%00", None, 422),
    ("GET", "/api/favourites?user=2", None, 422),
    ("GET", "/site", None, 303),
    ("GET", "/site?name=" + "x" * 101, None, 422),
    ("GET", "/site?name=%25", None, 404),
    ("GET", "/site?name=" + quote("どこにもない現場"), None, 404),
]


def test_what_is_asked_wrongly_is_refused(app: Any, visit: Callable[..., Any], clock: FrozenClock) -> None:
    reader, writer = visit("kobayashi"), visit("tanaka")
    writer.get("/articles/new")
    draft = str(call(writer, "POST", "/api/knowledge", {**ARTICLE, "status": "draft"}).json["id"])
    for method, path, asked, status in ASKED_WRONGLY:
        body = asked
        if isinstance(asked, dict):
            body = {name: draft if value == "{draft}" else value for name, value in asked.items()}
        clock.advance(13)  # the limits of writing are not what is tested here
        answer = call(reader, method, path.format(draft=draft), body)
        assert answer.status_code == status, (method, path, body, answer.get_data(as_text=True))
    with app.extensions["knowledge"].sessions() as session:
        assert session.scalars(select(models.Watch)).all() == []
        assert session.scalars(select(models.Favourite)).all() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/favourites"),
        ("GET", "/sites"),
        ("GET", "/site?name=x"),
        ("POST", "/articles/1/favourite"),
        ("POST", "/watches"),
        ("GET", "/api/tags"),
        ("GET", "/api/sites"),
        ("GET", "/api/favourites"),
        ("PUT", "/api/favourites/1"),
        ("DELETE", "/api/favourites/1"),
        ("GET", "/api/watches"),
        ("PUT", "/api/watches"),
        ("DELETE", "/api/watches?kind=tag&subject=x"),
    ],
)
def test_nobody_follows_without_signing_in(browser: Any, method: str, path: str) -> None:
    answer = browser.send(method, path, headers={"Accept": "application/json"})
    assert answer.status_code in {401, 403}


def test_a_form_leads_back_to_this_site_only(visit: Callable[..., Any]) -> None:
    reader = visit("kobayashi")
    reader.get("/articles/1")
    for wanted, found in (
        ("/articles/1", "/articles/1"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("", "/favourites"),
    ):
        answer = reader.post("/watches", {"kind": "article", "subject": "1", "on": "on", "next": wanted})
        assert answer.status_code == 303
        assert answer.headers["Location"].removeprefix("https://localhost:8443") == found
    fields = {"kind": "article", "subject": "1", "csrf_token": "x"}
    assert reader.post("/watches", fields, Origin="https://evil.example").status_code == 403


def test_tags_go_on_from_what_was_typed(visit: Callable[..., Any], app: Any) -> None:
    reader = visit("kobayashi")
    published(app, visit, tags=["ＲＣ造", "SRC", "50%濃度"])

    def suggested(begun: str) -> list[str]:
        return [one["name"] for one in reader.api("GET", f"/api/tags?q={quote(begun)}").json["items"]]

    assert suggested("rc") == ["ＲＣ造", "SRC"]  # what begins with it comes first
    assert suggested("ｒｃ造") == ["ＲＣ造"]
    assert suggested("%") == ["50%濃度"]
    assert suggested("_") == []
    assert len(suggested("")) == 12


def test_a_site_has_a_page(visit: Callable[..., Any], app: Any) -> None:
    reader = visit("kobayashi")
    _, new = published(app, visit, site="第2工区 <b>")
    listed = reader.get("/sites").get_data(as_text=True)
    assert "第2工区 &lt;b&gt;" in listed
    page = reader.get(f"/site?name={quote('第2工区 <b>')}").get_data(as_text=True)
    assert f'href="/articles/{new}"' in page
    assert "<b>" not in page.replace("建設土木<b>", "")
    sites = reader.api("GET", "/api/sites").json["items"]
    assert {"name": "第2工区 <b>", "articles": 1} in sites


def test_the_site_of_a_draft_is_no_link_to_a_page_that_is_not_there(visit: Callable[..., Any]) -> None:
    writer = visit("tanaka")
    draft = {"title": "下書き", "category": "土工", "body": "本文", "status": "draft", "site": "新しい現場"}
    number = writer.api("POST", "/api/knowledge", draft).json["id"]
    page = writer.get(f"/articles/{number}").get_data(as_text=True)
    assert "新しい現場" in page
    assert "/site?name=" not in page


def test_related_articles_stand_beside_one(visit: Callable[..., Any], app: Any) -> None:
    reader = visit("kobayashi")
    _, first = published(app, visit)
    assert reader.get(f"/articles/{first}").status_code == 200
    _, second = published(app, visit, title="湧水の止め方")
    page = reader.get(f"/articles/{first}").get_data(as_text=True)
    beside = page.partition('id="related-title"')[2].partition("</nav>")[0]
    assert re.findall(r'href="/articles/(\d+)"', beside)[0] == str(second)
    assert f'href="/articles/{first}"' not in beside
