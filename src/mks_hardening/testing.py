"""Tools for tests of applications and of third-party backends.

A clock that is moved by hand, fakes that fail on demand, and contract suites that any backend can be run
through.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mks_hardening.exceptions import DeliveryError
from mks_hardening.protocols import SessionRecord

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from mks_hardening.protocols import (
        LimitDecision,
        Limiter,
        OutgoingAlert,
        SessionStore,
        Transport,
        TwoFactorStore,
    )

__all__ = [
    "CacheContract",
    "FrozenClock",
    "LimiterContract",
    "RecordingTransport",
    "SessionStoreContract",
    "TransportContract",
    "TwoFactorStoreContract",
    "WSGIAnswer",
    "call_wsgi",
]


class FrozenClock:
    """A clock that stands still until it is moved.

    Args:
        start: wall time at the beginning, in seconds since the epoch or as an aware datetime.
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, start: float | datetime = 1_700_000_000.0) -> None:
        self._wall = start.timestamp() if isinstance(start, datetime) else float(start)
        self._monotonic = 1_000.0

    def time(self) -> float:
        """Wall time in seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Monotonic time in seconds."""
        return self._monotonic

    def now(self) -> datetime:
        """Wall time as an aware UTC datetime."""
        return datetime.fromtimestamp(self._wall, UTC)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass on both clocks; negative values are refused."""
        if seconds < 0:
            raise ValueError("time passes forwards; use step_wall for a wall clock that is set back")
        self._wall += seconds
        self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back without time passing, as an operator or NTP does."""
        self._wall += seconds

    def __repr__(self) -> str:
        return f"FrozenClock(time={self._wall}, monotonic={self._monotonic})"


