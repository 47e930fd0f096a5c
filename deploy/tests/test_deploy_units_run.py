"""Every unit as systemd runs it, with its filters, paths and accounts, on a machine set up by the documentation."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy_acme import ON_MACHINE, start_on
from deploy_machine import Machine
from deploy_settings import deployed
from mks_deploy.cli import main
from testbed.polling import wait_until
from testbed.services import program

INSTALLATION = Path(__file__).parents[2] / "docs" / "en" / "how-to" / "deploy.md"
LIMITS = "search=60 per minute; 900 per hour | admin=20 per minute"
HOST, SITE = "knowledge.example.test", "knowledge-system"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not INSTALLATION.exists(), reason="the documentation is not part of the wheel"),
]

# Alerts go to a mail server that is not there: they must reach the spool.
SETTINGS = f"""
[site]
hosts = ["{HOST}"]
[tls]
directory = "{ON_MACHINE}"
rehearsal_directory = "{ON_MACHINE}"
[upkeep]
smtp_host = "localhost"
smtp_port = 9
[offsite]
repository = "/srv/copies"
[variables]
MKS_SLACK_CHANNEL = "#alerts"
"""

# Each timer of the kit starts its unit at once; those of the distribution are not here.
NOW = "[Timer]\nOnActiveSec=0\nRandomizedDelaySec=0\n"


def commands(anchor: str) -> list[str]:
    """The commands of a section, but for what the distribution and pip do."""
    section = INSTALLATION.read_text("utf-8").partition(f"({anchor})=")[2].partition("\n(deploy-")[0]
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()
    ]
    return [
        line for line in lines if not re.match(r"apt-get |python3 -m venv|\S+/pip |mks-deploy app ", line)
    ]


@pytest.fixture
def site() -> Iterator[Machine]:
    """A machine on which somebody typed the page on deploying, with a provider of certificates beside it."""
    for name in ("certbot", "pebble", "logrotate", "nginx", "redis-server", "postgres"):
        program(name)
    folder = Path(tempfile.mkdtemp(prefix="mksm"))
    machine = Machine(folder)
    servers: list[Any] = []
    try:
        machine.start()
        servers += start_on(machine)
        machine.write("/etc/systemd/system/timer.d/now.conf", NOW)
        _render(machine, folder)
        machine.make_environment(f"/opt/{SITE}/versions/1")
        version = Path(program("postgres")).resolve().parents[1].name
        machine.run("pg_dropcluster", version, "main", check=False)
        machine.run("pg_createcluster", version, "main", "--port", "5432")
        for line in commands("deploy-first-time"):
            typed = line.replace("/postgresql/17/", f"/postgresql/{version}/").replace(
                "postgresql.service", f"postgresql@{version}-main.service"
            )
            machine.run("sh", "-c", f"cd /root/kit && {typed}")
        yield machine
    finally:
        for server in servers:
            server.kill()
            server.wait(10)
        machine.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _render(machine: Machine, folder: Path, *, mode: str = "nginx") -> None:
    """Settings, secrets and rendered files beside the operator."""
    limits = f'[variables]\nMKS_RATE_LIMITS = "{LIMITS}"'
    (folder / "deploy.toml").write_text(deployed(SETTINGS, f'[edge]\nmode = "{mode}"', limits))
    given = ["--settings", str(folder / "deploy.toml"), "--secrets", str(folder / "secrets")]
    assert main(["secrets", *given]) == 0
    assert main(["render", *given, "--out", str(folder / "out")]) == 0
    kit = machine.path("/root/kit")
    for name in ("secrets", "out"):
        shutil.copytree(folder / name, kit / name, dirs_exist_ok=True)


def finished(machine: Machine, unit: str) -> dict[str, str]:
    """How a unit of ``Type=oneshot`` ended, once it has."""

    def ended() -> bool:
        seen = machine.show(unit, "ActiveState", "ExecMainExitTimestampMonotonic")
        return seen["ActiveState"] in {"inactive", "failed"} and seen["ExecMainExitTimestampMonotonic"] != "0"

    wait_until(ended, timeout=90, what=f"the end of {unit}")
    return machine.show(unit, "Result", "ExecMainStatus")


def _services_are_active(site: Machine) -> None:
    for part in ("@blue", "-worker", "-beat"):
        state = site.show(f"{SITE}{part}.service", "ActiveState", "NRestarts")
        assert state == {"ActiveState": "active", "NRestarts": "0"}, site.journal(f"{SITE}{part}.service")
    assert "ready" in site.run("mks-deploy", "status")
    # As systemd reads the file of variables.
    unit = f"[Service]\nType=oneshot\nEnvironmentFile=/etc/{SITE}/{SITE}.env\nExecStart=/usr/bin/env\n"
    site.write("/etc/systemd/system/variables.service", unit)
    site.run("systemctl", "daemon-reload")
    site.run("systemctl", "start", "variables.service")
    read = site.journal("variables.service", lines=200).splitlines()
    assert "MKS_SLACK_CHANNEL=#alerts" in read
    assert f"MKS_RATE_LIMITS={LIMITS}" in read


def _timers_start_what_succeeds(site: Machine) -> None:
    logs, great = site.path(f"/var/log/{SITE}"), f"/var/log/{SITE}/great.log"
    for _ in range(2):
        # A rotated file is named by its second, so logrotate refuses two rotations within one.
        wait_until(
            lambda: not list(logs.glob(f"great.log-*-{int(time.time())}*")),
            timeout=10,
            what="the next second",
        )
        # Larger than `upkeep.log_size`: renamed by the first run, compressed by the second one.
        site.run("truncate", "--size", "201M", great, account=SITE)
        for part in ("backup", "base", "logrotate", "watch", "renew"):
            unit = f"{SITE}-{part}.service"
            assert finished(site, unit) == {"Result": "success", "ExecMainStatus": "0"}, site.journal(unit)
        site.run("systemctl", "start", f"{SITE}-logrotate.service")
    timers = site.run("systemctl", "list-timers", "--all", "--no-legend", "--no-pager")
    assert len(re.findall(rf"{SITE}-[\w-]+\.timer", timers)) == 5
    assert list(logs.glob("great.log-*.gz"))
    assert list(site.path(f"/var/backups/{SITE}").glob("2*/complete"))
    assert list(site.path(f"/var/backups/{SITE}-keys").iterdir())
    assert list(site.path(f"/var/backups/{SITE}-wal").glob("base-*/backup_label"))
    metrics = site.path(f"/var/lib/{SITE}/metrics/host.prom").read_text()
    assert "mks_host_archive_fails 0" in metrics
    for role in ("state", "cache"):
        assert f'mks_host_redis_answers{{role="{role}"}} 1' in metrics


def _copies_go_elsewhere_and_come_back(site: Machine) -> None:
    """In their sandbox: restic, and for the rehearsal a PostgreSQL of its own."""
    site.run("mks-deploy", "offsite", "init")
    # The timers began before there was a repository.
    site.run("systemctl", "reset-failed")
    site.run("systemctl", "start", f"{SITE}-backup.service")
    copy = f"{SITE}-offsite.service"
    wait_until(lambda: "copied " in site.journal(copy), timeout=90, what="the copy")
    site.run("systemctl", "start", f"{SITE}-offsite-rehearse.service")
    assert site.show(copy, "Result") == {"Result": "success"}, site.journal(copy)
    assert "all as written" in site.journal(f"{SITE}-offsite-rehearse.service")
    listed = site.run("mks-deploy", "offsite", "list").split()
    assert site.path(f"/var/backups/{SITE}/{listed[-1]}").is_dir()
    site.run("mks-deploy", "offsite", "fetch", "/root/back", "--keys", "/root/keys")
    assert site.path("/root/back/complete").exists()
    assert list(site.path("/root/keys").glob("secret_keys-*"))


def _nginx_writes_on_after_a_rotation(site: Machine) -> None:
    """The file that replaces the distribution's, forced as its timer would once a day."""
    logs = site.path("/var/log/nginx")
    ask = ("curl", "-sk", "-o", "/dev/null", "--resolve", f"{HOST}:443:127.0.0.1", f"https://{HOST}/sign-in")
    site.run(*ask)
    site.run("logrotate", "--force", "--state", "/run/logrotate", "/etc/logrotate.d/nginx")
    site.run(*ask)
    live = logs / f"{SITE}.access.log"
    wait_until(lambda: live.stat().st_size, timeout=10, what="a line in the new file")
    assert len(list(logs.glob(f"{SITE}.access.log-*"))) == 1


