"""What fails while the application is in use, against what people and programs ask: a table of answers.

Each fault is met by every call below. What is promised: a failure of ours is 503 with ``Retry-After``, never 500;
a write that was answered is there afterwards, once, and one that was refused is not; an outage is told by a few
records and not by each request; and when the fault is over every call works again, without anybody's help. A mail
that goes with what was written goes out once, and an alert that was taken is delivered or in the spool.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import event, func, select

from knowledge_system.app import PURGE_SECONDS
from knowledge_system.background import mail_texts
from knowledge_system.models import Article, Comment, tasks
from knowledge_system.settings import AREAS, DEMO_PASSWORD
from mks_hardening.cache import CDNManager
from mks_hardening.notify import AlertPolicy, SlackNotificationHandler
from mks_hardening.tasks import TaskWorker
from mks_hardening.testing import FrozenClock
from testbed.fault_proxy import FaultProxy
from testbed.http_sink import Answer, HttpSink
from testbed.polling import wait_until
from testbed.smtp_server import SmtpServer

FORM = {
    "title": "障害中の記事",
    "category": "土工",
    "summary": "",
    "body": "x",
    "tags": "",
    "status": "draft",
}
ARTICLE = {"title": "障害中の記事", "category": "土工", "body": "x", "tags": []}
_WRITES = ("INSERT", "UPDATE", "DELETE")
_log = logging.getLogger("knowledge_system.faults")


@dataclass
class Away:
    """Servers that nobody needs for an answer, and the breakable wires that lead to them.

    Attributes:
        smtp: takes mail.
        mail: the wire to it.
        sink: Slack, and the interface of the CDN.
        slack: the wire to the one, and
        cdn: the wire to the other.
        spool: folder of alerts that could not be delivered.
    """

    smtp: SmtpServer
    mail: FaultProxy
    sink: HttpSink
    slack: FaultProxy
    cdn: FaultProxy
    spool: Path


class Site:
    """The application with everybody who asks."""

    def __init__(
        self, app: Any, new_browser: Callable[[Any], Any], redis: Any, clock: FrozenClock, away: Away
    ) -> None:
        self.app, self.parts, self.redis, self.clock = app, app.extensions["knowledge"], redis, clock
        self.away = away
        self._new_browser = new_browser
        self.stranger = new_browser(app)
        self.worker = TaskWorker(self.parts.background.tasks, schedule=False)
        self.expected = (0, 0)
        self.sign_in()

    def _visit(self, name: str) -> Any:
        """Somebody signed in; where the machine is late, a first answer may be 503: a budget was used up."""
        person = self._new_browser(self.app)
        wait_until(lambda: person.sign_in(name).status_code == 303, what="signing in")
        return person

    def sign_in(self) -> None:
        self.person, self.administrator = self._visit("sato"), self._visit("ito")
        for person in (self.person, self.administrator):
            person.get("/account")
        self.stranger.get("/sign-in")
        asked = {"username": "tanaka", "password": DEMO_PASSWORD, "tokens": True}
        self.tokens = self.stranger.api("POST", "/api/auth/login", asked).json

    def program(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        signed = {"Authorization": f"Bearer {self.tokens['access_token']}", **headers}
        return self.stranger.api(method, path, body, **signed)

    def written(self) -> tuple[int, int]:
        with self.parts.sessions() as session:
            return (
                session.scalar(select(func.count(Article.id))) or 0,
                session.scalar(select(func.count(Comment.id))) or 0,
            )

    def mails(self) -> tuple[int, int]:
        """How many were to be sent, and how many came; what waited for its next try goes out."""
        self.worker.run_pending()
        with self.parts.sessions() as session:
            asked = session.scalar(select(func.count()).select_from(tasks).where(tasks.c.name == "mks.mail"))
        return asked or 0, len(self.away.smtp.received)

    def alone_with_cdn(self, **options: Any) -> Any:
        """The same parts with a CDN whose waits move the clock."""
        cdn = CDNManager(
            "a" * 32,
            api_token="cdn-token",
            base_url=f"http://127.0.0.1:{self.away.cdn.port}",
            sleep=self.clock.advance,
            clock=self.clock,
            **options,
        )
        return replace(self.parts, cdn=cdn)

    def whole(self) -> bool:
        return bool(self.parts.cache.ping() and self.parts.session_store.ping())


def _renew(site: Site) -> Any:
    answer = site.stranger.api(
        "POST", "/api/auth/token/refresh", {"refresh_token": site.tokens["refresh_token"]}
    )
    if answer.status_code == 200:
        site.tokens = answer.json
    return answer


class Call(NamedTuple):
    """Something that is asked, how it is answered on a good day, and what it writes: articles, comments."""

    send: Callable[[Site], Any]
    good: int
    writes: tuple[int, int] = (0, 0)


CALLS = {
    "list": Call(lambda site: site.person.get("/articles"), 200),
    "article": Call(lambda site: site.person.get("/articles/1"), 200),
    "search": Call(lambda site: site.person.get("/articles?q=養生"), 200),
    "account": Call(lambda site: site.person.get("/account"), 200),
    "remark": Call(lambda site: site.person.post("/articles/2/comments", {"body": "x"}), 303, (0, 1)),
    "write": Call(lambda site: site.person.post("/articles", FORM), 303, (1, 0)),
    "sign-in page": Call(lambda site: site.stranger.get("/sign-in"), 200),
    "sign in": Call(lambda site: type(site.stranger)(site.app).sign_in("suzuki"), 303),
    "wrong password": Call(lambda site: site.stranger.sign_in(f"guess{site.clock.time()}", "x"), 401),
    "accounts": Call(lambda site: site.administrator.get("/admin/accounts"), 200),
    "audit": Call(lambda site: site.administrator.get("/admin/audit?verify=1"), 200),
    "tasks": Call(lambda site: site.administrator.get("/admin/tasks"), 200),
    "purge": Call(
        lambda site: site.administrator.api("POST", "/api/admin/cdn/purge", {"everything": True}), 200
    ),
    "api list": Call(lambda site: site.program("GET", "/api/knowledge"), 200),
    "api article": Call(lambda site: site.program("GET", "/api/knowledge/1"), 200),
    "api me": Call(lambda site: site.program("GET", "/api/auth/me"), 200),
    "api write": Call(lambda site: site.program("POST", "/api/knowledge", ARTICLE), 201, (1, 0)),
    "api renew": Call(_renew, 200),
    "static": Call(lambda site: site.stranger.get("/static/app.css"), 200),
    "alive": Call(lambda site: site.stranger.get("/livez"), 200),
    "ready": Call(lambda site: site.stranger.get("/readyz"), 200),
}


# --- the faults --------------------------------------------------------------------------------------


@contextmanager
def no_database(site: Site) -> Iterator[None]:
    """It cannot be connected to."""

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    event.listen(site.parts.engine, "do_connect", refuse)
    site.parts.engine.dispose()
    yield
    event.remove(site.parts.engine, "do_connect", refuse)


@contextmanager
def _no_writes(site: Site, message: str) -> Iterator[None]:
    def refuse(_cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(_WRITES):
            raise sqlite3.OperationalError(message)

    event.listen(site.parts.engine, "do_execute", refuse)
    yield
    event.remove(site.parts.engine, "do_execute", refuse)


def full_disk(site: Site) -> Any:
    """The database can be read only: no space is left."""
    return _no_writes(site, "database or disk is full")


def locked_database(site: Site) -> Any:
    """Somebody else holds the lock for longer than one waits."""
    return _no_writes(site, "database is locked")


@contextmanager
def hanging_redis(site: Site) -> Iterator[None]:
    """It takes connections and answers nothing."""
    site.redis.pause()
    yield
    site.redis.resume()


@contextmanager
def lost_redis(site: Site) -> Iterator[None]:
    """It is gone, and comes back empty: everybody signs in again."""
    site.redis.kill()
    yield
    site.redis.restart()
    wait_until(site.whole, what="Redis")
    site.sign_in()


@contextmanager
def full_redis(site: Site) -> Iterator[None]:
    """No memory is left, and nothing may be thrown out."""
    client = site.redis.client()
    client.config_set("maxmemory", "1")
    yield
    client.config_set("maxmemory", "0")


@contextmanager
def demoted_redis(site: Site) -> Iterator[None]:
    """It became a replica, which takes no writes."""
    client = site.redis.client()
    client.replicaof("127.0.0.1", "1")
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def damaged_cache(site: Site) -> Iterator[None]:
    """What it holds of articles is something else, of whatever kind."""
    client = site.redis.client()
    for number, key in enumerate(client.scan_iter("mks:[vt]:*")):
        client.delete(key)
        if number % 2:
            client.set(key, b"\x80\x04damaged")
        else:
            client.rpush(key, "damaged")
    yield


@contextmanager
def damaged_limits(site: Site) -> Iterator[None]:
    """What it has counted is something else."""
    client = site.redis.client()
    for key in client.scan_iter("mks:limit:*"):
        client.delete(key)
        client.set(key, b"\x80\x04damaged")
    yield


@contextmanager
def damaged_sessions(site: Site) -> Iterator[None]:
    """What it knows of sessions is something else: everybody signs in again."""
    client = site.redis.client()
    for number, key in enumerate(client.scan_iter("*sessions*:s:*")):
        if number % 2:
            for name in client.hkeys(key):
                client.hset(key, name, b"\x80\x04damaged")
        else:
            client.delete(key)
            client.set(key, "damaged")
    yield
    site.sign_in()


@contextmanager
def clock_set_back(site: Site) -> Iterator[None]:
    """The wall clock of the host is set back by an hour."""
    site.clock.step_wall(-3600)
    yield
    site.clock.step_wall(3600)


@contextmanager
def clock_set_forward(site: Site) -> Iterator[None]:
    """It is set a day ahead, and stays there: everybody signs in again."""
    site.clock.step_wall(86_400)
    yield
    site.sign_in()


@contextmanager
def refused_mail(site: Site) -> Iterator[None]:
    """The mail server takes no connections: what was to be sent waits."""
    site.away.mail.refuse()
    yield
    before = len(site.away.smtp.received)
    assert set(site.worker.run_pending()) == {"retried"}
    assert len(site.away.smtp.received) == before
    site.away.mail.heal()


@contextmanager
def hanging_mail(site: Site) -> Iterator[None]:
    """It takes connections and says nothing: a task waits for that, and no request goes there."""
    wire, background = site.away.mail, site.parts.background
    wire.mode, before = "black_hole", site.away.mail.connections
    with site.parts.sessions.begin() as session:
        background.send_mail(session, 1, mail_texts.overdue(["x"], link="https://localhost:8443/overdue"))
    waiting = threading.Thread(target=site.worker.run_pending, kwargs={"most": 1})
    waiting.start()
    wait_until(lambda: wire.connections > before, what="the task at the mail server")
    yield
    assert wire.connections == before + 1
    wire.heal()
    waiting.join(30)


@contextmanager
def _alerts(site: Site) -> Iterator[SlackNotificationHandler]:
    """Errors of the application as alerts in Slack; each one is delivered, or in the spool until it is."""
    sink, log = site.away.sink, logging.getLogger("knowledge_system")
    url = f"http://127.0.0.1:{site.away.slack.port}/services/x"
    policy = AlertPolicy(dedup_window=0, retries=1, backoff=0.01, rate=1000)
    with SlackNotificationHandler(url, policy=policy, spool=site.away.spool) as handler:
        log.addHandler(handler)
        try:
            yield handler
            _log.error("alert after the outage")
            wait_until(
                lambda: all(any(word in text for text in _texts(sink)) for word in _WORDS), what="alerts"
            )
        finally:
            log.removeHandler(handler)
    assert (handler.stats().dropped, handler.stats().errors) == (0, 0)
    assert list(site.away.spool.iterdir()) == []


_WORDS = ("first alert", "second alert", "alert after the outage")


def _texts(sink: HttpSink) -> list[str]:
    return [request.body.decode() for request in tuple(sink.requests)]


@contextmanager
def refused_slack(site: Site) -> Iterator[None]:
    """Slack takes no connections: alerts go into the spool."""
    with _alerts(site) as handler:
        site.away.slack.refuse()
        _log.error(_WORDS[0])
        _log.error(_WORDS[1])
        yield
        wait_until(lambda: handler.stats().spooled == 2, what="the spool")
        site.away.slack.heal()


@contextmanager
def hanging_slack(site: Site) -> Iterator[None]:
    """It takes connections and says nothing: one thread waits for that, and no request."""
    with _alerts(site) as handler:
        site.away.slack.mode, before = "black_hole", site.away.slack.connections
        _log.error(_WORDS[0])
        _log.error(_WORDS[1])
        wait_until(lambda: site.away.slack.connections > before, what="the alert at Slack")
        yield
        assert handler.stats().delivered == 0
        site.away.slack.heal()


@contextmanager
def _no_cdn(site: Site, parts: Any) -> Iterator[None]:
    good, began = site.app.extensions["knowledge"], site.clock.monotonic()
    site.app.extensions["knowledge"] = parts
    yield
    # Each call moves the clock by a second, and waiting between the tries of the purge by what the budget allows.
    assert site.clock.monotonic() - began <= len(CALLS) + PURGE_SECONDS
    site.app.extensions["knowledge"] = good
    parts.cdn.close()
    site.away.cdn.heal()


def refused_cdn(site: Site) -> Any:
    """The interface of the CDN takes no connections: who purges hears that nothing was purged."""
    site.away.cdn.refuse()
    return _no_cdn(site, site.alone_with_cdn(deadline=PURGE_SECONDS))


def hanging_cdn(site: Site) -> Any:
    """It takes connections and says nothing."""
    site.away.cdn.mode = "black_hole"
    return _no_cdn(site, site.alone_with_cdn(deadline=PURGE_SECONDS, timeout=0.1))


# --- what is promised --------------------------------------------------------------------------------

_PAGES = ("list", "article", "search", "account", "accounts", "audit", "tasks")
_FORMS = ("remark", "write", "purge")
_API = ("api list", "api article", "api me", "api write")
_UNTOUCHED = ("sign-in page", "static", "alive")

_NO_SPACE = dict.fromkeys(("remark", "write", "api write", "api renew", "purge"), 503)
_NO_SESSIONS = dict.fromkeys((*_PAGES, *_FORMS, "sign in"), 503)
_SIGNED_OUT = dict.fromkeys(_PAGES, 303) | dict.fromkeys(_FORMS, 401)
_TOKENS_REFUSED = dict.fromkeys(_API, 401)

PROMISED: dict[Callable[[Site], Any], dict[str, int]] = {
    no_database: dict.fromkeys(CALLS.keys() - _UNTOUCHED, 503),
    full_disk: _NO_SPACE,
    locked_database: _NO_SPACE,
    hanging_redis: _NO_SESSIONS,
    lost_redis: _NO_SESSIONS,
    full_redis: {"sign in": 503},
    demoted_redis: {"sign in": 503},
    damaged_cache: {},
    damaged_limits: {},
    damaged_sessions: _SIGNED_OUT,
    clock_set_back: _TOKENS_REFUSED,
    clock_set_forward: _SIGNED_OUT | _TOKENS_REFUSED,
    refused_mail: {},
    hanging_mail: {},
    refused_slack: {},
    hanging_slack: {},
    # With what was purged and what was not; never 502, which is what a proxy says of this application.
    refused_cdn: {"purge": 503},
    hanging_cdn: {"purge": 503},
}
"""How a call is answered during a fault, if not as on a good day: 378 rows."""

_MOST_RECORDS = 4
"""Of one outage, whatever number of requests meets it; each request has its own line in the request log."""


def ask(site: Site, promised: dict[str, int]) -> Iterator[str]:
    """What is wrong with the answers to all calls; what is left to say of one is in its line."""
    articles, comments = site.expected
    for name, call in CALLS.items():
        site.clock.advance(1)
        answer = call.send(site)
        wanted = promised.get(name, call.good)
        if answer.status_code != wanted:
            yield f"{name}: {answer.status_code}, not {wanted}"
        if wanted == 503 and name != "ready" and not 1 <= int(answer.headers.get("Retry-After", 0)) <= 60:
            yield f"{name}: no Retry-After"
        if "Traceback" in answer.get_data(as_text=True):
            yield f"{name}: internals are shown"
        if wanted == call.good:
            articles, comments = articles + call.writes[0], comments + call.writes[1]
    site.expected = (articles, comments)


@pytest.fixture
def site(
    make_app: Callable[..., Any],
    browser: Any,
    redis_server: Any,
    clock: FrozenClock,
    away: Away,
) -> Iterator[Site]:
    mail = {"MKS_SMTP_HOST": "127.0.0.1", "MKS_SMTP_PORT": str(away.mail.port), "MKS_SMTP_SECURITY": "plain"}
    mail |= {"MKS_ALERT_FROM": "system@knowledge.example", "MKS_ALERT_TO": "operators@knowledge.example"}
    app = make_app(MKS_REDIS_URL=redis_server.url, areas=AREAS - {"logging"}, **mail)
    site = Site(app, type(browser), redis_server, clock, away)
    app.extensions["knowledge"] = site.alone_with_cdn()
    yield site
    app.extensions["knowledge"].cdn.close()


@pytest.fixture
def away(
    smtp_server: SmtpServer,
    http_sink: HttpSink,
    make_fault_proxy: Callable[[str, int], FaultProxy],
    tmp_path: Path,
) -> Away:
    http_sink.default = lambda asked: Answer(body="ok" if "services" in asked.path else {"success": True})
    mail, slack, cdn = (
        make_fault_proxy("127.0.0.1", port) for port in (smtp_server.port, http_sink.port, http_sink.port)
    )
    return Away(smtp_server, mail, http_sink, slack, cdn, tmp_path / "spool")


@pytest.mark.redis
@pytest.mark.timeout(300)
@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_every_call_during_every_fault(site: Site, caplog: pytest.LogCaptureFixture, quarter: int) -> None:
    assert len(PROMISED) * len(CALLS) >= 300
    wrong = list[str]()
    for fault, promised in list(PROMISED.items())[quarter::4]:
        site.clock.advance(601)  # of sessions nothing is remembered then, and every outage is told anew
        assert _renew(site).status_code == 200
        site.expected = site.written()
        caplog.clear()
        with fault(site):
            wrong += [f"during {fault.__name__}: {text}" for text in ask(site, promised)]
        result = [
            record.getMessage()
            for record in caplog.records
            if record.levelno >= logging.ERROR and record.name not in {"mks_hardening.request", _log.name}
        ]
        if len(result) > _MOST_RECORDS or (not result and promised.get("write") == 503):
            wrong.append(f"during {fault.__name__}: logged {result}")
        wait_until(site.whole, what="Redis")
        wait_until(lambda: CALLS["ready"].send(site).status_code == 200, what="readiness, asked once a while")
        if site.written() != site.expected:
            wrong.append(f"after {fault.__name__}: {site.written()} are there, not {site.expected}")
        site.clock.advance(61)
        asked, came = site.mails()
        if asked != came:
            wrong.append(f"after {fault.__name__}: {came} of {asked} mails came")
        assert _renew(site).status_code == 200
        wrong += [f"after {fault.__name__}: {text}" for text in ask(site, {})]
    assert "\n".join(wrong) == ""
