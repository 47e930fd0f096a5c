"""Certificates against a real ACME provider on loopback: issue, renewal, the hook, and renewals that fail."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from deploy_acme import EAB_KEY, EAB_KEY_ID, Pebble
from deploy_host import Host
from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.operations import certificate, watch
from mks_deploy.operations.application_command import environment
from mks_deploy.operations.unit_alert import send_alert
from mks_deploy.operations.watch import find_problems, measure, record
from mks_deploy.settings.credentials import make_missing
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import read_settings
from testbed.polling import wait_until
from testbed.services import program

# What systemd does on a host: `systemctl reload nginx.service` is nginx -s reload there too.
SYSTEMCTL = """#!/bin/sh
echo "$*" >> "{log}"
[ "$1" = reload ] && exec nginx -c {config} -s reload
"""


class AcmeHost:
    """A host whose certificate comes from pebble."""

    def __init__(self, certificates: Any, *, binding: bool = False) -> None:
        program("certbot")
        self.host = Host()
        self.pebble = Pebble(self.host.folder, certificates, http_port=self.host.http, binding=binding)
        bound = f'\neab_key_id = "{EAB_KEY_ID}"' if binding else ""
        self.host.options["tls"] = f'email = "ops@example.test"\ndirectory = "{self.pebble.directory}"{bound}'
        self.host.render()
        (self.host.path("config") / "deploy.toml").write_text(self.host.settings_text())
        self.settings = read_settings(self.host.settings_text())
        self.calls = self.host.folder / "systemctl.log"
        self.secrets = self.host.folder / "credentials"
        self.secrets.mkdir()
        programs = self.host.folder / "bin"
        programs.mkdir()
        nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        (programs / "nginx").symlink_to(str(nginx))
        stub = programs / "systemctl"
        stub.write_text(SYSTEMCTL.format(log=self.calls, config=self.host.path("nginx") / "nginx.conf"))
        stub.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "REQUESTS_CA_BUNDLE": str(certificates.ca_file),
        }

    def start(self) -> None:
        certificate.make_placeholder(self.settings, now=datetime.now(UTC))
        self.host.start_nginx()

    def stop(self) -> None:
        self.pebble.stop()
        self.host.stop()

    def renew(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The command of the unit."""
        command = ["certbot", "--config", self.host.path("config") / "certbot.ini", "renew"]
        command += ["--cert-name", "knowledge-system", "--no-random-sleep-on-renew", *more]
        environment = {**self.environment, **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def hook(self, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [self.host.path("config") / "certificate-hook", *more]
        environment = {**self.environment, **variables}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def reloads(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0

    def errors(self, now: datetime | None = None) -> list[str]:
        served = certificate.served_certificate
        return list(certificate.check(self.settings, now=now or datetime.now(UTC), served=served))

    def settled(self) -> None:
        wait_until(lambda: not self.errors(), timeout=10, what="the new certificate is served")


@pytest.mark.parametrize(
    ("names", "mode", "fault"),
    [
        (["knowledge.example.test", "www.example.test"], 0o600, ""),
        (["knowledge.example.test"], 0o600, "is not for www.example.test"),
        (["knowledge.example.test", "www.example.test"], 0o644, "can be read by others"),
        ([], 0o600, "holds no certificate"),
    ],
)
def test_what_a_rehearsal_got_is_judged_and_deleted(names: list[str], mode: int, fault: str) -> None:
    host = Host()
    try:
        settings = read_settings(host.settings_text())
        certificate.make_placeholder(settings, now=datetime.now(UTC))
        served = Path(settings.certificate_files[0])
        before = served.read_bytes()
        folder = host.path("acme") / "rehearsal/config/live" / settings.name
        folder.mkdir(parents=True)
        if names:
            issued = trustme.CA().issue_cert(*names)
            (folder / "fullchain.pem").write_bytes(issued.cert_chain_pems[0].bytes())
            (folder / "privkey.pem").write_bytes(issued.private_key_pem.bytes())
            (folder / "privkey.pem").chmod(mode)
        found = list(certificate.check_rehearsal(settings, now=datetime.now(UTC)))
        assert [fault in each for each in found] == ([True] if fault else [])
        assert (host.path("acme") / "rehearsal").exists() == (not names)
        assert served.read_bytes() == before
    finally:
        host.stop()


def test_a_certificate_of_a_rehearsal_must_not_be_served() -> None:
    host = Host()
    try:
        settings = read_settings(host.settings_text())
        folder = host.path("acme") / "rehearsal/config/live" / settings.name
        folder.mkdir(parents=True)
        (folder / "fullchain.pem").touch()
        (host.path("acme") / "served").symlink_to(folder)
        (fault,) = certificate.check_rehearsal(settings, now=datetime.now(UTC))
        assert fault == "the certificate that is served is the one of the rehearsal"
        assert folder.exists()
    finally:
        host.stop()


def test_a_rehearsal_needs_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deploy.toml"
    file.write_text(deployed('[tls]\ndirectory = "https://acme.example.test/dir"'))
    assert main(["certificate", "rehearse", "--settings", str(file)]) == 2
    assert "tls.rehearsal_directory names no directory" in capsys.readouterr().err
    staging = read_settings(deployed()).rehearsal_directory
    assert staging == "https://acme-staging-v02.api.letsencrypt.org/directory"


@pytest.fixture
def make_acme_host(certificates: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AcmeHost]]:
    hosts: list[AcmeHost] = []

    def make(**options: bool) -> AcmeHost:
        hosts.append(AcmeHost(certificates, **options))
        for name in ("PATH", "REQUESTS_CA_BUNDLE"):
            monkeypatch.setenv(name, hosts[-1].environment[name])
        return hosts[-1]

    yield make
    for host in hosts:
        host.stop()


@pytest.mark.nginx
@pytest.mark.slow
def test_issue_and_renewal_from_beginning_to_end(make_acme_host: Callable[..., AcmeHost]) -> None:
    site = make_acme_host()
    site.start()
    assert site.errors() == []  # the placeholder is served

    # The first issue: the hook tests and reloads.
    assert certificate.issue(site.settings, secrets=site.secrets) == 0
    site.settled()
    assert site.reloads() == 1
    issued = certificate.served_certificate(site.settings)
    assert b"eab" not in (site.host.path("config") / "certbot.ini").read_bytes()

    # Not due: nothing is renewed, and nothing is reloaded.
    assert site.renew().returncode == 0
    assert site.reloads() == 1

    # Due: in its unit the hook only says so, and the unit reloads afterwards.
    flag = site.host.folder / "renewed"
    conf = site.host.path("acme") / "config/renewal/knowledge-system.conf"
    conf.write_text("renew_before_expiry = 5000 days\n" + conf.read_text())
    assert site.renew(MKS_RENEWED=str(flag)).returncode == 0
    assert (site.reloads(), flag.exists()) == (1, True)
    assert site.errors() == ["the certificate that is served is not the one on disk: it was not reloaded"]
    assert site.hook("--if-renewed", MKS_RENEWED=str(flag)).returncode == 0
    site.settled()
    assert site.reloads() == 2
    # A worker from before the reload may take one more connection after a new one has.
    wait_until(
        lambda: certificate.served_certificate(site.settings) not in {None, issued},
        timeout=10,
        what="the renewed certificate is served",
    )

    # Not renewed: the unit's second step does nothing.
    flag.unlink()
    assert site.hook("--if-renewed", MKS_RENEWED=str(flag)).returncode == 0
    assert site.reloads() == 2

    # Another certificate of this machine is none of our business.
    assert site.hook(RENEWED_LINEAGE="/etc/letsencrypt/live/other").returncode == 0
    assert site.reloads() == 2

    # A configuration that does not pass is not loaded, and the unit fails.
    flag.touch()
    broken = site.host.path("nginx") / "sites-enabled/broken.conf"
    broken.write_text("server { nonsense; }")
    assert site.hook("--if-renewed", MKS_RENEWED=str(flag)).returncode != 0
    assert site.reloads() == 2
    broken.unlink()

    # The provider is away: certbot fails, and with it the unit, whose OnFailure tells somebody.
    site.pebble.server.kill()
    assert site.renew().returncode != 0
    assert site.errors() == []


@pytest.mark.nginx
@pytest.mark.slow
def test_another_provider_with_account_binding(make_acme_host: Callable[..., AcmeHost]) -> None:
    site = make_acme_host(binding=True)
    site.start()
    (site.secrets / "acme_eab_hmac_key").write_text("A" * 43)
    assert certificate.issue(site.settings, secrets=site.secrets) != 0
    (site.secrets / "acme_eab_hmac_key").write_text(EAB_KEY + "\n")
    assert certificate.issue(site.settings, secrets=site.secrets) == 0
    site.settled()
    kept = [
        file for file in site.host.path("acme").rglob("*") if file.is_file() and "/logs/" not in str(file)
    ]
    assert not [file for file in kept if EAB_KEY.encode() in file.read_bytes()]


# --- the look at what is served -----------------------------------------------------------------


@pytest.fixture
def placeholder(tmp_path: Path) -> Iterator[Settings]:
    host = Host()
    settings = read_settings(host.settings_text())
    certificate.make_placeholder(settings, now=datetime(2026, 11, 1, tzinfo=UTC))
    yield settings
    host.stop()


@pytest.mark.parametrize(
    ("days", "served", "errors"),
    [
        (0, "same", []),
        (5.2, "same", []),
        (5.3, "same", ["the certificate ends in 1.7 of 7 days"]),
        (8, "same", ["the certificate ends in -1.0 of 7 days"]),
        (0, "other", ["the certificate that is served is not the one on disk: it was not reloaded"]),
        (0, "none", ["nothing responds for knowledge.example.test on port"]),
    ],
)
def test_what_is_said_of_a_certificate(
    placeholder: Settings, days: float, served: str, errors: list[str]
) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    der = certificate.load(Path(placeholder.certificate_files[0])).public_bytes(Encoding.DER)
    now = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=days)
    answer = {"same": der, "other": b"other", "none": None}[served]
    found = list(certificate.check(placeholder, now=now, served=lambda _: answer))
    assert len(found) == len(errors)
    assert all(said.startswith(error) for said, error in zip(found, errors, strict=True)), found


def test_a_placeholder_never_takes_the_place_of_a_certificate(placeholder: Settings) -> None:
    before = Path(placeholder.certificate_files[0]).read_bytes()
    assert not certificate.make_placeholder(placeholder, now=datetime.now(UTC))
    assert Path(placeholder.certificate_files[0]).read_bytes() == before
    assert Path(placeholder.certificate_files[1]).stat().st_mode & 0o777 == 0o600


def test_a_placeholder_is_made_again_where_the_certificate_was_taken_away(placeholder: Settings) -> None:
    """With a link that leads nowhere nginx does not start, and without nginx no certificate is issued."""
    served = Path(placeholder.certificate_files[0]).parent
    served.unlink()
    served.symlink_to("config/live/gone")
    assert certificate.make_placeholder(placeholder, now=datetime.now(UTC))
    assert certificate.load(Path(placeholder.certificate_files[0]))


def test_a_file_that_is_no_certificate_is_told(placeholder: Settings) -> None:
    Path(placeholder.certificate_files[0]).write_text("nonsense")
    found = list(certificate.check(placeholder, now=datetime.now(UTC), served=lambda _: b""))
    assert [said.endswith("is not a certificate that can be read") for said in found] == [True]


# --- the host -----------------------------------------------------------------------------------


def test_what_turns_bad_is_told_once(placeholder: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_SERVERS", ())
    presented = ssl.PEM_cert_to_DER_cert(Path(placeholder.certificate_files[0]).read_text())
    backup = Path(placeholder.paths.backups) / "2026-11-01"
    backup.mkdir(parents=True)
    (backup / "complete").touch()
    cut_off = backup.with_name(".2026-11-02.new")
    cut_off.mkdir()
    (cut_off / "complete").touch()  # killed before it got its name: no restore would find it
    day = datetime(2026, 11, 1, 12, tzinfo=UTC)
    os.utime(backup / "complete", (day.timestamp(), day.timestamp()))

    def result(now: datetime, free: int = 50, served: bytes | None = presented) -> list[str]:
        usage = (100, 100 - free, free)
        readings = measure(placeholder, now=now, usage=lambda _: usage, served=lambda _: served)
        return record(readings, placeholder)

    assert result(day) == []
    assert result(day + timedelta(hours=27)) == ["the newest backup is too old"]
    assert result(day + timedelta(hours=28)) == []
    # The clock was a month ahead when this one was made.
    (backup.with_name("2026-12-01") / "complete").mkdir(parents=True)
    assert result(day + timedelta(hours=29)) == []
    assert result(day, free=9) == [
        f"little space is left on {placeholder.paths.state}",
        f"little space is left on {placeholder.paths.logs}",
        f"little space is left on {placeholder.paths.backups}",
    ]
    assert result(day) == []
    assert result(day, served=None) == [f"nothing responds over https on port {placeholder.edge.https_port}"]
    late = day + timedelta(days=6)
    assert "the certificate was not renewed in time" in result(late)
    metrics = (Path(placeholder.paths.state) / "metrics/host.prom").read_text()
    assert f"mks_host_backup_seconds {day.timestamp():.0f}\n" in metrics
    assert 'mks_host_free_ratio{path="' in metrics


def test_what_cannot_be_read_is_bad() -> None:
    host = Host()
    try:
        settings = read_settings(host.settings_text())
        readings = measure(settings, now=datetime.now(UTC))
        assert find_problems(readings, settings)[:2] == [
            f"nothing responds over https on port {settings.edge.https_port}",
            "the newest backup is too old",
        ]
        file = host.folder / "deploy.toml"
        file.write_text(host.settings_text())
        assert main(["watch", "--record", "--settings", str(file)]) == 1
        assert main(["watch", "--record", "--settings", str(file)]) == 0
        # Who asks gets to know all of it, however often the timer has told it.
        assert main(["watch", "--settings", str(file)]) == 1
        assert main(["certificate", "check", "--settings", str(file)]) == 1
        assert main(["certificate", "placeholder", "--settings", str(file)]) == 0
    finally:
        host.stop()


def test_a_failed_unit_is_told_through_the_application_s_alerts(http_sink: Any, tmp_path: Path) -> None:
    host = Host()
    try:
        host.render()
        settings = read_settings(host.settings_text())
        make_missing(tmp_path / "secrets", settings)
        whole = environment(settings, tmp_path / "secrets")
    finally:
        host.stop()
    for credential in ("DATABASE_URL", "MKS_CELERY_BROKER_URL"):
        whole[f"{credential}_FILE"] = str(tmp_path / "secrets" / credential.lower().removeprefix("mks_"))
        del whole[credential]
    environ = {
        # All that the unit has, where a warning is an error; but no Redis, whose absence would be told as well.
        **{name: whole[name] for name in whole.keys() - {"MKS_LOG_FILE", "MKS_REDIS_URL"}},
        "MKS_ENV": "test",
        "MKS_SLACK_WEBHOOK_URL": f"{http_sink.url}/hook",
        "MKS_ALERT_SPOOL": str(tmp_path / "spool"),
    }
    send_alert("knowledge-system-renew.service", environ=environ)
    assert len(http_sink.requests) == 1
    assert b"knowledge-system-renew.service" in http_sink.requests[0].body