def _renew(site: Machine) -> list[Path]:
    """Renew a certificate that is due; returns all keys. A timer may renew it as well."""
    archive = site.path(f"/var/lib/{SITE}-acme/config/archive/{SITE}")
    finished(site, f"{SITE}-renew.service")
    before = set(archive.glob("privkey*.pem"))
    site.run("systemctl", "start", f"{SITE}-renew.service")
    keys = sorted(archive.glob("privkey*.pem"))
    assert set(keys) > before
    return keys


def _certificate_is_renewed_and_loaded(site: Machine) -> None:
    folder = f"/var/lib/{SITE}-acme/config"
    conf = site.path(f"{folder}/renewal/{SITE}.conf")
    conf.write_text("renew_before_expiry = 5000 days\n" + conf.read_text())
    keys = _renew(site)
    # It compares what is served with what is on disk.
    assert site.run("mks-deploy", "certificate", "check") == "the certificate is in order\n"
    assert {key.stat().st_mode & 0o077 for key in keys} == {0}


def _renewal_is_rehearsed(site: Machine) -> None:
    """In the sandbox of the renewal, and without a trace in what is served."""
    folder = site.path(f"/var/lib/{SITE}-acme")
    before = {file: file.read_bytes() for file in folder.glob(f"config/archive/{SITE}/*.pem")}
    served = (folder / "served").readlink()
    said = site.run("mks-deploy", "certificate", "rehearse")
    assert said.endswith("succeeded\n")
    assert "the rehearsal got its certificate" in site.journal(f"{SITE}-rehearse.service")
    assert not (folder / "rehearsal").exists()
    # A provider that is not there: said, and nothing is touched.
    ini = site.path(f"/etc/{SITE}/certbot-rehearsal.ini")
    ini.write_text(ini.read_text().replace(":14000", ":14999"))
    assert "the renewal would: journalctl -u" in site.run(
        "mks-deploy", "certificate", "rehearse", check=False
    )
    site.run("systemctl", "reset-failed")
    assert {file: file.read_bytes() for file in folder.glob(f"config/archive/{SITE}/*.pem")} == before
    assert (folder / "served").readlink() == served
    assert site.run("mks-deploy", "certificate", "check") == "the certificate is in order\n"


