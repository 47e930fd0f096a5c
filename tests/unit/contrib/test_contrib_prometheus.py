"""Metrics for Prometheus: every event, stable names, bounded labels, many processes, many threads."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening import events
from mks_hardening.contrib._metrics import shared_storage
from mks_hardening.contrib._metrics.metric_definitions import METRICS, OTHER, RULES
from mks_hardening.contrib.prometheus_observer import PrometheusObserver, metrics_app
from mks_hardening.events import (
    AlertsCounted,
    BackendFailed,
    BreakerChanged,
    CachedCall,
    CacheRead,
    LogsDropped,
    PoolEvent,
    RateLimitDecided,
    RateLimitNear,
    RequestFinished,
    RequestRefused,
    SessionChanged,
    SignInEvent,
    SlowQuery,
    TaskChanged,
    TaskQueueSeen,
    TwoFactorEvent,
)
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.testing import call_wsgi
from testbed.polling import free_port

prometheus_client = pytest.importorskip("prometheus_client")

Make = Callable[[], PrometheusObserver]


@pytest.fixture(params=["one process", "many processes"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes observers that are shown together where several processes are meant."""
    if request.param == "one process":
        return lambda: PrometheusObserver(registry=prometheus_client.CollectorRegistry())
    return lambda: PrometheusObserver(directory=tmp_path)


