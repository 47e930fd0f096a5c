"""From a reading of the host to a message: watch, Prometheus and Alertmanager run with their rendered files."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy_settings import deployed
from mks_deploy.operations.watch import Readings, record
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import credential_errors, make_missing
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings
from mks_deploy.versions import Installed
from testbed.http_sink import Answer
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess
from testbed.services import program

STAGING = '[site]\nenvironment = "staging"\n[upkeep]\nmail_sink = true\n'
WEBHOOK = '[upkeep]\nalert_webhook = "https://chat.example.jp/hook"\n'
WEBHOOK_FILE = '[upkeep]\nalert_webhook = "file"\n'
MAIL = '[upkeep]\nsmtp_host = "mail.example.jp"\nsmtp_user = "alerts@example.jp"\n'


def rendered(settings: Settings, name: str) -> str:
    return next(file.text for file in render(settings, Installed()) if file.path.endswith(f"/{name}"))


@pytest.mark.parametrize("more", ["", STAGING, WEBHOOK, WEBHOOK_FILE, MAIL])
def test_alertmanager_takes_its_file(more: str, tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(rendered(read_settings(deployed(more)), "alertmanager.yml"))
    done = subprocess.run(
        [program("amtool"), "check-config", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T0001/B0001/abcdEFGH01234567ijklMNOP",
        "https://chat.example.jp/hooks/xh3ykd8b5ibe7ea3u1o9e5m4ra",
        "https://chat.example.jp/hook?key=1",
    ],
)
def test_an_address_with_a_token_is_a_secret(url: str, tmp_path: Path) -> None:
    with pytest.raises(DeploySettingsError, match=r"alert_webhook must be .* alert_webhook_url") as refused:
        read_settings(deployed(f'[upkeep]\nalert_webhook = "{url}"\n'))
    assert url not in str(refused.value)
    settings = read_settings(deployed(WEBHOOK_FILE))
    make_missing(tmp_path / "secrets", settings)
    assert [each for each in credential_errors(tmp_path / "secrets", settings) if "webhook" in each] == [
        "the secret alert_webhook_url is missing: Address that Alertmanager posts its alerts to."
    ]
    secret = tmp_path / "secrets/alert_webhook_url"
    secret.write_text(url)
    assert (
        "the secret alert_webhook_url must be readable by its owner alone (chmod 600)"
        in credential_errors(tmp_path / "secrets", settings)
    )
    secret.chmod(0o600)
    assert not [each for each in credential_errors(tmp_path / "secrets", settings) if "webhook" in each]
    assert "url_file: /etc/prometheus/alert_webhook_url" in rendered(settings, "alertmanager.yml")


@pytest.mark.slow
def test_a_damaged_copy_of_the_keys_reaches_people(
    make_http_sink: Any, http_sink: Any, tmp_path: Path
) -> None:
    text = deployed(
        f'[paths]\nstate = "{tmp_path}/state"\n[upkeep]\nalert_webhook = "{http_sink.url}/hook"\n'
    )
    settings = read_settings(text.replace("localhost", "127.0.0.1"))
    host_metrics = make_http_sink()  # what node_exporter would show: the file that the watch writes
    metrics, alerts = free_port(), free_port()
    with ExitStack() as stack:
        reading = Readings(at=0, certificate_begin=0, certificate_end=0, backup_at=0, free={}, spooled=0)

        def exposed(*damaged: str) -> None:
            record(replace(reading, damaged_keys=damaged), settings)
            content = (tmp_path / "state/metrics/host.prom").read_bytes()
            host_metrics.default = Answer(200, {"Content-Type": "text/plain; version=0.0.4"}, content)

        (tmp_path / "state").mkdir()
        exposed("secret_keys-20261101")
        (tmp_path / "rules").mkdir()
        (tmp_path / "scrape").mkdir()
        name = settings.name
        scrape = rendered(settings, f"scrape/{name}.yml").replace(
            "127.0.0.1:9100", f"127.0.0.1:{host_metrics.port}"
        )
        (tmp_path / "scrape/site.yml").write_text(scrape.replace("60s", "1s"))
        (tmp_path / "rules/site.yml").write_text(rendered(settings, f"rules/{name}.yml"))
        whole = rendered(settings, "prometheus.yml").replace("/etc/prometheus", str(tmp_path))
        whole = whole.replace("127.0.0.1:9093", f"127.0.0.1:{alerts}").replace("15s", "1s")
        (tmp_path / "prometheus.yml").write_text(whole)
        manager = rendered(settings, "alertmanager.yml").replace("30s", "1s").replace("5m", "1s")
        (tmp_path / "alertmanager.yml").write_text(manager)
        for words, port in (
            (
                [
                    program("prometheus-alertmanager"),
                    f"--config.file={tmp_path}/alertmanager.yml",
                    f"--storage.path={tmp_path}/alerts",
                    f"--web.listen-address=127.0.0.1:{alerts}",
                    "--cluster.listen-address=",
                ],
                alerts,
            ),
            (
                [
                    program("prometheus"),
                    f"--config.file={tmp_path}/prometheus.yml",
                    f"--storage.tsdb.path={tmp_path}/series",
                    f"--web.listen-address=127.0.0.1:{metrics}",
                ],
                metrics,
            ),
        ):
            server = ServerProcess(
                words,
                log=tmp_path / f"{port}.out",
                ready=lambda port=port: accepts_connections(port),  # type: ignore[misc]  # bound now
            )
            server.start()
            stack.callback(server.stop)

        def seen() -> set[tuple[str, str]]:
            return {
                (alert["labels"]["alertname"], alert["status"])
                for sent in list(http_sink.requests)
                for alert in sent.json()["alerts"]
            }

        wait_until(lambda: ("KeysDamaged", "firing") in seen(), timeout=60, what="the alert")
        first = next(
            alert
            for sent in http_sink.requests
            for alert in sent.json()["alerts"]
            if alert["labels"]["alertname"] == "KeysDamaged"
        )
        assert first["labels"]["site"] == name
        assert first["annotations"]["runbook_url"].endswith("#runbook-backup")
        # Other rules of the same readings: no backup, nothing over https, watched in 1970.
        wait_until(lambda: ("BackupOld", "firing") in seen(), timeout=60, what="the alert of the backup")
        assert not {alert for alert, _ in seen()} & {"RedisFull", "ArchiveFails", "DiskFull"}
        exposed()
        wait_until(lambda: ("KeysDamaged", "resolved") in seen(), timeout=60, what="the end of the alert")
