"""The small parts of the core: context, observers, optional packages, durations, URLs, faults, headers."""

from __future__ import annotations

import contextvars
import math
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening._core import hooks
from mks_hardening._core.backend.redis_errors import is_missing_script, is_reset, reason_of
from mks_hardening._core.backend.redis_url import parse_redis_url
from mks_hardening._core.clock import SYSTEM_CLOCK, SystemClock
from mks_hardening._core.durations import seconds
from mks_hardening._core.loopback import is_loopback
from mks_hardening._core.missing import MISSING
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.process import context, exit_hooks
from mks_hardening._core.web.rate_headers import HeaderStyle, missing_fields, rate_limit_headers
from mks_hardening._core.web.rate_problem import rate_limit_problem
from mks_hardening.exceptions import ConfigurationError, MissingDependencyError
from mks_hardening.protocols import Clock
from mks_hardening.security import Decision, Limit, LimitState
from mks_hardening.testing import FrozenClock

# --- clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [SYSTEM_CLOCK, FrozenClock(datetime(2026, 4, 1, tzinfo=UTC))], ids=repr)
def test_clocks_tell_wall_and_monotonic_time(clock: SystemClock | FrozenClock) -> None:
    assert isinstance(clock, Clock)
    assert clock.now().tzinfo is UTC
    assert abs(clock.now().timestamp() - clock.time()) < 60
    assert clock.monotonic() <= clock.monotonic()


def test_a_frozen_clock_moves_by_hand_only() -> None:
    clock = FrozenClock(1000.0)
    start = clock.monotonic()
    clock.advance(5)
    clock.step_wall(-100)
    assert (clock.time(), clock.monotonic() - start) == (905.0, 5.0)
    with pytest.raises(ValueError, match="step_wall"):
        clock.advance(-1)


# --- context ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def clean_context() -> Iterator[None]:
    context.clear()
    yield
    context.clear()


def test_fields_are_bound_and_cleared() -> None:
    context.bind(a=1, b=2)
    context.bind(b=3)
    assert dict(context.current()) == {"a": 1, "b": 3}
    context.clear()
    assert dict(context.current()) == {}


def test_the_mapping_handed_out_never_changes() -> None:
    context.bind(a=1)
    taken = context.current()
    context.bind(a=2)
    assert taken["a"] == 1
    with pytest.raises(TypeError):
        taken["a"] = 5  # type: ignore[index]  # read-only on purpose


def test_bound_puts_the_former_fields_back_even_after_an_error() -> None:
    context.bind(a=1)
    with pytest.raises(RuntimeError), context.bound(a=2, b=3) as inside:
        assert dict(inside) == {"a": 2, "b": 3}
        raise RuntimeError
    assert dict(context.current()) == {"a": 1}


def test_contexts_and_threads_do_not_see_each_other() -> None:
    context.bind(a="outer")
    seen: list[dict[str, Any]] = []

    def inside(value: str) -> None:
        context.bind(a=value)
        seen.append(dict(context.current()))

    contextvars.copy_context().run(inside, "copy")
    thread = threading.Thread(target=lambda: seen.append(dict(context.current())))
    thread.start()
    thread.join()
    assert seen == [{"a": "copy"}, {}]
    assert dict(context.current()) == {"a": "outer"}


# --- observers -------------------------------------------------------------------------------


@pytest.fixture
def observed() -> Iterator[list[Any]]:
    seen: list[Any] = []
    before = hooks.observers[:]
    hooks.add_observer(seen.append)
    yield seen
    hooks.observers[:] = before


def test_an_observer_is_told_once_and_can_leave(observed: list[Any]) -> None:
    hooks.add_observer(observed.append)
    hooks.emit("one")
    hooks.remove_observer(observed.append)
    hooks.remove_observer(observed.append)
    hooks.emit("two")
    assert observed == ["one"]


def test_an_observer_that_raises_or_causes_events_harms_nobody(observed: list[Any]) -> None:
    def bad(event: Any) -> None:
        hooks.emit("endless")
        raise RuntimeError(event)

    hooks.observers[:] = [bad, *hooks.observers]
    hooks.emit("one")
    assert observed == ["one"]


