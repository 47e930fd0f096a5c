"""The handler over a recording transport and a clock that is moved by hand."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mks_hardening.events import AlertsCounted, BreakerChanged, add_observer, remove_observer
from mks_hardening.exceptions import ConfigurationError, DeliveryError
from mks_hardening.notify import (
    AlertPolicy,
    AlertStats,
    EmailNotificationHandler,
    SlackNotificationHandler,
    WebhookNotificationHandler,
)
from mks_hardening.notify.engine._alert import Alert, AlertReader, AlertSnapshot
from mks_hardening.notify.engine._spool import EntryNames, Spool
from mks_hardening.protocols import OutgoingAlert
from mks_hardening.testing import FrozenClock, RecordingTransport
from testbed.polling import wait_until

URL = "http://localhost/hook"
LATER = DeliveryError("http-503", temporary=True)
NEVER = DeliveryError("http-404", temporary=False)


class Stage:
    """A logger, a handler, a transport and a clock."""

    def __init__(self, spool: Path | None, **policy: Any) -> None:
        self.clock = FrozenClock()
        self.transport = RecordingTransport()
        self.spool = spool
        self.policy = AlertPolicy(**{"rate": 1000, **policy})
        self.handler = self.build(self.transport)
        self.log = logging.Logger("app")  # noqa: LOG001 - not in the registry, so nothing is left behind
        self.log.addHandler(self.handler)

    def build(self, transport: Any, *, url: str = URL, **options: Any) -> WebhookNotificationHandler:
        return WebhookNotificationHandler(
            url,
            transport=transport,
            policy=self.policy,
            spool=self.spool,
            clock=self.clock,
            lang="en",
            **options,
        )

    def settle(self) -> bool:
        """Let a second pass, so that the rate allows a message, and flush."""
        self.clock.advance(1)
        return self.handler.flush(5)

    def alerts(self) -> list[dict[str, Any]]:
        return [alert for message in self.transport.messages for alert in json.loads(message.body)["alerts"]]

    def sent_alerts(self) -> list[tuple[str, int]]:
        return [(alert["message"], alert["repeats"]) for alert in self.alerts()]

    def sums(self) -> dict[str, int]:
        return {name: number for name, number in asdict(self.handler.stats()).items() if number}


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(*, spool: bool = False, **policy: Any) -> Stage:
        stages.append(Stage(tmp_path / "spool" if spool else None, **policy))
        return stages[-1]

    yield make
    for stage in stages:
        stage.handler.close(2)  # long enough that nothing of this test is counted in the next


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    return make_stage()


# --- what goes out


def test_the_first_goes_out_at_once(stage: Stage) -> None:
    stage.log.error("order %d failed", 4711)
    wait_until(lambda: stage.transport.messages)
    assert stage.sent_alerts() == [("order 4711 failed", 0)]


def test_the_digest_goes_out_when_the_window_ends(stage: Stage) -> None:
    for number in range(5):
        stage.log.error("order %d failed", number)
    wait_until(lambda: len(stage.transport.messages) == 1)
    stage.clock.advance(299)
    stage.log.error("something else")  # wakes the worker
    wait_until(lambda: len(stage.transport.messages) == 2)
    stage.clock.advance(1)
    stage.log.error("a third thing")
    wait_until(lambda: len(stage.transport.messages) == 4)
    assert sorted(stage.sent_alerts()) == [
        ("a third thing", 0),
        ("order 0 failed", 0),
        ("order 0 failed", 4),
        ("something else", 0),
    ]


def test_flush_tells_repetitions_at_once(stage: Stage) -> None:
    for _ in range(3):
        stage.log.error("again")
    assert stage.handler.flush(5)
    assert stage.sent_alerts() == [("again", 0), ("again", 2)]
    assert stage.handler.flush(5)
    assert len(stage.transport.messages) == 2


def test_a_digest_has_an_id_of_its_own_and_names_the_time(stage: Stage) -> None:
    for _ in range(2):
        stage.log.error("again")
    stage.handler.flush(5)
    first, digest = stage.alerts()
    assert first["id"] != digest["id"]
    assert first["fingerprint"] == digest["fingerprint"]
    assert digest["since"] == digest["created"] > first["created"]


def test_without_digests_the_next_alert_names_the_number(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(digest=False)
    for pause in (0, 0, 0, 300):
        stage.clock.advance(pause)
        stage.log.error("again")
        stage.handler.flush(5)
    assert stage.sent_alerts() == [("again", 0), ("again", 2)]
    assert stage.sums() == {"logged": 4, "delivered": 2, "suppressed": 2, "deliveries": 2}


def test_close_delivers_and_tells(stage: Stage) -> None:
    for _ in range(3):
        stage.log.error("again")
    stage.handler.close(5)
    assert stage.sent_alerts() == [("again", 0), ("again", 2)]
    assert stage.transport.closed


def test_a_handler_is_a_context_manager(stage: Stage) -> None:
    with stage.handler as handler:
        assert handler is stage.handler
        stage.log.error("x")
    assert stage.sent_alerts() == [("x", 0)]


def test_after_close_records_are_dropped_and_counted(stage: Stage) -> None:
    stage.handler.close()
    stage.log.error("too late")
    assert stage.sums() == {"logged": 1, "dropped": 1}
    assert stage.handler.flush(0)


def test_levels_and_filters_are_heeded(stage: Stage) -> None:
    stage.handler.addFilter(lambda record: "secret" not in record.msg)
    stage.log.warning("below")
    stage.log.error("a secret thing")
    assert stage.sums() == {}
    stage.handler.setLevel("WARNING")
    stage.log.warning("now it counts")
    stage.handler.flush(5)
    assert stage.sent_alerts() == [("now it counts", 0)]


def test_a_filter_may_put_another_record_in_its_place(stage: Stage) -> None:
    def replace(record: logging.LogRecord) -> Any:
        return logging.makeLogRecord({**record.__dict__, "msg": "replaced"})

    stage.handler.addFilter(replace)
    stage.log.error("x")
    stage.handler.flush(5)
    assert stage.sent_alerts() == [("replaced" if sys.version_info >= (3, 12) else "x", 0)]


# --- failures


def test_a_passing_fault_is_tried_again_after_its_pause(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(backoff=10)
    stage.transport.failures = [LATER, LATER]
    stage.log.error("x")
    wait_until(lambda: stage.transport.attempts == 1)
    assert stage.sums() == {"logged": 1, "pending": 1}
    for attempt in (2, 3):
        stage.clock.advance(20)
        stage.handler.flush(0)
        wait_until(lambda attempt=attempt: stage.transport.attempts == attempt)
    wait_until(lambda: stage.handler.stats().pending == 0)
    assert stage.sums() == {"logged": 1, "delivered": 1, "deliveries": 1}


@pytest.mark.parametrize(
    ("failures", "spool", "sums"),
    [
        ([LATER] * 3, False, {"logged": 1, "dropped": 1}),
        ([LATER] * 3, True, {"logged": 1, "spooled": 1}),
        ([NEVER], False, {"logged": 1, "dropped": 1}),
        ([NEVER], True, {"logged": 1, "spooled": 1}),
        ([ConnectionResetError()] * 2, False, {"logged": 1, "delivered": 1, "deliveries": 1}),
        ([TimeoutError()] * 3, False, {"logged": 1, "dropped": 1}),
        ([ZeroDivisionError()], False, {"logged": 1, "dropped": 1, "errors": 1}),
        ([ZeroDivisionError()], True, {"logged": 1, "spooled": 1, "errors": 1}),
    ],
)
def test_where_an_alert_ends(
    make_stage: Callable[..., Stage],
    failures: list[Exception],
    spool: bool,
    sums: dict[str, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = make_stage(spool=spool, retries=2, backoff=0)
    stage.transport.failures = failures
    stage.log.error("x")
    assert stage.handler.flush(5)
    assert stage.sums() == sums
    assert ("alerts are lost (" in caplog.text) is ("dropped" in sums)


def test_a_pause_that_is_longer_than_the_patience_of_flush_is_not_waited_for(stage: Stage) -> None:
    stage.transport.failures = [DeliveryError("http-429", temporary=True, retry_after=300)]
    stage.log.error("x")
    assert not stage.handler.flush(60)
    assert stage.sums() == {"logged": 1, "pending": 1}
    stage.clock.advance(290)
    assert not stage.handler.flush(5)
    stage.clock.advance(10)
    assert stage.handler.flush(5)
    assert stage.sent_alerts() == [("x", 0)]


def test_a_full_queue_drops_counts_and_lets_the_kind_try_again(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(max_queue=2, backoff=50)
    stage.transport.failures = [LATER]
    for name in "abcc":
        stage.log.error(name)
    wait_until(lambda: stage.transport.attempts == 1)
    assert stage.sums() == {"logged": 4, "pending": 2, "dropped": 2}
    stage.clock.advance(50)
    stage.handler.flush(5)
    stage.log.error("c")
    stage.handler.flush(5)
    assert stage.sent_alerts() == [("a", 0), ("b", 0), ("c", 0)]


def test_what_the_worker_brings_after_the_end_is_put_aside(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(spool=True)
    stage.log.error("x")
    stage.handler.close(1)
    assert stage.spool is not None
    assert list(stage.spool.iterdir()) == []
    late = Alert("late", "f", 1.0, "ERROR", "app", "late", digest=True)
    dispatcher = stage.handler._dispatcher
    dispatcher._run_job(lambda: dispatcher._delivery.enqueue([late]))
    assert [json.loads(file.read_text())["id"] for file in stage.spool.iterdir()] == ["late"]


def test_a_full_spool_drops_counts_and_reports(
    make_stage: Callable[..., Stage], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = make_stage(spool=True)
    for number in range(1000):
        entry = EntryNames("webhook", [URL]).of(Alert(f"a{number}", "f", 1.0, "ERROR", "app", "x"))[0]
        (tmp_path / "spool" / f"{entry}.unreadable").touch()
    stage.transport.failures = [NEVER]
    stage.log.error("x")
    stage.handler.flush(5)
    assert stage.sums() == {"logged": 1, "dropped": 1}
    assert "webhook: the spool cannot store alerts (OSError)" in caplog.text


def test_what_is_spooled_is_replayed_by_the_next_handler(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(spool=True, retries=0)
    stage.transport.failures = [LATER]
    stage.log.error("kept")
    stage.handler.flush(5)
    stage.handler.close(0.05)
    transport = RecordingTransport()
    with stage.build(transport) as second:
        assert second.flush(5)
        assert (second.stats().deliveries, second.stats().replayed) == (1, 1)
        assert second.stats().logged == 0
    assert [message.subject for message in transport.messages] == ["ERROR: kept"]


def test_what_was_meant_for_one_destination_is_never_sent_to_another(
    make_stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    stage = make_stage(spool=True, retries=0)
    stage.transport.failures = [LATER]
    stage.log.error("kept")
    stage.handler.flush(5)
    stage.handler.close(0.05)
    other, own = RecordingTransport(), RecordingTransport()
    with stage.build(other, url="http://localhost/another") as second:
        assert second.flush(5)
    assert other.messages == []
    assert "webhook: alerts for another destination stay in the spool (1)" in caplog.text
    with stage.build(own) as third:
        assert third.flush(5)
    assert [message.subject for message in own.messages] == ["ERROR: kept"]


def test_an_entry_under_the_name_of_another_is_not_sent(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    stage = make_stage(spool=True, retries=0)
    names: list[Path] = []
    for url in (URL, "http://localhost/another"):
        with stage.build(RecordingTransport([LATER]), url=url) as handler:
            handler.handle(logging.LogRecord("app", logging.ERROR, "app.py", 1, f"for {url}", None, None))
            handler.flush(5)
        names += [path for path in (tmp_path / "spool").iterdir() if path not in names]
    own, others = names
    others.replace(own)
    transport = RecordingTransport()
    with stage.build(transport) as handler:
        assert handler.flush(5)
    assert transport.messages == []
    assert [path.suffix for path in (tmp_path / "spool").iterdir()] == [".unreadable"]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (DeliveryError("certificate", temporary=False), [("new", 0), ("kept", 0)]),
        (NEVER, [("new", 0)]),  # refused itself: at the next start
    ],
    ids=["the destination", "the alert"],
)
def test_what_was_put_aside_because_of_the_destination_follows_the_next_delivery(
    make_stage: Callable[..., Stage], failure: DeliveryError, expected: list[tuple[str, int]]
) -> None:
    stage = make_stage(spool=True)
    stage.transport.failures = [failure]
    stage.log.error("kept")
    assert stage.settle()
    assert stage.sums() == {"logged": 1, "spooled": 1}
    stage.log.error("new")
    assert stage.settle()
    assert stage.sent_alerts() == expected


def test_another_webhook_in_the_place_of_a_withdrawn_one_gets_what_waits(
    make_stage: Callable[..., Stage], tmp_path: Path
) -> None:
    stage = make_stage()
    stage.spool = tmp_path / "waiting"
    gone = RecordingTransport()
    gone.failures = [NEVER]
    with stage.build(gone, spool_name="ops") as old:
        old.handle(logging.LogRecord("app", logging.ERROR, __file__, 1, "kept", (), None))
    transport = RecordingTransport()
    with stage.build(transport, url="http://localhost/new", spool_name="ops") as new:
        wait_until(lambda: new.stats().replayed == 1)
    assert [message.subject for message in transport.messages] == ["ERROR: kept"]


@pytest.mark.parametrize("now", ["b@example.com,a@example.com", "a@example.com, b@example.com"])
def test_recipients_may_change_their_order(tmp_path: Path, now: str) -> None:
    def build(transport: RecordingTransport, to: str) -> EmailNotificationHandler:
        return EmailNotificationHandler(
            "localhost",
            from_addr="mks@example.com",
            to_addrs=to,
            transport=transport,
            spool=tmp_path / "spool",
        )

    gone, transport = RecordingTransport(), RecordingTransport()
    gone.failures = [NEVER]
    with build(gone, "a@example.com,b@example.com") as old:
        old.handle(logging.LogRecord("app", logging.ERROR, __file__, 1, "kept", (), None))
    with build(transport, now) as new:
        wait_until(lambda: new.stats().replayed == 1)


def test_one_that_is_refused_does_not_keep_the_others_in_the_spool(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(spool=True)
    assert stage.spool is not None
    spool = Spool(stage.spool, kind="webhook", destinations=[URL], clock=stage.clock)
    for name in ("good", "bad", "fine"):
        spool.put(Alert(name, "f", 1.0, "ERROR", "app", name))

    class Picky(RecordingTransport):
        refusals = 0

        def send(self, message: OutgoingAlert, /) -> None:
            if b"bad" in message.body:
                self.refusals += 1
                raise NEVER
            super().send(message)

    picky = Picky()
    with stage.build(picky) as second:

        def settled() -> bool:
            stage.clock.advance(1)  # the rate allows another one
            second.flush(0.01)
            return (len(picky.messages), picky.refusals) == (2, 2)

        wait_until(settled)
    assert sorted(message.subject for message in picky.messages) == ["ERROR: fine", "ERROR: good"]
    assert [json.loads(file.read_text())["message"] for file in stage.spool.iterdir()] == ["bad"]


def test_the_spool_is_the_probe_while_the_destination_is_down(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(spool=True, retries=0, backoff=10)
    stage.transport.failures = [LATER, LATER]
    stage.log.error("one")
    assert stage.handler.flush(5)
    assert stage.sums() == {"logged": 1, "spooled": 1}
    stage.log.error("two")  # waits for the pause to end, then goes first
    stage.clock.advance(10)
    assert stage.handler.flush(5)
    assert stage.sums() == {"logged": 2, "spooled": 2}
    stage.clock.advance(20)
    assert stage.handler.flush(5)
    wait_until(lambda: stage.handler.stats().replayed == 2)
    assert sorted(stage.sent_alerts()) == [("one", 0), ("two", 0)]


# --- the notifier is not its own customer


class Chatty:
    """A transport that logs errors while it sends."""

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self.sent = 0

    def send(self, message: OutgoingAlert, /) -> None:
        self.sent += 1
        self.log.error("while sending")
        logging.getLogger("mks_hardening.notify").error("about alerts")
        raise ZeroDivisionError

    def close(self) -> None:
        self.log.error("while closing")


def test_what_the_transport_logs_is_no_alert(stage: Stage) -> None:
    chatty = Chatty(stage.log)
    handler = stage.build(chatty)
    stage.log.addHandler(handler)
    stage.log.removeHandler(stage.handler)
    logging.getLogger("mks_hardening.notify").addHandler(handler)
    try:
        stage.log.error("x")
        handler.flush(5)
        handler.close(5)
    finally:
        logging.getLogger("mks_hardening.notify").removeHandler(handler)
    assert chatty.sent == 1
    assert handler.stats().logged == 2  # "x", and "while closing" on the thread that closes
    assert handler.stats().dropped == 2


def test_trouble_is_reported_once_until_the_next_delivery(
    make_stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    stage = make_stage()
    stage.transport.failures = [NEVER, NEVER, ZeroDivisionError(), ZeroDivisionError()]
    for name in "abcd":
        stage.log.error(name)
        stage.settle()
    reports = [record.getMessage() for record in caplog.records if record.name == "mks_hardening.notify"]
    lost = "webhook: alerts are lost ({}): set a spool folder with spool= or MKS_ALERT_SPOOL"
    assert reports == [
        lost.format("http-404"),
        "webhook: an alert was refused (http-404)",
        "webhook: an error in the notifier itself (ZeroDivisionError)",
        lost.format("fault"),
        "webhook: an alert was refused (fault)",
    ]
    stage.log.error("works")
    stage.settle()
    stage.transport.failures = [NEVER]
    stage.log.error("again not")
    stage.settle()
    assert caplog.records[-1].getMessage() == reports[1]


def test_a_handler_of_the_application_that_raises_does_not_stop_the_worker(stage: Stage) -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError

    raising = Raising()
    logging.getLogger("mks_hardening.notify").addHandler(raising)
    try:
        stage.transport.failures = [ZeroDivisionError()]
        stage.log.error("x")
        stage.handler.flush(5)
        stage.log.error("y")
        stage.handler.flush(5)
    finally:
        logging.getLogger("mks_hardening.notify").removeHandler(raising)
    assert stage.sent_alerts() == [("y", 0)]
    assert stage.sums() == {"logged": 2, "delivered": 1, "dropped": 1, "deliveries": 1, "errors": 1}


class Horrible:
    """Everything about it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "call",
    [
        lambda log: log.error("%d", "x"),
        lambda log: log.error(Horrible()),
        lambda log: log.error("%s %s", "x", Horrible()),
        lambda log: log.error("x", extra={"thing": Horrible()}),
        lambda log: log.error("x", extra={"thing": [Horrible()]}),
        lambda log: log.error("x", exc_info=(RuntimeError, RuntimeError(Horrible()), None)),
        lambda log: log.error("\ud800", extra={"\ud800": "\ud800"}),
        lambda log: log.error("x", exc_info=True),  # noqa: LOG014 - there is none, on purpose
        lambda log: log.error("x", stack_info=True),
        lambda log: log.handle(logging.LogRecord("a", 40, "", 0, None, None, None)),  # type: ignore[arg-type]  # on purpose
        lambda log: log.handle(logging.makeLogRecord({"levelno": 40})),
        lambda log: log.handle(logging.makeLogRecord({"levelno": 40, "created": 1e300, "lineno": None})),
        lambda log: log.handle(logging.makeLogRecord({"levelno": 40, "name": None, "levelname": None})),
    ],
)
def test_no_record_raises_into_the_application_or_gets_lost(
    stage: Stage, call: Callable[[logging.Logger], object]
) -> None:
    call(stage.log)
    assert stage.handler.flush(5)
    assert len(stage.transport.messages) == 1
    assert stage.handler.stats().delivered == 1


