"""The pages: reading, writing, roles, forms with bad input, cache, sessions, second factor."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import event

from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import client_key, totp_code
from mks_hardening.testing import FrozenClock, call_wsgi

URL = "https://localhost:8443"


def form(**changed: str) -> dict[str, str]:
    return {
        "title": "盛土の締固め管理",
        "category": "土工",
        "summary": "締固め度の測り方",
        "body": "## 管理基準\n\n締固め度 **90%** 以上",
        "tags": "盛土、締固め",
        "status": "draft",
        **changed,
    }


# --- who gets in


def test_without_signing_in_there_is_only_the_sign_in_page(browser: Any) -> None:
    answer = browser.get("/articles/1?x=1")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in?next=/articles/1%3Fx%3D1")
    assert browser.post("/articles", form()).status_code == 401
    assert browser.api("GET", "/api/knowledge").status_code == 401


def test_signing_in_leads_back_but_never_elsewhere(browser: Any) -> None:
    for wanted, leads_to in (
        ("/articles/1", "/articles/1"),
        ("//evil.example", "/"),
        ("https://evil.example", "/"),
    ):
        browser.client.delete_cookie("__Host-mks-session")
        answer = browser.post("/sign-in", {"username": "tanaka", "password": DEMO_PASSWORD, "next": wanted})
        assert (answer.status_code, answer.headers["Location"]) == (303, leads_to)


def test_unknown_user_and_wrong_password_look_alike(browser: Any) -> None:
    pages = []
    for name in ("tanaka", "nobody"):
        answer = browser.post("/sign-in", {"username": name, "password": "x", "next": "/"})
        assert answer.status_code == 401
        page = answer.get_data(as_text=True).replace(f'value="{name}"', "")
        pages.append(re.sub(r"[0-9a-f]{32,}", "HEX", page))
    assert pages[0] == pages[1]


def test_failures_are_limited_and_successes_are_not(browser: Any, clock: FrozenClock) -> None:
    for _ in range(12):
        assert browser.sign_in("tanaka").status_code == 303
    for _ in range(5):
        assert browser.sign_in("tanaka", "wrong").status_code == 401
    refused = browser.sign_in("tanaka")
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    page = refused.get_data(as_text=True)
    assert "上限" in page
    # Told in words, and counted down by a script.
    assert f'data-wait="{refused.headers["Retry-After"]}"' in page
    assert re.search(r"あと <strong data-left>(\d+ 分 )?\d+ 秒</strong> 待つと", page)
    clock.advance(61)
    assert browser.sign_in("tanaka").status_code == 303


def test_one_address_cannot_try_many_names(browser: Any, app: Any) -> None:
    app.extensions["knowledge"].limiter.hit("auth_login_address", client_key("127.0.0.1"), cost=58)
    seen = [browser.sign_in(f"name{n}", "wrong").status_code for n in range(4)]
    assert seen == [401, 401, 429, 429]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    ],
)
def test_forms_of_other_sites_are_refused(visit: Callable[..., Any], headers: dict[str, str]) -> None:
    person = visit("tanaka")
    assert person.post("/articles", form(), **headers).status_code == 403


def test_without_origin_the_token_decides(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    person.get("/articles/new")
    token, no_origin = person.token, {"Origin": None}
    for given, status in (("", 403), ("0" * 64, 403), (token, 303)):
        answer = person.send("POST", "/articles", data={**form(), "csrf_token": given}, headers=no_origin)
        assert answer.status_code == status


# --- reading


def test_list_filters_and_pages(visit: Callable[..., Any]) -> None:
    person = visit("kobayashi")
    seen: list[str] = []
    path = "/articles"
    for _ in range(10):
        page = person.get(path).get_data(as_text=True)
        seen += re.findall(r'<h2><a href="(/articles/\d+)"', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        if not following:
            break
        path = following[1].replace("&amp;", "&")
    assert len(seen) == len(set(seen)) >= 40
    narrowed = person.get("/articles?category=安全").get_data(as_text=True)
    assert set(re.findall(r'<p class="kicker"><a href="[^"]*">([^<]+)</a>', narrowed)) == {"安全"}


@pytest.mark.parametrize("word", ["養生", "足場", "ｺﾝｸﾘｰﾄ", "ＢＩＭ", "鉄筋 かぶり"])
def test_search_finds_japanese_words(visit: Callable[..., Any], word: str) -> None:
    page = visit("kobayashi").get(f"/articles?q={word}").get_data(as_text=True)
    assert re.findall(r'<h2><a href="/articles/\d+"', page), word


@pytest.mark.parametrize("query", ["zzzzqq", "'; DROP TABLE articles; --", "%%%%", '"', "* NOT", "あ" * 100])
def test_odd_searches_find_nothing_and_break_nothing(visit: Callable[..., Any], query: str) -> None:
    answer = visit("kobayashi").send("GET", "/articles", query_string={"q": query})
    assert answer.status_code == 200
    assert "該当する記事はありません" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/articles?after=%00", 422),
        ("/articles?after=garbage", 400),
        ("/articles?after=AAAA&status=draft", 400),
        ("/articles?category=宇宙", 422),
        ("/articles?status=deleted", 422),
        ("/articles?q=" + "x" * 101, 422),
        ("/articles?q=a&q=b", 422),
        ("/articles?q=%ff", 400),
        ("/articles/0", 404),
        ("/articles/-1", 404),
        ("/articles/999999", 404),
        ("/articles/99999999999999999999999999", 404),
        ("/articles/1.5", 404),
        ("/articles/1%00", 404),
        ("/articles/..%2f..%2fetc%2fpasswd", 404),
        ("/static/..%2f..%2fapp.py", 404),
        ("/static/%2e%2e/app.py", 404),
        ("/static/..\\app.py", 404),
        ("/problems/../../", 404),
        ("/.git/config", 404),
    ],
)
def test_addresses_that_lead_nowhere(visit: Callable[..., Any], path: str, status: int) -> None:
    answer = visit("tanaka").get(path)
    assert answer.status_code == status
    text = answer.get_data(as_text=True)
    assert "Traceback" not in text
    assert "トップへ戻る" in text


def test_drafts_are_for_their_author_and_for_reviewers(visit: Callable[..., Any]) -> None:
    made = visit("tanaka").post("/articles", form()).headers["Location"].partition("?")[0]
    seen = {
        name: visit(name).get(made).status_code for name in ("tanaka", "suzuki", "sato", "ito", "kobayashi")
    }
    assert seen == {"tanaka": 200, "sato": 200, "ito": 200, "suzuki": 404, "kobayashi": 404}
    for name, listed in (("tanaka", True), ("suzuki", False), ("sato", True)):
        assert (
            f'href="{made}"' in visit(name).get("/articles?status=draft").get_data(as_text=True)
        ) is listed


# --- writing


def test_write_edit_and_history(visit: Callable[..., Any]) -> None:
    writer, reviewer = visit("tanaka"), visit("sato")
    made = writer.post("/articles", form()).headers["Location"].partition("?")[0]
    page = writer.get(made).get_data(as_text=True)
    assert "<strong>90%</strong>" in page
    assert "第 1 版" in page
    assert reviewer.post(f"{made}/edit", form(status="review", revision="1")).status_code == 303
    page = writer.get(made).get_data(as_text=True)
    assert "第 2 版" in page
    assert "佐藤 誠" in page


def test_what_a_writer_types_never_becomes_markup(visit: Callable[..., Any]) -> None:
    attack = "<img src=x onerror=alert(1)>\"'><script>alert(1)</script>{{7*7}}"
    person = visit("tanaka")
    made = person.post("/articles", form(title=attack, summary=attack, body=attack, tags='"><b>')).headers[
        "Location"
    ]
    for path in (made, f"{made.partition('?')[0]}/edit", "/articles?status=draft"):
        page = person.get(path).get_data(as_text=True)
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "<b>" not in page.replace("<b>ナレッジ</b>", "")
        assert "49" not in page.partition("{{7*7}}")[0][-50:]


BAD_FORMS = [
    (form(title=""), "title"),
    (form(title="あ" * 201), "title"),
    (form(title="a\nb"), "title"),
    (form(title="\x00"), "title"),
    (form(title="\u200b\u3164"), "title"),
    (form(body="\u2800\n\u00ad"), "body"),
    (form(category=""), "category"),
    (form(category="宇宙"), "category"),
    (form(status="deleted"), "status"),
    (form(status="published"), "status"),
    (form(body=""), "body"),
    (form(body="x" * 50_001), "body"),
    (form(summary="あ" * 501), "summary"),
    (form(tags=",".join(map(str, range(11)))), "tags"),
    (form(tags="x" * 41), "tags"),
    ({**form(), "author_id": "1"}, "author_id"),
    ({**form(), "revision": "7"}, "revision"),
    ({name: value for name, value in form().items() if name != "body"}, "body"),
]


@pytest.mark.parametrize(("fields", "invalid"), BAD_FORMS)
def test_bad_forms_change_nothing(visit: Callable[..., Any], fields: dict[str, str], invalid: str) -> None:
    person = visit("tanaka")
    answer = person.post("/articles", fields, Accept="application/json")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == [invalid]
    page = person.post("/articles", fields)
    assert page.status_code == 422
    assert "保存されていません" in page.get_data(as_text=True)
    assert "該当する記事はありません" in person.get("/articles?status=draft").get_data(as_text=True)


NO_FORMS: list[tuple[dict[str, Any], int]] = [
    ({"data": "a=\xff".encode("latin-1"), "content_type": "application/x-www-form-urlencoded"}, 400),
    ({"data": "title=%ff%fe", "content_type": "application/x-www-form-urlencoded"}, 400),
    ({"data": b"x" * 1_100_000, "content_type": "application/x-www-form-urlencoded"}, 413),
    (
        {
            "data": "&".join(f"f{n}=1" for n in range(2000)),
            "content_type": "application/x-www-form-urlencoded",
        },
        400,
    ),
    ({"data": b"{}", "content_type": "application/json"}, 415),
    ({"data": b"x", "content_type": "text/plain"}, 415),
    ({"data": b"no boundary", "content_type": "multipart/form-data"}, 415),
    ({"data": b"", "content_type": "application/x-www-form-urlencoded"}, 422),
    ({"data": b"x", "content_type": ""}, 415),
]


@pytest.mark.parametrize(
    "path",
    [
        "/articles",
        "/articles/1/edit",
        "/articles/1/comments",
        "/account/second-factor/confirm",
        "/account/sessions/end",
    ],
)
def test_bodies_that_are_no_forms(visit: Callable[..., Any], clock: FrozenClock, path: str) -> None:
    person = visit("sato")
    for options, status in NO_FORMS:
        clock.advance(13)  # the limits of writing are not what is tested here
        answer = person.send("POST", path, **options)
        assert answer.status_code == status, options["content_type"]
        assert "Traceback" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/articles", 405),
        ("DELETE", "/articles/1", 405),
        ("GET", "/sign-out", 405),
        ("POST", "/articles/999999/edit", 404),
        ("POST", "/articles/999999/comments", 404),
        ("BREW", "/articles", 405),
    ],
)
def test_methods_and_ids(visit: Callable[..., Any], method: str, path: str, status: int) -> None:
    assert visit("sato").send(method, path, data={"body": "x"}).status_code == status


def test_a_reader_neither_writes_nor_edits(visit: Callable[..., Any]) -> None:
    person = visit("kobayashi")
    assert person.get("/articles/new").status_code == 403
    assert person.post("/articles", form()).status_code == 403
    assert person.get("/articles/1/edit").status_code == 403
    assert person.post("/articles/1/edit", form(revision="1")).status_code == 403
    assert "編集する" not in person.get("/articles/1").get_data(as_text=True)


def test_of_two_edits_on_one_revision_one_is_saved(visit: Callable[..., Any]) -> None:
    one, two = visit("sato"), visit("yamamoto")
    assert one.post("/articles/1/edit", form(title="先の編集", revision="1")).status_code == 303
    late = two.post("/articles/1/edit", form(title="後の編集", revision="1"))
    text = late.get_data(as_text=True)
    assert late.status_code == 409
    assert 'value="後の編集"' in text
    assert "<del>先</del><ins>後</ins>の編集" in text
    assert 'name="revision" value="2"' in text
    assert "先の編集" in one.get("/articles/1/edit").get_data(as_text=True)


def test_of_many_edits_at_once_one_is_saved_and_none_fails(visit: Callable[..., Any]) -> None:
    people = [visit(name) for name in ("sato", "yamamoto", "ito")]
    for revision in range(1, 5):
        fields = form(revision=str(revision))
        with ThreadPoolExecutor(3) as pool:
            seen = list(
                pool.map(
                    lambda person, sent=fields: person.post("/articles/1/edit", sent).status_code, people
                )
            )
        assert sorted(seen) == [303, 409, 409]


def test_remarks_of_many_people_at_once_are_all_kept(visit: Callable[..., Any]) -> None:
    people = [visit(name) for name in ("sato", "yamamoto", "ito", "kobayashi")] * 3
    with ThreadPoolExecutor(6) as pool:
        seen = list(
            pool.map(
                lambda person: person.api("POST", "/api/knowledge/1/comments", {"body": "x"}).status_code,
                people,
            )
        )
    assert seen == [201] * 12


@pytest.mark.postgres
def test_the_same_on_postgresql(
    make_app: Callable[..., Any], visit: Callable[..., Any], postgres_url: str
) -> None:
    app = make_app(database_url=postgres_url, four_eyes=False)
    people = [visit(name, at=app) for name in ("sato", "yamamoto", "ito")]
    for revision in range(1, 5):
        fields = form(status="published", title=f"題名 {revision}", revision=str(revision))
        with ThreadPoolExecutor(3) as pool:
            seen = list(
                pool.map(
                    lambda person, sent=fields: person.post("/articles/1/edit", sent).status_code, people
                )
            )
        assert sorted(seen) == [303, 409, 409]
    reader = people[0]
    assert "題名 4" in reader.get("/articles").get_data(as_text=True)
    for word in ("養生", "ｺﾝｸﾘｰﾄ", "題名"):
        assert '<h2><a href="/articles/' in reader.get(f"/articles?q={word}").get_data(as_text=True), word
    for query in ("'; DROP TABLE articles; --", "%%%%", '"', "\\", "a" * 100):
        assert reader.send("GET", "/articles", query_string={"q": query}).status_code == 200
    following = re.search(r'rel="next" href="([^"]+)"', reader.get("/articles").get_data(as_text=True))
    assert reader.get(following[1].replace("&amp;", "&")).status_code == 200  # type: ignore[index]
    for path in ("/articles/2147483648", "/articles/9223372036854775808", "/articles?after=x"):
        assert reader.get(path).status_code in {400, 404}


def test_comments(visit: Callable[..., Any]) -> None:
    person = visit("kobayashi")
    assert person.post("/articles/1/comments", {"body": "<b>確認</b>しました"}).status_code == 303
    assert "&lt;b&gt;確認&lt;/b&gt;しました" in person.get("/articles/1").get_data(as_text=True)
    for bad in ({}, {"body": "  "}, {"body": "x" * 2001}, {"body": "x", "author": "sato"}):
        answer = person.post("/articles/1/comments", bad)
        assert answer.status_code == 422


# --- the cache


def test_the_list_comes_from_the_cache_until_something_changes(
    visit: Callable[..., Any], make_app: Callable[..., Any]
) -> None:
    app = make_app(four_eyes=False)
    reader, reviewer = visit("kobayashi", at=app), visit("sato", at=app)

    def look(path: str = "/articles") -> str:
        return reader.get(path).headers["X-Cache"]

    assert [look(), look(), look("/articles?category=安全"), look("/articles?category=安全")] == [
        "miss",
        "hit",
        "miss",
        "hit",
    ]
    assert (
        reviewer.post(
            "/articles/1/edit", form(title="新しい題名", status="published", revision="1")
        ).status_code
        == 303
    )
    page = reader.get("/articles")
    assert page.headers["X-Cache"] == "miss"
    assert "新しい題名" in page.get_data(as_text=True)
    assert look() == "hit"
    reviewer.post("/articles/1/comments", {"body": "x"})
    assert look() == "miss"
    assert [look("/articles?q=養生"), look("/articles?q=養生")] == ["miss", "hit"]
    refused = reviewer.post("/articles/1/edit", form(revision="1"))
    assert refused.status_code == 409
    assert look() == "hit"


def test_pages_cost_a_fixed_number_of_statements(visit: Callable[..., Any], app: Any) -> None:
    person, statements = visit("kobayashi"), []
    event.listen(
        app.extensions["knowledge"].engine, "before_cursor_execute", lambda *call: statements.append(call[2])
    )

    def cost(path: str) -> int:
        statements.clear()
        assert person.get(path).status_code == 200
        return len(statements)

    # Who asks, the articles with authors, their tags, their comments counted, the categories counted.
    assert cost("/articles") == 5
    assert cost("/articles") == 1
    # Who asks, whether an attachment matches, which articles are meant with the matches per category, their tags,
    # these with authors and number of comments.
    assert cost("/articles?q=養生") == 5
    assert cost("/articles?q=養生") == 1
    # Who asks, the article with its author, its parts with their people, what the person follows, what is near.
    assert cost("/articles/1") == 5
    # Who asks, and what the person follows.
    assert cost("/articles/1") == 2


@pytest.mark.parametrize(
    "path", ["/", "/articles?q=養生", "/articles/1/edit", "/notices", "/favourites", "/tree"]
)
def test_a_page_that_only_reads_begins_no_transaction(visit: Callable[..., Any], app: Any, path: str) -> None:
    """At the end of one, psycopg would forget what it has prepared on the connection."""
    person, begun = visit("ito"), list[Any]()

    def note(connection: Any) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            begun.append(connection)

    event.listen(app.extensions["knowledge"].engine, "begin", note)
    assert person.get(path).status_code == 200
    assert begun == []


def test_drafts_are_never_cached(visit: Callable[..., Any]) -> None:
    writer, other = visit("tanaka"), visit("suzuki")
    writer.post("/articles", form(title="秘密の下書き"))
    for _ in range(2):
        assert "秘密の下書き" in writer.get("/articles?status=draft").get_data(as_text=True)
        assert "秘密の下書き" not in other.get("/articles?status=draft").get_data(as_text=True)


# --- the session


def test_warned_extended_and_ended_when_idle(visit: Callable[..., Any], clock: FrozenClock, app: Any) -> None:
    person = visit("tanaka")
    session = app.extensions["knowledge"].session_clock
    assert "session-notice" not in person.get("/articles").get_data(as_text=True)
    session.advance(1800 - 60)
    asked = person.api("GET", "/api/auth/session")
    assert asked.headers["X-Session-Expires-In"] == "60"
    assert (
        person.post("/session/refresh", {"next": "/articles"}).headers["Location"]
        == "/articles?done=extended"
    )
    assert "X-Session-Expires-In" not in person.get("/articles").headers
    session.advance(1801)
    ended = person.get("/articles")
    assert ended.status_code == 303
    assert ended.headers["X-Session-Timeout-Reason"] == "idle"
    assert "操作がなかったため" in person.get(ended.headers["Location"]).get_data(as_text=True)


def test_activity_does_not_outlast_the_absolute_limit(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    session = app.extensions["knowledge"].session_clock
    passed = 0
    while person.get("/articles").status_code == 200:
        session.advance(1500)
        passed += 1500
    assert passed == 28_800 + 1500 - 28_800 % 1500
    ended = person.api("GET", "/api/auth/me")
    assert ended.status_code == 401


def test_the_session_answer_carries_the_absolute_limit(visit: Callable[..., Any], app: Any) -> None:
    person, clock = visit("tanaka"), app.extensions["knowledge"].session_clock
    asked = person.api("GET", "/api/auth/session").json
    assert (asked["ends_in"], asked["expires_in"]) == (28_800, 1800)
    for _ in range(2):
        clock.advance(1000)
        person.get("/articles")  # activity extends one of them only
    asked = person.api("GET", "/api/auth/session").json
    assert (asked["ends_in"], asked["expires_in"]) == (26_800, 1800)


def test_near_the_absolute_limit_the_page_warns_without_javascript(
    visit: Callable[..., Any], app: Any
) -> None:
    person = visit("tanaka")
    session = app.extensions["knowledge"].session_clock
    for _ in range(19):
        session.advance(1500)
        person.get("/articles")
    session.advance(28_800 - 19 * 1500 - 90)
    page = person.get("/articles")
    assert int(page.headers["X-Session-Expires-In"]) <= 90
    assert "サインインし直してください" in page.get_data(as_text=True)


def test_with_a_short_idle_limit_the_page_offers_to_extend(
    make_app: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    person = visit("tanaka", at=make_app(MKS_SESSION_IDLE_TIMEOUT="60s"))
    assert "延長する" in person.get("/articles").get_data(as_text=True)
    assert (
        person.post("/session/refresh", {"next": "//evil.example"}).headers["Location"] == "/?done=extended"
    )


def test_sessions_are_listed_and_ended(visit: Callable[..., Any]) -> None:
    one, two, three = visit("tanaka"), visit("tanaka"), visit("tanaka")
    stranger = visit("suzuki")
    page = one.get("/account").get_data(as_text=True)
    keys = re.findall(r'name="session" value="([^"]+)"', page)
    assert len(keys) == 2
    assert stranger.post("/account/sessions/end", {"session": keys[0]}).status_code == 404
    assert one.post("/account/sessions/end", {"session": "0" * 64}).status_code == 404
    assert one.post("/account/sessions/end", {"session": keys[0]}).status_code == 303
    assert sorted(
        [two.api("GET", "/api/auth/me").status_code, three.api("GET", "/api/auth/me").status_code]
    ) == [200, 401]
    assert one.post("/account/sessions/end-others").status_code == 303
    assert {two.api("GET", "/api/auth/me").status_code, three.api("GET", "/api/auth/me").status_code} == {401}
    assert one.get("/account").status_code == 200


def test_after_signing_out_the_cookie_is_dead(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    kept = person.client.get_cookie("__Host-mks-session")
    assert person.post("/sign-out").status_code == 303
    person.client.set_cookie(kept.key, kept.value, domain="localhost", path="/", secure=True)
    assert person.api("GET", "/api/auth/me").status_code == 401


def test_signing_in_changes_the_session_id(visit: Callable[..., Any]) -> None:
    person = visit("tanaka")
    before = person.client.get_cookie("__Host-mks-session").value
    person.sign_in("tanaka")
    assert person.client.get_cookie("__Host-mks-session").value != before


# --- the second factor


def enrol(person: Any, clock: FrozenClock) -> tuple[str, list[str]]:
    assert person.post("/account/second-factor/begin").status_code == 303
    page = person.get("/account/second-factor").get_data(as_text=True)
    assert 'src="data:image/png;base64,' in page
    secret = re.search(r'id="secret">([^<]+)<', page)[1].replace(" ", "")  # type: ignore[index]
    done = person.post("/account/second-factor/confirm", {"code": totp_code(secret, at=clock.time())})
    assert done.status_code == 200
    assert done.headers["Cache-Control"] == "no-store"
    return secret, re.findall(r"<li><code>([^<]+)</code></li>", done.get_data(as_text=True))


def test_second_factor_from_beginning_to_end(
    visit: Callable[..., Any], browser: Any, clock: FrozenClock
) -> None:
    person, elsewhere = visit("tanaka"), visit("tanaka")
    secret, codes = enrol(person, clock)
    assert len(codes) == 10
    assert elsewhere.api("GET", "/api/auth/me").status_code == 401
    assert person.get("/account").status_code == 200

    assert browser.sign_in("tanaka").headers["Location"] == "/sign-in/code?next=%2Farticles"
    for path in ("/articles", "/account"):
        assert browser.get(path).status_code == 303
    assert browser.api("GET", "/api/knowledge").status_code == 401
    used = totp_code(secret, at=clock.time())
    assert browser.post("/sign-in/code", {"code": used}).status_code == 401
    clock.advance(30)
    code = totp_code(secret, at=clock.time())
    assert (
        browser.post("/sign-in/code", {"code": code, "next": "/articles/1"}).headers["Location"]
        == "/articles/1"
    )
    assert browser.get("/articles/1").status_code == 200

    assert browser.post("/account/second-factor/disable", {"code": code}).status_code == 403
    assert browser.post("/account/second-factor/disable", {"code": codes[0]}).status_code == 303
    assert "未設定" in browser.get("/account").get_data(as_text=True)
    assert browser.sign_in("tanaka").headers["Location"] == "/articles"


def test_recovery_codes_work_once_and_can_be_made_anew(
    visit: Callable[..., Any], browser: Any, clock: FrozenClock
) -> None:
    person = visit("tanaka")
    secret, codes = enrol(person, clock)
    browser.sign_in("tanaka")
    assert browser.post("/sign-in/code", {"code": codes[0].lower()}).status_code == 303
    assert browser.post("/sign-out").status_code == 303
    again = browser.sign_in("tanaka")
    assert again.status_code == 303
    assert browser.post("/sign-in/code", {"code": codes[0]}).status_code == 401
    clock.advance(30)
    page = person.post("/account/second-factor/recovery-codes", {"code": totp_code(secret, at=clock.time())})
    fresh = re.findall(r"<li><code>([^<]+)</code></li>", page.get_data(as_text=True))
    file = re.search(r'href="data:text/plain;charset=utf-8,([^"]+)"', page.get_data(as_text=True))
    assert file is not None
    assert unquote(file[1]).split() == fresh
    assert len(fresh) == 10
    assert not set(fresh) & set(codes)
    assert browser.post("/sign-in/code", {"code": codes[1]}).status_code == 401
    assert browser.post("/sign-in/code", {"code": fresh[0]}).status_code == 303


def test_guessing_codes_ends_in_a_lock(visit: Callable[..., Any], browser: Any, clock: FrozenClock) -> None:
    enrol(visit("tanaka"), clock)
    browser.sign_in("tanaka")
    seen = [browser.post("/sign-in/code", {"code": f"{n:06}"}).status_code for n in range(12)]
    assert set(seen[:4]) == {401}
    assert seen[-1] == 429


def test_between_password_and_code_there_are_five_minutes(
    visit: Callable[..., Any], browser: Any, clock: FrozenClock
) -> None:
    secret, _ = enrol(visit("tanaka"), clock)
    browser.sign_in("tanaka")
    clock.advance(301)
    assert (
        browser.post("/sign-in/code", {"code": totp_code(secret, at=clock.time())}).headers["Location"]
        == "/sign-in"
    )


def test_enrolment_can_be_cancelled_and_wrong_codes_keep_it(
    visit: Callable[..., Any], clock: FrozenClock
) -> None:
    person = visit("tanaka")
    person.post("/account/second-factor/begin")
    page = person.get("/account/second-factor").get_data(as_text=True)
    shown = re.search(r'id="secret">([^<]+)<', page)[1]  # type: ignore[index]
    secret = shown.replace(" ", "")
    for wrong in ("000000", "12345", "abcdef"):
        answer = person.post("/account/second-factor/confirm", {"code": wrong})
        assert answer.status_code == 422
        assert shown in answer.get_data(as_text=True)
    # It survives a reload of this session, is shown in no other one, and does not outlive its ten minutes.
    assert shown in person.get("/account/second-factor").get_data(as_text=True)
    assert "autofocus" not in page
    assert 'id="secret"' not in visit("tanaka").get("/account/second-factor").get_data(as_text=True)
    assert person.post("/account/second-factor/cancel").status_code == 303
    assert 'id="secret"' not in person.get("/account/second-factor").get_data(as_text=True)
    code = totp_code(secret, at=clock.time())
    assert person.post("/account/second-factor/confirm", {"code": code}).status_code == 409


# --- what the library refuses, in our words


@pytest.mark.parametrize(
    ("accept", "language", "kind", "words"),
    [
        ("text/html", "ja", "text/html; charset=utf-8", "操作を確認できません"),
        ("text/html", "en", "text/html; charset=utf-8", "could not be confirmed"),
        ("application/json", "ja", "application/problem+json", "操作を確認できません"),
        ("application/json", "en", "application/problem+json", "could not be confirmed"),
    ],
)
def test_a_forged_form(visit: Callable[..., Any], accept: str, language: str, kind: str, words: str) -> None:
    headers = {"Origin": "https://evil.example", "Accept": accept, "Accept-Language": language}
    answer = visit("tanaka").send("POST", "/articles", data=form(), headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, kind)
    assert words in answer.get_data(as_text=True)
    assert answer.headers.getlist("Content-Type") == [kind]
    assert answer.headers["X-Request-ID"]
    assert "Content-Security-Policy" in answer.headers


def test_an_ended_session_tells_programs_why(visit: Callable[..., Any], app: Any) -> None:
    person = visit("tanaka")
    app.extensions["knowledge"].session_clock.advance(1801)
    answer = person.api("GET", "/api/auth/me")
    assert answer.status_code == 401
    assert answer.json["reason"] == answer.headers["X-Session-Timeout-Reason"] == "idle"
    assert "操作がなかったため" in answer.json["detail"]
    assert "__Host-mks-session=;" in str(answer.headers.getlist("Set-Cookie"))


def test_an_unknown_host(browser: Any) -> None:
    answer = browser.client.get("/sign-in", base_url="https://evil.example", headers={"Accept": "text/html"})
    assert answer.status_code == 400
    assert "リクエストを処理できません" in answer.get_data(as_text=True)
    assert "evil.example" not in answer.get_data(as_text=True)


def test_a_session_store_that_is_away(
    visit: Callable[..., Any], app: Any, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = visit("tanaka")
    store = app.extensions["knowledge"].session_manager._store

    def away(*_: object, **__: object) -> None:
        raise BackendUnavailableError("redis", "refused")

    monkeypatch.setattr(type(store), "load", away)
    assert person.get("/articles").status_code == 200
    app.extensions["knowledge"].session_clock.advance(100)
    page = person.get("/articles")
    assert page.status_code == 503
    assert page.headers["Retry-After"]
    assert "一時的に利用できません" in page.get_data(as_text=True)
    head = person.send("HEAD", "/articles")
    assert (head.status_code, head.get_data()) == (503, b"")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/sign-in", {}, 200),
        ("GET", "/nothing", {}, 404),
        ("HEAD", "/nothing", {}, 404),
        ("GET", "/static/app.css", {}, 200),
        ("POST", "/sign-in", {"Origin": "https://evil.example"}, 403),
        ("GET", "/sign-in", {"Host": "evil.example"}, 400),
        ("HEAD", "/sign-in", {"Host": "evil.example"}, 400),
        ("GET", "/api/auth/me", {"Cookie": "__Host-mks-session=" + "A" * 43}, 401),
        ("GET", "/articles", {"Cookie": "__Host-mks-session=" + "A" * 43, "Accept": "text/html"}, 303),
    ],
)
def test_the_whole_stack_keeps_to_the_rules_of_wsgi(
    app: Any, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    sent = {"Host": "localhost:8443", **headers}
    answer = call_wsgi(app.wsgi_app, path, method=method, headers=sent, scheme="https")
    assert answer.status == status


# --- the rest


def test_pages_of_administrators(visit: Callable[..., Any]) -> None:
    for path in ("/admin/accounts", "/diagnostics", "/diagnostics/records", "/sink", "/sink.json"):
        assert [visit(name).get(path).status_code for name in ("kobayashi", "tanaka", "sato", "ito")] == [
            403,
            403,
            403,
            200,
        ]
    for path in ("/diagnostics/error", "/diagnostics/slow-query", "/diagnostics/clock"):
        assert visit("sato").post(path, {"advance": "5"}).status_code == 403


def test_trouble_pages_exist_in_the_demonstration_only(
    make_app: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    plain = make_app(demo=False)
    person = visit("ito", at=plain)
    for path in ("/diagnostics", "/sink", "/sink.json", "/diagnostics/records"):
        assert person.get(path).status_code == 404
    assert person.post("/diagnostics/error").status_code == 404
    assert DEMO_PASSWORD not in person.get("/sign-in").get_data(as_text=True)


def test_accounts_are_added_by_the_administrator(visit: Callable[..., Any], browser: Any) -> None:
    person = visit("ito")
    account = {
        "username": "okada",
        "display_name": "岡田 守",
        "department": "",
        "role": "writer",
        "password": "tall-crane-4417",
    }
    for change, status in (
        ({"username": "Ok"}, 422),
        ({"role": "root"}, 422),
        ({"password": "short"}, 422),
        ({"password": "passwordpassword"}, 422),
        ({"username": "tanaka"}, 409),
        ({}, 303),
        ({}, 409),
    ):
        assert person.post("/admin/accounts", {**account, **change}).status_code == status, change
    assert browser.sign_in("okada", "tall-crane-4417").status_code == 303


def test_an_unforeseen_error_shows_a_number_and_nothing_else(visit: Callable[..., Any]) -> None:
    answer = visit("ito").post("/diagnostics/error")
    text = answer.get_data(as_text=True)
    assert answer.status_code == 500
    assert "RuntimeError" not in text
    assert "Traceback" not in text
    assert answer.headers["X-Request-ID"] in text


def test_error_pages_speak_japanese_and_english(browser: Any) -> None:
    assert "見つかりません" in browser.get("/nothing").get_data(as_text=True)
    english = browser.send("GET", "/nothing", headers={"Accept-Language": "en"})
    assert "Not found" in english.get_data(as_text=True)
    problem = browser.send("GET", "/nothing", headers={"Accept": "application/json"})
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert problem.json["status"] == 404


def test_static_files_are_versioned_and_pages_run_no_foreign_code(browser: Any) -> None:
    page = browser.get("/sign-in")
    policy = page.headers["Content-Security-Policy"]
    nonce = re.search(r"'nonce-([^']+)'", policy)[1]  # type: ignore[index]
    text = page.get_data(as_text=True)
    assert f'nonce="{nonce}"' in text
    assert "'unsafe-inline'" not in policy
    assert not re.findall(r"\son\w+=|style=", text)
    assert not re.findall(r'(?:src|href)="https?:', text)
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', text):
        assert browser.get(path).status_code == 200


def test_health(browser: Any) -> None:
    assert browser.get("/livez").status_code == 200
    assert browser.get("/readyz").status_code == 200
