"""``mks-deploy accept``: the sheet, from events that the library really emits, and against a rendered host."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from deploy_certificates import Certificates
from deploy_host import HOST, Host
from mks_deploy.cli import main, parser
from mks_deploy.operations.acceptance import (
    CRITERIA,
    Evidence,
    Metrics,
    StaticTimes,
    as_json,
    as_markdown,
    as_text,
    judge,
)
from mks_deploy.operations.concurrent_readers import Readings, read_concurrently
from mks_deploy.operations.probe import Finding, Target
from mks_hardening import events
from mks_hardening.contrib.prometheus_observer import PrometheusObserver

GOOD = (
    Finding("the chain is trusted and names the host", holds=True, seen="TLSv1.3"),
    Finding("/: HSTS once", holds=True, seen="max-age=63072000"),
    Finding("HSTS for 180 days or more", holds=True, seen="max-age=63072000", note=True),
    Finding("plain http: GET is redirected to https", holds=True, seen="301"),
)


def exposed(*seen: object) -> Metrics:
    """Return what the application would serve after these events."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry=registry)
    for event in seen:
        observer(event)
    return Metrics([generate_latest(registry).decode()])


def finished(milliseconds: float) -> events.RequestFinished:
    return events.RequestFinished("GET", None, 200, milliseconds, "completed")


def outcome(key: str, evidence: Evidence) -> tuple[str, str]:
    return next((each.outcome, each.figure) for each in judge(evidence) if each.criterion.key == key)


NOTHING = Metrics([])


def evidence(metrics: Metrics = NOTHING, **more: Any) -> Evidence:
    return Evidence(GOOD, metrics, **more)