def test_a_record_that_is_no_record_is_counted(stage: Stage) -> None:
    stage.handler.emit(object())  # type: ignore[arg-type]  # on purpose
    assert stage.sums() == {"logged": 1, "dropped": 1, "errors": 1}


class OddRecord(logging.LogRecord):
    """Keeps one attribute to itself."""

    @property
    def stack_info(self) -> str:
        raise RuntimeError

    @stack_info.setter
    def stack_info(self, value: object) -> None:
        """Not kept."""


def test_an_odd_record_is_counted_once_and_the_next_of_its_kind_comes_out(stage: Stage) -> None:
    stage.handler.emit(OddRecord("app", logging.ERROR, "x.py", 1, "x", None, None))
    assert stage.sums() == {"logged": 1, "dropped": 1, "errors": 1}
    stage.handler.emit(logging.LogRecord("app", logging.ERROR, "x.py", 1, "x", None, None))
    stage.handler.flush(5)
    assert stage.sent_alerts() == [("x", 0)]


# --- counting and telling


def test_events_add_up_to_the_sums(make_stage: Callable[..., Stage]) -> None:
    events: list[Any] = []
    add_observer(events.append)
    try:
        stage = make_stage(spool=True, max_queue=6, retries=0)
        stage.transport.failures = [NEVER]
        for name in "abcaab":
            stage.log.error(name)
        wait_until(lambda: stage.transport.attempts == 3)
        stage.clock.advance(1)
        stage.handler.close(1)
        stage.log.error("late")
    finally:
        remove_observer(events.append)
    counted: dict[str, int] = {}
    for event in events:
        if isinstance(event, AlertsCounted):
            assert event.channel == "webhook"
            counted[event.state] = counted.get(event.state, 0) + event.number
    stats = stage.handler.stats()
    assert counted == {"delivered": 2, "spooled": 1, "suppressed": 3}
    assert stats.dropped == 1
    assert stats.logged == sum(counted.values()) + 1


