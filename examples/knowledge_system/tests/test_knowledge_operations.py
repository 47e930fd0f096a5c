"""How the application does, as administrators see it: what is counted, kept, drawn and shown."""

from __future__ import annotations

import logging
import re
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, func, select, text

import knowledge_system
from knowledge_system.domain import labels
from knowledge_system.domain.svg_plots import Plot, render_svg
from knowledge_system.models import Sample
from knowledge_system.services.operations.limited_clients import LimitedClient
from knowledge_system.services.operations.metric_counts import STEPS, MetricCounts, SlowStatement
from knowledge_system.services.operations.overview import overview, plan_of
from knowledge_system.settings import DEMO_PASSWORD
from mks_hardening.cache import CDNManager
from mks_hardening.db import normalize_sql
from mks_hardening.events import AlertsCounted, CacheRead, RateLimitNear, RequestFinished, TaskQueueSeen
from mks_hardening.testing import FrozenClock
from testbed.http_sink import Answer, HttpSink

NOW = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)


# --- counting, pure -----------------------------------------------------------------------------------


@st.composite
def counted(draw: st.DrawFn) -> MetricCounts:
    counts = MetricCounts()
    for status, duration in draw(st.lists(st.tuples(st.sampled_from([200, 404, 503]), st.floats(0, 20_000)))):
        counts.request(status, duration)
    counts.queue(draw(st.none() | st.integers(0, 9)), draw(st.none() | st.integers(0, 9)))
    counts.cache.update(draw(st.lists(st.sampled_from(["hit", "miss", "stale", "error"]))))
    for key in draw(st.lists(st.sampled_from("abcdefghijklmn"))):
        counts.statement(
            key, statement=SlowStatement.once(f"select {key}", "x.py:1", route="/", duration_ms=5.0)
        )
    return counts


@given(st.lists(counted(), max_size=4))
def test_sums_do_not_depend_on_the_order_and_survive_the_database(each: list[MetricCounts]) -> None:
    total, kept = MetricCounts.total(each), [MetricCounts.from_json(counts.as_json()) for counts in each]
    assert kept == each
    other = MetricCounts.total(reversed(kept))
    assert (total.requests, total.times, total.cache) == (other.requests, other.times, other.cache)
    assert total.requests == sum(total.times)
    looks = [counts.due for counts in each if counts.due is not None]
    assert total.due == other.due == max(looks, default=None)
    assert total.failures <= total.requests
    assert len(total.slow) <= 10
    low, high = total.quantile(0.5), total.quantile(0.95)
    assert (low is None) is (total.requests == 0)
    assert low is None or high is None or (low <= high and {low, high} <= set(STEPS))
    assert total.hit_rate is None or 0 <= total.hit_rate <= 1


@pytest.mark.parametrize("hours", [1, 6, 24])
def test_every_step_of_a_span_is_there_once(hours: int) -> None:
    one = MetricCounts()
    one.request(200, 10)
    at = [NOW, NOW - timedelta(minutes=1), NOW - timedelta(hours=hours, minutes=40)]
    seen = overview([(moment, one) for moment in at], now=NOW, hours=hours, step=timedelta(minutes=10))
    assert len(seen.moments) == len(set(seen.moments)) == hours * 6
    assert seen.moments[-1] == NOW
    assert seen.total.requests == 2, "what is older does not count"


@given(
    st.lists(st.none() | st.floats(0, 1e9), max_size=50),
    st.text(max_size=20).filter(lambda s: re.fullmatch(r"[^\x00-\x1f\ud800-\udfff\ufffe\uffff]*", s)),
    st.booleans(),
)
def test_a_plot_is_an_image_with_words_and_nothing_that_acts(
    values: list[float | None],
    words: str,
    bars: bool,  # noqa: FBT001 - drawn by Hypothesis
) -> None:
    svg = render_svg(Plot("x", words, words, values, "9:00", "10:00", bars=bars))
    root = ET.fromstring(svg)  # noqa: S314 - our own
    names = {each.tag for each in root.iter()}
    assert names <= {"svg", "title", "desc", "path", "text"}
    attributes = {name for each in root.iter() for name in each.attrib}
    assert not {name for name in attributes if name.startswith("on") or name in {"style", "href"}}
    assert root.attrib["role"] == "img"
    result = [root.find(name) for name in ("title", "desc")]
    assert root.attrib["aria-labelledby"].split() == [
        each.attrib["id"] for each in result if each is not None
    ]
    assert "nan" not in svg
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", svg)]
    assert all(0 <= y <= 96 for y in heights)


# --- kept together ------------------------------------------------------------------------------------


