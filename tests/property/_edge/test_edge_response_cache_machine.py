"""A model of what a shared cache may serve, against the middleware in random histories."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from mks_hardening.cache import MemoryCache
from mks_hardening.testing import FrozenClock, call_wsgi
from mks_hardening.wsgi import CacheRule, ResponseCacheMiddleware

TTL, STALE, ERRORS = 60, 20, 40
PATHS = st.sampled_from(["/a", "/b"])
LANGUAGES = st.sampled_from(["ja", "en", ""])
COOKIES = st.sampled_from(["", "", "_ga=1", "session=1"])
CONTROLS = st.sampled_from(["", "", "no-cache", "max-age=5", "min-fresh=30", "max-stale=30", "no-store"])


class SharedCache(RuleBasedStateMachine):
    """Each response of the application names its path, language and user, and when it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FrozenClock()
        self.cache = MemoryCache(clock=self.clock, jitter=0)
        self.fails = False
        self.varies = True
        self.made: dict[str, tuple[str, str, str, float]] = {}
        self.varied: dict[str, bool] = {}
        self.invalidated = {"/a": -1.0, "/b": -1.0}
        self.order = 0
        self.stack: Any = ResponseCacheMiddleware(
            self.app,
            cache=self.cache,
            rules=[
                CacheRule(
                    "/*",
                    ttl=TTL,
                    tags=["pages"],
                    stale_while_revalidate=STALE,
                    stale_if_error=ERRORS,
                    ignore_cookies=["_ga"],
                )
            ],
            clock=self.clock,
        )

    def app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if self.fails:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"failed"]
        self.order += 1
        name = f"response {self.order}"
        language = environ.get("HTTP_ACCEPT_LANGUAGE", "")
        who = environ.get("HTTP_COOKIE", "")
        self.made[name] = (environ["PATH_INFO"], language, who, self.clock.time())
        self.varied[name] = self.varies
        vary = [("Vary", "Accept-Language")] if self.varies else []
        start_response("200 OK", [("Content-Type", "text/plain"), *vary])
        return [name.encode()]

    @rule(path=PATHS, language=LANGUAGES, cookie=COOKIES, control=CONTROLS, head=st.booleans())
    def ask(self, path: str, language: str, cookie: str, control: str, head: bool) -> None:
        fields = {"Accept-Language": language, "Cookie": cookie, "Cache-Control": control}
        before, now = self.order, self.clock.time()
        headers = {name: value for name, value in fields.items() if value}
        found = call_wsgi(self.stack, path, headers=headers, method="HEAD" if head else "GET")
        if found.status == 503:
            assert self.fails
            return
        assert found.status == 200
        if head:
            return
        name = found.body.decode()
        made_path, made_language, who, made_at = self.made[name]
        assert made_path == path
        assert who in {"", cookie}
        is_hit = found.header("Age") is not None
        if not is_hit:
            assert int(name.removeprefix("response ")) > before  # made for this request
            return
        age = now - made_at
        assert found.header("Age") == str(int(age))
        assert cookie != "session=1"
        assert control not in {"no-cache", "no-store"}
        if self.varied[name]:
            assert made_language == language
        assert int(name.removeprefix("response ")) > self.invalidated[path]
        if control == "max-age=5":
            assert age <= 5
        elif control == "min-fresh=30":
            assert age <= TTL - 30
        else:
            assert age < TTL + (ERRORS if self.fails else 30 if control == "max-stale=30" else STALE) + 1e-6

    @rule(seconds=st.sampled_from([1, 10, 31, 61, 75, 95, 200]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(path=PATHS)
    def change(self, path: str) -> None:
        status = call_wsgi(self.stack, path, method="POST").status
        if status == 200:
            self.invalidated[path] = self.order

    @rule()
    def invalidate(self) -> None:
        assert self.cache.invalidate_tags("pages")
        self.invalidated = dict.fromkeys(self.invalidated, self.order)

    @rule(fails=st.booleans())
    def break_or_repair(self, fails: bool) -> None:
        self.fails = fails

    @rule(varies=st.booleans())
    def vary(self, varies: bool) -> None:
        self.varies = varies


TestSharedCache = SharedCache.TestCase
TestSharedCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