def test_events_name_the_reason(make_stage: Callable[..., Stage]) -> None:
    events: list[Any] = []
    add_observer(events.append)
    try:
        stage = make_stage(max_queue=1, backoff=50)
        stage.transport.failures = [LATER]
        stage.log.error("a")
        stage.log.error("b")
        wait_until(lambda: stage.transport.attempts == 1)
        stage.handler.close(0.05)
    finally:
        remove_observer(events.append)
    assert [event for event in events if isinstance(event, AlertsCounted)] == [
        AlertsCounted("webhook", "dropped", 1, "queue_full"),
        # Why it was still waiting, not that the process ended.
        AlertsCounted("webhook", "dropped", 1, LATER.reason),
    ]


@pytest.mark.parametrize(
    "odd", [OddRecord("app", logging.ERROR, "x.py", 1, "x", None, None), object()], ids=["record", "object"]
)
def test_events_name_a_fault(make_stage: Callable[..., Stage], odd: Any) -> None:
    events: list[Any] = []
    add_observer(events.append)
    try:
        stage = make_stage()
        stage.handler.emit(odd)
        stage.handler.close(1)
    finally:
        remove_observer(events.append)
    assert [event for event in events if isinstance(event, AlertsCounted)] == [
        AlertsCounted("webhook", "dropped", 1, "fault")
    ]


