"""The queue in front of a CDN: few requests, in order, and an account of every item."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mks_hardening._core.process import exit_hooks
from mks_hardening.cache import BaseCDN, MemoryCache, PurgeItem, PurgeQueue, PurgeResult, TagInvalidator
from mks_hardening.cache.cdn import purge_queue
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import FrozenClock
from testbed.forked import in_child
from testbed.polling import wait_until

NEVER = 1e9  # a window that only flush() and close() end


class OwnCDN(BaseCDN):
    """A CDN as users write one; each request gets the next scripted result."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, ...]] = []
        self.script: list[Callable[[Sequence[PurgeItem]], PurgeResult]] = []

    def refusal(self, item: PurgeItem) -> str | None:
        return "no hosts here" if item.kind == "hosts" else None

    def send_items(self, items: Sequence[PurgeItem]) -> PurgeResult:
        self.requests.append(tuple(item.value for item in items))
        return self.script.pop(0)(items) if self.script else PurgeResult.of_items(done=items)

    def __repr__(self) -> str:
        return "OwnCDN('zone')"


def busy(items: Sequence[PurgeItem]) -> PurgeResult:
    return PurgeResult.of_items(failed=items, errors=["HTTP 429"], retry_after=60)


def refused(items: Sequence[PurgeItem]) -> PurgeResult:
    return PurgeResult.of_items(failed=items, errors=["HTTP 403"])


def broken(_items: Sequence[PurgeItem]) -> PurgeResult:
    raise RuntimeError("hunter2")


@pytest.fixture
def cdn() -> OwnCDN:
    return OwnCDN()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def queue(cdn: OwnCDN, clock: FrozenClock) -> Any:
    with PurgeQueue(cdn, window=NEVER, max_items=5, max_age=600, clock=clock) as made:
        yield made


def test_many_purges_become_one_request_in_order(queue: PurgeQueue, cdn: OwnCDN) -> None:
    result = queue.purge_cache(["https://example.com/"], tags=["a", "b", "a"])
    assert (result.ok, result.done, result.queued) == (True, (), ("https://example.com/", "a", "b"))
    queue.purge_cache(tags=["b", "c"])
    assert cdn.requests == []
    stats = queue.flush()
    assert cdn.requests == [("https://example.com/", "a", "b", "c")]
    assert (stats.queued, stats.done, stats.merged, stats.pending) == (5, 4, 1, 0)
    assert queue.flush() == stats


def test_the_window_begins_with_the_first_item(cdn: OwnCDN, clock: FrozenClock) -> None:
    with PurgeQueue(cdn, window=0.1, clock=clock) as queue:
        queue.purge_cache(tags=["a"])
        clock.advance(0.09)
        queue.purge_cache(tags=["b"])
        clock.advance(0.01)
        wait_until(lambda: cdn.requests == [("a", "b")], timeout=20, what="the request of the window")
        queue.purge_cache(tags=["c"])
        assert queue.stats().pending == 1
        clock.advance(0.1)
        wait_until(lambda: queue.stats().done == 3, timeout=20, what="the next window")


def test_a_purge_of_everything_includes_what_waits(queue: PurgeQueue, cdn: OwnCDN) -> None:
    queue.purge_cache(tags=["a", "b", "c", "d", "e"])
    assert queue.purge_cache(purge_everything=True)  # though the queue is full
    queue.purge_cache(tags=["f"])
    stats = queue.flush()
    assert cdn.requests == [("*",)]
    assert (stats.queued, stats.done, stats.merged) == (7, 1, 6)


def test_an_item_that_is_being_sent_is_sent_again(queue: PurgeQueue, cdn: OwnCDN) -> None:
    def meanwhile(items: Sequence[PurgeItem]) -> PurgeResult:
        queue.purge_cache(tags=["a", "b"])
        return PurgeResult.of_items(done=items)

    cdn.script = [meanwhile]
    queue.purge_cache(tags=["a"])
    queue.flush()
    queue.flush()
    assert cdn.requests == [("a",), ("a", "b")]