def _alert_waits_in_the_spool(site: Machine) -> None:
    site.run("systemctl", "start", f"{SITE}-alert@{SITE}-test.service")
    waiting = list(site.path(f"/var/lib/{SITE}/spool").rglob("*.json"))
    assert any(f"{SITE}-test" in file.read_text() for file in waiting)


def _root_follows_no_link_of_an_account(site: Machine) -> None:
    """They put links to a folder of root's into theirs; then root types commands of the kit."""
    victim, state, acme = "/srv/victim", f"/var/lib/{SITE}", f"/var/lib/{SITE}-acme"
    site.run("install", "-d", "-m", "755", victim)
    for name in ("maintenance.on", "public", "uploads.restored"):
        site.run("ln", "-sfn", f"{victim}/made", f"{state}/{name}", account=SITE)
    site.run("mks-deploy", "maintenance", "on")
    asked = ("curl", "-sk", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}")
    asked = (*asked, "--resolve", f"{HOST}:443:127.0.0.1", f"https://{HOST}/")
    assert site.run(*asked) == "503"
    site.run("mks-deploy", "maintenance", "off")
    site.write(f"/opt/{SITE}/versions/1/knowledge_system/static/app.css", "a{}")
    site.run("mks-deploy", "restart")
    assert site.path(f"/opt/{SITE}/public/static/app.css").exists()
    assert site.run(*asked[:-1], f"https://{HOST}/static/app.css") == "200"
    for words in ("watch --record", f"restore /nowhere --uploads {state}/uploads.restored"):
        site.run("mks-deploy", *words.split(), check=False)
    # Without what is served, a placeholder is made: by the account whose folder it is.
    site.run("systemctl", "stop", f"{SITE}-renew.timer", f"{SITE}-renew.service")
    site.run("mv", f"{acme}/served", f"{acme}/served.kept", account=f"{SITE}-acme")
    site.run("mv", f"{acme}/placeholder", f"{acme}/placeholder.kept", account=f"{SITE}-acme")
    site.run("ln", "-sfn", victim, f"{acme}/placeholder", account=f"{SITE}-acme")
    site.run("mks-deploy", "certificate", "placeholder", check=False)
    assert list(site.path(victim).iterdir()) == []
    site.run("rm", f"{acme}/placeholder")
    assert site.run("mks-deploy", "certificate", "placeholder") == "created a placeholder\n"
    made = site.path(f"{acme}/placeholder/privkey.pem").stat()
    assert made.st_uid == site.path(acme).stat().st_uid
    site.run("mv", "-T", f"{acme}/served.kept", f"{acme}/served")


def _gunicorn_takes_the_place_of_nginx(site: Machine, folder: Path) -> None:
    """The section "Without nginx", with a renewal that restarts the service."""
    _render(site, folder, mode="direct")
    slot = f"{SITE}@blue"
    # Between the two servers nothing answers, which the watch would tell, and rightly.
    site.run("systemctl", "stop", f"{SITE}-watch.timer")
    site.run("systemctl", "disable", "--now", "nginx.service", f"{slot}.socket", f"{slot}.service")
    site.run("cp", "-a", "--no-preserve=ownership", "/root/kit/out/etc", "/root/kit/out/usr", "/")
    site.run("systemctl", "daemon-reload")
    for line in commands("deploy-direct")[:2]:
        site.run("sh", "-c", line)
    answered = ("curl", "-sk", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}")
    assert site.run(*answered, "--resolve", f"{HOST}:443:127.0.0.1", f"https://{HOST}/livez") == "200"
    assert site.run(*answered, "--resolve", f"{HOST}:80:127.0.0.1", f"http://{HOST}/") == "301"
    _renew(site)
    for part in ("", "-redirect"):
        assert site.show(f"{SITE}{part}.service", "NRestarts") == {"NRestarts": "0"}


def test_every_unit_runs_within_its_own_limits(site: Machine, tmp_path: Path) -> None:
    _services_are_active(site)
    _timers_start_what_succeeds(site)
    _copies_go_elsewhere_and_come_back(site)
    _nginx_writes_on_after_a_rotation(site)
    _certificate_is_renewed_and_loaded(site)
    _renewal_is_rehearsed(site)
    _alert_waits_in_the_spool(site)
    _root_follows_no_link_of_an_account(site)
    _gunicorn_takes_the_place_of_nginx(site, tmp_path)
    assert site.run("systemctl", "list-units", "--failed", "--no-legend", "--no-pager", "--plain") == ""