def written(app: Any) -> int:
    with app.extensions["knowledge"].sessions() as session:
        return session.scalar(select(func.count()).select_from(Sample)) or 0


def test_processes_are_shown_together_and_a_day_is_kept(app: Any, clock: FrozenClock) -> None:
    samples, sessions = app.extensions["knowledge"].samples, app.extensions["knowledge"].sessions
    samples.observe(RequestFinished("GET", "/articles", 200, 12.0, "ok"))
    samples.observe(RequestFinished("GET", "/readyz", 200, 1.0, "ok"))
    samples.observe(CacheRead("articles", "hit"))
    samples.observe(AlertsCounted("email", "delivered", 2))
    samples.observe(RateLimitNear("search", "minute", 24, 30, "user:1"))
    samples.write()
    samples.write()
    with sessions.begin() as session:
        mine = session.scalars(select(Sample)).one()
        session.add(Sample(at=mine.at, process="other:1", counts=mine.counts))
        session.add(Sample(at=mine.at - timedelta(hours=25), process="other:2", counts=mine.counts))
    total = MetricCounts.total(counts for _, counts in samples.read(last=timedelta(hours=1)))
    assert (total.requests, total.cache["hit"], total.alerts["email delivered"]) == (2, 2, 4)
    assert total.near == {"search": 2}
    assert [LimitedClient.from_text(text) for text in total.whose] == [LimitedClient("search", "1", "")]
    former = {name: value for name, value in total.as_json().items() if name != "whose"}
    assert MetricCounts.from_json(former).near == total.near, "as the release before wrote them"
    assert written(app) == 3
    clock.advance(60)
    samples.write()
    assert written(app) == 2, "the one of the day before is gone"