def test_a_destination_that_goes_down_and_comes_back_is_one_event_and_one_report_each(
    make_stage: Callable[..., Stage], caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = []
    add_observer(events.append)
    try:
        stage = make_stage(retries=1, backoff=0)
        stage.transport.failures = [LATER] * 5
        for name in "abcd":
            stage.log.error(name)
            stage.settle()
    finally:
        remove_observer(events.append)
    changes = [event for event in events if isinstance(event, BreakerChanged)]
    assert changes == [
        BreakerChanged("webhook", "closed", "open", "http-503"),
        BreakerChanged("webhook", "open", "closed", ""),
    ]
    assert caplog.text.count("webhook: alerts cannot be delivered (http-503)") == 1
    assert caplog.text.count("webhook: alerts are delivered again") == 1


@pytest.mark.parametrize("channel", ["email", "slack", "webhook"])
def test_events_name_the_kind_of_destination(channel: str) -> None:
    transport, events = RecordingTransport(), list[Any]()
    handler = {
        "email": lambda: EmailNotificationHandler(
            "localhost",
            from_addr="a@example.com",
            to_addrs=["b@example.com"],
            security="plain",
            transport=transport,
        ),
        "slack": lambda: SlackNotificationHandler(URL, transport=transport),
        "webhook": lambda: WebhookNotificationHandler(URL, transport=transport),
    }[channel]()
    add_observer(events.append)
    try:
        with handler:
            handler.handle(logging.LogRecord("app", logging.ERROR, __file__, 1, "failed", None, None))
            assert handler.flush(5)
    finally:
        remove_observer(events.append)
    assert {event.channel for event in events if isinstance(event, AlertsCounted)} == {channel}


def test_the_numbers_of_many_threads_are_exact(stage: Stage) -> None:
    def work() -> None:
        for number in range(500):
            stage.log.error("order %d failed", number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stage.handler.flush(5)
    assert stage.sums() == {"logged": 4000, "delivered": 1, "suppressed": 3999, "deliveries": 2}
    assert stage.sent_alerts() == [("order 0 failed", 0), ("order 0 failed", 3999)]


# --- set-up


def test_the_url_and_the_secret_are_never_shown(stage: Stage) -> None:
    url = "https://hooks.slack.com/services/T000/B000/hunter22"
    for handler in (
        SlackNotificationHandler(url, transport=RecordingTransport()),
        WebhookNotificationHandler(url, secret="hunter22" * 4),
    ):
        with handler:
            assert "hunter22" not in repr(handler)
            assert "hunter22" not in repr(vars(handler))
            assert "hunter22" not in repr(vars(handler._dispatcher))


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"level": "LOUD"}, "level"),
        ({"lang": "de"}, "lang"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "10"}, "timeout"),
        ({"spool": "/proc/nowhere"}, "spool"),
        ({"webhook_url": "http://hooks.example.com/x"}, "webhook_url"),
        ({"webhook_url": "ftp://localhost/x"}, "webhook_url"),
        ({"webhook_url": "https://user:hunter22@example.com/x"}, "webhook_url"),
        ({"webhook_url": ""}, "webhook_url"),
    ],
)
def test_a_wrong_set_up_is_refused_by_name(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SlackNotificationHandler(**{"webhook_url": URL, **options})
    assert caught.value.parameter == parameter
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transport": 5}, "transport must be a Transport, not int"),
        ({"transport": RecordingTransport}, "transport must be a Transport, not "),
        ({"redactor": 5}, "redactor must be a SecretRedactor, not int"),
        ({"policy": {"retries": 1}}, "policy must be "),
        ({"environment": 5}, "environment must be "),
        ({"spool": 5}, "spool must be "),
        ({"spool_name": ""}, "spool_name must "),
        ({"spool_name": 5}, "spool_name must "),
        ({"secret": "hunter22"}, "secret must have at least 16 bytes"),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WebhookNotificationHandler(URL, **options)
    assert str(caught.value).startswith(message)
    assert caught.value.parameter == next(iter(options))


def test_a_redactor_of_ones_own_is_used(stage: Stage) -> None:
    class Words:
        """Hides a word of ours."""

        def redact(self, value: object) -> object:
            return self.redact_text(value) if isinstance(value, str) else value

        def redact_text(self, text: str) -> str:
            return text.replace("falcon", "[hidden]")

    transport = RecordingTransport()
    with stage.build(transport, redactor=Words()) as handler:
        stage.log.addHandler(handler)
        stage.log.error("the falcon has landed")
        handler.flush(5)
    assert json.loads(transport.messages[0].body)["alerts"][0]["message"] == "the [hidden] has landed"


def test_events_name_the_end_of_a_handler(stage: Stage) -> None:
    events: list[Any] = []
    stage.handler.close(1)
    add_observer(events.append)
    try:
        stage.log.error("late")
        stage.handler.close(1)
    finally:
        remove_observer(events.append)
    assert [event for event in events if isinstance(event, AlertsCounted)] == [
        AlertsCounted("webhook", "dropped", 1, "closed")
    ]


@pytest.mark.parametrize(
    ("variable", "given", "shown"),
    [
        ("staging", None, "staging"),
        ("staging", "production", "production"),
        ("staging", "", ""),
        (None, None, ""),
    ],
)
def test_the_environment_is_given_or_that_of_the_process(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, variable: str | None, given: str | None, shown: str
) -> None:
    monkeypatch.delenv("MKS_ENV", raising=False)
    if variable is not None:
        monkeypatch.setenv("MKS_ENV", variable)
    transport = RecordingTransport()
    with stage.build(transport, environment=given) as handler:
        stage.log.addHandler(handler)
        stage.log.error("x")
        handler.flush(5)
    assert json.loads(transport.messages[0].body)["alerts"][0]["environment"] == shown


def test_clear_text_may_be_asked_for() -> None:
    SlackNotificationHandler("http://hooks.example.com/x", allow_plaintext=True).close()


@pytest.mark.parametrize("secret", ["", "short", b"15 bytes long.."])
def test_a_short_secret_is_refused(secret: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="secret must have at least 16 bytes"):
        WebhookNotificationHandler(URL, secret=secret)


def test_handlers_can_be_named_in_a_dictconfig() -> None:
    config = logging.config.DictConfigurator({"version": 1})  # type: ignore[arg-type]  # typeshed knows DictConfig only by name
    handler = config.configure_handler(
        {
            "()": "mks_hardening.notify.SlackNotificationHandler",
            "webhook_url": URL,
            "level": "CRITICAL",
            "lang": "en",
        }
    )
    assert isinstance(handler, SlackNotificationHandler)
    assert handler.level == logging.CRITICAL
    handler.close()


# --- the end of the interpreter


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while the interpreter shuts down, from Python 3.12 on."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("no_threads")
def test_too_late_for_threads_close_delivers_by_itself(stage: Stage) -> None:
    for name in "abaa":
        stage.log.error(name)
    assert not stage.handler.flush(0)
    stage.handler.close(1)
    assert stage.sent_alerts() == [("a", 0), ("b", 0), ("a", 2)]
    assert stage.sums() == {"logged": 4, "delivered": 2, "suppressed": 2, "deliveries": 3}


@pytest.mark.usefixtures("no_threads")
def test_too_late_for_threads_and_a_dead_server_close_spools(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(spool=True)
    stage.transport.failures = [LATER]
    stage.log.error("a")
    stage.handler.close(1)
    assert stage.sums() == {"logged": 1, "spooled": 1}


def test_at_exit_all_handlers_begin_to_end_together(make_stage: Callable[..., Stage]) -> None:
    first, second = make_stage(backoff=100), make_stage(backoff=100)
    second.transport.failures = [LATER]
    second.log.error("waits")
    wait_until(lambda: second.transport.attempts == 1)
    first.handler._dispatcher._at_exit()
    second.log.error("too late")
    assert second.sums() == {"logged": 2, "pending": 1, "dropped": 1}
    second.handler._dispatcher._at_exit()
    assert second.sums() == {"logged": 2, "dropped": 2}
    assert second.transport.closed


def test_an_end_that_is_interrupted_on_its_own_thread_puts_everything_aside(
    make_stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(spool=True, backoff=100)
    stage.transport.failures = [LATER]
    stage.log.error("waits")
    wait_until(lambda: stage.transport.attempts == 1)
    interrupted: list[dict[str, int]] = []
    join = threading.Thread.join

    def interrupt(thread: threading.Thread, timeout: float | None = None) -> None:
        monkeypatch.setattr(threading.Thread, "join", join)
        stage.handler.close()  # as the handler of SIGTERM does
        interrupted.append(stage.sums())
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupt)
    stage.handler.close(0.1)
    assert interrupted == [{"logged": 1, "spooled": 1}]
    assert stage.sums() == {"logged": 1, "spooled": 1}


def test_a_record_that_is_overtaken_by_the_end_is_put_aside(
    make_stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(spool=True)

    snapshot = AlertReader.snapshot

    def overtaken(*args: Any, **options: Any) -> AlertSnapshot:
        stage.handler.close(1)
        return snapshot(*args, **options)

    monkeypatch.setattr(AlertReader, "snapshot", overtaken)
    stage.log.error("late")
    assert stage.sums() == {"logged": 1, "spooled": 1}
    assert stage.spool is not None
    assert [json.loads(file.read_text())["message"] for file in stage.spool.iterdir()] == ["late"]


def test_the_thread_ends_when_it_is_given_up_in_a_pause(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(backoff=100)
    stage.transport.failures = [LATER]
    stage.log.error("waits")
    wait_until(lambda: stage.transport.attempts == 1)
    thread = stage.handler._dispatcher._worker._thread
    assert thread is not None
    stage.handler.close(0.01)
    thread.join(5)
    assert not thread.is_alive()
    assert stage.sums() == {"logged": 1, "dropped": 1}


class Stuck:
    """A transport that does not come back until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.left = threading.Event()

    def send(self, message: OutgoingAlert, /) -> None:
        self.entered.set()
        self.released.wait(10)
        self.left.set()

    def close(self) -> None:
        """Nothing to close."""


def test_a_transport_that_is_stuck_does_not_hold_close_and_its_late_answer_counts_nothing(
    make_stage: Callable[..., Stage],
) -> None:
    stage = make_stage(spool=True)
    stuck = Stuck()
    handler = stage.build(stuck)
    stage.log.addHandler(handler)
    stage.log.removeHandler(stage.handler)
    stage.log.error("under way")
    assert stuck.entered.wait(5)
    for _ in range(2):
        stage.log.error("waiting")
    flushed: list[bool] = []
    flusher = threading.Thread(target=lambda: flushed.append(handler.flush(10)))
    flusher.start()
    handler.close(0.05)
    before = handler.stats()
    stuck.released.set()
    assert stuck.left.wait(5)
    flusher.join(5)
    assert flushed == [False]
    assert before == AlertStats(logged=3, suppressed=1, spooled=2)
    assert handler.stats() == before
    assert stage.spool is not None
    kept = [json.loads(file.read_text()) for file in stage.spool.glob("*.json")]
    assert sorted((alert["message"], alert["repeats"]) for alert in kept) == [
        ("under way", 0),
        ("waiting", 0),
        ("waiting", 1),
    ]