def test_an_observer_that_raises_is_logged_once_a_minute_without_the_text(
    observed: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    dsn = "postgresql://audit:hunter2@db/audit"

    class Audit:
        def __call__(self, event: Any) -> None:
            raise RuntimeError(dsn)

    hooks.add_observer(Audit())
    for _ in range(100):
        hooks.emit("one")
    assert observed == ["one"] * 100
    [record] = caplog.records
    assert (record.name, record.levelname) == ("mks_hardening.observers", "ERROR")
    assert "Audit raised RuntimeError for str" in record.getMessage()
    assert "in __call__" in record.getMessage()
    assert "hunter2" not in caplog.text


# --- optional packages -----------------------------------------------------------------------


def test_an_absent_package_names_extra_and_command() -> None:
    with pytest.raises(MissingDependencyError) as caught, optional("absent_package", extra="cache"):
        import absent_package  # type: ignore[import-not-found]  # noqa: F401
    error = caught.value
    assert (error.package, error.extra) == ("absent_package", "cache")
    assert "pip install 'mks-hardening[cache]'" in str(error)
    assert isinstance(error, ImportError)


@pytest.mark.parametrize(
    "error",
    [ModuleNotFoundError("x", name="inside_the_package"), ImportError("broken", name="redis"), KeyError()],
)
def test_a_broken_package_shows_its_own_error(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, optional("redis", extra="cache"):
        raise error
    assert caught.value is error


def test_missing_is_false_and_has_a_name() -> None:
    assert not MISSING
    assert repr(MISSING) == "MISSING"


# --- durations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"), [(5, 5.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (0, 0.0)]
)
def test_durations(value: float | timedelta, expected: float) -> None:
    assert seconds(value, parameter="timeout") == expected


WRONG: list[tuple[Any, dict[str, Any]]] = [
    (True, {}),
    ("5", {}),
    (None, {}),
    (-1, {}),
    (float("nan"), {}),
    (float("inf"), {}),
    (0, {"allow_zero": False}),
    (0.5, {"minimum": 1}),
]


@pytest.mark.parametrize(("value", "options"), WRONG)
def test_impossible_durations_name_the_parameter(value: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"^timeout ") as caught:
        seconds(value, parameter="timeout", **options)
    assert caught.value.parameter == "timeout"


# --- Redis URLs and faults -------------------------------------------------------------------

URLS: list[tuple[str, tuple[Any, ...]]] = [
    ("redis://localhost", ("single", False, (("localhost", 6379),), None, 0)),
    ("redis://127.0.0.1:7000/3", ("single", False, (("127.0.0.1", 7000),), None, 3)),
    (
        "redis+sentinel://u:p%2Fw@localhost,[::1]:2/main/3",
        ("sentinel", False, (("localhost", 26379), ("::1", 2)), "p/w", 3),
    ),
    ("redis://[::1]:7000/?db=2", ("single", False, (("::1", 7000),), None, 2)),
    ("rediss://app:p%40ss@redis.example.com/1", ("single", True, (("redis.example.com", 6379),), "p@ss", 1)),
    ("rediss://:pw@h?ca_file=/etc/ca.pem", ("single", True, (("h", 6379),), "pw", 0)),
    ("unix:///run/redis.sock?db=4", ("single", False, (), None, 4)),
    ("unix://:pw@/run/redis.sock", ("single", False, (), "pw", 0)),
    ("redis+cluster://localhost/0", ("cluster", False, (("localhost", 6379),), None, 0)),
    (
        "redis+sentinel://127.0.0.1,127.0.0.2:1000/mks/5",
        ("sentinel", False, (("127.0.0.1", 26379), ("127.0.0.2", 1000)), None, 5),
    ),
    ("rediss+cluster://a:1,b:2", ("cluster", True, (("a", 1), ("b", 2)), None, 0)),
]


@pytest.mark.parametrize(("url", "expected"), URLS)
def test_redis_urls(url: str, expected: tuple[Any, ...]) -> None:
    parsed = parse_redis_url(url)
    assert (parsed.topology, parsed.tls, parsed.hosts, parsed.password, parsed.database) == expected
    assert hash(parsed) == hash(parse_redis_url(url))
    if parsed.password:
        assert parsed.password not in f"{parsed!r}{parsed.address}"


BAD_URLS = [
    "http://localhost",
    "localhost:6379",
    "redis://",
    "redis://:hunter2@redis.example.com/0",
    "redis://localhost:99999/0",
    "redis://localhost:0/0",
    "redis://localhost:１/0",
    "redis://localhost/zero",
    "redis://localhost/0?ssl_cert_reqs=none",
    "rediss://localhost/0?ssl_cert_reqs=none",
    "redis+sentinel://localhost",
    "redis://[::1",
    "redis://:S3cr?hunter2@localhost",
    "redis://:S3cr/hunter2@localhost",
    "redis://:S3cr#hunter2@localhost",
    "redis://:hunter2?tail",
    "redis://localhost?hunter2",
    "redis://localhost/" + "9" * 5000,
    # What was ignored without a word.
    "redis://localhost,localhost:6380/0",
    "redis://localhost/0/1",
    "redis+sentinel://localhost/mks/0/1",
    "redis+cluster://localhost/1",
    "redis+cluster://localhost?db=1",
    "redis://localhost?db=",
    "redis://localhost/1?db=2",
    "redis://localhost?db=1&db=2",
    "unix://run/redis.sock",
    "unix://localhost/run/redis.sock",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_unusable_redis_urls_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not a usable Redis URL") as caught:
        parse_redis_url(url)
    assert "hunter2" not in str(caught.value)


def test_clear_text_leaves_the_machine_only_when_asked_to() -> None:
    assert parse_redis_url("redis://redis.example.com", allow_plaintext=True).hosts == (
        ("redis.example.com", 6379),
    )


@pytest.mark.parametrize(
    ("host", "near"),
    [("localhost", True), ("127.9.9.9", True), ("::1", True), ("10.0.0.1", False), ("localhost.evil", False)],
)
def test_loopback(host: str, *, near: bool) -> None:
    assert is_loopback(host) is near


def _named(name: str, *bases: type[BaseException]) -> type[BaseException]:
    return type(name, bases or (Exception,), {})


RedisError = _named("RedisError")
ResponseError = _named("ResponseError", RedisError)
FAULTS: list[tuple[BaseException, str | None]] = [
    (_named("TimeoutError", RedisError)("Timeout reading from socket"), "timeout"),
    (
        _named("ConnectionError", RedisError)("Error 111 connecting to localhost:1. Connection refused."),
        "refused",
    ),
    (_named("ConnectionError", RedisError)("Connection closed by server."), "reset"),
    (_named("BusyLoadingError", RedisError)("Redis is loading the dataset in memory"), "loading"),
    (_named("ReadOnlyError", ResponseError)("You can't write against a read only replica."), "readonly"),
    (_named("AuthenticationError", RedisError)("invalid username-password pair"), "auth"),
    (_named("InvalidResponse", RedisError)("Protocol Error"), "protocol"),
    (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), "oom"),
    (ResponseError("BUSY Redis is busy running a script."), "busy"),
    (ResponseError("LOADING Redis is loading the dataset in memory"), "loading"),
    (ResponseError("NOAUTH Authentication required."), "auth"),
    (ResponseError("MISCONF Redis is configured to save RDB snapshots"), "readonly"),
    (ResponseError("ERR max number of clients reached"), "clients"),
    (ResponseError("WRONGTYPE Operation against a key"), "error"),
    (TimeoutError(), "timeout"),
    (ConnectionRefusedError(), "refused"),
    (BrokenPipeError(), "reset"),
    (OSError("no route to host"), "refused"),
    (KeyError("a bug"), None),
    (ValueError("a bug"), None),
]


@pytest.mark.parametrize(("error", "reason"), FAULTS, ids=lambda value: repr(value)[:40])
def test_what_an_exception_means(error: BaseException, reason: str | None) -> None:
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("said", "closed"),
    [
        ("Connection closed by server.", True),
        ("Error 104 while reading from 127.0.0.1:1 : (104, 'Connection reset by peer')", True),
        ("Error UNKNOWN while writing to socket. Connection lost.", True),
        ("Error 32 while writing to socket. Broken pipe.", True),
        ("Error 111 connecting to 127.0.0.1:1. Connection refused.", False),
    ],
)
def test_sentinels_that_close_a_connection(said: str, *, closed: bool) -> None:
    connection = _named("ConnectionError", RedisError)
    missing = _named("MasterNotFoundError", connection)
    assert is_reset(missing(f"No master found for 'mks' : <Redis> - {connection(said)!r}")) is closed