def samples(observer: PrometheusObserver) -> dict[str, float]:
    """Every number that is not zero, by name and labels in order."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in observer.collect()
        for sample in family.samples
        if sample.value
    }


def shown(name: str, **labels: str) -> str:
    return f"{name}{sorted(labels.items())}"


CASES: list[tuple[Any, dict[str, float]]] = [
    (
        RequestFinished("GET", "/articles/<int:id>", 200, 3.0, "ok"),
        {
            shown(
                "mks_requests_total", method="GET", route="/articles/<int:id>", status="200", outcome="ok"
            ): 1,
            shown("mks_request_duration_seconds_sum", method="GET", route="/articles/<int:id>"): 0.003,
            shown("mks_request_duration_seconds_count", method="GET", route="/articles/<int:id>"): 1,
        },
    ),
    (
        RequestFinished("BREW", None, 0, 99_000.0, "aborted"),
        {
            shown("mks_requests_total", method=OTHER, route="", status="0", outcome="aborted"): 1,
            shown("mks_request_duration_seconds_sum", method=OTHER, route=""): 99,
            shown("mks_request_duration_seconds_count", method=OTHER, route=""): 1,
            shown("mks_request_duration_seconds_bucket", method=OTHER, route="", le="+Inf"): 1,
        },
    ),
    (
        RequestRefused("csrf", "origin", "203.0.113.9"),
        {shown("mks_requests_refused_total", wrapper="csrf", reason="origin"): 1},
    ),
    (
        RateLimitDecided("login", True, "backend"),
        {shown("mks_rate_limit_decisions_total", group="login", outcome="allowed", source="backend"): 1},
    ),
    (
        RateLimitDecided("login", False, "local"),
        {shown("mks_rate_limit_decisions_total", group="login", outcome="refused", source="local"): 1},
    ),
    (
        RateLimitDecided("login", False, "backend", dry_run=True),
        {shown("mks_rate_limit_decisions_total", group="login", outcome="would_refuse", source="backend"): 1},
    ),
    (
        RateLimitNear("login", "5 per 1 minute", 4, 5),
        {shown("mks_rate_limit_near_total", group="login", limit="5 per 1 minute"): 1},
    ),
    (
        CachedCall("shop.price", "stale"),
        {shown("mks_cached_calls_total", function="shop.price", outcome="stale", reason=""): 1},
    ),
    (
        CacheRead("mks", "bypass", "unkeepable"),
        {shown("mks_cache_reads_total", namespace="mks", outcome="bypass", reason="unkeepable"): 1},
    ),
    (
        SessionChanged("refused", "idle", "tanaka"),
        {shown("mks_session_changes_total", change="refused", reason="idle"): 1},
    ),
    (
        TwoFactorEvent("refused", "tanaka", "totp", "wrong"),
        {shown("mks_two_factor_events_total", change="refused", method="totp", reason="wrong"): 1},
    ),
    (
        TwoFactorEvent("reset", "tanaka", reason="lost-phone", actor="suzuki"),
        {shown("mks_two_factor_events_total", change="reset", method="", reason=""): 1},
    ),
    (
        SignInEvent("refused", "tanaka", "203.0.113.9", "wrong", "password"),
        {shown("mks_sign_in_events_total", change="refused", method="password", reason="wrong"): 1},
    ),
    (
        SignInEvent("unlocked", "tanaka", "203.0.113.9", "he called", actor="suzuki"),
        {shown("mks_sign_in_events_total", change="unlocked", method="", reason=""): 1},
    ),
    (
        TaskQueueSeen(12, 90.5, 3, 2, stalled=True),
        {
            shown("mks_task_queue_due"): 12,
            shown("mks_task_queue_oldest_due_seconds"): 90.5,
            shown("mks_task_queue_running"): 3,
            shown("mks_task_queue_dead"): 2,
            shown("mks_task_queue_stalled"): 1,
        },
    ),
    (
        BackendFailed("redis", "get", "timeout", "10.0.0.1:6379"),
        {shown("mks_backend_failures_total", backend="redis", operation="get", reason="timeout"): 1},
    ),
    (
        BreakerChanged("redis", "closed", "open", "timeout", "10.0.0.1:6379"),
        {
            shown("mks_breaker_changes_total", backend="redis", state="open"): 1,
            shown("mks_breakers_not_closed", backend="redis"): 1,
        },
    ),
    (
        BreakerChanged("redis", "half_open", "closed", ""),  # it had opened before anybody watched
        {shown("mks_breaker_changes_total", backend="redis", state="closed"): 1},
    ),
    (
        SlowQuery("select * from articles where id = ?", 250.0, "ok"),
        {
            shown("mks_slow_query_duration_seconds_sum", outcome="ok"): 0.25,
            shown("mks_slow_query_duration_seconds_count", outcome="ok"): 1,
        },
    ),
    (PoolEvent("exhausted", 5, 5), {shown("mks_pool_events_total", change="exhausted"): 1}),
    (
        AlertsCounted("slack", "dropped", 7, "queue_full"),
        {shown("mks_alerts_total", channel="slack", state="dropped", reason="queue_full"): 7},
    ),
    (
        LogsDropped("log queue", 3, "queue is full"),
        {shown("mks_log_records_dropped_total", handler="log queue", reason="queue is full"): 3},
    ),
    (
        TaskChanged("reports.monthly", "done", 4.0),
        {
            shown("mks_task_runs_total", task="reports.monthly", outcome="done"): 1,
            shown("mks_task_duration_seconds_sum", task="reports.monthly"): 4,
            shown("mks_task_duration_seconds_count", task="reports.monthly"): 1,
        },
    ),
]


@pytest.mark.parametrize(("event", "numbers"), CASES, ids=lambda case: type(case).__name__)
def test_each_event_becomes_these_numbers(make: Make, event: Any, numbers: dict[str, float]) -> None:
    observer = make()
    observer(event)
    found = samples(observer)
    finite = {name: value for name, value in found.items() if "_bucket" not in name or name in numbers}
    assert finite == numbers


def test_every_event_type_has_a_metric_and_a_case() -> None:
    kinds = {getattr(events, name) for name in events.__all__ if isinstance(getattr(events, name), type)}
    assert kinds == {rule.event for rule in RULES} == {type(event) for event, _ in CASES}


@pytest.mark.parametrize(
    ("milliseconds", "bucket"), [(0.0, "0.001"), (1.0, "0.001"), (1.001, "0.0025"), (30_000, "30.0")]
)
def test_a_duration_is_in_the_bucket_whose_bound_it_does_not_exceed(
    make: Make, milliseconds: float, bucket: str
) -> None:
    observer = make()
    observer(RequestFinished("GET", "/", 200, milliseconds, "ok"))
    (family,) = [item for item in observer.collect() if item.name == "mks_request_duration_seconds"]
    filled = [sample.labels["le"] for sample in family.samples if "le" in sample.labels and sample.value]
    assert filled[0] == bucket


def test_breakers_open_and_close(make: Make) -> None:
    observer = make()
    gauge = shown("mks_breakers_not_closed", backend="redis")
    observer(BreakerChanged("redis", "closed", "open", "timeout", "a"))
    observer(BreakerChanged("redis", "closed", "open", "timeout", "b"))
    observer(BreakerChanged("redis", "half_open", "closed", ""))
    assert samples(observer)[gauge] == 1


def test_what_is_no_event_is_passed_over(make: Make) -> None:
    observer = make()
    for stranger in ("text", None, object(), ("GET", "/", 200, 1.0, "ok")):
        observer(stranger)
    assert samples(observer) == {}


# --- names


def exposed(observer: PrometheusObserver, accept: str = "") -> str:
    registry = prometheus_client.CollectorRegistry()
    registry.register(observer)
    return call_wsgi(metrics_app(registry=registry), headers={"Accept": accept}).body.decode()


def test_names_are_those_of_the_table_and_of_good_manners(make: Make) -> None:
    from prometheus_client.parser import text_string_to_metric_families as parse

    observer = make()
    for event, _ in CASES:
        observer(event)
    families = {family.name: family for family in parse(exposed(observer))}
    for metric in METRICS[:-1]:
        family = families[metric.name.removesuffix("_total")]
        kind = "gauge" if metric.kind == "level" else metric.kind
        assert (family.type, family.documentation) == (kind, metric.help)
        assert {tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples} == {
            tuple(sorted(metric.labels))
        }
        # As promtool asks for: base units, a suffix for counters alone, no unit or type inside.
        assert re.fullmatch(r"mks_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_seconds") or metric.kind != "histogram"
        assert not re.search(
            r"milli|micro|minute|counter|gauge|histogram|_count$|_sum$|_bucket$", metric.name
        )
        assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", label) for label in metric.labels)
        assert metric.help.endswith(".")


def test_the_stricter_form_of_openmetrics_is_kept_too(make: Make) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

    observer = make()
    for event, _ in CASES:
        observer(event)
    text = exposed(observer, "application/openmetrics-text; version=1.0.0")
    assert {family.name for family in parse(text)} >= {
        metric.name.removesuffix("_total") for metric in METRICS[:-1]
    }


# --- labels are bounded, and nothing of a client's


@given(st.text(min_size=1, max_size=300).map(lambda text: f"\u2620{text}"))
def test_no_text_of_a_client_reaches_a_label(text: str) -> None:
    observer = PrometheusObserver(registry=prometheus_client.CollectorRegistry())
    for event in (
        RequestFinished(text, None, 200, 1.0, "ok"),
        RequestRefused("csrf", text, text),
        SessionChanged("started", text, text),
        TwoFactorEvent("refused", text, text, text),
        TwoFactorEvent("reset", text, "totp", text, text),
        SignInEvent("refused", text, text, text, text, text),
        SlowQuery(text, 1.0, text),
        BackendFailed("redis", "get", text, text),
        BreakerChanged("redis", "closed", "open", text, text),
        RateLimitDecided("login", True, text),
    ):
        observer(event)
    assert "\u2620" not in " ".join(samples(observer))


def test_beyond_the_bound_everything_is_one(make: Make, tmp_path: Path) -> None:
    observer = make()
    for number in range(2000):
        observer(RequestFinished("GET", f"/{number}", 200, 1.0, "ok"))
    observer(RequestFinished("GET", "/5", 200, 1.0, "ok"))
    found = samples(observer)
    requests = {name: value for name, value in found.items() if name.startswith("mks_requests_total")}
    assert len(requests) == 501
    assert sum(requests.values()) == 2001
    other = shown("mks_requests_total", method=OTHER, route=OTHER, status=OTHER, outcome=OTHER)
    assert requests[other] == 1500
    assert requests[shown("mks_requests_total", method="GET", route="/5", status="200", outcome="ok")] == 2
    refused = shown("mks_metric_label_sets_refused_total", metric="mks_requests_total")
    assert found[refused] >= 1500


# --- threads, forks, processes


def test_threads_lose_no_event(make: Make) -> None:
    observer = make()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: [observer(CacheRead("mks", "hit")) for _ in range(4000)])
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert (
        samples(observer)[shown("mks_cache_reads_total", namespace="mks", outcome="hit", reason="")] == 24000
    )


HITS = shown("mks_cache_reads_total", namespace="mks", outcome="hit", reason="")
OPEN = shown("mks_breakers_not_closed", backend="redis")


def in_a_child(work: Callable[[], object]) -> int:
    """Run something in a forked child that ends without goodbye, and return its status."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_forked_child_counts_for_itself_in_memory() -> None:
    observer = PrometheusObserver(registry=prometheus_client.CollectorRegistry())
    observer(CacheRead("mks", "hit"))
    reading, writing = os.pipe()

    def child() -> None:
        observer(CacheRead("mks", "hit"))
        observer(CacheRead("mks", "hit"))
        os.write(writing, str(samples(observer)[HITS]).encode())

    in_a_child(child)
    assert os.read(reading, 99) == b"2.0"
    assert samples(observer)[HITS] == 1
    os.close(reading)
    os.close(writing)


