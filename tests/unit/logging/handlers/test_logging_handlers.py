"""Handlers: files that move, disks that are full, streams that are gone, the bounded queue."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mks_hardening import events
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging import (
    BelowLevelFilter,
    BoundedQueueHandler,
    ContextFilter,
    JsonFormatter,
    ProcessSafeRotatingFileHandler,
    RedactionFilter,
    ReopeningFileHandler,
    StandardStreamHandler,
    bound,
)
from mks_hardening.logging.handlers._rotated_log import RotatedLog
from mks_hardening.testing import FrozenClock
from testbed.polling import wait_until


def record(message: Any = "hello", *args: Any, level: int = 20, **attributes: Any) -> logging.LogRecord:
    made = logging.LogRecord("app", level, "/x.py", 1, message, args, attributes.pop("exc_info", None))
    made.__dict__.update(attributes)
    return made


def fail(error: Exception) -> None:
    raise error


@pytest.fixture
def dropped() -> Iterator[list[events.LogsDropped]]:
    seen: list[events.LogsDropped] = []

    def observe(event: Any) -> None:
        if isinstance(event, events.LogsDropped):
            seen.append(event)

    events.add_observer(observe)
    yield seen
    events.remove_observer(observe)


# --- files -----------------------------------------------------------------------------------


def test_a_renamed_or_removed_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    handler = ReopeningFileHandler(path)
    handler.emit(record("one"))
    path.rename(tmp_path / "a.log.1")
    handler.emit(record("two"))
    path.unlink()
    handler.emit(record("three"))
    handler.close()
    assert (tmp_path / "a.log.1").read_text() == "one\n"
    assert path.read_text() == "three\n"


def test_a_file_cut_in_place_goes_on_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    handler = ReopeningFileHandler(path)
    handler.emit(record("one"))
    os.truncate(path, 0)
    handler.emit(record("two"))
    handler.close()
    assert path.read_text() == "two\n"


@pytest.mark.parametrize("compress", [False, True])
def test_fewer_backups_than_before_remove_the_old_files(tmp_path: Path, *, compress: bool) -> None:
    path = tmp_path / "a.log"
    for number in range(1, 9):
        (tmp_path / f"a.log.{number}{'.gz' if number > 2 and compress else ''}").write_text("old")
    (tmp_path / "a.log.20261128").write_text("of logrotate")
    handler = ProcessSafeRotatingFileHandler(path, max_bytes=1024, backups=3, compress=compress)
    for _ in range(2):
        handler.emit(record("x" * 900))
    handler.close()
    kept = {one.name.removesuffix(".gz") for one in tmp_path.glob("a.log*")}
    assert kept == {"a.log", "a.log.1", "a.log.2", "a.log.3", "a.log.20261128"}


def test_new_files_are_0640_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        ReopeningFileHandler(tmp_path / "a.log").close()
        ProcessSafeRotatingFileHandler(tmp_path / "b.log", max_bytes=1024, backups=2).close()
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.log")} == {0o640}


def test_closed_handlers_open_again_when_used(tmp_path: Path) -> None:
    handler = ReopeningFileHandler(tmp_path / "a.log")
    handler.close()
    handler.close()
    handler.emit(record("late"))
    handler.close()
    assert (tmp_path / "a.log").read_text() == "late\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_nothing_is_told_once_and_counted(
    capsys: pytest.CaptureFixture[str], dropped: list[events.LogsDropped]
) -> None:
    clock = FrozenClock()
    handler = ReopeningFileHandler("/dev/full", clock=clock)
    for _ in range(3):
        handler.emit(record())
        clock.advance(2)
    handler.emit(record())
    handler.close()
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sum(event.number for event in dropped) == 4


def test_after_a_fault_the_file_is_tried_again_and_its_recovery_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = FrozenClock()
    blocker = tmp_path / "folder"
    blocker.write_text("a file where a folder is needed")
    handler = ReopeningFileHandler(blocker / "a.log", clock=clock)
    handler.emit(record("lost"))
    blocker.unlink()
    handler.emit(record("lost too: not tried again yet"))
    clock.advance(1.5)
    handler.emit(record("kept"))
    handler.close()
    assert (blocker / "a.log").read_text() == "kept\n"
    stderr = capsys.readouterr().err.splitlines()
    assert len(stderr) == 2
    assert "2 records were lost" in stderr[1]


def test_little_free_space_is_warned_about_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, free, looks = FrozenClock(), [5], list[object]()

    def statvfs(path: object) -> os.statvfs_result:
        looks.append(path)
        return os.statvfs_result((4096, 4096, 0, 0, free[0], 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    handler = ReopeningFileHandler(tmp_path / "a.log", min_free_bytes=1 << 20, clock=clock)
    for blocks in (5, 5, 10_000, 5):
        free[0] = blocks
        handler.emit(record())
        handler.emit(record())  # within half a minute, it does not look again
        clock.advance(60)
    handler.close()
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert len(looks) == 4


@pytest.mark.parametrize("filename", ["", 5, None])
def test_file_names_are_checked(filename: Any) -> None:
    with pytest.raises(ConfigurationError, match="filename"):
        ReopeningFileHandler(filename)


# --- rotation in one process -----------------------------------------------------------------


def everything(folder: Path) -> list[str]:
    texts = [
        gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        for path in folder.glob("a.log*")
    ]
    return [line for text in texts for line in text.splitlines()]


@pytest.mark.parametrize("compress", [True, False])
def test_rotation_keeps_every_line_once(tmp_path: Path, compress: bool) -> None:
    handler = ProcessSafeRotatingFileHandler(
        tmp_path / "a.log", max_bytes=1024, backups=50, compress=compress, clock=FrozenClock()
    )
    for number in range(300):
        handler.emit(record("line %03d and some more", number))
    handler.close()
    assert sorted(everything(tmp_path)) == [f"line {number:03d} and some more" for number in range(300)]
    assert bool(list(tmp_path.glob("*.gz"))) == compress
    assert list(tmp_path.glob(".a.log*.tmp")) == []


@pytest.mark.parametrize("compress", [True, False])
def test_rotation_keeps_the_size_below_the_limit(tmp_path: Path, compress: bool) -> None:
    handler = ProcessSafeRotatingFileHandler(
        tmp_path / "a.log", max_bytes=1024, backups=50, compress=compress, clock=FrozenClock()
    )
    sizes = set[int]()
    for number in range(100):
        handler.emit(record("line %03d and some more", number))
        sizes.add((tmp_path / "a.log").stat().st_size)
        if compress:  # it holds the lock while it renames, and nobody waits for it: see the next test
            wait_until(lambda: not list(tmp_path.glob("a.log.*[0-9]")))
            with (tmp_path / ".a.log.lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
    handler.close()
    assert max(sizes) <= 1024
    assert all(path.stat().st_size <= 1024 for path in tmp_path.glob("a.log*"))
    assert len(list(tmp_path.glob("a.log.*"))) == 2


def test_nobody_waits_for_a_process_that_renames_and_the_next_line_rotates(tmp_path: Path) -> None:
    """As beside a compressor that puts its file in place: the log grows beyond its limit for so long."""
    handler = ProcessSafeRotatingFileHandler(
        tmp_path / "a.log", max_bytes=1024, backups=50, compress=False, clock=FrozenClock()
    )
    handler.emit(record("first"))
    with (tmp_path / ".a.log.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for number in range(100):
            handler.emit(record("line %03d and some more", number))
        assert not (tmp_path / "a.log.1").exists()
    handler.emit(record("rotates"))
    handler.close()
    assert (tmp_path / "a.log").read_text() == "rotates\n"
    assert len(everything(tmp_path)) == 102


def test_a_compressed_file_is_flushed_to_the_disk_before_the_raw_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[int, bool]] = []

    def watched(descriptor: int) -> None:
        size = len(gzip.decompress(Path(f"/proc/self/fd/{descriptor}").read_bytes()).splitlines())
        flushed.append((size, (tmp_path / "a.log.1").exists()))

    monkeypatch.setattr(os, "fsync", watched)
    handler = ProcessSafeRotatingFileHandler(
        tmp_path / "a.log", max_bytes=1024, backups=5, clock=FrozenClock()
    )
    for number in range(40):
        handler.emit(record("line %03d and some more to fill it up", number))
    handler.close()
    assert flushed
    assert all(lines > 1 and raw for lines, raw in flushed)


def test_no_more_old_files_than_asked_for(tmp_path: Path) -> None:
    handler = ProcessSafeRotatingFileHandler(tmp_path / "a.log", max_bytes=1024, backups=2, compress=False)
    for number in range(300):
        handler.emit(record("line %03d and some more", number))
    handler.close()
    assert sorted(path.name for path in tmp_path.glob("a.log*")) == ["a.log", "a.log.1", "a.log.2"]


def test_a_line_larger_than_the_limit_is_written_whole(tmp_path: Path) -> None:
    handler = ProcessSafeRotatingFileHandler(tmp_path / "a.log", max_bytes=1024, backups=3, compress=False)
    for _ in range(3):
        handler.emit(record("x" * 5000))
    handler.close()
    assert [len(line) for line in everything(tmp_path)] == [5000] * 3


def test_files_removed_behind_the_back_are_made_again(tmp_path: Path) -> None:
    clock = FrozenClock()
    handler = ProcessSafeRotatingFileHandler(tmp_path / "a.log", max_bytes=4096, backups=3, clock=clock)
    handler.emit(record("one"))
    for path in tmp_path.iterdir():
        path.unlink()
    clock.advance(2)
    handler.emit(record("two"))
    handler.close()
    assert everything(tmp_path) == ["two"]


# --- streams ---------------------------------------------------------------------------------


def test_the_stream_of_the_moment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = StandardStreamHandler("stdout")
    later = io.StringIO()
    monkeypatch.setattr(sys, "stdout", later)
    handler.emit(record("x"))
    assert later.getvalue() == "x\n"


def test_a_stream_that_cannot_say_it_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    handler = StandardStreamHandler("stdout")
    handler.setFormatter(JsonFormatter())
    handler.emit(record("利用者 🏗"))
    assert json.loads(raw.getvalue())["message"] == "利用者 🏗"


def test_a_closed_stream_loses_records_and_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dropped: list[events.LogsDropped]
) -> None:
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stdout", gone)
    handler = StandardStreamHandler("stdout")
    handler.emit(record())
    handler.emit(record())
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert len(dropped) == 2


def test_a_stream_that_celery_turned_into_records_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    class LoggingProxy(io.StringIO): ...

    proxy, real = LoggingProxy(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", proxy)
    monkeypatch.setattr(sys, "__stdout__", real)
    StandardStreamHandler("stdout").emit(record("x"))
    assert (proxy.getvalue(), real.getvalue()) == ("", "x\n")


def test_stream_names_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="stream"):
        StandardStreamHandler("file")  # type: ignore[arg-type]


# --- filters ---------------------------------------------------------------------------------


def test_below_level() -> None:
    below = BelowLevelFilter()
    assert [below.filter(record(level=level)) for level in (10, 30, 40, 50)] == [True, True, False, False]


def test_context_fields_become_attributes_without_replacing_any() -> None:
    entry = record(user_id="given")
    with bound(request_id="r1", user_id="bound"):
        assert ContextFilter().filter(entry)
    assert (entry.__dict__["request_id"], entry.__dict__["user_id"], entry.__dict__["trace_id"]) == (
        "r1",
        "given",
        "-",
    )


def test_the_redaction_filter_cleans_for_foreign_formatters() -> None:
    error = ValueError("token=hunter2")
    info = (ValueError, error, None)
    entry = record(
        "password %s",
        "hunter2",
        exc_info=info,
        api_key="hunter2",
        detail={"pwd": "hunter2"},
        stack_info="otp=hunter2",
    )
    RedactionFilter().filter(entry)
    text = logging.Formatter("%(message)s %(api_key)s %(detail)s").format(entry)
    assert "hunter2" not in text
    assert "ValueError: token=[REDACTED]" in text
    shown = json.loads(JsonFormatter().format(entry))
    assert shown["exception"]["type"] == "ValueError"
    assert "hunter2" not in str(shown)


# --- queue -----------------------------------------------------------------------------------


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.open = threading.Event()
        self.open.set()

    def emit(self, entry: logging.LogRecord) -> None:
        self.open.wait(10)
        self.records.append(entry)


def test_the_queue_hands_on_a_snapshot_with_its_exception() -> None:
    kept, changing = Kept(), [1]
    handler = BoundedQueueHandler([kept])
    try:
        fail(KeyError("x"))
    except KeyError:
        handler.handle(record("list %s", changing, exc_info=sys.exc_info(), data={"a": changing}))
    changing.append(2)
    handler.close()
    (entry,) = kept.records
    assert entry.getMessage() == "list [1]"
    assert entry.__dict__["data"] == {"a": [1]}
    assert entry.exc_info is not None
    assert isinstance(entry.exc_info[1], KeyError)


def test_secret_arguments_do_not_get_into_the_snapshot() -> None:
    kept = Kept()
    handler = BoundedQueueHandler([kept])
    handler.handle(record("password %s of %s", "hunter2", {"a": 1}))
    handler.close()
    assert kept.records[0].getMessage() == "password [REDACTED] of {'a': 1}"


def test_a_full_queue_drops_counts_and_never_blocks(
    capsys: pytest.CaptureFixture[str], dropped: list[events.LogsDropped]
) -> None:
    kept = Kept()
    kept.open.clear()
    handler = BoundedQueueHandler([kept], max_queue=5)
    for number in range(50):
        handler.handle(record("n %d", number))
    kept.open.set()
    handler.close()
    assert len(kept.records) + handler.dropped == 50
    assert 5 <= len(kept.records) <= 6
    assert sum(event.number for event in dropped) == handler.dropped
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_levels_and_filters_of_the_handlers_behind_hold() -> None:
    errors, everything_ = Kept(), Kept()
    errors.setLevel(logging.ERROR)
    handler = BoundedQueueHandler([errors, everything_])
    handler.addFilter(lambda entry: entry.getMessage() != "hidden")
    for level, message in ((20, "info"), (40, "error"), (50, "hidden")):
        handler.handle(record(message, level=level))
    handler.flush()
    assert [entry.getMessage() for entry in errors.records] == ["error"]
    assert [entry.getMessage() for entry in everything_.records] == ["info", "error"]
    handler.close()


def test_what_is_logged_after_the_drain_is_handled_at_once() -> None:
    kept = Kept()
    handler = BoundedQueueHandler([kept])
    handler.close()
    handler.handle(record("late"))
    assert [entry.getMessage() for entry in kept.records] == ["late"]


def test_what_is_logged_after_a_handler_hung_is_counted_as_lost(
    dropped: list[events.LogsDropped], capsys: pytest.CaptureFixture[str]
) -> None:
    goes_on, seen = threading.Event(), list[str]()

    class Hanging(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            goes_on.wait(20)

    handler = BoundedQueueHandler([Hanging()], timeout=0.01)
    handler.handle(record("first"))
    wait_until(lambda: seen, what="the handler to hang")
    handler.close()
    handler.handle(record("second"))
    goes_on.set()
    assert seen == ["first"]
    assert [(event.number, event.reason) for event in dropped] == [(1, "queue was not drained in time")] * 2
    assert capsys.readouterr().err.count("queue was not drained in time") == 1


def test_a_signal_handler_may_log_while_the_main_thread_logs() -> None:
    kept = Kept()
    handler = BoundedQueueHandler([kept], max_queue=100_000)
    before = signal.signal(signal.SIGALRM, lambda number, frame: handler.handle(record("from the signal")))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        for _ in range(3000):
            handler.handle(record("from the program"))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    handler.close()
    messages = [entry.getMessage() for entry in kept.records]
    assert messages.count("from the program") == 3000
    assert messages.count("from the signal") >= 1


@pytest.mark.parametrize("handlers", [[], ["no handler"]])
def test_the_handlers_behind_are_checked(handlers: Any) -> None:
    with pytest.raises(ConfigurationError, match="handlers"):
        BoundedQueueHandler(handlers)


def test_nothing_is_written_to_an_old_file_after_it_was_read_for_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the rename and the word to the other processes they go on writing to the file."""
    path = tmp_path / "app.log"
    writer, rotator, compressor = (
        RotatedLog(path, max_bytes=1024, backups=3, compress=True) for _ in range(3)
    )
    writer.append(b"first\n", 0)
    asked = threading.Event()
    locked = compressor._locked

    def asking(*, wait: bool) -> Any:
        asked.set()
        return locked(wait=wait)

    monkeypatch.setattr(compressor, "_locked", asking)
    compressing = threading.Thread(target=compressor.compress)
    tell = os.pwrite

    def told_late(*arguments: Any) -> int:
        compressing.start()
        assert asked.wait(60)
        writer.append(b"last\n", 0)
        return tell(*arguments)

    monkeypatch.setattr(os, "pwrite", told_late)
    assert rotator.append(b"x" * 1020 + b"\n", 0)
    compressing.join(60)
    assert gzip.decompress((tmp_path / "app.log.1.gz").read_bytes()) == b"first\nlast\n"
    for log in (writer, rotator):
        log.close()
