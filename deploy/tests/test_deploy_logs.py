"""Logs sent elsewhere: syslog-ng with the rendered settings, to a server that checks what a collector documents."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from deploy_host import Host
from deploy_settings import deployed
from mks_deploy.cli import parser
from mks_deploy.operations.log_shipping import ShippingError, shipping_command
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import credential_errors, make_missing, used_credentials
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings
from mks_deploy.setup.plan import setup_packages, units_to_enable
from mks_deploy.versions import Installed
from testbed.http_sink import Answer
from testbed.polling import wait_until
from testbed.services import program

SECRET = "Splunk 0123456789abcdef"
EDGE = {
    "time": "2026-11-29T10:00:00+09:00",
    "request_id": "r1",
    "client": "203.0.113.9",
    "host": "shop.example.jp",
    "method": "GET",
    "path": "/articles",
    "status": 200,
    "bytes": 12,
    "seconds": 0.25,
    "agent": 'a "quoted" agent',
    "tls": "TLSv1.3",
}
RECORD = '{"%s":"2026-11-29T01:00:00.250Z","level":"INFO","message":"養生 \\"q\\" \\\\ \\u00e9"}'
CRASH = 'Traceback "x" \\ 日本'


class Shipper:
    """A host whose log files are sent to the sink."""

    def __init__(self, ship: str, url: str) -> None:
        self.host = Host()
        self.text = self.host.settings_text(f'[logs]\nship = "{ship}"\nurl = "{url}"\nbuffer = "16m"\n')
        self.settings: Settings = read_settings(self.text)
        (self.host.folder / "secrets").mkdir()
        (self.host.folder / "secrets/logs_authorization").write_text(f"{SECRET}\n")
        (self.host.folder / "run/secret").mkdir(mode=0o700)
        config = Path(self.settings.paths.config)
        config.mkdir(parents=True, exist_ok=True)
        for file in render(self.settings, Installed()):
            if file.path.endswith("/logs.conf"):
                (config / "logs.conf").write_text(file.text)
        self.app = self.host.path("logs") / "app.log"
        self.edge = self.host.path("nginx_logs") / "knowledge-system.access.log"

    @contextmanager
    def running(self) -> Iterator[None]:
        environ = {"RUNTIME_DIRECTORY": str(self.host.folder / "run/secret"), "PATH": "/usr/bin:/usr/sbin"}
        words = shipping_command(self.settings, self.host.folder / "secrets", environ=environ)
        log = self.host.folder / "shipper.out"
        with (
            log.open("ab") as output,
            subprocess.Popen(words, env=environ, stdout=output, stderr=output) as process,
        ):
            try:
                yield
            finally:
                process.terminate()
                assert process.wait(30) == 0, log.read_text()


@pytest.fixture
def shipper(http_sink: Any, request: pytest.FixtureRequest) -> Iterator[Shipper]:
    program("syslog-ng")
    made = Shipper(request.param, http_sink.url.replace("localhost", "127.0.0.1"))
    try:
        yield made
    finally:
        made.host.stop()


def elasticsearch(body: bytes) -> list[dict[str, Any]]:
    """Bulk API: an action and a record in turn, each in a line, and a line end at the end."""
    assert body.endswith(b"\n")
    lines = body.decode().splitlines()
    assert {json.dumps(json.loads(line)) for line in lines[::2]} == {'{"create": {}}'}
    return [json.loads(line) for line in lines[1::2]]


def loki(body: bytes) -> list[dict[str, Any]]:
    """Push API: streams of labels, with pairs of nanoseconds and a line, both texts."""
    found = []
    for stream in json.loads(body)["streams"]:
        assert stream["stream"].keys() == {"site", "environment", "log", "host"}
        for moment, line in stream["values"]:
            assert moment.isdecimal()
            assert len(moment) == 19
            found.append({**json.loads(line), "at": int(moment) / 1e9})
    return found


def splunk(body: bytes) -> list[dict[str, Any]]:
    """HTTP Event Collector: objects one after the other, with the time in seconds."""
    text, found = body.decode(), []
    while text := text.lstrip():
        event, end = json.JSONDecoder().raw_decode(text)
        assert event["sourcetype"] == "_json"
        found.append({**event["event"], "at": event["time"], "source": event["source"]})
        text = text[end:]
    return found


FORMATS = {
    "elasticsearch": (elasticsearch, "/logs-knowledge-system-production/_bulk", "application/x-ndjson"),
    "loki": (loki, "/loki/api/v1/push", "application/json"),
    "splunk": (splunk, "/services/collector/event", "application/json"),
}


def received(sink: Any, ship: str) -> list[dict[str, Any]]:
    """Return what arrived, checked against what the collector documents."""
    parse, path, kind = FORMATS[ship]
    found: list[dict[str, Any]] = []
    for sent in list(sink.requests):
        assert (sent.method, sent.path) == ("POST", path)
        fields = {name.lower(): value for name, value in sent.headers.items()}
        assert (fields["content-type"], fields["authorization"]) == (kind, SECRET)
        found += parse(sent.body)
    return found


@pytest.mark.parametrize("shipper", FORMATS, indirect=True)
def test_each_collector_gets_the_requests_that_it_documents(shipper: Shipper, http_sink: Any) -> None:
    ship = shipper.settings.logs.ship
    shipper.app.write_text(
        f"{RECORD % ('@timestamp' if ship == 'elasticsearch' else 'timestamp')}\n{CRASH}\n"
    )
    shipper.edge.write_text(json.dumps(EDGE) + "\n")
    with shipper.running():
        wait_until(lambda: len(received(http_sink, ship)) == 3, timeout=30, what="three records")
    by_message = {each.get("message", "edge"): each for each in received(http_sink, ship)}
    record, crash, edge = by_message['養生 "q" \\ é'], by_message[CRASH], by_message["edge"]
    if ship == "elasticsearch":
        assert record["@timestamp"] == "2026-11-29T01:00:00.250Z"
        assert datetime.fromisoformat(crash["@timestamp"])
        assert crash["log"]["level"] == "ERROR"
        assert edge["http"] == {
            "request": {"id": "r1", "method": "GET"},
            "response": {"status_code": 200, "body": {"bytes": 12}},
        }
        assert edge["user_agent"]["original"] == 'a "quoted" agent'
        assert edge["@timestamp"] == EDGE["time"]
    else:
        assert crash["level"] == "ERROR"
        assert record["at"] == pytest.approx(1795914000.25, abs=0.001)
        assert edge["at"] == pytest.approx(1795914000, abs=0.001)
        assert edge["agent"] == 'a "quoted" agent'
    secrets = [
        file
        for file in shipper.host.folder.rglob("*")
        if file.is_file() and SECRET.encode() in file.read_bytes()
    ]
    assert {file.name for file in secrets} == {"logs_authorization", "authorization.conf"}
    assert {file.stat().st_mode & 0o077 for file in secrets if file.name == "authorization.conf"} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("shipper", ["splunk"], indirect=True)
def test_nothing_is_lost_over_an_outage_a_restart_and_a_rotation(shipper: Shipper, http_sink: Any) -> None:
    http_sink.default = Answer(503)
    line = '{"timestamp":"2026-11-29T01:00:00Z","number":%d,"filling":"' + "x" * 900 + '"}\n'
    shipper.app.write_text("".join(line % number for number in range(20_000)))  # more than the buffer holds
    with shipper.running():
        wait_until(lambda: http_sink.requests, timeout=30, what="a first attempt")
        time.sleep(2)  # as much is read as there is room
    size = sum(file.stat().st_size for file in (shipper.host.path("state") / "log-buffer").iterdir())
    assert 4 * 1024**2 < size < 20 * 1024**2
    http_sink.requests.clear()
    http_sink.default = Answer(200)
    seen = set[int]()

    def arrived(number: int) -> bool:
        seen.update(each["number"] for each in received(http_sink, "splunk"))
        return len(seen) == number

    with shipper.running():
        wait_until(lambda: arrived(20_000), timeout=30, what="what was written before")
        # As logrotate does: the process goes on in the old file for a moment.
        shipper.app.rename(shipper.app.with_name("app.log-20261129-1"))
        with shipper.app.with_name("app.log-20261129-1").open("a") as old:
            old.write(line % 20_000)
        shipper.app.write_text("".join(line % number for number in range(20_001, 20_100)))
        wait_until(lambda: arrived(20_100), timeout=30, what="what was written around the rotation")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[logs]\nship = "loki"', "logs.ship and logs.url belong together"),
        ('[logs]\nurl = "https://a.example"', "logs.ship and logs.url belong together"),
        ('[logs]\nship = "loki"\nurl = "http://loki.example"', "logs.url must be https"),
        ('[logs]\nship = "kafka"', "logs.ship must be"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(more: str, said: str) -> None:
    with pytest.raises(DeploySettingsError, match=said):
        read_settings(deployed(more))


def test_a_host_that_ships_has_unit_package_and_secret(tmp_path: Path) -> None:
    settings = read_settings(deployed('[logs]\nship = "elasticsearch"\nurl = "https://es.example.jp"'))
    assert {"syslog-ng-core", "syslog-ng-mod-http"} <= {*setup_packages(settings)}
    assert "knowledge-system-logs.service" in units_to_enable(settings)
    files = {file.path: file.text for file in render(settings, Installed())}
    assert "\nMKS_LOG_SCHEMA=ecs\n" in files["etc/knowledge-system/knowledge-system.env"]
    make_missing(tmp_path, settings)
    assert any("logs_authorization is missing" in error for error in credential_errors(tmp_path, settings))
    (tmp_path / "logs_authorization").write_text("ApiKey abcdefgh12345678")
    # The application never gets it.
    assert "logs_authorization" not in {each.file for each in used_credentials(tmp_path, settings)}


@pytest.mark.parametrize(
    "value", ["", "abc", 'Bearer "x"abcdefg', "Bearer `id`abcdefgh", "Bearer abc\nabcdefgh"]
)
def test_a_secret_that_would_break_the_file_is_refused(tmp_path: Path, value: str) -> None:
    program("syslog-ng")
    (tmp_path / "logs_authorization").write_text(value)
    settings = read_settings(deployed('[logs]\nship = "loki"\nurl = "https://a.example"'))
    with pytest.raises(ShippingError, match="logs_authorization must be") as refused:
        shipping_command(settings, tmp_path, environ={"RUNTIME_DIRECTORY": str(tmp_path)})
    assert "abcdefg" not in str(refused.value)


DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not part of the wheel")
def test_the_page_names_settings_and_commands_that_exist() -> None:
    for language in ("en", "ja"):
        text = (DOCS / language / "how-to" / "ship-logs.md").read_text("utf-8")
        (settings,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
        assert read_settings(deployed(settings)).logs.ship == "loki"
        for command in re.findall(r"(?m)^mks-deploy (.*)$", text):
            parser().parse_args(command.split())