def test_minutes_wait_while_the_database_is_away(
    app: Any, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    parts = app.extensions["knowledge"]

    def refuse(_cursor: Any, statement: str, *_: Any) -> None:
        if "samples" in statement:
            raise sqlite3.OperationalError("database or disk is full")

    event.listen(parts.engine, "do_execute", refuse)
    for _ in range(200):
        parts.samples.observe(RequestFinished("GET", "/articles", 200, 12.0, "ok"))
        parts.samples.write()
        clock.advance(60)
    event.remove(parts.engine, "do_execute", refuse)
    parts.samples.write()
    assert written(app) == 120, "and memory is bounded"
    assert "wait for the database" in caplog.text


# --- shown --------------------------------------------------------------------------------------------


def test_slow_statements_are_summed_and_shown_with_their_routes(
    make_app: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    app = make_app()
    samples = app.extensions["knowledge"].samples
    record = {"fingerprint": "f" * 16, "statement": "select slow", "caller": "here.py:1"}
    logger = logging.getLogger("mks_hardening.db")
    with samples.watching(), app.test_request_context("/articles/7"):
        for duration in (*[120.0] * 19, 1900.0):
            samples.emit(
                logger.makeRecord(
                    "mks_hardening.db", 30, "", 0, "", (), None, None, record | {"duration_ms": duration}
                )
            )
    samples.emit(
        logger.makeRecord("mks_hardening.db", 30, "", 0, "", (), None, None, record | {"duration_ms": 120.0})
    )
    page = visit("ito", at=app).get("/admin/operations").get_data(as_text=True)
    assert "合計 4.3 秒、21 回、p95 150 ms、最長 1900 ms" in page
    assert "/articles/&lt;int:article_id&gt; (20)" in page
    assert "バックグラウンド処理 (1)" in page


def test_a_statement_of_the_release_before_is_read() -> None:
    kept = MetricCounts().as_json() | {"slow": {"f": [3, 250.0, "select 1", "x.py:1"]}}
    total = MetricCounts.total([MetricCounts.from_json(kept), MetricCounts.from_json(kept)])
    (statement,) = total.slow.values()
    assert (statement.calls, statement.longest_ms, statement.p95_ms) == (6, 250.0, None)
    assert MetricCounts.from_json(total.as_json()) == total


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_slow_statement_is_shown_with_its_plan(
    make_app: Callable[..., Any], request: pytest.FixtureRequest, database: str
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else ""
    engine = (make_app(database_url=url) if url else make_app()).extensions["knowledge"].engine
    asked = "SELECT a.title FROM articles a WHERE a.status = 'x' AND a.id IN (1, 2) ORDER BY a.title LIMIT 5"
    plan = plan_of(engine, normalize_sql(asked, dialect=database)) or ""
    assert "articles" in plan or "SEARCH a" in plan, plan
    for hostile in (
        "drop table articles",
        "select 1; delete from articles",
        "vacuum",
        "select ? from nowhere",
    ):
        assert plan_of(engine, hostile) is None
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM articles"))


@pytest.mark.parametrize(
    ("group", "key", "user", "client"),
    [
        ("search", "user:12", "12", ""),
        ("api_open", "client:192.0.2.1", "", "192.0.2.1"),
        ("auth_login", "192.0.2.1 my-password", "", "192.0.2.1"),
        ("auth_login", "2001:db8::/64 12", "", "2001:db8::/64"),
        ("auth_login_network", "192.0.2.0/24", "", "192.0.2.0/24"),
        ("auth_login_account", "user 12", "12", ""),
        ("auth_login_account", "name my-password", "", ""),
        ("auth_login_account", "name user 12", "", ""),
        ("auth_2fa_verify", "192.0.2.1 12", "12", "192.0.2.1"),
        ("auth_login_device", "session secret", "", ""),
        ("auth_login", "unknown x", "", ""),
        ("search", "", "", ""),
    ],
)
def test_whose_hits_they_are_and_never_what_was_typed(group: str, key: str, user: str, client: str) -> None:
    found = LimitedClient.of(group, key)
    assert found == (group, user, client)
    assert LimitedClient.from_text(found.text) == found


def test_too_many_clients_of_a_minute_are_not_all_kept() -> None:
    counts = MetricCounts()
    for number in range(200):
        counts.came_near(LimitedClient.of("search", f"client:192.0.2.{number}"))
    counts.came_near(LimitedClient.of("search", "client:192.0.2.0"))
    assert counts.near["search"] == 201
    assert (len(counts.whose), counts.whose["search\t\t192.0.2.0"]) == (50, 2)


def test_administrators_see_who_came_close_to_a_limit_and_unlock(
    app: Any, visit: Callable[..., Any], browser: Any
) -> None:
    for _ in range(4):
        browser.sign_in("tanaka", "guess")
    app.extensions["knowledge"].samples.observe(RateLimitNear("auth_login_account", "hour", 40, 50, "user 1"))
    administrator = visit("ito")
    page = administrator.get("/admin/operations").get_data(as_text=True)
    assert "<td>サインイン</td><td>–</td><td><code>127.0.0.1</code></td><td>1</td>" in page
    link = "/admin/accounts?owner=tanaka#unlock"
    assert f'<a href="/admin/accounts/tanaka">tanaka</a> (<a href="{link}">' in page
    form = administrator.get(link.partition("#")[0]).get_data(as_text=True)
    assert re.search(r'<input[^>]* name="owner"[^>]* value="tanaka"', form)


def test_every_limit_and_every_action_has_a_label(app: Any) -> None:
    assert labels.LIMITS.keys() == app.extensions["knowledge"].limiter.groups.keys()
    package = Path(knowledge_system.__file__).parent
    source = "".join(file.read_text(encoding="utf-8") for file in package.rglob("*.py"))
    actions = re.findall(
        r'Fact\(\s*"([a-z-]+\.[a-z-]+)"|note\("([a-z.-]+)"|: "((?:sign-in|account|factor)\.[a-z-]+)"', source
    )
    found = {one for names in actions for one in names if one}
    assert len(found) > 25
    assert found <= labels.ACTIONS.keys()


def test_sessions_and_the_queue_are_shown_over_time(app: Any, visit: Callable[..., Any]) -> None:
    samples = app.extensions["knowledge"].samples
    for due, dead in ((3, 1), (7, 2), (0, 2)):
        samples.observe(TaskQueueSeen(due=due, oldest_due=1.0, running=0, dead=dead, stalled=False))
    visit("tanaka")
    page = visit("ito").get("/admin/operations", **{"Accept-Language": "en"}).get_data(as_text=True)
    for title, number in (("Sessions started", 2), ("Tasks due", 7), ("Tasks failed permanently", 2)):
        (result,) = re.findall(rf"<h2>{title}</h2>.*?<p class=\"hint\">([^<]*)</p>", page, re.DOTALL)
        assert result == f"newest {number}, largest {number}"


def test_the_page_shows_what_happened(
    app: Any, visit: Callable[..., Any], clock: FrozenClock, tmp_path: Path
) -> None:
    parts = app.extensions["knowledge"]
    (tmp_path / "backups" / "20261124").mkdir(parents=True)
    (tmp_path / "backups" / "20261124" / "complete").touch()
    settings = replace(parts.settings, backups=tmp_path / "backups")
    app.extensions["knowledge"] = replace(parts, settings=settings)
    person, administrator = visit("tanaka"), visit("ito")
    for _ in range(3):
        person.get("/articles")
    type(person)(app).sign_in("tanaka", "guess")
    administrator.post("/diagnostics/slow-query")
    for hours in ("", "?hours=1", "?hours=6", "?hours=24"):
        page = administrator.get(f"/admin/operations{hours}")
        assert page.status_code == 200
    words = page.get_data(as_text=True)
    assert words.count('<svg class="plot"') == 12
    assert words.count("<title id=") == 12
    assert " style=" not in words
    assert "with recursive counter" in words
    assert "SCAN counter" in words, "its plan"
    assert "バックアップ" in words
    assert administrator.get("/admin/operations?hours=2").status_code == 422
    assert person.get("/admin/operations").status_code == 403
    english = administrator.get("/admin/operations", **{"Accept-Language": "en"}).get_data(as_text=True)
    assert "Cache hit rate" in english


def test_an_administrator_ends_sessions_of_somebody(
    app: Any, visit: Callable[..., Any], browser: Any, clock: FrozenClock
) -> None:
    first, second, administrator = visit("tanaka"), visit("tanaka"), visit("ito")
    asked = {"username": "tanaka", "password": DEMO_PASSWORD, "tokens": True}
    token = browser.api("POST", "/api/auth/login", asked).json["access_token"]
    page = administrator.get("/admin/accounts/tanaka").get_data(as_text=True)
    keys = re.findall(r'name="session" value="([^"]+)"', page)
    assert len(keys) == 2
    assert "サインイン中のプログラム: 1" in page
    address = "/admin/accounts/tanaka/sessions/end"
    assert first.post(address, {"session": keys[0]}).status_code == 403
    assert administrator.post(address, {"session": keys[0]}).status_code == 303
    clock.advance(60)
    assert sorted(each.get("/articles").status_code for each in (first, second)) == [200, 303]
    assert administrator.post(address, {"session": keys[0]}).status_code == 404
    assert administrator.post("/admin/accounts/sato/sessions/end", {"session": keys[1]}).status_code == 404
    assert administrator.post("/admin/accounts/nobody/sessions/end").status_code == 404
    assert administrator.post(address).status_code == 303
    clock.advance(60)
    assert [each.get("/articles").status_code for each in (first, second)] == [303, 303]
    assert browser.api("GET", "/api/auth/me", Authorization=f"Bearer {token}").status_code == 401
    assert administrator.get("/admin/audit?q=session.end").get_data(as_text=True).count("session.end") >= 1


def test_cache_figures_and_emptying_the_cache_from_a_page(app: Any, visit: Callable[..., Any]) -> None:
    admin = visit("ito")
    seen = [admin.get("/articles").headers["X-Cache"] for _ in range(2)]
    page = admin.get("/admin/cache").get_data(as_text=True)
    tiles = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", page))
    assert int(tiles["的中"]) >= 1
    assert re.fullmatch(r"\d+ %", tiles["キャッシュの的中率"])
    assert admin.post("/admin/cache/empty", {}).headers["Location"] == "/admin/cache?done=cache-emptied"
    assert [*seen, admin.get("/articles").headers["X-Cache"]] == ["miss", "hit", "miss"]
    assert "CDN は設定されていません。" in page
    assert admin.post("/admin/cache/cdn", {"everything": "on"}).status_code == 409
    assert visit("sato").get("/admin/cache").status_code == 403


def test_the_cdn_is_purged_from_a_page(app: Any, visit: Callable[..., Any], http_sink: HttpSink) -> None:
    admin = visit("ito")
    with CDNManager("a" * 32, api_token="cdn-token", base_url=http_sink.url, sleep=lambda _: None) as cdn:
        app.extensions["knowledge"] = replace(app.extensions["knowledge"], cdn=cdn)
        admin.get("/admin/cache")
        http_sink.answer(Answer(body={"success": True}))
        urls = ["https://localhost:8443/a", "https://localhost:8443/b"]
        purged = admin.post("/admin/cache/cdn", {"urls": "\r\n".join(urls), "tags": "", "everything": ""})
        assert purged.headers["Location"] == "/admin/cache?done=cdn-purged"
        assert http_sink.wait_for()[0].json() == {"files": urls}
        http_sink.answer(Answer(403, body={"success": False, "errors": [{"code": 9109, "message": "no"}]}))
        refused = admin.post("/admin/cache/cdn", {"urls": "", "tags": "list", "everything": ""})
        assert refused.status_code == 409
        assert "<li><code>list</code></li>" in refused.get_data(as_text=True)
        for wrong in ({"everything": "on", "tags": "a"}, {}, {"urls": "ftp://x"}):
            assert admin.post("/admin/cache/cdn", wrong).status_code == 422
    assert "CDN から削除" in admin.get("/admin/audit").get_data(as_text=True)
