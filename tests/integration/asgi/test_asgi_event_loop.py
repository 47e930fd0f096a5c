"""Nothing blocks the event loop, also while Redis and PostgreSQL are stopped (SIGSTOP)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from loop_watch import watched_loop
from mks_hardening.asgi import CacheRule, RateLimitRule, RedisSessionStore, SessionManager
from mks_hardening.cache import RedisCache
from mks_hardening.compose import harden_asgi
from mks_hardening.exceptions import MksHardeningError
from mks_hardening.notify import AlertPolicy, WebhookNotificationHandler
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    PasswordHasher,
    RateLimiter,
    RedisSignInStore,
    SecretBox,
    SignIn,
    SignInAccount,
    SignInClient,
    SQLAlchemyTwoFactorStore,
    TwoFactorManager,
    totp_code,
)
from mks_hardening.settings import HardeningSettings
from testbed.http_sink import HttpSink
from testbed.postgres_server import PostgresServer
from testbed.redis_server import RedisServer

PASSWORD = "足場の点検は毎朝"
BUDGET = 1.0  # a busy machine is no outage
HOST = "www.example.com"
ALICE = SignInAccount(user_id="1", name="alice", password_hash=PasswordHasher().hash(PASSWORD))


class Accounts:
    async def find(self, name: str, /) -> SignInAccount | None:
        return ALICE if name == "alice" else None

    async def get(self, user_id: str, /) -> SignInAccount | None:
        return ALICE

    async def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        return False


class Site:
    """The whole stack over both servers, around an application that uses every part of it."""

    def __init__(self, redis_url: str, engine: Engine, sink: str) -> None:
        self.store = RedisSessionStore(redis_url, store_budget=BUDGET)
        self.limiter = RateLimiter(
            {"all": "100000 per minute", **SIGN_IN_LIMITS}, storage=redis_url, store_budget=BUDGET
        )
        self.cache = RedisCache(redis_url, store_budget=BUDGET)
        self.sign_in_store = RedisSignInStore(redis_url, store_budget=BUDGET)
        factor_store = SQLAlchemyTwoFactorStore(engine)
        factor_store.create_table()
        self.factors = TwoFactorManager(factor_store, issuer="site", secret_box=SecretBox(bytes(range(32))))
        self.sessions = SessionManager(self.store)
        self.sign_in = SignIn(
            Accounts(),
            store=self.sign_in_store,
            limiter=self.limiter,
            factors=self.factors,
            end_sessions=self.sessions.aend_user,
        )
        self.alerts = WebhookNotificationHandler(sink, policy=AlertPolicy(dedup_window=0))
        self.logger = logging.getLogger("loop")
        self.logger.propagate = False
        self.logger.addHandler(self.alerts)
        settings = HardeningSettings.from_env(
            environ={"MKS_ALLOWED_HOSTS": HOST, "MKS_ENV": "test", "MKS_STORE_BUDGET": f"{BUDGET}s"}
        )
        self.app = harden_asgi(
            self.page,
            settings,
            store=self.store,
            limiter=self.limiter,
            rate_limits=[RateLimitRule("all")],
            required={"cache": self.cache.ping},
            logger=logging.getLogger("loop.requests"),
            cache=self.cache,
            # Shorter than the pause of a client, so that pages are also looked up, made and stored.
            cache_rules=[CacheRule("/cached", ttl=0.02, identity=lambda _: "everybody")],
        )
        self.cookie = ""
        self.codes: Iterator[str] = iter(())

    async def page(self, scope: Any, receive: Any, send: Any) -> None:
        session, path = scope["mks_hardening.session"], scope["path"]
        client = SignInClient(address="192.0.2.1")
        said: Any = None
        if path == "/sign-in":
            step = await self.sign_in.apassword("alice", PASSWORD, client=client, session=session)
            said = step.state
            if step.challenge is not None:
                done = await self.sign_in.asecond_factor(
                    step.challenge, next(self.codes), client=client, session=session
                )
                said = done.state
        elif path == "/enrol":
            enrolment = await self.factors.abegin_enrolment("1", account_name="alice")
            codes = await self.factors.aconfirm_enrolment("1", totp_code(enrolment.secret))
            self.codes = iter(codes)
            said = True
        elif path == "/use":
            said = [session.user_id]
            for call in (
                lambda: session.aupdate_data(seen=True),
                lambda: self.cache.aget_or_compute("key", lambda: 42, ttl=60),
                lambda: self.limiter.ahit("all", "more"),
                lambda: self.factors.astatus("1"),
            ):
                with suppress(MksHardeningError):
                    said.append(bool(await call()))
            self.logger.error("something to tell")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})

    async def ask(self, path: str) -> tuple[int, bytes]:
        headers = [(b"host", HOST.encode()), (b"cookie", self.cookie.encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers if self.cookie else headers[:1],
            "client": ("192.0.2.1", 4000),
            "server": ("127.0.0.1", 8000),
        }
        messages: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        for name, value in messages[0]["headers"]:
            if name == b"set-cookie" and b"Max-Age=0" not in value:
                self.cookie = value.decode().partition(";")[0]
        return messages[0]["status"], b"".join(message["body"] for message in messages[1:])

    async def aclose(self) -> None:
        for part in (self.store, self.limiter, self.cache, self.sign_in_store):
            with suppress(MksHardeningError):
                await part.aclose()


@pytest.fixture
def site(redis_url: str, postgres_url: str, http_sink: HttpSink, logging_as_it_was: None) -> Iterator[Site]:
    engine = create_engine(postgres_url, pool_pre_ping=True)
    site = Site(redis_url, engine, http_sink.url)
    yield site
    site.logger.removeHandler(site.alerts)
    site.alerts.close()
    engine.dispose()


@pytest.mark.redis
@pytest.mark.postgres
def test_nothing_blocks_the_loop(
    site: Site, redis_server: RedisServer, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(path: str, seconds: float) -> set[int]:
        loop = asyncio.get_running_loop()
        end, seen = loop.time() + seconds, set()
        while loop.time() < end:
            seen.add((await site.ask(path))[0])
            await asyncio.sleep(0.005)
        return seen

    async def main() -> None:
        with watched_loop(monkeypatch) as watch:
            await watch.run(0.01)
            site.store.ping()
            assert {"socket.connect", "socket.recv_into"} <= {
                call.partition(" ")[0] for call in watch.blocked
            }
            watch.blocked.clear()
            assert await site.ask("/enrol") == (200, b"true")
            assert await site.ask("/sign-in") == (200, b'"done"')
            assert await site.ask("/use") == (200, b'["1", true, true, true, true]')
            assert (await site.ask("/readyz"))[0] == 200
            assert [await site.ask("/cached") for _ in range(2)] == [(200, b"null")] * 2
            assert watch.blocked == []
            await asyncio.to_thread(redis_server.pause)
            await asyncio.to_thread(postgres_server.freeze)
            paths = ("/use", "/use", "/use", "/sign-in", "/readyz", "/cached", "/cached")
            using = [asyncio.ensure_future(use(path, 3)) for path in paths]
            try:
                await watch.run(3)
            finally:
                await asyncio.to_thread(redis_server.resume)
                await asyncio.to_thread(postgres_server.resume)
            assert set().union(*await asyncio.gather(*using)) == {200, 503}
            assert watch.blocked == []
        await site.aclose()

    asyncio.run(main())
