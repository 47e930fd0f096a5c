"""The table "When something is away" of the README, row by row: what people see, and what operators see."""

from __future__ import annotations

import base64
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import wsgi_session_apps as session_apps
from mks_hardening.cache import RedisCache
from mks_hardening.db import hardened_engine
from mks_hardening.events import LogsDropped, RateLimitDecided, add_observer, remove_observer
from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.logging import JsonFormatter, ReopeningFileHandler
from mks_hardening.notify import EmailNotificationHandler
from mks_hardening.security import RateLimiter, RedisTwoFactorStore, SecretBox, TwoFactorManager, totp_code
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import HealthMiddleware, RedisSessionStore, SessionTimeoutMiddleware
from testbed.polling import wait_until

README = Path(__file__).parents[2] / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="the documentation is not part of the wheel")

PROOFS: dict[str, Callable[..., None]] = {}


def proves(row: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(test: Callable[..., None]) -> Callable[..., None]:
        PROOFS[row] = test
        return test

    return register


def test_every_row_is_proved_here() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| [^|]+ \| [^|]+ \|$", README.read_text("utf-8"), re.MULTILINE)
    assert rows[1:] == list(PROOFS)


class Records(logging.Handler):
    """What the breaker tells operators."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def records() -> Iterator[list[str]]:
    handler = Records()
    logger = logging.getLogger("mks_hardening.breaker")
    logger.addHandler(handler)
    yield handler.texts
    logger.removeHandler(handler)


def one_going_one_coming(texts: list[str]) -> None:
    assert [text.split()[0] for text in texts] == ["ERROR", "WARNING"]
    assert "is unavailable" in texts[0]
    assert "is available again" in texts[1]


@proves("Redis: cache")
@pytest.mark.redis
def test_cache(redis_server: Any, records: list[str]) -> None:
    with RedisCache(redis_server.url) as cache, RedisCache(redis_server.url) as other:
        cache.set("page", "kept")
        redis_server.pause()
        assert cache.delete("page") == 0
        redis_server.resume()
        assert cache.get("page") is None
        wait_until(lambda: other.get("page") is None, what="the invalidation in every process")
        cache.set("page", "kept")
        redis_server.kill()
        for _ in range(20):
            assert cache.get_or_compute("page", lambda: "computed") == "computed"
            assert other.get("page") is None
        assert cache.stats().errors > 0
        redis_server.start()
        wait_until(cache.ping)
        assert cache.get_or_compute("page", lambda: "again") in {"kept", "again"}
    one_going_one_coming(records)


@proves("a process that was computing a cached value")
@pytest.mark.redis
def test_dead_holder(redis_server: Any) -> None:
    with RedisCache(redis_server.url, store_budget=5, compute_wait=600) as cache:

        def compute() -> str:
            # What a killed process leaves behind: a lease that nobody renews any more.
            redis_server.command("COPY", "mks:l:{=page}", "mks:l:{=orphan}")
            return "kept"

        assert cache.get_or_compute("page", compute) == "kept"
        assert cache.get_or_compute("orphan", lambda: "computed") == "computed"
        assert cache.get("orphan") == "computed"  # what is computed without the lease is not kept


@proves("Redis: sessions")
@pytest.mark.redis
def test_sessions(redis_server: Any, records: list[str]) -> None:
    clock = FrozenClock()
    with RedisSessionStore(redis_server.url, store_budget=1.0) as store:
        app = SessionTimeoutMiddleware(
            session_apps.bare([]), store=store, clock=clock, outage_grace=60, public_paths=["/sign-in"]
        )
        browser = session_apps.Browser(app)
        browser.get("/sign-in")
        cookies = dict(browser.cookies)
        redis_server.kill()
        assert b"alice" in browser.get("/page").body
        clock.advance(61)
        refused = browser.get("/page")
        assert refused.status == 503
        assert browser.cookies == cookies
        redis_server.start()
        wait_until(store.ping)
        browser.get("/sign-in")  # the restarted server kept nothing; with persistence the session goes on
        assert b"alice" in browser.get("/page").body
    one_going_one_coming(records)


@proves("Redis: rate limits")
@pytest.mark.redis
def test_rate_limits(redis_server: Any) -> None:
    events: list[Any] = []
    with RateLimiter({"sign_in": "5 per minute"}, storage=redis_server.url) as limiter:
        redis_server.kill()
        add_observer(events.append)
        try:
            decisions = [bool(limiter.hit("sign_in", "203.0.113.9")) for _ in range(8)]
        finally:
            remove_observer(events.append)
        redis_server.start()
    assert decisions == [True] * 5 + [False] * 3
    seen_events = [event for event in events if isinstance(event, RateLimitDecided)]
    assert {event.source for event in seen_events} == {"local"}


@proves("Redis: second factor")
@pytest.mark.redis
def test_second_factor(redis_server: Any) -> None:
    box = SecretBox([base64.b64encode(secrets.token_bytes(32)).decode()])
    with RedisTwoFactorStore(redis_server.url) as store:
        manager = TwoFactorManager(store, issuer="Knowledge", secret_box=box)
        enrolment = manager.begin_enrolment("tanaka", account_name="tanaka")
        codes = manager.confirm_enrolment("tanaka", totp_code(enrolment.secret))
        redis_server.kill()

        def app(environ: Any, start_response: Any) -> Any:
            if not manager.verify("tanaka", next(iter(codes))):
                raise AssertionError("the factor was judged without its store")
            raise AssertionError("the factor was skipped")

        with pytest.raises(BackendUnavailableError):
            call_wsgi(app, "/code")
        with RedisSessionStore(redis_server.url) as sessions:
            answer = call_wsgi(SessionTimeoutMiddleware(app, store=sessions), "/code")
        assert answer.status == 503
        redis_server.start()


@proves("database")
@pytest.mark.postgres
def test_database(postgres_server: Any, postgres_url: str) -> None:
    engine = hardened_engine(postgres_url)

    def check() -> None:
        with engine.connect():
            pass

    checks = {"database": check}
    app = HealthMiddleware(lambda environ, start_response: [], required=checks, cache_for=0)
    assert call_wsgi(app, "/readyz").status == 200
    postgres_server.kill()
    assert call_wsgi(app, "/readyz").status == 503
    assert call_wsgi(app, "/livez").status == 200
    with pytest.raises(sa.exc.OperationalError), engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    postgres_server.start()
    engine.dispose()


@proves("SMTP or Slack")
def test_alerts(make_smtp: Callable[..., Any], tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "security": "plain",
        "from_addr": "alerts@example.com",
        "to_addrs": ["ops@example.com"],
        "spool": tmp_path / "spool",
    }
    server = make_smtp()
    port = server.port
    server.stop()
    logger = logging.Logger("outage")  # noqa: LOG001 - known to nobody else
    handler = EmailNotificationHandler("127.0.0.1", smtp_port=port, timeout=0.5, **options)
    logger.addHandler(handler)
    logger.error("the crane does not answer")
    handler.close()
    stats = handler.stats()
    assert (stats.logged, stats.delivered, stats.spooled, stats.dropped) == (1, 0, 1, 0)
    server.start()
    again = EmailNotificationHandler("127.0.0.1", smtp_port=server.port, **options)
    server.wait_for(1)
    again.close()


@proves("disk full")
def test_disk_full(capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Any] = []
    handler = ReopeningFileHandler("/dev/full")
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("full")  # noqa: LOG001 - known to nobody else
    logger.addHandler(handler)
    add_observer(events.append)
    try:
        for _ in range(5):
            logger.error("a line that cannot be written")
        handler.close()
    finally:
        remove_observer(events.append)
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert sum(event.number for event in events if isinstance(event, LogsDropped)) == 5