def test_children_count_together_and_the_dead_leave_counts_but_no_gauges(tmp_path: Path) -> None:
    observer = PrometheusObserver(directory=tmp_path)
    observer(CacheRead("mks", "hit"))  # the parent has a slot, which its children must not share

    def child() -> None:
        observer(CacheRead("mks", "hit"))
        observer(BreakerChanged("redis", "closed", "open", "timeout"))
        assert samples(observer)[OPEN] == 1

    for _ in range(3):
        in_a_child(child)
    found = samples(observer)
    assert found[HITS] == 4
    assert OPEN not in found
    # Each child went on in the slot that the one before had left.
    assert sorted(path.name for path in tmp_path.glob("counter_*")) == ["counter_mks1.db", "counter_mks2.db"]


def test_of_the_queue_the_last_look_counts(tmp_path: Path) -> None:
    first, second = PrometheusObserver(directory=tmp_path), PrometheusObserver(directory=tmp_path)
    for observer, due in ((first, 9), (second, 5), (first, 7), (second, 2)):
        observer(TaskQueueSeen(due, 1.0, 0, 0, stalled=False))
    assert samples(first)[shown("mks_task_queue_due")] == 2
    in_a_child(lambda: first(TaskQueueSeen(99, 1.0, 0, 0, stalled=False)))
    assert samples(first)[shown("mks_task_queue_due")] == 2