class WSGIAnswer(NamedTuple):
    """What a WSGI application answered.

    Attributes:
        status: the status code.
        headers: the header fields in order.
        body: the whole body.
        environ: the environ as the request left it.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    environ: dict[str, Any]

    def header(self, name: str) -> str | None:
        """The value of the only field of that name; ``None`` when there is none.

        Raises:
            AssertionError: there are several.
        """
        values = [value for field, value in self.headers if field.lower() == name.lower()]
        if len(values) > 1:
            raise AssertionError(f"{name} occurs {len(values)} times")
        return values[0] if values else None


def call_wsgi(
    app: WSGIApplication,
    path: str = "/",
    *,
    wrap: Callable[[WSGIApplication], WSGIApplication] | None = None,
    method: str = "GET",
    query: str = "",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    scheme: str = "http",
    environ: Mapping[str, Any] | None = None,
) -> WSGIAnswer:
    """Send one request through a WSGI application, under ``wsgiref.validate``.

    Args:
        app: the application.
        path: path of the request, decoded.
        wrap: makes a wrapper around the application; then both sides of the wrapper are validated.
        method: method of the request.
        query: query string as sent.
        headers: request header fields.
        body: request body.
        scheme: ``http`` or ``https``.
        environ: further keys; ``None`` removes one.

    Raises:
        AssertionError: the application or the wrapper breaks the protocol (PEP 3333).
    """
    from wsgiref.validate import validator

    request = _environ(
        REQUEST_METHOD=method,
        PATH_INFO=path.encode("utf-8", "surrogateescape").decode("latin-1"),
        QUERY_STRING=query,
        **{"wsgi.url_scheme": scheme, "wsgi.input": io.BytesIO(body)},
    )
    if body:
        request["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        key = name.upper().replace("-", "_")
        request[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    request |= environ or {}
    for key in [key for key, value in request.items() if value is None]:
        del request[key]
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(
        status: str, fields: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        if started and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        started[:] = [(status, list(fields))]
        return written.append

    under_test = validator(wrap(validator(app))) if wrap else validator(app)
    answered = under_test(request, start_response)
    try:
        written += answered
    finally:
        answered.close()  # type: ignore[attr-defined]  # the validator's own iterator
    status, fields = started[0]
    return WSGIAnswer(int(status[:3]), fields, b"".join(written), request)


def _environ(**known: object) -> dict[str, Any]:
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": "server.internal",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **known,
    }


class RecordingTransport:
    """A transport that keeps what it is given, and fails as often as it is told to.

    Args:
        failures: raised, one a message, before anything is kept; ``DeliveryError`` says whether trying again helps.

    Attributes:
        messages: what was delivered, with ``id``, ``subject``, ``text``, ``headers`` and ``body``.
        attempts: how often delivery was tried.
        closed: whether ``close`` was called.
    """

    def __init__(self, failures: Iterable[Exception] = ()) -> None:
        self.failures = list(failures)
        self.messages: list[OutgoingAlert] = []
        self.attempts = 0
        self.closed = False

    def send(self, message: OutgoingAlert, /) -> None:
        """Keep the message, or raise the next failure."""
        self.attempts += 1
        if self.failures:
            raise self.failures.pop(0)
        self.messages.append(message)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


def _require(condition: bool, rule: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not condition:
        raise AssertionError(rule)


def _at_once(work: Callable[[int], object], *, threads: int) -> list[Any]:
    """What ``work`` returns in so many threads that start together."""
    barrier = threading.Barrier(threads)
    results: list[Any] = [None] * threads

    def run(number: int) -> None:
        barrier.wait()
        results[number] = work(number)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def _call(work: Sequence[Callable[[], object]], number: int) -> object:
    return work[number]()


class CacheContract:
    """What every cache must do; derive a test class and say how to make a cache.

    Each test asks for a new, empty cache of a namespace; caches of different namespaces may share a server.
    """

    def make_cache(self, namespace: str, *, clock: FrozenClock) -> Any:
        """A new, empty cache without jitter."""
        raise NotImplementedError

    def test_values_come_back_as_they_were_given(self) -> None:
        """Equal, of the same types, and never the same mutable object."""
        cache = self.make_cache("values", clock=FrozenClock())
        moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
        values: list[Any] = [
            None,
            False,
            0,
            "",
            b"",
            [],
            {},
            (),
            1,
            1.5,
            -(2**70),
            "技術",
            b"\x00\xff",
            moment,
            {1: "a"},
        ]
        values += [{"a": [1, (2, {"b": None})]}, {1, 2}, frozenset({"x"}), moment.date(), float("inf")]
        for number, value in enumerate(values):
            _require(cache.set(f"k{number}", value), "a value is stored")
            for _ in range(2):
                stored = cache.get(f"k{number}", "absent")
                _require(stored == value and type(stored) is type(value), f"{value!r} comes back as it was")
        changed = cache.get(f"k{len(values) - 5}")
        changed["a"].clear()
        _require(cache.get(f"k{len(values) - 5}") == values[-5], "what was handed out can be changed freely")

    def test_what_is_not_there(self) -> None:
        """Defaults, and the difference between None and nothing."""
        cache = self.make_cache("absent", clock=FrozenClock())
        _require(cache.get("k") is None and cache.get("k", 7) == 7, "an absent key has the default")
        _require(not cache.exists("k") and cache.delete("k") == 0, "an absent key does not exist")
        cache.set("k", None)
        _require(cache.exists("k") and cache.get("k", 7) is None, "None is a value")
        _require(cache.delete("k", "other") == 1 and not cache.exists("k"), "a deleted key is gone")

    def test_many_at_once(self) -> None:
        """Several keys in one call."""
        cache = self.make_cache("many", clock=FrozenClock())
        _require(cache.set_many({"a": 1, "b": 2}), "several values are stored")
        _require(cache.get_many(["a", "x", "b", "a"]) == {"a": 1, "b": 2}, "those that are there come back")
        _require(cache.get_many([]) == {} and cache.set_many({}), "nothing is fine too")

    def test_time_to_live(self) -> None:
        """Never longer than asked, on a clock that may be set back."""
        clock = FrozenClock()
        cache = self.make_cache("ttl", clock=clock)
        cache.set("k", 1, ttl=10)
        clock.advance(9)
        _require(cache.get("k") == 1, "a value lives")
        clock.advance(2)
        _require(cache.get("k") is None, "and ends")
        cache.set("k", 1)
        cache.set("k", 2, ttl=0)
        _require(not cache.exists("k"), "ttl 0 keeps nothing")

    def test_tags(self) -> None:
        """One call forgets all values of a tag, and no others."""
        cache = self.make_cache("tags", clock=FrozenClock())
        cache.set("a", 1, tags=["x"])
        cache.set("b", 2, tags=["x", "y"])
        cache.set("c", 3, tags=["y"])
        cache.set("d", 4)
        _require(cache.invalidate_tags("x", "unknown"), "tags can be invalidated")
        _require(cache.get_many("abcd") == {"c": 3, "d": 4}, "values of the tag are gone")
        cache.set("a", 5, tags=["x"])
        _require(cache.get("a") == 5, "a tag can be used again")

    def test_patterns_and_clear(self) -> None:
        """Glob patterns, inside the namespace only."""
        cache = self.make_cache("patterns", clock=FrozenClock())
        other = self.make_cache("patterns2", clock=FrozenClock())
        other.set("list:1", 1)
        cache.set_many({"list:1": 1, "list:2": 2, "item:1": 3, "lis*": 4})
        _require(cache.delete_pattern("lis\\*") == 1, "a backslash makes a star literal")
        _require(cache.delete_pattern("list:[0-1]") == 1, "sets work")
        _require(cache.get_many(["list:2", "item:1"]) == {"list:2": 2, "item:1": 3}, "the others stay")
        cache.clear()
        _require(not cache.exists("item:1") and other.get("list:1") == 1, "clear empties its own namespace")

    def test_computing(self) -> None:
        """Once for each key; errors are not kept; None is."""
        cache = self.make_cache("compute", clock=FrozenClock())
        calls: list[object] = []

        def compute() -> None:
            calls.append(1)

        for _ in range(3):
            _require(cache.get_or_compute("k", compute) is None, "the computed value is returned")
        _require(len(calls) == 1, "a value is computed once")

        def fail() -> None:
            calls.append(1)
            raise KeyError("nope")

        for _ in range(2):
            try:
                cache.get_or_compute("e", fail)
            except KeyError:
                continue
            raise AssertionError("errors reach the caller")
        _require(len(calls) == 3, "errors are not kept")

    def test_an_invalidation_during_a_computation_wins(self) -> None:
        """However it is made."""
        for number, invalidate in enumerate(
            (
                lambda cache: cache.delete("k"),
                lambda cache: cache.invalidate_tags("t"),
                lambda cache: cache.delete_pattern("k*"),
                lambda cache: cache.clear(),
                lambda cache: cache.set("k", "newer") and cache.delete("k"),
            )
        ):
            cache = self.make_cache(f"lease{number}", clock=FrozenClock())

            def compute(cache: Any = cache, invalidate: Any = invalidate) -> str:
                invalidate(cache)
                return "old"

            _require(
                cache.get_or_compute("k", compute, tags=["t"]) == "old", "the caller gets what it computed"
            )
            _require(cache.get("k") is None, "but it is not kept")
            _require(
                cache.get_or_compute("k", lambda: "new", tags=["t"]) == "new", "the next one computes anew"
            )
            _require(cache.get("k") == "new", "and that is kept")

    def test_a_write_during_a_computation_wins(self) -> None:
        """What was set is newer than what was being computed."""
        cache = self.make_cache("write", clock=FrozenClock())
        cache.get_or_compute("k", lambda: cache.set("k", "set") and "computed")
        _require(cache.get("k") == "set", "the written value stays")

    def test_a_recursive_computation_does_not_wait_for_itself(self) -> None:
        """It computes."""
        cache = self.make_cache("recursive", clock=FrozenClock())
        value = cache.get_or_compute("k", lambda: [cache.get_or_compute("k", lambda: "inner"), "outer"])
        _require(value == ["inner", "outer"], "a recursive computation ends")

    def test_threads_share_a_computation(self) -> None:
        """One computes, all get the value."""
        cache = self.make_cache("threads", clock=FrozenClock())
        calls: list[int] = []
        everybody = threading.Barrier(8)

        def compute(number: int) -> str:
            calls.append(number)
            return "value"

        def work(number: int) -> object:
            everybody.wait()
            return cache.get_or_compute("k", lambda: compute(number))

        _require(_at_once(work, threads=8) == ["value"] * 8, "all get the value")
        _require(len(calls) == 1, "one computes it")

    def test_async_twins(self) -> None:
        """The same answers on an event loop, tasks included."""
        import asyncio

        cache = self.make_cache("async", clock=FrozenClock())
        calls: list[int] = []

        async def compute() -> str:
            calls.append(1)
            await asyncio.sleep(0)
            return "value"

        async def scenario() -> None:
            await cache.aset("a", 1, tags=["t"])
            await cache.aset_many({"b": 2, "c": 3})
            _require(await cache.aget("a") == 1 and await cache.aexists("b"), "values are found")
            _require(await cache.aget_many(["a", "c"]) == {"a": 1, "c": 3}, "several at once too")
            await cache.ainvalidate_tags("t")
            _require(await cache.aget("a", 7) == 7, "tags work")
            _require(
                await cache.adelete("b") == 1 and await cache.adelete_pattern("c*") == 1, "deleting works"
            )
            values = await asyncio.gather(*(cache.aget_or_compute("k", compute) for _ in range(10)))
            _require(values == ["value"] * 10 and len(calls) == 1, "tasks share a computation")
            _require(await cache.aping(), "a working cache answers")
            await cache.aclear()
            _require(not await cache.aexists("k"), "clear works")
            await cache.aclose()

        asyncio.run(scenario())

    def test_what_cannot_be_kept_is_refused(self) -> None:
        """Objects, and parameters that make no sense."""
        cache = self.make_cache("refused", clock=FrozenClock())
        refused: list[Callable[[], object]] = [
            lambda: cache.set("k", object()),
            lambda: cache.get_or_compute("k", object),
            lambda: cache.set("", 1),
            lambda: cache.get("k" * 513),
            lambda: cache.set("k", 1, ttl=-1),
            lambda: cache.set("k", 1, tags="one"),
            lambda: cache.set("k", 1, tags=["with blank"]),
            lambda: cache.invalidate_tags(""),
        ]
        for number, call in enumerate(refused):
            try:
                call()
            except ValueError:
                continue
            raise AssertionError(f"number {number} must be refused")
        _require(cache.get("k") is None, "nothing was kept")

    def test_statistics_ping_and_close(self) -> None:
        """Hits and misses are counted, and closing twice is harmless."""
        cache = self.make_cache("stats", clock=FrozenClock())
        cache.set("k", 1)
        cache.get("k")
        cache.get("x")
        stats = cache.stats()
        _require((stats.hits, stats.misses, stats.errors) == (1, 1, 0), "reads are counted")
        _require(cache.ping(), "a working cache answers")
        cache.close()
        cache.close()


class TransportContract:
    """What every ``Transport`` must do; derive a test class and say how to make one and where its messages arrive.

    Each test asks for a new transport whose destination has received nothing.
    """

    def make_transport(self) -> Transport:
        """A new transport; what it sends carries the text of the message somewhere in its bytes."""
        raise NotImplementedError

    def received(self) -> list[bytes]:
        """What the destination took since ``make_transport``, oldest first."""
        raise NotImplementedError

    def take_away(self) -> None:
        """Make the destination unreachable, for a while."""
        raise NotImplementedError

    def bring_back(self) -> None:
        """Make the destination reachable again."""
        raise NotImplementedError

    def test_a_message_arrives_once(self) -> None:
        """When ``send`` returns it has arrived."""
        transport = self.make_transport()
        transport.send(_Message("m1", "first words"))
        _require([b"first words" in body for body in self.received()] == [True], "a message arrives once")
        transport.close()

    def test_messages_arrive_in_order(self) -> None:
        """One after another, from any thread."""
        transport = self.make_transport()
        for number in range(5):
            message = _Message(f"m{number}", f"words {number}.")
            _at_once(partial(_send, transport, message), threads=1)
        order = [b"words %d." % number in body for number, body in enumerate(self.received())]
        _require(order == [True] * 5, "messages arrive in order")
        transport.close()

    def test_an_absent_destination_is_a_passing_fault(self) -> None:
        """A ``DeliveryError`` that is temporary, or any ``OSError``; then the same message can be sent again."""
        transport = self.make_transport()
        self.take_away()
        try:
            transport.send(_Message("m1", "words"))
        except DeliveryError as error:
            _require(error.temporary, "an absent destination is a passing fault")
        except OSError:
            pass
        else:
            raise AssertionError("a message that did not arrive raises")
        finally:
            self.bring_back()
        transport.send(_Message("m1", "words"))
        _require(len(self.received()) == 1, "a message can be sent again")
        transport.close()

    def test_close_may_be_called_twice(self) -> None:
        """Also without anything sent."""
        transport = self.make_transport()
        transport.close()
        transport.close()


def _send(transport: Transport, message: _Message, _number: int) -> None:
    transport.send(message)


class _Message(NamedTuple):
    id: str
    text: str

    @property
    def subject(self) -> str:
        return self.text

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Content-Type": "text/plain"}

    @property
    def body(self) -> bytes:
        return f"Subject: {self.text}\r\n\r\n{self.text}\r\n".encode()


class TwoFactorStoreContract:
    """What every ``TwoFactorStore`` must do; derive a test class and say how to make a store.

    Each test asks for a new, empty store that may be used from several threads.
    """

    def make_store(self) -> TwoFactorStore:
        """A new, empty store."""
        raise NotImplementedError

    def test_unknown_users_have_no_record(self) -> None:
        """Nothing is there before it is written."""
        _require(self.make_store().load("u") is None, "an unknown user has no record")

    def test_records_come_back_as_they_were_written(self) -> None:
        """Any bytes and any text of 255 characters survive."""
        store = self.make_store()
        for number, user_id in enumerate(("u", "U", "現場 太郎", "a:b{c}d\n*?[x]", "x" * 255, "Ω" * 255)):
            data = bytes(range(256)) * number + b"x"
            _require(store.replace(user_id, data, expected=None, version=f"v{number}"), "a first write works")
            _require(store.load(user_id) == (f"v{number}", data), "a record is read as it was written")

    def test_only_the_expected_version_is_replaced(self) -> None:
        """Compare and set."""
        store = self.make_store()
        _require(store.replace("u", b"1", expected=None, version="a"), "a first write works")
        _require(not store.replace("u", b"2", expected=None, version="b"), "a first write does not overwrite")
        _require(not store.replace("u", b"2", expected="x", version="b"), "another version is not replaced")
        _require(store.load("u") == ("a", b"1"), "a refused write changes nothing")
        _require(store.replace("u", b"2", expected="a", version="b"), "the expected version is replaced")
        _require(not store.replace("u", b"3", expected="a", version="c"), "a version is replaced once")
        _require(store.load("u") == ("b", b"2"), "the latest record counts")
        _require(not store.replace("v", b"1", expected="a", version="b"), "a missing record is not replaced")

    def test_a_repeated_write_is_not_a_conflict(self) -> None:
        """A write whose answer was lost may be sent again."""
        store = self.make_store()
        for _ in range(2):
            _require(store.replace("u", b"1", expected=None, version="a"), "a first write may be repeated")
        for _ in range(2):
            _require(store.replace("u", b"2", expected="a", version="b"), "a write may be repeated")
        for _ in range(2):
            _require(store.replace("u", None, expected="b", version="c"), "a removal may be repeated")
        _require(store.load("u") is None, "a removed record is gone")

    def test_removal_needs_the_expected_version(self) -> None:
        """A record that changed meanwhile stays."""
        store = self.make_store()
        store.replace("u", b"1", expected=None, version="a")
        _require(not store.replace("u", None, expected="x", version="b"), "another version is not removed")
        _require(
            not store.replace("u", None, expected=None, version="b"), "an unexpected record is not removed"
        )
        _require(store.load("u") == ("a", b"1"), "a refused removal changes nothing")

    def test_scan_sees_everybody(self) -> None:
        """With any page size, also while records change."""
        store = self.make_store()
        everybody = {f"user {number}" for number in range(25)}
        for user_id in everybody:
            store.replace(user_id, b"x", expected=None, version="a")
        for limit in (1, 7, 25, 100):
            seen: list[str] = []
            cursor: str | None = None
            while True:
                page, cursor = store.scan(cursor, limit=limit)
                for user_id in page:
                    stored = store.load(user_id)
                    if stored is not None:
                        store.replace(user_id, b"y", expected=stored.version, version=f"{limit}")
                seen += page
                if cursor is None:
                    break
            _require(set(seen) == everybody, "a scan sees every user")
        _require(self.make_store().scan(None, limit=5) == ([], None), "an empty store has nobody")

    def test_one_of_many_writers_wins(self) -> None:
        """Compare and set among threads, for a first write, a change and a removal."""
        store = self.make_store()
        first = _at_once(
            lambda number: store.replace("u", b"1", expected=None, version=f"a{number}"), threads=8
        )
        _require(first.count(True) == 1, "one of many first writes works")
        version = f"a{first.index(True)}"
        second = _at_once(
            lambda number: store.replace("u", b"2", expected=version, version=f"b{number}"), threads=8
        )
        _require(second.count(True) == 1, "one of many changes works")
        _require(store.load("u") == (f"b{second.index(True)}", b"2"), "the winner's record is stored")

    def test_ping_and_close(self) -> None:
        """A store that works says so, and closing twice is harmless."""
        store = self.make_store()
        _require(store.ping(), "a working store answers")
        store.close()
        store.close()


class SessionStoreContract:
    """What every ``SessionStore`` must do; derive a test class and say how to make a store.

    Each test asks for a new, empty store that may be used from several threads.
    """

    now = 1_700_000_000.0

    def make_store(self) -> SessionStore:
        """A new, empty store."""
        raise NotImplementedError

    def test_unknown_sessions(self) -> None:
        """Nothing can be done with a session that was never made."""
        store = self.make_store()
        _require(store.load("k") is None, "an unknown session has no record")
        _require(store.rotate("k", "n", now=self.now) is None, "an unknown session is not rotated")
        _require(not store.touch("k", seen_at=self.now, expires_at=self.now + 9), "nor touched")
        _require(not store.update("k", version=0, data="{}"), "nor updated")
        _require(not store.end("k", reason="idle"), "nor ended")
        _require(store.load("k") is None and store.load("n") is None, "and none of that makes one")
        _require(list(store.sessions("u", now=self.now)) == [], "an unknown user has no sessions")
        _require(store.end_user("u", now=self.now) == 0, "and none to end")

    def test_records_come_back_as_they_were_made(self) -> None:
        """Any user name, any JSON text, fractions of seconds."""
        store = self.make_store()
        for number, user_id in enumerate(("u", "現場 太郎", "a:b{c}d\n*?[x]", "x" * 255, "Ω")):
            record = self._record(f"k{number}", user_id)._replace(
                seen_at=self.now + 0.123456, data='{"名":"\\"\\n","n":[1.5,null,true,{}]}'
            )
            _require(list(store.create(record, now=self.now)) == [], "a first session ends no other")
            _require(store.load(record.key) == record, "a record is read as it was made")
            _require(list(store.sessions(user_id, now=self.now)) == [record], "and listed for its user")

    def test_a_repeated_creation_changes_nothing(self) -> None:
        """A creation whose answer was lost may be sent again."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        store.update("k", version=0, data='{"a":1}')
        store.create(self._record("k"), now=self.now)
        record = store.load("k")
        _require(record is not None and record.data == '{"a":1}', "a repeated creation changes nothing")
        store.end("k", reason="revoked")
        store.create(self._record("k"), now=self.now)
        _require(self._ended(store, "k") == "revoked", "a repeated creation revives nothing")

    def test_a_replaced_session_is_dead(self) -> None:
        """Whoever's it was."""
        store = self.make_store()
        store.create(self._record("old", "u"), now=self.now)
        store.create(self._record("new", "v"), now=self.now, replaces="old")
        _require(self._ended(store, "old") == "revoked", "the replaced session is dead")
        _require(self._ended(store, "new") == "", "the new one lives")
        store.create(self._record("other"), now=self.now, replaces="unknown")
        _require(self._ended(store, "other") == "", "a session may replace one that is gone")

    def test_the_oldest_ends_beyond_the_limit(self) -> None:
        """Counting living sessions of this user only."""
        store = self.make_store()
        store.create(self._record("other", "v"), now=self.now)
        store.create(self._record("expired", life=10.0), now=self.now)
        now = self.now + 20
        for number in range(4):
            key = f"k{number}"
            ended = store.create(self._record(key, at=now + number), now=now + number, max_sessions=2)
            _require(list(ended) == ([f"k{number - 2}"] if number >= 2 else []), "the oldest ends")
        living = [record.key for record in store.sessions("u", now=now + 4)]
        _require(living == ["k2", "k3"], "the newest stay, oldest first")
        _require(self._ended(store, "k0") == "revoked", "a session that ended for the limit is dead")
        _require(self._ended(store, "other") == "", "other users are not concerned")

    def test_rotation_moves_a_session(self) -> None:
        """User, time and data move; the old key is dead; a repetition gets the first answer."""
        store = self.make_store()
        store.create(self._record("old")._replace(data='{"a":1}'), now=self.now)
        moved = store.rotate("old", "new", now=self.now)
        _require(moved == self._record("new")._replace(data='{"a":1}'), "everything moves")
        _require(store.rotate("old", "new", now=self.now) == moved, "a repetition gets the first answer")
        _require(self._ended(store, "old") == "revoked", "the old key is dead")
        _require(store.rotate("old", "third", now=self.now) is None, "a dead session is not rotated")
        _require(store.load("third") is None, "and leaves nothing")
        changed = store.rotate("new", "newer", now=self.now, data='{"b":2}')
        _require(changed is not None and changed.data == '{"b":2}', "data can be replaced on the way")
        _require(changed is not None and changed.version == 1, "which is a new version")
        _require([one.key for one in store.sessions("u", now=self.now)] == ["newer"], "one session is listed")

    def test_activity_moves_forward_only(self) -> None:
        """A slow request does not take back what a faster one recorded."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        _require(store.touch("k", seen_at=self.now + 50, expires_at=self.now + 150), "activity is recorded")
        _require(
            store.touch("k", seen_at=self.now + 20, expires_at=self.now + 120), "late activity is no fault"
        )
        record = store.load("k")
        _require(record is not None and record.seen_at == self.now + 50, "activity moves forward only")
        _require(record is not None and record.expires_at == self.now + 150, "so does the deadline")

    def test_data_is_compared_and_set(self) -> None:
        """The version that was read must still be there."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        _require(store.update("k", version=0, data='{"a":1}'), "the version that was read is replaced")
        _require(not store.update("k", version=0, data='{"a":2}'), "an older version is not")
        _require(not store.update("k", version=2, data='{"a":2}'), "nor one that is not there yet")
        record = store.load("k")
        _require(
            record is not None and (record.version, record.data) == (1, '{"a":1}'), "the first one counts"
        )

    def test_a_session_ends_once_and_for_all(self) -> None:
        """The first reason stays, the data goes, and nothing revives it."""
        store = self.make_store()
        store.create(self._record("k")._replace(data='{"a":1}'), now=self.now)
        _require(store.end("k", reason="idle"), "a living session ends")
        _require(not store.end("k", reason="revoked"), "a dead one does not")
        _require(not store.touch("k", seen_at=self.now + 5, expires_at=self.now + 500), "it is not touched")
        _require(not store.update("k", version=0, data="{}"), "not updated")
        _require(store.rotate("k", "n", now=self.now) is None, "not rotated")
        record = store.load("k")
        _require(record is not None and record.ended == "idle", "the first reason stays")
        _require(record is not None and record.data == "{}", "the data is gone")
        _require(list(store.sessions("u", now=self.now)) == [], "it is not listed")

    def test_all_sessions_of_a_user_end_but_one(self) -> None:
        """And nobody else's."""
        store = self.make_store()
        for key, user in (("a", "u"), ("b", "u"), ("c", "u"), ("d", "v")):
            store.create(self._record(key, user), now=self.now)
        _require(store.end_user("u", now=self.now, keep="b") == 2, "the others end")
        _require(store.end_user("u", now=self.now, keep="b") == 0, "once")
        _require([one.key for one in store.sessions("u", now=self.now)] == ["b"], "one stays")
        _require(store.end_user("u", now=self.now) == 1, "all end")
        _require(self._ended(store, "d") == "", "other users are not concerned")

    def test_expired_sessions_are_not_listed(self) -> None:
        """What ran out is no session, whoever was told."""
        store = self.make_store()
        store.create(self._record("k", life=10.0), now=self.now)
        _require(len(store.sessions("u", now=self.now + 9)) == 1, "listed before its time")
        _require(len(store.sessions("u", now=self.now + 10)) == 0, "not after")

    def test_threads_do_not_get_past_the_limit(self) -> None:
        """However many sign in at once."""
        store = self.make_store()

        def sign_in(number: int) -> None:
            for again in range(4):
                at = self.now + number / 100
                store.create(self._record(f"k{number}-{again}", at=at), now=at, max_sessions=3)

        _at_once(sign_in, threads=8)
        _require(len(store.sessions("u", now=self.now + 1)) == 3, "the limit holds")

    def test_threads_do_not_revive(self) -> None:
        """Whatever goes on while a session ends."""
        store = self.make_store()
        for turn in range(20):
            key = f"k{turn}"
            store.create(self._record(key), now=self.now)
            work: list[Callable[[], object]] = [
                partial(store.end, key, reason="revoked"),
                partial(store.touch, key, seen_at=self.now + 1, expires_at=self.now + 500),
                partial(store.update, key, version=0, data='{"a":1}'),
                partial(store.create, self._record(key), now=self.now),
            ]
            _at_once(partial(_call, work), threads=len(work))
            _require(self._ended(store, key) == "revoked", "an ended session stays dead")
        _require(list(store.sessions("u", now=self.now)) == [], "and none is listed")

    def test_one_of_many_rotations_wins(self) -> None:
        """The others find a dead session."""
        store = self.make_store()
        store.create(self._record("k"), now=self.now)
        moved = _at_once(lambda number: store.rotate("k", f"n{number}", now=self.now), threads=8)
        _require(sum(record is not None for record in moved) == 1, "one rotation wins")
        _require(len(store.sessions("u", now=self.now)) == 1, "one session lives")

    def test_ping_and_close(self) -> None:
        """A store that works says so, and closing twice is harmless."""
        store = self.make_store()
        _require(store.ping(), "a working store answers")
        store.close()
        store.close()

    def _record(
        self, key: str, user_id: str = "u", *, at: float | None = None, life: float = 100.0
    ) -> SessionRecord:
        start = self.now if at is None else at
        return SessionRecord(key, user_id, start, start, start + life)

    @staticmethod
    def _ended(store: SessionStore, key: str) -> str | None:
        record = store.load(key)
        return None if record is None else record.ended