READ = events.CacheRead
TABLE: list[tuple[str, Evidence, str]] = [
    ("tls", evidence(), "met"),
    ("tls", Evidence((Finding("TLS 1.0 is refused", holds=False, seen=""),), NOTHING), "missed"),
    # No grade A+, though a young site is right to begin so.
    (
        "tls",
        Evidence(
            (*GOOD, Finding("HSTS for 180 days or more", holds=False, seen="max-age=300", note=True)), NOTHING
        ),
        "missed",
    ),
    ("redirects", evidence(), "met"),
    ("redirects", Evidence((Finding("plain http: POST", holds=False, seen="200"),), NOTHING), "missed"),
    ("redirects", Evidence((), NOTHING), "missed"),
    ("json-logs", evidence(), "not run"),
    ("json-logs", evidence(log=['{"@timestamp":"2026","message":"a"}', '{"time":"2026"}']), "met"),
    ("json-logs", evidence(log=['{"timestamp":"2026"}', "Traceback (most recent call last):"]), "missed"),
    ("json-logs", evidence(log=["[1]"]), "missed"),
    ("alerts", evidence(), "not run"),
    ("alerts", evidence(exposed(events.AlertsCounted("mail", "delivered", 1))), "met"),
    ("alerts", evidence(exposed(events.AlertsCounted("mail", "spooled", 1))), "not run"),
    ("alerts", evidence(alert_delivered=True), "met"),
    ("alerts", evidence(alert_delivered=False), "missed"),
    ("second-factor", evidence(), "not run"),
    ("second-factor", evidence(exposed()), "not run"),
    ("second-factor", evidence(exposed(events.TwoFactorEvent("verified", "7", "totp"))), "met"),
    ("rate-limits", evidence(exposed(events.RateLimitDecided("api", True, "backend"))), "not run"),
    (
        "rate-limits",
        evidence(exposed(*(events.RateLimitDecided("api", each, "backend") for each in (True, False)))),
        "met",
    ),
    (
        "rate-limits",
        evidence(
            exposed(
                events.RateLimitDecided("api", True, "backend"),
                events.RateLimitDecided("api", False, "backend", dry_run=True),
            )
        ),
        "not run",
    ),
    ("session-timeout", evidence(exposed(events.SessionChanged("ended", ""))), "not run"),
    ("session-timeout", evidence(exposed(events.SessionChanged("refused", "idle"))), "met"),
    ("hit-rate", evidence(exposed(*[READ("a", "hit")] * 70)), "not run"),
    ("hit-rate", evidence(exposed(*[READ("a", "hit")] * 70, *[READ("a", "miss")] * 30)), "met"),
    ("hit-rate", evidence(exposed(*[READ("a", "hit")] * 69, *[READ("a", "miss")] * 31)), "missed"),
    ("response-time", evidence(exposed(*[finished(10)] * 99)), "not run"),
    ("response-time", evidence(exposed(*[finished(10)] * 100)), "not run"),
    ("response-time", evidence(exposed(*[finished(10)] * 100), before={"mean_ms": 20.1}), "met"),
    ("response-time", evidence(exposed(*[finished(10)] * 100), before={"mean_ms": 19.9}), "missed"),
    ("static-files", evidence(), "not run"),
    ("static-files", evidence(static=StaticTimes("/static/a.css", "max-age=60", 304, 1.0, 2.0)), "met"),
    ("static-files", evidence(static=StaticTimes("/static/a.css", "max-age=60", 304, 3.0, 2.0)), "missed"),
    ("static-files", evidence(static=StaticTimes("/static/a.css", "", 304, 1.0, 2.0)), "missed"),
    ("static-files", evidence(static=StaticTimes("/static/a.css", "max-age=60", 200, 1.0, 2.0)), "missed"),
    ("n-plus-one", evidence(has_database=False), "not run"),
    ("n-plus-one", evidence(n_plus_one=0), "met"),
    ("n-plus-one", evidence(n_plus_one=1), "missed"),
    ("n-plus-one", evidence(n_plus_one=3), "not run"),
    ("n-plus-one", evidence(n_plus_one=None), "not run"),
    ("background-tasks", evidence(exposed()), "not run"),
    ("background-tasks", evidence(exposed(events.TaskChanged("report", "done", 1.0))), "met"),
    ("background-tasks", evidence(exposed(events.TaskChanged("report", "dead", 1.0))), "not run"),
    ("connections", evidence(), "not run"),
    ("connections", evidence(load=Readings([0.1], connections=1000)), "met"),
    ("connections", evidence(load=Readings([0.1], connections=999)), "missed"),
    ("connections", evidence(load=Readings([], connections=1000)), "missed"),
    ("connections", evidence(load=Readings([0.1], Counter({"status 502": 1}), 1000)), "missed"),
    ("p95", evidence(), "not run"),
    ("p95", evidence(load=Readings([0.1] * 95 + [0.6] * 5, connections=9)), "missed"),
    ("p95", evidence(load=Readings([0.1] * 96 + [0.6] * 4, connections=9)), "met"),
    ("p95", evidence(exposed(*[finished(90)] * 96, *[finished(900)] * 4)), "met"),
    ("p95", evidence(exposed(*[finished(90)] * 90, *[finished(900)] * 10)), "missed"),
]


@pytest.mark.parametrize(("key", "seen", "expected"), TABLE)
def test_each_criterion_is_decided_by_its_figure(key: str, seen: Evidence, expected: str) -> None:
    assert outcome(key, seen)[0] == expected


def test_every_criterion_can_be_met_and_left_open() -> None:
    """A sheet on which a criterion always says the same would prove nothing."""
    for criterion in CRITERIA:
        assert {decided for key, _, decided in TABLE if key == criterion.key} >= {"met"}, criterion.key
        assert len({decided for key, _, decided in TABLE if key == criterion.key}) >= 2, criterion.key


def test_quantiles_are_those_of_prometheus() -> None:
    metrics = exposed(*[finished(90)] * 90, *[finished(900)] * 10)
    # histogram_quantile: between the bounds of the bucket, as far as the rank is inside it.
    assert metrics.quantile("mks_request_duration_seconds", 0.95) == pytest.approx(0.75)
    assert metrics.quantile("mks_request_duration_seconds", 0.45) == pytest.approx(0.075)
    assert metrics.quantile("mks_no_such_thing", 0.95) == 0.0
    assert exposed(*[finished(60_000)] * 9).quantile("mks_request_duration_seconds", 0.5) == 30.0


def test_two_slots_are_added_up() -> None:
    registry = CollectorRegistry()
    PrometheusObserver(registry=registry)(events.CacheRead("a", "hit"))
    text = generate_latest(registry).decode()
    assert Metrics([text, text]).total("mks_cache_reads_total", outcome=("hit",)) == 2


