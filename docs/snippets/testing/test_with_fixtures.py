"""Each fixture of the pytest plugin at work; shown in docs/en/how-to/test-your-application.md."""

import logging

import pytest
from sqlalchemy import text

from mks_hardening.cache import MemoryCache
from mks_hardening.db import hardened_engine
from mks_hardening.events import CacheRead
from mks_hardening.notify import WebhookNotificationHandler
from mks_hardening.tasks import Tasks
from mks_hardening.wsgi import RequestLoggingMiddleware


def hello(_environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


# mks_clock: time stands still until it is moved
def test_what_expires(mks_clock):
    cache = MemoryCache(clock=mks_clock)
    cache.set("key", "value", ttl=60)
    mks_clock.advance(61)
    assert not cache.exists("key")


# mks_redis: an empty Redis inside the process
def test_what_is_shared(mks_redis):
    mks_redis.set("key", "value")
    assert mks_redis.get("key") == b"value"


# mks_wsgi: one request, held to PEP 3333
def test_a_request(mks_wsgi):
    answer = mks_wsgi(hello, "/greeting", headers={"Accept": "text/plain"})
    assert (answer.status, answer.body) == (200, b"hello")


# mks_events: everything worth counting
def test_the_cache_is_used(mks_events):
    cache = MemoryCache(namespace="articles")
    cache.set("key", "value")
    assert cache.get("key") == "value"
    assert mks_events.of(CacheRead) == [CacheRead("articles", "hit")]


# mks_records: log lines as they are written, without secrets
def test_the_record_of_a_request(mks_wsgi, mks_records):
    mks_wsgi(RequestLoggingMiddleware(hello), "/greeting", query="password=hunter2")
    (record,) = mks_records.of("mks_hardening.request")
    assert (record["path"], record["status"]) == ("/greeting", 200)
    assert "hunter2" not in mks_records.text


# mks_alerts: what would have been sent
def test_an_alert(mks_alerts):
    logging.getLogger("knowledge").error("the crane does not answer")
    (subject,) = mks_alerts.subjects
    assert "the crane does not answer" in subject


# mks_outbox: the transport of a handler of one's own
def test_my_handler(mks_outbox):
    with WebhookNotificationHandler("https://chat.example.com/hook", transport=mks_outbox) as handler:
        handler.handle(logging.makeLogRecord({"levelno": 40, "levelname": "ERROR", "msg": "no"}))
    assert [message.text for message in mks_outbox.messages]


@pytest.fixture
def engine():
    engine = hardened_engine("sqlite://")
    yield engine
    engine.dispose()


# mks_check: the checks before go-live
def test_nothing_stands_in_the_way_of_production(mks_check):
    assert mks_check(environ={"MKS_ALLOWED_HOSTS": "www.example.com"}).findings == ()


# mks_tasks: what was enqueued, and running it here and now
@pytest.fixture
def tasks(engine):
    tasks = Tasks(engine)
    tasks.create_table()
    return tasks


def test_what_is_enqueued(tasks, mks_tasks):
    @tasks.task("mail.send")
    def send(_run, to):
        return to

    recorder = mks_tasks(tasks)
    with tasks.begin() as connection:
        send.enqueue(connection, to="a@example.jp")
    recorder.assert_enqueued("mail.send", to="a@example.jp")
    assert recorder.run() == ["done"]


# mks_query_budget, the marker: the whole test
@pytest.mark.mks_query_budget(1, "engine")
def test_one_statement(engine):
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar() == 1


# mks_query_budget, the fixture: a part of it
def test_no_statement_here(engine, mks_query_budget):
    with mks_query_budget(0, engine):
        pass
