"""Pages from a read replica: a real primary and its standby, which lags, stops, freezes or is promoted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, text

from knowledge_system import app as application
from knowledge_system.models import Article, Group, GroupMember, Reader
from knowledge_system.services.operations.metric_counts import MetricCounts
from knowledge_system.settings import AppSettings
from mks_hardening.exceptions import SettingsError
from testbed.pgbouncer_server import PgBouncer
from testbed.polling import wait_until
from testbed.postgres_server import PostgresStandby

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ON_REPLICA = text("SELECT pg_is_in_recovery()")
UNCACHED = frozenset({"wsgi", "security", "db", "tasks"})
ARTICLE = 3  # an English title below: "q=replica" finds it in no other article
PATHS = ("/", "/articles", "/articles?q=replica", f"/articles/{ARTICLE}", f"/api/knowledge/{ARTICLE}")
# One connection for each engine: a page that held one while it asked for another would fail.
NARROW = {"MKS_DB_MAX_CONNECTIONS": "5"}


@pytest.fixture
def standby(postgres_url: str, make_standby: Callable[[], PostgresStandby]) -> PostgresStandby:
    del postgres_url  # its database is in the copy
    return make_standby()


@pytest.fixture
def make_site(
    make_app: Callable[..., Any],
    postgres_url: str,
    postgres_database: str,
    standby: PostgresStandby,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """The application with the standby as its replica; one that failed is asked again soon."""
    monkeypatch.setattr(application, "_REPLICA_RETRY", 0.05)
    own = {"database_replica_urls": (standby.url(postgres_database),)}
    return lambda **options: make_app(
        **{"database_url": postgres_url, "own": own, "areas": UNCACHED, **NARROW, **options}
    )


def served(site: Any) -> Counter[str]:
    """Where reads of pages went until now."""
    samples = site.extensions["knowledge"].samples
    samples.write()
    return MetricCounts.total(counts for _, counts in samples.read(last=timedelta(hours=1))).reads


def page(person: Any, path: str) -> str:
    answer = person.api("GET", path) if path.startswith("/api/") else person.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return str(answer.get_data(as_text=True))


def from_replica(site: Any, person: Any, path: str) -> bool:
    """Whether a replica serves all reads of a page."""
    before = served(site)
    page(person, path)
    return set(served(site) - before) == {"replica"}


def rename(site: Any, title: str) -> None:
    """Change an article as another process would, with its search index."""
    services = site.extensions["knowledge"]
    with services.sessions.begin() as session:
        session.get_one(Article, ARTICLE).title = title
        services.search.index(session, ARTICLE, title=title, body="本文")


def test_pages_are_read_from_the_replica(
    make_pgbouncer: Callable[..., PgBouncer],  # first, to be stopped after its clients
    make_site: Callable[..., Any],
    visit: Callable[..., Any],
    postgres_url: str,
) -> None:
    site = make_site()
    reader = visit("kobayashi", at=site)
    for path in (*PATHS, "/articles?author=sato", "/api/titles?q=足場", "/sites", "/articles?node=1"):
        wait_until(lambda path=path: from_replica(site, reader, path), what=f"{path} from the replica")
    assert served(site)["repeated"] == 0
    figures = visit("ito", at=site).get("/admin/operations?hours=1").get_data(as_text=True)
    assert "レプリカからの読み取り" in figures
    # The same with the primary behind a pooler in transaction mode.
    pooled = make_pgbouncer().through(postgres_url)
    site = make_site(database_url=pooled, MKS_DB_TRANSACTION_POOLING="1", is_filled=True)
    writer = visit("sato", at=site)
    rename(site, "プーラー経由の題名 replica")
    for path in PATHS[2:]:
        assert "プーラー経由の題名" in page(writer, path)
        wait_until(lambda path=path: from_replica(site, writer, path), what=f"{path} from the replica")
    assert served(site)["repeated"] == 0


def test_what_was_just_saved_is_shown_by_the_next_page_while_the_replica_lags(
    make_site: Callable[..., Any], visit: Callable[..., Any], standby: PostgresStandby, postgres_database: str
) -> None:
    """To the writer and to everybody else, from the cache and from a replica that catches up later."""
    site = make_site(areas=UNCACHED | {"cache"}, four_eyes=False)
    writer, reader = visit("sato", at=site), visit("kobayashi", at=site)
    for path in PATHS:
        page(reader, path)
    wait_until(lambda: served(site)["replica"], what="reads from the replica")
    standby.pause_replay()
    before, old = served(site), standby.execute("SELECT title FROM articles", database=postgres_database)
    for title in ("新しい題名 replica", "さらに新しい replica"):
        revision = reader.api("GET", f"/api/knowledge/{ARTICLE}").json["revision"]
        body = {"title": title, "category": "土工", "summary": "", "body": "本文", "tags": [], "site": ""}
        sent = {**body, "status": "published", "revision": revision}
        changed = writer.api("PUT", f"/api/knowledge/{ARTICLE}", sent, **{"X-CSRF-Token": writer.token})
        assert changed.status_code == 200, changed.get_data(as_text=True)
        for person in (writer, reader):
            for path in PATHS[1:]:
                assert title.partition(" ")[0] in page(person, path), path
    assert standby.execute("SELECT title FROM articles", database=postgres_database) == old
    assert set(served(site) - before) == {"primary"}
    standby.resume_replay()
    wait_until(lambda: from_replica(site, reader, "/"), what="the replica to catch up")


def test_what_was_taken_away_is_not_read_from_a_replica_that_lags(
    make_site: Callable[..., Any], visit: Callable[..., Any], standby: PostgresStandby, postgres_database: str
) -> None:
    """An article is restricted to a group, and a person leaves the group; the replica has replayed neither."""
    site = make_site()
    rename(site, "秘密の手順 replica")
    member, outsider = visit("kobayashi", at=site), visit("yamamoto", at=site)
    sessions = site.extensions["knowledge"].sessions
    with sessions() as session:
        ids = dict(session.execute(text("SELECT username, id FROM users")).all())

    def sees(person: Any) -> set[str]:
        shown = {path: person.api("GET", path) if "/api" in path else person.get(path) for path in PATHS}
        return {path for path, answer in shown.items() if "秘密の手順" in answer.get_data(as_text=True)}

    for person in (member, outsider):
        wait_until(lambda who=person: from_replica(site, who, "/"), what="reads from the replica")
        assert sees(person) >= set(PATHS[2:])
    standby.pause_replay()
    with sessions.begin() as session:
        group = Group(name="限られた人")
        session.add(group)
        session.flush()
        session.add(Reader(article_id=ARTICLE, group_id=group.id))
        session.add(GroupMember(group_id=group.id, user_id=ids["kobayashi"]))
    assert sees(outsider) == set()
    assert sees(member) >= set(PATHS[2:])
    with sessions.begin() as session:
        session.execute(delete(GroupMember).where(GroupMember.user_id == ids["kobayashi"]))
    assert sees(member) == set()
    assert standby.execute("SELECT count(*) FROM readers", database=postgres_database) == [(0,)]
    # An account out of use does not even reach the pages: accounts are never read from a replica.
    with sessions.begin() as session:
        session.execute(text("UPDATE users SET active = false WHERE username = 'yamamoto'"))
    assert outsider.get("/articles").status_code == 303
    assert outsider.sign_in("yamamoto").status_code != 303


def test_a_replica_that_fails_costs_no_page(
    make_site: Callable[..., Any], visit: Callable[..., Any], standby: PostgresStandby
) -> None:
    site = make_site()
    reader, reads = visit("kobayashi", at=site), site.extensions["knowledge"].page_reads
    asked = list[bool]()

    def wait_for_replica() -> None:
        wait_until(lambda: from_replica(site, reader, "/"), what="reads from the replica")

    def show_without_replica(title: str) -> None:
        before = served(site)
        rename(site, f"{title} replica")
        for path in PATHS[2:]:
            assert title in page(reader, path)
        assert (served(site) - before)["replica"] == 0
        assert visit("tanaka", at=site).get("/account").status_code == 200

    def read(session: Session) -> bool:
        """Stop the replica in the middle of a read."""
        asked.append(session.scalar(ON_REPLICA) is True)
        if asked[-1]:
            standby.kill()
            session.scalar(ON_REPLICA)
        return asked[-1]

    wait_for_replica()
    standby.freeze()
    show_without_replica("応答のない間の題名")
    standby.resume()
    wait_for_replica()
    wait_until(lambda: not reads.run(read) and True in asked, what="a read on the replica")
    assert asked[-2:] == [True, False]
    assert served(site)["repeated"] == 1
    show_without_replica("停止中の題名")
    standby.start()
    wait_for_replica()
    standby.promote()
    wait_until(lambda: standby.execute(str(ON_REPLICA)) == [(False,)], what="the promotion")
    show_without_replica("昇格後の題名")


GOOD = {
    "DATABASE_URL": "postgresql+psycopg://app@primary/app",
    "MKS_DATABASE_REPLICA_URLS": "postgresql+psycopg://app@/app?host=a,b&port=1,2 postgresql://app@c/app",
    "MKS_ALLOWED_HOSTS": "localhost",
    "MKS_AREAS_OFF": "security",
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"MKS_DATABASE_REPLICA_URLS": "sqlite:///secret.db"}, "MKS_DATABASE_REPLICA_URLS must be URLs like"),
        ({"DATABASE_URL": "sqlite:///secret.db"}, "MKS_DATABASE_REPLICA_URLS needs PostgreSQL"),
        ({"MKS_AREAS_OFF": "security,db"}, "and the area db"),
    ],
)
def test_urls_of_something_else_are_refused(change: dict[str, str], told: str) -> None:
    assert len(AppSettings.from_env(GOOD).database_replica_urls) == 2
    with pytest.raises(SettingsError, match=told) as caught:
        AppSettings.from_env({**GOOD, **change})
    assert "secret" not in str(caught.value)