def test_a_sheet_has_a_line_for_each_criterion() -> None:
    verdicts = judge(evidence(exposed(*[finished(10)] * 100)))
    assert len(as_text(verdicts, "en").splitlines()) == len(CRITERIA) == 14
    table = as_markdown(verdicts, "ja").splitlines()
    assert len(table) == 16
    assert {line.count(" | ") for line in table[2:]} == {4}
    whole = json.loads(as_json(verdicts, evidence(exposed(*[finished(10)] * 100)), facts={"site": "shop"}))
    assert whole["figures"]["mean_ms"] == pytest.approx(10)
    assert {each["phase"] for each in whole["criteria"]} == {1, 2, 3, 4}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Certificates(Path(folder)), hsts='hsts_max_age = "730d"')
        try:
            host.render()
            static = host.folder / "releases/public/static"
            (static / "site.css").write_text("body{color:#222}")
            (host.folder / "deploy.toml").write_text(host.settings_text())
            host.start_application()
            host.start_nginx()
            yield host
        finally:
            host.stop()


def accept(host: Host, *more: str) -> int:
    words = ["--settings", str(host.folder / "deploy.toml"), "--secrets", str(host.folder / "secrets")]
    return main(["accept", *words, "--ca", str(host.certificates.ca_file), *more])


@pytest.mark.nginx
def test_an_installed_site_gets_its_sheet(host: Host, capsys: Any, tmp_path: Path) -> None:
    log = host.path("logs") / "app.log"
    log.write_text('{"timestamp":"2026-11-29T00:00:00Z","level":"INFO","message":"a"}\n')
    # A page that is certainly slower than a file, on a busy machine too.
    assert accept(host, "--format", "json", "--path", "/slow?0.2") == 0
    text = capsys.readouterr().out
    found = {each["key"]: each for each in json.loads(text)["criteria"]}
    assert [key for key, each in found.items() if each["outcome"] == "met"] == [
        "tls",
        "redirects",
        "json-logs",
        "static-files",
    ]
    for key in ("alerts", "n-plus-one", "connections"):
        assert found[key]["outcome"] == "not run"
        assert found[key]["figure"]
    assert accept(host, "--strict") == 1
    log.write_text("plain\n")
    assert accept(host, "--format", "markdown", "--language", "ja") == 1
    assert (
        "| 1 | ログが JSON 形式で出力される | `tail app.log` | ✗ 未達 | 0 of 1 lines |"
        in capsys.readouterr().out
    )
    log.unlink()
    for bad in ("[]", "no JSON", '{"figures": {"mean_ms": "fast"}}'):
        before = tmp_path / "before.json"
        before.write_text(bad)
        assert accept(host, "--before", str(before)) == 2
    assert "--before: before.json must be" in capsys.readouterr().err


@pytest.mark.nginx
def test_a_load_counts_every_connection_and_error(host: Host) -> None:
    target = Target(HOST, host.https, host.http, "127.0.0.1")
    good = read_concurrently(target, "/status/200", connections=30, seconds=0.4, pause=(0.0, 0.05))
    assert good.connections == 30
    assert not good.errors
    assert len(good.seconds) >= 30
    assert 0 < good.percentile_ms(50) <= good.percentile_ms(95)
    bad = read_concurrently(target, "/status/404", connections=3, seconds=0.2, pause=(0.0, 0.05))
    assert set(bad.errors) == {"status 404"}
    assert not bad.seconds
    closed = read_concurrently(Target(HOST, 9, 9, "127.0.0.1"), "/", connections=2, seconds=0.1)
    assert dict(closed.errors) == {"connect: ConnectionRefusedError": 2}
    assert closed.percentile_ms(95) == 0.0


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not part of the wheel")
def test_the_page_names_commands_that_exist() -> None:
    for language in ("en", "ja"):
        page = DOCS / language / "how-to" / "accept-a-site.md"
        lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("mks-deploy ")]
        assert len(lines) == 5
        for line in lines:
            parser().parse_args(shlex.split(line.partition(" > ")[0])[1:])