def test_living_processes_never_share_a_slot(tmp_path: Path) -> None:
    several = [PrometheusObserver(directory=tmp_path) for _ in range(5)]
    for observer in several:
        observer(CacheRead("mks", "hit"))
        observer(BreakerChanged("redis", "closed", "open", "timeout"))
    assert samples(several[0])[HITS] == 5
    assert samples(several[0])[OPEN] == 5
    assert len(list(tmp_path.glob("counter_*"))) == 5
    shared_storage.remove_free_slots(tmp_path)
    assert samples(several[0])[HITS] == 5
    for observer in several[1:]:
        observer._storage.close()
    shared_storage.remove_free_slots(tmp_path)
    assert samples(several[0])[HITS] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "counter_mks1.db",
        "gauge_livesum_mks1.db",
        "mks1.lock",
    ]


def test_their_own_collector_shows_our_numbers(tmp_path: Path) -> None:
    from prometheus_client import multiprocess

    observer = PrometheusObserver(directory=tmp_path)
    for event, _ in CASES:
        observer(event)
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(tmp_path))
    memory = PrometheusObserver(registry=prometheus_client.CollectorRegistry())
    for event, _ in CASES:
        memory(event)
    theirs = {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.value
    }
    assert theirs == samples(memory)


def test_a_reader_beside_a_writer_sees_whole_files(tmp_path: Path) -> None:
    observer, reader = (
        PrometheusObserver(directory=tmp_path, most_label_sets=5000),
        PrometheusObserver(directory=tmp_path),
    )
    ended = threading.Event()

    def write() -> None:
        for number in range(1500):
            observer(TaskChanged(f"task{number}", "done", 1.0))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0.0
    while not ended.is_set():
        counts = [value for name, value in samples(reader).items() if name.startswith("mks_task_runs_total")]
        assert sum(counts) >= seen
        seen = sum(counts)
    writer.join()
    assert sum(v for n, v in samples(reader).items() if n.startswith("mks_task_runs_total")) == 1500
    assert (tmp_path / "histogram_mks1.db").stat().st_size > 65_536  # it grew on the way


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x00", b"\xff" * 100, b"\x08\x00\x00\x00", b"\x40\x00\x00\x00" + b"\x00" * 200]
)
def test_a_broken_file_is_begun_anew(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "counter_mks1.db").write_bytes(rubbish)
    observer = PrometheusObserver(directory=tmp_path)
    observer(CacheRead("mks", "hit"))
    assert samples(observer)[HITS] == 1


@pytest.mark.parametrize("broken", ["posix_fallocate", "open"])
def test_a_full_disk_costs_numbers_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    observer = PrometheusObserver(directory=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shared_storage.os, broken, full)
        for _ in range(5):
            observer(CacheRead("mks", "hit"))
            observer(PoolEvent("exhausted", 5, 5))
    assert [record.name for record in caplog.records] == ["mks_hardening.metrics"]


@pytest.mark.parametrize("refused", [None, errno.EINVAL, errno.EOPNOTSUPP])
def test_it_counts_where_the_system_does_not_allocate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int | None
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(refused, "no")

    if refused is None:
        monkeypatch.delattr(shared_storage.os, "posix_fallocate")
    else:
        monkeypatch.setattr(shared_storage.os, "posix_fallocate", refuse)
    observer = PrometheusObserver(directory=tmp_path)
    for number in range(500):
        observer(TaskChanged(f"task.{number}", "done", 1.0))
    observer(CacheRead("mks", "hit"))
    assert samples(observer)[HITS] == 1
    for file in tmp_path.glob("*.db"):  # none of it is missing on the disk
        assert file.stat().st_blocks * 512 >= file.stat().st_size
    assert (tmp_path / "histogram_mks1.db").stat().st_size > 65_536