def test_a_script_the_server_has_forgotten() -> None:
    assert is_missing_script(_named("NoScriptError")("No matching script"))
    assert is_missing_script(ResponseError("NOSCRIPT No matching script"))
    assert not is_missing_script(ResponseError("ERR"))


# --- rate limit headers ----------------------------------------------------------------------


@given(
    remaining=st.lists(st.integers(0, 100), min_size=1, max_size=4),
    retry=st.none() | st.floats(0.01, 1000),
    style=st.sampled_from(["x", "ietf", "both"]),
)
def test_headers_never_promise_too_much(
    remaining: list[int], retry: float | None, style: HeaderStyle
) -> None:
    limits = tuple(Limit(f"l{number}", 100, 60.0) for number in range(len(remaining)))
    answer = Decision(
        allowed=retry is None,
        limits=limits,
        remaining=tuple(remaining),
        reset_after=(12.3,) * len(remaining),
        retry_after=retry,
    )
    headers = dict(rate_limit_headers(answer, style=style))
    assert ("X-RateLimit-Limit" in headers) is (style != "ietf")
    assert ("RateLimit" in headers) is ("RateLimit-Policy" in headers) is (style != "x")
    if style != "ietf":
        assert int(headers["X-RateLimit-Remaining"]) == min(remaining)
        assert headers["X-RateLimit-Reset"] == "13"
    if style != "x":
        assert headers["RateLimit-Policy"].count(";q=100;w=60") == len(remaining)
    assert ("Retry-After" in headers) is (retry is not None)
    if retry is not None:
        assert int(headers["Retry-After"]) >= max(1, retry)