class LimiterContract:
    """What every ``Limiter`` must do; derive a test class and say how to make a limiter.

    Windows are a minute and longer, so that a test is over before one ends.
    """

    def make_limiter(self, groups: Mapping[str, str]) -> Limiter:
        """A new limiter without any hits, with groups like ``{"g": "3 per minute, 5 per hour"}``."""
        raise NotImplementedError

    def test_the_quota_passes_and_no_more(self) -> None:
        """For each key by itself."""
        limiter = self.make_limiter({"g": "3 per minute"})
        _require(self._passed(limiter, "k", 6) == 3, "the quota passes")
        _require(self._passed(limiter, "other", 6) == 3, "keys are counted apart")

    def test_groups_are_counted_apart(self) -> None:
        """The same key in two groups is two counts."""
        limiter = self.make_limiter({"g": "1 per minute", "h": "1 per minute"})
        _require(bool(limiter.hit("g", "k")) and bool(limiter.hit("h", "k")), "groups are counted apart")

    def test_a_refused_hit_takes_nothing(self) -> None:
        """Neither from the limit that refused nor from the others."""
        limiter = self.make_limiter({"g": "3 per minute, 5 per hour"})
        _require(self._passed(limiter, "k", 10) == 3, "the tightest limit counts")
        _require(tuple(limiter.hit("g", "k").remaining) == (0, 2), "a refused hit takes nothing")

    def test_cost(self) -> None:
        """A hit of many is taken whole or not at all."""
        limiter = self.make_limiter({"g": "10 per minute"})
        taken = [bool(limiter.hit("g", "k", cost=cost)) for cost in (8, 5, 1, 1, 1)]
        _require(taken == [True, False, True, True, False], "a refused costly hit takes nothing")

    def test_what_a_decision_tells(self) -> None:
        """Limits in the order given, hits left, seconds to wait."""
        limiter = self.make_limiter({"g": "1 per minute, 5 per hour"})
        allowed, refused = limiter.hit("g", "k"), limiter.hit("g", "k")
        rows = [(limit.quota, limit.window) for limit in allowed.limits]
        _require(rows == [(1, 60.0), (5, 3600.0)], "limits come in the order given")
        _require(tuple(allowed.remaining) == (0, 4), "remaining is after the hit")
        _require(allowed.allowed and allowed.retry_after is None, "an allowed hit need not be retried")
        _require(all(0 < reset <= 7200 for reset in allowed.reset_after), "reset lies within two windows")
        _require(not refused.allowed and not refused, "a refused hit is false")
        _require(
            refused.retry_after is not None and 0 < refused.retry_after <= 120, "a refusal says how long"
        )

    def test_unknown_groups_are_errors(self) -> None:
        """A name that was mistyped must not mean "no limit"."""
        limiter = self.make_limiter({"g": "1 per minute"})
        try:
            limiter.hit("nope", "k")
        except ValueError:
            return
        raise AssertionError("an unknown group is an error")

    def test_threads_share_one_count(self) -> None:
        """Exactly the quota passes, however many ask at once."""
        limiter = self.make_limiter({"g": "20 per minute"})
        passed = _at_once(lambda _: self._passed(limiter, "k", 10), threads=8)
        _require(sum(passed) == 20, "threads share one count")

    @staticmethod
    def _passed(limiter: Limiter, key: str, tries: int) -> int:
        decisions: list[LimitDecision] = [limiter.hit("g", key) for _ in range(tries)]
        return sum(bool(decision) for decision in decisions)