@pytest.mark.parametrize("failure", [busy, broken])
def test_a_service_that_asks_to_wait_is_waited_for(
    queue: PurgeQueue, cdn: OwnCDN, clock: FrozenClock, caplog: pytest.LogCaptureFixture, failure: Any
) -> None:
    cdn.script = [failure, failure]
    queue.purge_cache(tags=["a", "b"])
    for _ in range(3):
        assert queue.flush().pending == 2  # one request, not three
    queue.purge_cache(tags=["c", "a"])
    clock.advance(60)
    queue.flush()
    clock.advance(60)
    stats = queue.flush()
    assert cdn.requests == [("a", "b"), ("a", "b", "c"), ("a", "b", "c")]
    assert (stats.done, stats.merged, stats.dropped, stats.pending) == (3, 1, 0, 0)
    messages = [record.getMessage() for record in caplog.records if record.name == "mks_hardening.cache"]
    assert len(messages) == 2
    assert messages[0].startswith("purges of OwnCDN('zone') wait until the CDN accepts them")
    assert messages[1].endswith("that were pending have been sent")
    assert "hunter2" not in caplog.text


def test_a_cdn_that_returns_nothing_is_named(
    queue: PurgeQueue, cdn: OwnCDN, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    nothing: Any = lambda _items: None  # noqa: E731 - a script
    cdn.script = [nothing, nothing]
    with pytest.raises(ConfigurationError, match="send_items of OwnCDN must return a PurgeResult"):
        cdn.purge_cache(tags=["a"])
    queue.purge_cache(tags=["a"])
    queue.flush()
    assert "send_items of OwnCDN must return a PurgeResult, not NoneType" in caplog.text
    clock.advance(30)
    assert queue.flush().done == 1


def test_what_the_service_refuses_is_dropped_counted_and_logged(
    queue: PurgeQueue, cdn: OwnCDN, caplog: pytest.LogCaptureFixture
) -> None:
    cdn.script = [refused]
    queue.purge_cache(tags=["a", "b"])
    assert queue.flush().dropped == 2
    assert "2 purges of OwnCDN('zone') were dropped: HTTP 403" in caplog.text
    queue.purge_cache(tags=["a"])
    assert queue.flush().done == 1


def test_an_item_is_not_tried_for_ever(queue: PurgeQueue, cdn: OwnCDN, clock: FrozenClock) -> None:
    cdn.script = [busy] * 20
    queue.purge_cache(tags=["a"])
    for _ in range(8):
        queue.flush()
        clock.advance(61)
    queue.purge_cache(tags=["b"])
    for _ in range(4):
        queue.flush()
        clock.advance(61)
    assert queue.stats().dropped == 1
    assert cdn.requests[-1] == ("b",)


def test_only_what_failed_is_sent_again(queue: PurgeQueue, cdn: OwnCDN, clock: FrozenClock) -> None:
    values_only = PurgeResult(ok=False, done=("a",), failed=("b",), errors=(), retry_after=1)
    cdn.script = [lambda _items: values_only]
    queue.purge_cache(tags=["a", "b"])
    queue.flush()
    clock.advance(1)
    queue.flush()
    assert cdn.requests == [("a", "b"), ("b",)]


def test_a_full_queue_says_so_and_takes_nothing(queue: PurgeQueue) -> None:
    assert queue.purge_cache(tags=["a", "b", "c", "d"])
    result = queue.purge_cache(tags=["e", "f"])
    assert (result.ok, result.failed, result.errors) == (False, ("e", "f"), ("the queue is full (5 items)",))
    assert result.retry_after
    assert queue.purge_cache(tags=["a", "e"])  # one of them waits already
    assert queue.stats().queued == 6


def test_items_that_the_cdn_cannot_purge_are_refused_at_once(queue: PurgeQueue) -> None:
    with pytest.raises(ConfigurationError, match="no hosts here"):
        queue.purge_cache(tags=["a"], hosts=["www.example.com"])
    with pytest.raises(ConfigurationError, match="tags"):
        queue.purge_cache(tags=["a b"])
    assert queue.stats().queued == 0


def test_closing_sends_what_is_pending(cdn: OwnCDN) -> None:
    queue = PurgeQueue(cdn, window=NEVER)
    queue.purge_cache(tags=["a"])
    queue.close()
    queue.close()
    assert cdn.requests == [("a",)]
    result = queue.purge_cache(tags=["b"])
    assert (result.ok, result.failed, result.retry_after) == (False, ("b",), None)


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_end_of_the_process_sends_what_is_pending(
    cdn: OwnCDN, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_busy: bool
) -> None:
    monkeypatch.setattr(exit_hooks, "_callbacks", [])
    cdn.script = [busy] if is_busy else []
    queue = PurgeQueue(cdn, window=NEVER)
    queue.purge_cache(tags=["a"])
    exit_hooks.run_exit_callbacks()
    assert cdn.requests == [("a",)]
    assert (queue.stats().done, queue.stats().dropped) == (not is_busy, is_busy)
    assert ("are lost" in caplog.text) is is_busy
    queue.close()


def test_the_end_of_the_process_waits_a_few_seconds_for_a_service_that_hangs(
    cdn: OwnCDN, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exit_hooks, "_callbacks", [])
    monkeypatch.setattr(purge_queue, "_AT_EXIT", 0.2)
    began, goes_on = threading.Event(), threading.Event()

    def hang(items: Sequence[PurgeItem]) -> PurgeResult:
        began.set()
        goes_on.wait(60)
        return PurgeResult.of_items(done=items)

    cdn.script = [hang]
    queue = PurgeQueue(cdn, window=NEVER)
    queue.purge_cache(tags=["a"])
    closing = threading.Thread(target=queue.close)
    closing.start()
    assert began.wait(60)
    exit_hooks.run_exit_callbacks()
    goes_on.set()
    closing.join(60)
    assert (
        caplog.text.count("1 purges of OwnCDN('zone') were pending when the queue was closed; they are lost")
        == 1
    )
    assert (queue.stats().done, queue.stats().dropped, queue.stats().pending) == (0, 1, 0)


def test_what_cannot_be_sent_at_the_end_is_counted_as_dropped(
    cdn: OwnCDN, caplog: pytest.LogCaptureFixture
) -> None:
    cdn.script = [busy]
    queue = PurgeQueue(cdn, window=NEVER)
    queue.purge_cache(tags=["a", "b"])
    queue.close()
    stats = queue.stats()
    assert (stats.queued, stats.dropped, stats.pending) == (2, 2, 0)
    assert "2 purges of OwnCDN('zone') were pending when the queue was closed; they are lost" in caplog.text


def test_the_spool_keeps_it_for_the_next_process(cdn: OwnCDN, tmp_path: Path) -> None:
    cdn.script = [busy]
    variant = {"url": "https://example.com/", "headers": {"X": "1", "Y": "2"}}
    with PurgeQueue(cdn, window=NEVER, spool=tmp_path / "spool") as queue:
        queue.purge_cache([variant], tags=["a"])
    assert queue.stats().spooled == 2
    (file,) = (tmp_path / "spool").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with file.open("ab") as end:
        end.write(b'["tags","a b"]\n["hosts","www.example.com"]\n[]\n{"a":1}\n["tags"]\n["tags","c')

    class AnotherCDN(OwnCDN):
        def __repr__(self) -> str:
            return "OwnCDN('another zone')"

    with PurgeQueue(AnotherCDN(), window=NEVER, spool=tmp_path / "spool") as queue:
        assert queue.stats().queued == 0
    sent: list[PurgeItem] = []
    cdn.script = [lambda items: (sent.extend(items), PurgeResult.of_items(done=items))[1]]
    with PurgeQueue(cdn, window=NEVER, spool=tmp_path / "spool") as queue:
        assert queue.stats().queued == 2
        queue.flush()
    assert sent == [
        PurgeItem("urls", "https://example.com/", (("X", "1"), ("Y", "2"))),
        PurgeItem("tags", "a"),
    ]
    assert [*(tmp_path / "spool").iterdir()] == []


def test_what_a_forked_worker_left_is_purged_by_the_next_one(cdn: OwnCDN, tmp_path: Path) -> None:
    """The queue was created before the forks, as by a server that preloads the application."""
    with PurgeQueue(cdn, window=NEVER, spool=tmp_path) as queue:

        def worker(tag: str, *script: Callable[[Sequence[PurgeItem]], PurgeResult]) -> list[tuple[str, ...]]:
            cdn.script[:] = script
            queue.purge_cache(tags=[tag])
            queue.flush()
            queue.flush()
            return cdn.requests

        assert in_child(lambda: worker("first", busy)) == "[('first',)]"
        assert len([*tmp_path.iterdir()]) == 1
        assert in_child(lambda: worker("second")) == "[('second',), ('first',)]"
        assert [*tmp_path.iterdir()] == []


def test_a_spool_that_another_process_uses_is_left_alone(cdn: OwnCDN, tmp_path: Path) -> None:
    with PurgeQueue(cdn, window=NEVER, spool=tmp_path) as first:
        first.purge_cache(tags=["a"])
        with PurgeQueue(cdn, window=NEVER, spool=tmp_path) as second:
            assert second.stats().queued == 0
    assert cdn.requests == [("a",)]


def test_a_full_disk_leaves_neither_files_nor_half_lines(
    cdn: OwnCDN, clock: FrozenClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdn.script = [busy] * 20
    write, is_full = os.write, False

    def until_full(descriptor: int, data: bytes) -> int:
        if not is_full:
            return write(descriptor, data)
        if len(data) < 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:5])

    monkeypatch.setattr(os, "write", until_full)
    queue = PurgeQueue(cdn, window=NEVER, spool=tmp_path, clock=clock)
    queue.purge_cache(tags=["a"])
    (file,) = tmp_path.iterdir()
    for number in range(10):
        is_full = True
        queue.purge_cache(tags=[f"full{number}"])
        queue.flush()
        clock.advance(60)
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_text() == '["tags","a"]\n'
    is_full = False
    queue.purge_cache(tags=["b"])
    assert file.read_text() == '["tags","a"]\n["tags","b"]\n'
    cdn.script = []
    queue.close()
    assert [*tmp_path.iterdir()] == []