def test_no_limits_no_headers() -> None:
    assert rate_limit_headers(Decision(allowed=True, limits=(), remaining=(), reset_after=())) == []


def test_a_refusal_that_waiting_does_not_lift_names_no_time() -> None:
    never = Decision(allowed=False, limits=(), remaining=(), reset_after=(), breached=("minute",))
    assert rate_limit_headers(never) == []


@given(numbers=st.lists(st.floats() | st.integers(), min_size=5, max_size=5))
def test_no_number_of_a_users_limiter_makes_an_error_or_no_number(numbers: list[Any]) -> None:
    quota, window, remaining, reset, retry = numbers
    limits = (Limit("l", quota, window),)
    answer = Decision(
        allowed=False, limits=limits, remaining=(remaining,), reset_after=(reset,), retry_after=retry
    )
    headers = dict(rate_limit_headers(answer))
    assert ("Retry-After" in headers) is (retry < math.inf)  # it would never end
    assert all(
        re.fullmatch(r"(\d{1,15}|\"l\";[qr]=\d{1,15};[wt]=\d{1,15})", value) for value in headers.values()
    )
    assert str(rate_limit_problem(answer)["detail"]).count(headers.get("Retry-After", "")) > 0


@given(
    st.text(alphabet=st.characters()) | st.sampled_from(["a\r\nSet-Cookie: x=1", '"', "\\", "\udc80", "現場"])
)
def test_a_name_built_by_hand_stays_inside_its_field(name: str) -> None:
    answer = Decision.of([LimitState(Limit(name, 5, 60.0), 4, 60.0)])
    for _, value in rate_limit_headers(answer):
        assert value.isascii()
        assert value.isprintable()
        # One string or display string of RFC 9651 (3.3.3 and 3.3.8), and what follows it.
        text = r'(?:"(?:[^"\\]|\\["\\])*"|%"[^"]*")'
        assert re.fullmatch(rf"{text};(?:q=5;w=60|r=4;t=60)|\d+", value), value


@pytest.mark.parametrize(
    ("present", "left"),
    [
        ([], ["X-RateLimit-Limit", "RateLimit", "Retry-After"]),
        (["Content-Type", "X-Other"], ["X-RateLimit-Limit", "RateLimit", "Retry-After"]),
        (["retry-after"], ["X-RateLimit-Limit", "RateLimit"]),
        (["x-ratelimit-RESET"], ["Retry-After"]),  # of another limit, whose fields are not mixed with ours
        (["RateLimit-Policy", "Retry-After"], []),
    ],
)
def test_a_response_keeps_its_own_rate_limit_fields(present: list[str], left: list[str]) -> None:
    fields = [("X-RateLimit-Limit", "1"), ("RateLimit", '"a";r=1'), ("Retry-After", "1")]
    assert [name for name, _ in missing_fields(fields, [(name, "") for name in present])] == left
    raw = [(name.lower().encode(), value.encode()) for name, value in fields]
    assert [name for name, _ in missing_fields(raw, [(name.encode(), b"") for name in present])] == [
        name.lower().encode() for name in left
    ]


# --- the end of the process ------------------------------------------------------------------


class Owner:
    def __init__(self, log: list[str], name: str, *, fails: bool = False) -> None:
        self.log, self.name, self.fails = log, name, fails

    def finish(self) -> None:
        self.log.append(self.name)
        if self.fails:
            raise RuntimeError(self.name)


def test_callbacks_run_newest_first_once_and_skip_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_hooks, "_callbacks", [])
    log: list[str] = []
    first, second, dead = Owner(log, "first"), Owner(log, "second", fails=True), Owner(log, "dead")
    third, last = Owner(log, "third"), Owner(log, "last")
    for owner in (first, last, second, dead, third):
        exit_hooks.on_exit(owner.finish, last=owner is last)
    del dead, owner
    exit_hooks.run_exit_callbacks()
    exit_hooks.run_exit_callbacks()
    assert log == ["third", "second", "first", "last"]


SCRIPT = """
import os, signal, sys
from mks_hardening._core.process.exit_hooks import on_exit
if sys.argv[1] == "own":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
class Owner:
    def finish(self):
        os.write(1, b"finished")
owner = Owner()
on_exit(owner.finish)
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(("whose", "code"), [("default", -signal.SIGTERM), ("own", 7)])
def test_sigterm_keeps_its_meaning(whose: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, whose], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (code, b"finished"), done.stderr