def test_a_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "counter_mks1.db").symlink_to(victim)
    PrometheusObserver(directory=shared)(CacheRead("mks", "hit"))
    assert victim.read_text() == "precious"


# --- the listener


@pytest.fixture
def served(make: Make) -> Iterator[int]:
    observer = make()
    observer(CacheRead("mks", "hit"))
    with observer.serve(0) as listener:
        assert listener.address == "127.0.0.1"
        yield listener.port


def test_metrics_are_served_on_a_listener_of_their_own(served: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{served}/metrics", timeout=10) as answer:
        assert 'mks_cache_reads_total{namespace="mks",outcome="hit",reason=""} 1.0' in answer.read().decode()


def test_a_client_that_says_nothing_keeps_nobody_waiting(served: int) -> None:
    with (
        socket.create_connection(("127.0.0.1", served)) as silent,
        socket.create_connection(("127.0.0.1", served)) as rude,
    ):
        rude.sendall(b"\x00\xff nonsense\r\n\r\n")
        with urllib.request.urlopen(f"http://127.0.0.1:{served}/metrics", timeout=10) as answer:
            assert answer.status == 200
        assert silent.fileno() >= 0


def test_a_taken_port_is_said_so(served: int, make: Make) -> None:
    with pytest.raises(ConfigurationError, match="the port for metrics cannot be opened"):
        make().serve(served)


def test_a_closed_listener_frees_its_port(make: Make) -> None:
    observer, port = make(), free_port()
    for _ in range(2):
        observer.serve(port).close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)


def test_a_forked_child_neither_keeps_the_port_nor_waits_when_it_closes(make: Make) -> None:
    observer, (reading, writing), (closed, closing) = make(), os.pipe(), os.pipe()
    listener = observer.serve(free_port())  # with 0, the next client may take it in between
    child = os.fork()
    if not child:
        try:
            os.close(writing)
            signal.alarm(20)  # else a child that hangs outlives the test
            listener.close()
            os.write(closing, b"x")
            os.read(reading, 1)
        finally:
            os._exit(0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{listener.port}/", timeout=10) as answer:
            assert answer.status == 200
        os.close(closing)
        assert os.read(closed, 1) == b"x"  # the child is slow on a busy machine
        listener.close()
        observer.serve(listener.port).close()
    finally:
        os.close(writing)
        os.close(reading)
        os.close(closed)
        assert os.waitpid(child, 0)[1] == 0


# --- bad use


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"most_label_sets": 0}, "most_label_sets"),
        ({"request_buckets": []}, "request_buckets"),
        ({"request_buckets": [1, 1]}, "request_buckets"),
        ({"request_buckets": [0.0, 1]}, "request_buckets"),
        ({"directory": "/no/such/folder"}, "directory"),
        ({"directory": ".", "registry": prometheus_client.CollectorRegistry()}, "registry"),
    ],
)
def test_bad_parameters_are_refused(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        PrometheusObserver(**options)
    assert refused.value.parameter == parameter


def test_two_observers_in_one_registry_are_refused() -> None:
    registry = prometheus_client.CollectorRegistry()
    PrometheusObserver(registry=registry)
    with pytest.raises(ConfigurationError, match="create only one observer"):
        PrometheusObserver(registry=registry)


def test_the_directory_is_that_of_their_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    PrometheusObserver()(CacheRead("mks", "hit"))
    assert (tmp_path / "counter_mks1.db").exists()


def test_buckets_of_ones_own(make: Make, tmp_path: Path) -> None:
    observer = PrometheusObserver(directory=tmp_path, request_buckets=[0.3])
    observer(RequestFinished("GET", "/", 200, 300.0, "ok"))
    found = [name for name in samples(observer) if "_bucket" in name]
    assert len(found) == 2


def test_one_gauge_of_a_living_process_is_kept(tmp_path: Path) -> None:
    observer = PrometheusObserver(directory=tmp_path)
    observer(BreakerChanged("redis", "closed", "open", "timeout"))
    shared_storage.forget_dead(tmp_path)
    assert samples(observer)[OPEN] == 1
    assert logging.getLogger("mks_hardening.metrics").handlers == []