def test_a_spool_that_cannot_be_written_is_logged_once(
    cdn: OwnCDN, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spool"
    with PurgeQueue(cdn, window=NEVER, spool=folder) as queue:
        folder.rmdir()
        for tag in "abc":
            assert queue.purge_cache(tags=[tag])
        assert caplog.text.count("cannot be written to the spool") == 1
        assert queue.flush().done == 3
        folder.mkdir()
        queue.purge_cache(tags=["d"])
        assert len([*folder.iterdir()]) == 1
    assert caplog.text.count("are written to the spool again") == 1


@pytest.mark.parametrize(
    ("parameter", "options"),
    [
        ("cdn", {"cdn": object()}),
        ("cdn", {"cdn": OwnCDN}),
        ("window", {"window": 0}),
        ("max_items", {"max_items": 0}),
        ("max_age", {"max_age": -1}),
        ("spool", {"spool": 5}),
        ("spool", {"spool": "/proc/none"}),
        ("clock", {"clock": object()}),
    ],
)
def test_impossible_parameters_are_refused(parameter: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PurgeQueue(**{"cdn": OwnCDN(), **options})
    assert caught.value.parameter == parameter


def test_one_call_invalidates_the_cache_at_once_and_the_cdn_soon(queue: PurgeQueue, cdn: OwnCDN) -> None:
    cache = MemoryCache()
    cache.set("page", "old", tags=["articles"])
    result = TagInvalidator(cache, cdn=queue).invalidate(["articles"])
    assert (result.ok, result.queued, cache.get("page")) == (True, ("articles",), None)
    queue.flush()
    assert cdn.requests == [("articles",)]


def test_threads_lose_nothing(cdn: OwnCDN) -> None:
    with PurgeQueue(cdn, window=0.01, max_items=100_000) as queue:
        threads = [
            threading.Thread(
                target=lambda start=start: [queue.purge_cache(tags=[f"t{start + n}"]) for n in range(500)]
            )
            for start in range(0, 4000, 500)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(tag for request in cdn.requests for tag in request) == sorted(f"t{n}" for n in range(4000))
    assert len(cdn.requests) < 400
