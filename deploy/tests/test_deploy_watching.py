"""Rules for Prometheus with unit tests of their own, the dashboard, and the settings of Redis and PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy_host import Host
from deploy_settings import deployed
from mks_deploy.alerts import alerts_of
from mks_deploy.cli import main
from mks_deploy.dashboard import expressions
from mks_deploy.operations.backup import Database
from mks_deploy.operations.server_metrics import read_servers
from mks_deploy.operations.watch import find_problems, measure, record
from mks_deploy.rendering import render
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.versions import Installed
from testbed.polling import wait_until
from testbed.postgres_server import PostgresServer
from testbed.process import ServerProcess
from testbed.services import program


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host()
    host.render()
    yield host
    host.stop()


@pytest.fixture(scope="module")
def rules(host: Host) -> Path:
    return host.root / "etc/prometheus/rules/knowledge-system.yml"


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [program("promtool"), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_promtool_has_nothing_to_say(rules: Path, host: Host) -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", rules)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = host.folder / "prometheus.yml"
    whole.write_text(
        f"scrape_config_files: [{host.root}/etc/prometheus/scrape/*.yml]\nrule_files: [{rules}]\n"
    )
    done = promtool("check", "config", whole)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_rules_and_where_to_look(host: Host) -> None:
    """The file that the page on deploying installs, with the folders of this host."""
    text = (
        (host.path("share") / "prometheus.yml")
        .read_text()
        .replace("/etc/prometheus", f"{host.root}/etc/prometheus")
    )
    whole = host.folder / "installed.yml"
    whole.write_text(text)
    done = promtool("check", "config", whole)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts_of(read_settings(host.settings_text())))} rules found" in done.stdout
    found = re.findall(r"(?m)^(?:rule_files|scrape_config_files): .*$", text)
    assert len(found) == 2
    for name in ("rules", "scrape"):
        assert list((host.root / "etc/prometheus" / name).glob("*.yml"))


# Each alert: series that must raise it, series of a good day, and when to look. A step is a minute, @ the job.
CASES: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "ApplicationDown": (
        {"up{@,slot='blue'}": "0x60", "up{@,slot='green'}": "0x60"},
        {"up{@,slot='blue'}": "0x60", "up{@,slot='green'}": "1x60"},
        "30m",
    ),
    "ErrorRate": (
        {"mks_requests_total{@,status='200'}": "0+90x60", "mks_requests_total{@,status='500'}": "0+10x60"},
        {"mks_requests_total{@,status='200'}": "0+100x60", "mks_requests_total{@,status='503'}": "0+1x60"},
        "30m",
    ),
    "SlowRequests": (
        {
            "mks_request_duration_seconds_bucket{@,le='0.5'}": "0+90x60",
            "mks_request_duration_seconds_bucket{@,le='1'}": "0+100x60",
            "mks_request_duration_seconds_bucket{@,le='+Inf'}": "0+100x60",
        },
        {
            "mks_request_duration_seconds_bucket{@,le='0.5'}": "0+99x60",
            "mks_request_duration_seconds_bucket{@,le='1'}": "0+100x60",
            "mks_request_duration_seconds_bucket{@,le='+Inf'}": "0+100x60",
        },
        "30m",
    ),
    "BreakerOpen": (
        {"mks_breakers_not_closed{@,backend='redis'}": "1x60"},
        {"mks_breakers_not_closed{@,backend='redis'}": "0x60"},
        "30m",
    ),
    "PoolExhausted": (
        {"mks_pool_events_total{@,change='exhausted'}": "0x28 1x30"},
        {"mks_pool_events_total{@,change='exhausted'}": "5x60"},
        "30m",
    ),
    "QueueOld": (
        {"mks_task_queue_oldest_due_seconds{@}": "400x60"},
        {"mks_task_queue_oldest_due_seconds{@}": "20x60"},
        "30m",
    ),
    "NoWorker": ({"mks_task_queue_stalled{@}": "1x60"}, {"mks_task_queue_stalled{@}": "0x60"}, "30m"),
    "DeadTasks": ({"mks_task_queue_dead{@}": "2x60"}, {"mks_task_queue_dead{@}": "0x60"}, "30m"),
    "AlertsDropped": (
        {"mks_alerts_total{@,state='dropped'}": "0x28 3x30"},
        {"mks_alerts_total{@,state='delivered'}": "0+3x60"},
        "30m",
    ),
    "SpoolNotEmpty": ({"mks_host_spool_files": "1x60"}, {"mks_host_spool_files": "1x20 0x40"}, "45m"),
    "LogsDropped": (
        {"mks_log_records_dropped_total{@}": "0x28 1x30"},
        {"mks_log_records_dropped_total{@}": "1x60"},
        "30m",
    ),
    "SignInAttack": (
        {
            "mks_sign_in_events_total{@,change='refused'}": "0+8x60",
            "mks_sign_in_events_total{@,change='limited'}": "0+8x60",
        },
        {
            "mks_sign_in_events_total{@,change='refused'}": "0+2x60",
            "mks_sign_in_events_total{@,change='signed_in'}": "0+90x60",
        },
        "30m",
    ),
    "AccountsLocked": (
        {"mks_sign_in_events_total{@,change='locked'}": "0x28 5x30"},
        {"mks_sign_in_events_total{@,change='locked'}": "5x28 6x30"},
        "30m",
    ),
    "LimitsRefuse": (
        {
            "mks_rate_limit_decisions_total{@,group='api_write',outcome='refused'}": "0+30x60",
            "mks_rate_limit_decisions_total{@,group='api_write',outcome='allowed'}": "0+70x60",
        },
        {
            "mks_rate_limit_decisions_total{@,group='api_write',outcome='refused'}": "0+10x60",
            "mks_rate_limit_decisions_total{@,group='api_write',outcome='allowed'}": "0+90x60",
            # Five requests an hour, all refused, are nobody's trouble.
            "mks_rate_limit_decisions_total{@,group='file_upload',outcome='refused'}": "0x40 1x5 2x15",
        },
        "45m",
    ),
    "CacheHitRate": (
        {
            "mks_cache_reads_total{@,outcome='hit'}": "0+600x90",
            "mks_cache_reads_total{@,outcome='miss'}": "0+400x90",
        },
        {
            "mks_cache_reads_total{@,outcome='hit'}": "0+700x90",
            "mks_cache_reads_total{@,outcome='stale'}": "0+100x90",
            "mks_cache_reads_total{@,outcome='miss'}": "0+200x90",
            "mks_cache_reads_total{@,outcome='bypass'}": "0+900x90",
        },
        "80m",
    ),
    "CertificateEnds": (
        {
            "mks_host_certificate_begin_seconds": "-7776000x60",
            "mks_host_certificate_end_seconds": "86400x60",
            "mks_host_edge_answers": "1x60",
        },
        {
            # Nothing answers for a while: that is another alert's.
            "mks_host_certificate_begin_seconds": "0x20 0x40",
            "mks_host_certificate_end_seconds": "7776000x20 0x40",
            "mks_host_edge_answers": "1x20 0x40",
        },
        "30m",
    ),
    "EdgeDown": ({"mks_host_edge_answers": "0x60"}, {"mks_host_edge_answers": "1x28 0x3 1x30"}, "30m"),
    "DiskFull": (
        {"mks_host_free_ratio{path='/var'}": "0.05x60"},
        {"mks_host_free_ratio{path='/var'}": "0.5x60"},
        "30m",
    ),
    "BackupOld": ({"mks_host_backup_seconds": "-100000x60"}, {"mks_host_backup_seconds": "0x60"}, "30m"),
    "KeysDamaged": ({"mks_host_damaged_key_copies": "1x60"}, {"mks_host_damaged_key_copies": "0x60"}, "30m"),
    "ArchiveFails": ({"mks_host_archive_fails": "1x60"}, {"mks_host_archive_fails": "0x25 1x3 0x30"}, "30m"),
    "RedisNearlyFull": (
        {"mks_host_redis_memory_ratio{role='state',full='refuses'}": "0.9x60"},
        {
            "mks_host_redis_memory_ratio{role='state',full='refuses'}": "0.5x60",
            "mks_host_redis_memory_ratio{role='cache',full='evicts'}": "1x60",
        },
        "30m",
    ),
    "QueueFillsRedis": (
        {"mks_host_queue_memory_ratio{queue='default'}": "0.3x60"},
        {"mks_host_queue_memory_ratio{queue='default'}": "0.1x60"},
        "30m",
    ),
    "RedisFull": (
        {"mks_backend_failures_total{@,reason='oom'}": "0x28 1x30"},
        {"mks_backend_failures_total{@,reason='refused'}": "0x28 1x30"},
        "30m",
    ),
    "RedisEvicts": (
        {"mks_host_redis_evicted_keys_total{role='state'}": "0x20 5x40"},
        {"mks_host_redis_evicted_keys_total{role='cache'}": "0+5x60"},
        "30m",
    ),
    "RedisRejects": (
        {"mks_host_redis_rejected_connections_total{role='state'}": "0x20 5x40"},
        {"mks_host_redis_rejected_connections_total{role='state'}": "5x60"},
        "30m",
    ),
    "HostNotWatched": ({"mks_host_watched_seconds": "0x60"}, {"mks_host_watched_seconds": "0+60x60"}, "30m"),
}


def test_every_alert_rises_and_rests(rules: Path, host: Host) -> None:
    alerts = {alert.name: alert for alert in alerts_of(read_settings(host.settings_text()))}
    assert CASES.keys() == alerts.keys()
    tests = [
        {
            "interval": "1m",
            "input_series": [
                {"series": series_name.replace("@", 'job="knowledge-system"'), "values": values}
                for series_name, values in series.items()
            ],
            "promql_expr_test": [],
            "alert_rule_test": [
                {
                    "eval_time": at,
                    "alertname": name,
                    "exp_alerts": _expected(alerts[name], series) if bad else [],
                }
            ],
        }
        for name, (wrong, right, at) in CASES.items()
        for bad, series in ((True, wrong), (False, right))
    ]
    file = host.folder / "rules.test.yml"
    file.write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def _expected(alert: Any, series: dict[str, str]) -> list[dict[str, Any]]:
    labels = {"severity": alert.severity, "site": "knowledge-system"}
    for label in ("backend", "path", "queue", "role"):
        if found := re.search(rf"{label}='([^']+)'", next(iter(series))):
            labels[label] = found[1]
    summary = alert.summary
    for label, value in labels.items():
        summary = summary.replace(f"{{{{ $labels.{label} }}}}", value)
    annotations = {"summary": summary, "runbook_url": f"https://example.jp/runbooks#runbook-{alert.runbook}"}
    return [{"exp_labels": labels, "exp_annotations": annotations}]


def test_alerts_and_dashboard_ask_for_metrics_that_exist(host: Host) -> None:
    from mks_hardening.contrib._metrics.metric_definitions import METRICS

    settings = read_settings(host.settings_text())
    known = {metric.name for metric in METRICS}
    known |= {name + end for name in known for end in ("_bucket", "_count", "_sum")}
    record(measure(settings, now=datetime.now(UTC)), settings)
    known |= set(re.findall(r"(?m)^# TYPE (\w+)", (host.path("state") / "metrics/host.prom").read_text()))
    asked = [*expressions(settings), *(alert.expression for alert in alerts_of(settings))]
    assert {name for text in asked for name in re.findall(r"\bmks_\w+", text)} <= known


def test_the_dashboard_is_whole(host: Host) -> None:
    dashboard = json.loads((host.path("share") / "grafana/dashboard.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places) == 15
    settings = read_settings(host.settings_text())
    for expression in expressions(settings):
        done = promtool("promql", "--experimental", "format", expression)
        assert done.returncode == 0, (expression, done.stderr)


# --- the servers' own settings ------------------------------------------------------------------


@pytest.mark.redis
def test_redis_starts_with_its_settings(tmp_path: Path) -> None:
    import redis

    host = Host()
    try:
        address = host.folder / "redis.sock"
        text = host.settings_text(f'[stores]\nredis_socket = "{address}"\n')
        file = host.folder / "redis.conf"
        file.write_text(
            next(
                each.text
                for each in render(read_settings(text), Installed())
                if each.path.endswith("redis.conf")
            )
        )
        server = ServerProcess(
            [program("redis-server"), str(file), "--dir", str(tmp_path)],
            log=tmp_path / "redis.log",
            ready=address.exists,
        )
        server.start()
        try:
            client = redis.Redis(unix_socket_path=str(address))
            settings = client.config_get("maxmemory*", "appendonly", "port")
            assert (settings["maxmemory-policy"], settings["appendonly"], settings["port"]) == (
                "noeviction",
                "yes",
                "0",
            )
            assert settings["maxmemory"] == str(256 * 1024 * 1024)
            assert address.stat().st_mode & 0o777 == 0o770
            client.close()
        finally:
            server.stop()
    finally:
        host.stop()


def _fill(client: Any) -> None:
    for number in range(48):
        client.set(f"entry-{number}", bytes(1024**2))


@pytest.mark.redis
@pytest.mark.parametrize("taken", [False, True], ids=["no worker", "a worker that is stuck"])
def test_a_queue_that_fills_redis_is_named(make_redis: Any, host: Host, *, taken: bool) -> None:
    """Messages of Celery itself, also those that a worker has taken and holds."""
    import celery

    server = make_redis(options={"maxmemory": "32mb", "maxmemory-policy": "noeviction"}, unix_socket=True)
    settings = read_settings(host.settings_text())
    url = f"redis+socket://{server.socket_path}?virtual_host=1"
    environ = {"MKS_CELERY_BROKER_URL": url}
    app = celery.Celery(broker=url)

    def said() -> list[str]:
        readings = measure(
            settings, now=datetime.now(UTC), served=lambda _: None, servers=read_servers(environ)
        )
        record(readings, settings)
        return [trouble for trouble in find_problems(readings, settings) if "queue" in trouble]

    assert said() == []
    with app.connection_for_write() as connection, connection.SimpleQueue("reports") as queue:
        for _ in range(100):
            queue.put("x" * 100_000, priority=3)
        held = [queue.get(timeout=5) for _ in range(100)] if taken else []
        name = "unacked" if taken else "reports"
        assert said() == [f"the queue {name} of the broker holds much of the memory of its Redis server"]
        metrics = (host.path("state") / "metrics/host.prom").read_text()
        assert re.search(rf'mks_host_queue_memory_ratio{{queue="{name}"}} 0\.[2-5]', metrics)
        for message in held:
            message.ack()


@pytest.mark.parametrize("url", ["", "amqp://localhost//", "redis://127.0.0.1:1/1", "redis+sentinel://a:1/b"])
def test_a_broker_without_a_redis_of_its_own_has_no_queues(url: str) -> None:
    assert read_servers({"MKS_CELERY_BROKER_URL": url}).queues == {}


@pytest.mark.redis
def test_a_full_cache_refuses_no_session_and_a_nearly_full_server_is_told(tmp_path: Path) -> None:
    """Both servers as rendered, with the least memory that the settings allow."""
    import redis

    host = Host()
    servers: list[ServerProcess] = []
    try:
        sockets = {role: host.folder / f"{role}.sock" for role in ("state", "cache")}
        text = host.settings_text(
            f'[stores]\nredis_memory = "32m"\nredis_socket = "{sockets["state"]}"\n'
            f'redis_cache_memory = "32m"\nredis_cache_socket = "{sockets["cache"]}"\n'
        )
        settings = read_settings(text)
        files = {Path(file.path).name: file.text for file in render(settings, Installed())}
        for role, name in (("state", "redis.conf"), ("cache", "redis-cache.conf")):
            folder = tmp_path / role
            folder.mkdir()
            (folder / name).write_text(files[name].replace("/var/lib/redis", str(folder)))
            server = ServerProcess(
                [program("redis-server"), str(folder / name), "--dir", str(folder), "--appendonly", "no"],
                log=folder / "log",
                ready=sockets[role].exists,
            )
            server.start()
            servers.append(server)
        clients = {role: redis.Redis(unix_socket_path=str(path)) for role, path in sockets.items()}
        environ = {
            f"MKS_{'REDIS' if role == 'state' else 'CACHE'}_URL": f"unix://{path}"
            for role, path in sockets.items()
        }
        _fill(clients["cache"])
        clients["state"].set("session", "1")
        readings = measure(
            settings, now=datetime.now(UTC), served=lambda _: None, servers=read_servers(environ)
        )
        assert readings.servers.redis["cache"].evicted > 0
        assert not [said for said in find_problems(readings, settings) if "Redis" in said]
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            _fill(clients["state"])
        assert clients["state"].get("session") == b"1"
        servers[1].stop()
        readings = measure(
            settings, now=datetime.now(UTC), served=lambda _: None, servers=read_servers(environ)
        )
        assert [said for said in find_problems(readings, settings) if "Redis" in said] == [
            "the Redis server of the role state is nearly full",
            "the Redis server of the role cache does not respond",
        ]
        record(readings, settings)
        metrics = (host.path("state") / "metrics/host.prom").read_text()
        assert 'mks_host_redis_answers{role="cache"} 0' in metrics
        assert re.search(r'memory_ratio\{role="state",full="refuses"\} (0\.9|1\.)', metrics)
        done = subprocess.run(
            [program("promtool"), "check", "metrics"],
            input=metrics,
            text=True,
            check=False,
            capture_output=True,
        )
        # 3 is the advice to write help texts.
        assert done.returncode in {0, 3}, done.stdout + done.stderr
        for client in clients.values():
            client.close()
    finally:
        for server in servers:
            server.stop()
        host.stop()


@pytest.mark.parametrize("crash", ["none", "before the name", "before the note"])
def test_a_segment_is_archived_once_and_compared_afterwards(host: Host, tmp_path: Path, crash: str) -> None:
    """The rendered ``archive_command``, as PostgreSQL runs it."""
    text = (host.path("config") / "postgresql.conf").read_text()
    found = re.search(r"(?m)^archive_command = '(.*)'$", text)
    assert found is not None
    archive, segment = host.path("wal"), tmp_path / "0001"
    archive.mkdir(exist_ok=True)
    name = f"{crash.replace(' ', '-')}-0001"
    segment.write_bytes(b"a" * 4096)
    command = found[1].replace("%p", str(segment)).replace("%f", name)

    def archived() -> int:
        return subprocess.run(["sh", "-c", command], check=False).returncode

    if crash == "before the name":
        (archive / f".{name}.new").write_bytes(b"half")
    assert archived() == 0
    if crash == "before the note":
        assert archived() == 0
    assert (archive / name).read_bytes() == segment.read_bytes()
    assert not (archive / f".{name}.new").exists()
    # Another cluster, or a damaged disk: nothing is overwritten.
    segment.write_bytes(b"b" * 4096)
    assert archived() != 0
    assert (archive / name).read_bytes() == b"a" * 4096


@pytest.mark.postgres
def test_an_archive_that_fails_is_told(host: Host) -> None:
    settings, flag = read_settings(host.settings_text()), host.folder / "archive-works"
    server = PostgresServer(archive_mode="on", archive_command=f"test -e {flag}", archive_timeout="0")
    server.start()
    try:
        environ = {"DATABASE_URL": server.url("postgres")}
        assert read_servers(environ).archive_fails is False
        with Database.from_environment(environ).connection() as connection:
            connection.execute("CREATE TABLE article (id int)")
            connection.execute("SELECT pg_switch_wal()")
        wait_until(lambda: read_servers(environ).archive_fails, timeout=30, what="the failure of the archive")
        readings = measure(
            settings, now=datetime.now(UTC), served=lambda _: None, servers=read_servers(environ)
        )
        assert "PostgreSQL cannot archive its segments" in find_problems(readings, settings)
        flag.touch()
        with Database.from_environment(environ).connection() as connection:
            connection.execute(
                "SELECT pg_reload_conf()"
            )  # wakes the archiver, which would try again within a minute
        wait_until(lambda: read_servers(environ).archive_fails is False, timeout=90, what="the archive")
    finally:
        server.stop()
        shutil.rmtree(server.directory, ignore_errors=True)


@pytest.mark.postgres
def test_postgresql_knows_every_setting(host: Host, postgres_url: str) -> None:
    from sqlalchemy import create_engine, text

    lines = (host.path("config") / "postgresql.conf").read_text().splitlines()
    given = dict(line.split(" = ", 1) for line in lines if line and not line.startswith("#"))
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            known = set(connection.execute(text("SELECT name FROM pg_settings")).scalars())
            assert given.keys() <= known
            try:
                for name, value in given.items():
                    # Checks the value as a start would, and changes nothing that runs.
                    quoted = "'" + value.strip("'").replace("'", "''") + "'"
                    connection.execute(text(f"ALTER SYSTEM SET {name} = {quoted}".replace(":", r"\:")))
            finally:
                connection.execute(text("ALTER SYSTEM RESET ALL"))
    finally:
        engine.dispose()
    assert given["max_connections"] == "120"
    assert given["shared_buffers"] == "256MB"


@pytest.mark.parametrize(
    ("mail", "code", "said"),
    [
        ("none", 1, "no alert was sent: MKS_SMTP_HOST and MKS_SLACK_WEBHOOK_URL are not set"),
        ("taken", 0, "email: delivered\n"),
        ("closed", 1, "email: spooled (refused)\n"),
        ("silent", 1, "email: spooled (no response in time)\n"),
        ("password", 1, "email: spooled (smtp-535)\n"),
    ],
)
def test_a_test_of_the_alerts_says_why_none_arrives(
    *,
    mail: str,
    code: int,
    said: str,
    make_smtp: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in os.environ if name.startswith("MKS_")]:
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {"closed": closed.getsockname()[1], "silent": silent.getsockname()[1]}
        given = {"MKS_ENV": "test", "MKS_LOG_FILE": str(tmp_path / "log")}
        if mail != "none":
            server = make_smtp(users={"ops": "right"} if mail == "password" else {})
            given |= {
                "MKS_SMTP_HOST": "127.0.0.1",
                "MKS_SMTP_PORT": str(ports.get(mail, server.port)),
                "MKS_SMTP_SECURITY": "plain",
                "MKS_ALERT_FROM": "site@example.test",
                "MKS_ALERT_TO": "ops@example.test",
                "MKS_ALERT_SPOOL": str(tmp_path / "spool"),
            }
        if mail == "password":
            given |= {"MKS_SMTP_USER": "ops", "MKS_SMTP_PASSWORD": "wrong"}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        assert main(["alert", "--test"]) == code
    assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "secret", "silent"),
    [
        ("", "", True),
        ('[upkeep]\nsmtp_host = "mail.example.jp"\n', "", False),
        (
            '[variables]\nMKS_SMTP_HOST = "mail.example.jp"\nMKS_ALERT_FROM = "a@b.jp"\nMKS_ALERT_TO = "o@b.jp"\n',
            "",
            False,
        ),
        ("", "slack_webhook_url", False),
    ],
)
def test_a_site_whose_alerts_reach_nobody_is_said_to(
    *,
    text: str,
    secret: str,
    silent: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = "no alert of the application or of a failed unit leaves the host: upkeep.smtp_host"
    (tmp_path / "deploy.toml").write_text(deployed(text))
    words = ["--settings", str(tmp_path / "deploy.toml"), "--secrets", str(tmp_path / "secrets")]
    assert main(["secrets", *words]) == 0
    if secret:
        (tmp_path / "secrets" / secret).write_text("https://hooks.example.jp/services/T0/B0/0123456789abcdef")
        (tmp_path / "secrets" / secret).chmod(0o600)
    assert main(["render", *words, "--out", str(tmp_path / "out"), "--check"]) == 1
    assert (said in capsys.readouterr().err) is silent
    # Before anything is sent: there is no repository.
    assert main(["up", "--host", "root@192.0.2.1", *words, str(tmp_path)]) == 1
    assert (said in capsys.readouterr().err) is silent
