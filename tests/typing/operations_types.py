"""Never run: what type checkers see of the package through its lazy facades and protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

import fakeredis
import redis

from mks_hardening import cache, logging, security, wsgi
from mks_hardening.cache import MemoryCache
from mks_hardening.events import BreakerChanged, add_observer
from mks_hardening.exceptions import BackendUnavailableError, MissingDependencyError, MksHardeningError
from mks_hardening.protocols import Clock, Observer, RedisLike
from mks_hardening.testing import FrozenClock

# --- facades give the real things, from either side

assert_type(cache.MemoryCache(), MemoryCache)
redacted: str = logging.REDACTED
assert_type(security.generate_secret(), str)
cache.NoSuchName  # type: ignore[attr-defined]  # noqa: B018
of_the_facade: type[wsgi.ProxyTrust] = wsgi.ProxyTrust


# --- what users implement


class TenLines:
    """The smallest client."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return None


class NotAClient:
    """Lacks the one method."""

    def execute(self, *args: Any) -> Any:
        return None


def takes_client(client: RedisLike) -> None: ...


takes_client(redis.Redis())
takes_client(fakeredis.FakeRedis())
takes_client(TenLines())
takes_client(NotAClient())  # type: ignore[arg-type]


def takes_clock(clock: Clock) -> None: ...


takes_clock(FrozenClock())
takes_clock(3.0)  # type: ignore[arg-type]


def observe(event: Any) -> None: ...


def observe_nothing() -> None: ...


observer: Observer = observe
add_observer(observe)
add_observer(observe_nothing)  # type: ignore[arg-type]

# --- events and errors carry typed facts

assert_type(BreakerChanged("redis", "closed", "open", "refused").backend, str)
error = BackendUnavailableError("redis", "timeout")
assert_type(error.retry_after, float | None)
assert_type(error.sent, bool)
root: MksHardeningError = error
also_an_import_error: ImportError = MissingDependencyError("redis", "cache")

# --- a WSGI application that knows nothing of us


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


wsgi.TrustedProxyMiddleware(application, trust=wsgi.ProxyTrust(("127.0.0.1",)))
wsgi.TrustedProxyMiddleware("application", trust=wsgi.ProxyTrust())  # type: ignore[arg-type]
