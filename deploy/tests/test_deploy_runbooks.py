"""Runbooks and the page on deploying: every alert has a section, every command is run as far as one machine allows.

nginx, redis-cli, psql, logrotate, the application's commands and our own are the real ones, on the folders of a
host on loopback. systemd is not running here: its stand-in knows the units that were rendered, refuses all others,
and does what a few of them do.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy_host import Host, as_released
from deploy_scratch import let_postgres_run
from deploy_settings import deployed
from mks_deploy import cli
from mks_deploy.alerts import alerts_of
from mks_deploy.operations import host_steps as operations
from mks_deploy.operations.application_command import environment
from mks_deploy.operations.backup import Database, backup
from mks_deploy.operations.release import State
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import make_missing
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.versions import Installed
from testbed.postgres_server import PostgresServer
from testbed.redis_server import RedisServer
from testbed.services import program, unavailable, unprivileged

DOCS = Path(__file__).parents[2] / "docs" / "en"
RUNBOOKS, INSTALLATION = DOCS / "how-to/runbooks/index.md", DOCS / "how-to/deploy.md"
SETTINGS = read_settings(deployed())
UNITS = {Path(file.path).name for file in render(SETTINGS, Installed()) if "/systemd/" in file.path}
UNITS |= {"nginx.service", "postgresql.service", "redis-server.service", "redis-server@cache.service"}
UNITS |= {"prometheus.service", "prometheus-alertmanager.service", "prometheus-node-exporter.service"}

pytestmark = pytest.mark.skipif(not RUNBOOKS.exists(), reason="the documentation is not part of the wheel")


def sections() -> dict[str, str]:
    """Anchor and text of each runbook."""
    parts = re.split(r"(?m)^\(([\w-]+)\)=$", RUNBOOKS.read_text("utf-8")) if RUNBOOKS.exists() else [""]
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(text: str) -> list[str]:
    return [
        line
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
        if line.strip()
    ]


def test_every_alert_has_a_section() -> None:
    assert {f"runbook-{alert.runbook}" for alert in alerts_of(SETTINGS)} <= sections().keys()


@pytest.mark.parametrize("name", sections())
def test_a_runbook_says_sign_first_command_mend_and_end(name: str) -> None:
    text = sections()[name]
    marks = ["**Sign.**", "**First.**", "**Fix.**", "**Resolved**"]
    if name == "runbook-rollback":
        marks.remove("**Fix.**")  # the first command is what fixes it
    places = [text.find(mark) for mark in marks]
    assert -1 not in places, marks
    assert places == sorted(places)
    assert len(commands(text)) >= 2


@pytest.mark.parametrize(
    "words",
    [shlex.split(line) for line in commands(INSTALLATION.read_text("utf-8")) if line.startswith("mks-deploy")]
    if INSTALLATION.exists()
    else [],
    ids=" ".join,
)
def test_commands_of_an_installation_are_understood(words: list[str]) -> None:
    assert cli.parser().parse_args(words[1:]).run


def test_a_site_of_another_name_may_put_it_in_place_of_ours() -> None:
    """``sed`` on the page of runbooks: nowhere may the name stand for a program."""
    assert not [
        line for line in commands(RUNBOOKS.read_text("utf-8")) if re.search(r"app knowledge-system\b", line)
    ]


def test_units_of_an_installation_are_those_that_are_rendered() -> None:
    named = re.findall(
        r"\S+\.(?:service|timer|socket)\b", "\n".join(commands(INSTALLATION.read_text("utf-8")))
    )
    direct = read_settings(deployed('[edge]\nmode = "direct"'))
    units = UNITS | {Path(file.path).name for file in render(direct, Installed())}
    assert {re.sub("@(blue|green|[12])", "@", unit) for unit in named} <= units


@pytest.mark.skipif(os.geteuid() != 0, reason="makes accounts below another root, which only root may")
def test_accounts_and_folders_follow_from_what_is_rendered(tmp_path: Path) -> None:
    """``systemd-sysusers`` and ``systemd-tmpfiles --create``, for a root of their own."""
    root = tmp_path / "root"
    for file in render(SETTINGS, Installed()):
        if file.path.startswith(("etc/sysusers.d", "etc/tmpfiles.d")):
            (root / file.path).parent.mkdir(parents=True, exist_ok=True)
            (root / file.path).write_text(file.text)
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    if "\npostgres:" not in (root / "etc/passwd").read_text():
        unavailable("the account postgres", "belongs to the package postgresql")
    for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        done = subprocess.run(
            [program(command[0]), *command[1:], f"--root={root}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    made = (root / "etc/passwd").read_text()
    assert "\nknowledge-system:" in made
    assert "\nknowledge-system-acme:" in made
    modes = {path: (root / path).stat().st_mode & 0o777 for path in ("etc/knowledge-system/credentials",)}
    assert modes == {"etc/knowledge-system/credentials": 0o700}
    assert (root / "var/lib/knowledge-system/uploads").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of root below another root")
def test_rendering_again_leaves_requests_where_a_release_has_sent_them(tmp_path: Path) -> None:
    """What the runbooks type after a change of settings: everything is copied, nginx is reloaded."""
    root, upstream = tmp_path / "root", "etc/nginx/knowledge-system/upstream.conf"

    def install() -> None:
        for file in render(SETTINGS, Installed()):
            if file.path.startswith(("etc", "usr")):
                (root / file.path).parent.mkdir(parents=True, exist_ok=True)
                (root / file.path).write_text(file.text)

    def make_folders() -> str:
        subprocess.run([program("systemd-tmpfiles"), "--create", f"--root={root}"], check=False)
        return (root / upstream).read_text()

    install()
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    subprocess.run([program("systemd-sysusers"), f"--root={root}"], check=True)
    assert "blue.sock weight=1 " in make_folders()
    (root / upstream).write_text(operations.upstream(SETTINGS, {"green": 100}))
    install()
    assert (root / upstream).read_text() == operations.upstream(SETTINGS, {"green": 100})
    assert make_folders() == operations.upstream(SETTINGS, {"green": 100})


# --- the commands, run --------------------------------------------------------------------------


class Night:
    """A host on loopback, and somebody who types what the runbooks say."""

    def __init__(self, certificates: Any, folder: Path) -> None:
        # How full this machine is says nothing about the commands.
        self.host = Host(certificates, upkeep="disk_free_percent = 1")
        self.redis = RedisServer(self.host.folder / "redis", unix_socket=True)
        self.postgres = PostgresServer()
        self.folder, self.typed = folder, list[str]()
        self.slots: dict[str, Any] = {}
        for name in ("releases", "backups", "credentials"):
            self.host.path(name).mkdir(exist_ok=True)
        self._make_archive([])

    def start(self) -> None:
        """Servers, two versions, tables with a reader, a backup: what a host has in the middle of its life."""
        self.redis.start()
        self.postgres.start()
        self.host.render()
        (self.host.path("config") / "deploy.toml").write_text(self.host.settings_text())
        self._make_credentials()
        releases = self.host.path("releases")
        for version in ("1", "2"):
            (releases / "versions" / version).mkdir(parents=True)
            (releases / "versions" / version / "venv").symlink_to(sys.prefix)
        for link in ("current", "slots/green"):
            (releases / link).parent.mkdir(exist_ok=True)
            (releases / link).symlink_to(releases / "versions/2")
        for name in ("spool", "uploads"):
            (self.host.path("state") / name).mkdir()
        (self.host.path("nginx_logs") / "knowledge-system.access.log").write_text('{"status":429}\n')
        self.slots["green"] = self.host.start_application("green", ECHO_VERSION="2")
        as_released(self.settings, State(active="green", blue="1", green="2", before="1"))
        self.host.start_nginx()
        self._fill()
        if identity := unprivileged():
            os.chown(self.host.path("wal"), identity["user"], identity["group"])

    def stop(self) -> None:
        self.host.stop()
        self.redis.stop()
        self.postgres.stop()
        shutil.rmtree(self.postgres.directory, ignore_errors=True)

    @property
    def settings(self) -> Any:
        return read_settings(self.host.settings_text())

    def _make_credentials(self) -> None:
        """Those of the host, and the folder of secrets that the operator stands beside."""
        (self.folder / "deploy.toml").write_text(deployed())
        for secrets in (self.host.path("credentials"), self.folder / "secrets"):
            make_missing(secrets, SETTINGS)
            (secrets / "redis_url").write_text(f"unix://{self.redis.socket_path}")
            (secrets / "database_url").write_text(self.postgres.url("postgres"))
            (secrets / "celery_broker_url").unlink()
            (secrets / "cache_signing_keys").unlink()
            (secrets / "cache_url").unlink()
        make_missing(self.folder / "secrets", SETTINGS)
        (self.folder / "recovery.conf").write_text("recovery_target_action = 'promote'\n")

    def _fill(self) -> None:
        from knowledge_system import app, database
        from knowledge_system.models import User
        from knowledge_system.settings import AppSettings

        variables = environment(self.settings, self.host.path("credentials"))
        settings = AppSettings.from_env({**variables, "MKS_ENV": "development"})
        with app.open_database(settings) as (engine, _):
            database.upgrade(engine, settings, clock=time)
            with app.session_factory(engine).begin() as session:
                session.add(
                    User(
                        username="tanaka",
                        display_name="田中",
                        role="viewer",
                        password_hash="x",
                        created_at=datetime.now(UTC),
                    )
                )
        made = datetime(2026, 11, 26, 2, 30, tzinfo=UTC)
        backup(self.settings, Database.from_url(self.postgres.url("postgres")), now=made, keys=None)

    # --- the shell

    def type(self, line: str, capfd: pytest.CaptureFixture[str]) -> str:
        """Run one line; returns what it said."""
        self.typed.append(line)
        for _ in range(10):
            code, said = self._typed(line, capfd)
            # Redis has 40 ms to answer; on a busy machine the operator is asked to type it again.
            if "type it again" not in said:
                break
        assert code == 0 or line.endswith("|| true"), (line, code, said)
        return said

    def _typed(self, line: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
        capfd.readouterr()
        if re.search(r"[|>*]", re.sub(r'"[^"]*"', "", line)) and not line.startswith("mks-deploy"):
            code = subprocess.run(
                ["sh", "-c", self.placed(line)], cwd=self.folder, check=False
            ).returncode  # words of the page
        else:
            code = self._run(shlex.split(self.placed(line.removesuffix(" || true"))))
        return code, "".join(capfd.readouterr())

    def placed(self, line: str) -> str:
        """The line with the folders of this host in place of those of a real one."""
        paths = {getattr(SETTINGS.paths, name): str(getattr(self.settings.paths, name)) for name in _PATHS}
        for socket in (SETTINGS.stores.redis_socket, SETTINGS.stores.redis_cache_socket):
            paths[socket] = str(self.redis.socket_path)
        paths["/var/lib/postgresql/17"] = str(self.host.path("wal"))
        paths["/var/backups/knowledge-system-wal-17"] = f"{self.host.path('wal')}-17"
        paths["/etc/postgresql/17"] = str(self.folder / "cluster")
        for there in sorted(paths, key=len, reverse=True):
            line = re.sub(rf"{re.escape(there)}(?![\w-])", paths[there], line)
        return line

    def _run(self, words: list[str]) -> int:
        handlers: dict[str, Callable[[list[str]], int]] = {
            "mks-deploy": self._mks_deploy,
            "systemctl": self.systemctl,
            "journalctl": self._journalctl,
            "runuser": lambda words: self._as_postgres(words[words.index("--") + 1 :]),
            "pg_createcluster": self._make_cluster,
            "pg_ctlcluster": lambda words: int(words[1:] != ["17", "recovered", "start"]),
            "pg_dropcluster": lambda words: int(words[1] != "--stop"),
            "pg_upgradecluster": lambda words: int(words[1:] != ["17", "main"]),
            "pg_lsclusters": lambda _: 0,
            "amtool": lambda words: int("silence" not in words),
            "chown": lambda words: int(words[1:3] != ["-R", "knowledge-system:"]),
            "systemd-tmpfiles": self._make_archive,
            "nginx": lambda _: subprocess.run(self.host.nginx_command("-t"), check=False).returncode,
        }
        if words[0] in handlers:
            return handlers[words[0]](words)
        if words[:2] == ["cp", "-a"] and words[-1] == "/":
            root = self.folder / "root"
            root.mkdir(exist_ok=True)
            words[-1] = str(root)
        return subprocess.run(words, cwd=self.folder, check=False).returncode

    def _make_archive(self, _words: list[str]) -> int:
        (self.host.path("wal") / "base-20261123T023000Z").mkdir(parents=True, exist_ok=True)
        return 0

    def _make_cluster(self, words: list[str]) -> int:
        """Its folders alone: recovery is tried by a test of its own."""
        (self.folder / "cluster/recovered/conf.d").mkdir(parents=True)
        (self.host.path("wal") / "recovered").mkdir()
        return int(words[1:] != ["17", "recovered", "--port", "5433"])

    def _back_up(self, words: list[str]) -> int:
        """As the account of the application; the temporary PostgreSQL of a test refuses root."""
        variables = environment(self.settings, self.host.path("credentials"))
        with pytest.MonkeyPatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            let_postgres_run(patched)
            return cli.main(words)

    def _mks_deploy(self, words: list[str]) -> int:
        config = str(self.host.path("config") / "deploy.toml")
        own = ["--settings", config, "--secrets", str(self.host.path("credentials"))]
        if words[1:4] == ["app", "mks-deploy", "backup"]:
            return self._back_up([*words[3:], *own[:2]])
        place = 3 if words[1] in {"certificate", "maintenance"} else 2
        if words[1] == "backup" or words[1] not in {
            "render",
            "example",
            "secrets",
            "restore",
            "alert",
            "test",
        }:
            words = [*words[:place], *own, *words[place:]]
        return cli.main(words[1:])

    def systemctl(self, words: list[str]) -> int:
        """What systemd would do, of what can be done here."""
        named = [word for word in words[1:] if re.search(r"\.(service|timer|socket)$", word)]
        known = all(re.sub("@(blue|green|[0-9]+)", "@", unit) in UNITS for unit in named)
        if not known or (not named and words[1] != "daemon-reload"):
            return 5
        slot = next((slot for slot in ("blue", "green") if f"@{slot}.service" in " ".join(named)), "")
        if words[1] == "enable" and slot:
            self.slots[slot] = self.host.start_application(slot, ECHO_VERSION=slot)
        elif words[1] == "disable" and slot in self.slots:
            self.slots.pop(slot).stop()
        elif words[1:] == ["reload", "nginx.service"]:
            return subprocess.run(self.host.nginx_command("-s", "reload"), check=False).returncode
        elif words[1:] == ["start", "knowledge-system-backup.service"]:
            return self._mks_deploy(["mks-deploy", "app", "mks-deploy", "backup"])
        elif words[1:] == ["start", "knowledge-system-logrotate.service"]:
            state = str(self.host.path("logs") / ".logrotate")
            command = [
                program("logrotate"),
                "--state",
                state,
                str(self.host.path("config") / "logrotate.conf"),
            ]
            return subprocess.run(command, check=False).returncode
        return 0

    def _journalctl(self, words: list[str]) -> int:
        units = [words[place + 1] for place, word in enumerate(words) if word == "-u"]
        known = not units or self.systemctl(["systemctl", "status", *units]) == 0
        return int(not known or not (units or "-p" in words))

    def _as_postgres(self, words: list[str]) -> int:
        variables = Database.from_url(self.postgres.url("postgres")).variables
        if "--port" in words:
            # The recovered cluster has been tried by a test of its own; here the other one answers in its place.
            words[words.index("--port") + 1] = variables["PGPORT"]
        if words[0] == "sh":
            # As above: from the recovered cluster into this one.
            return int("pg_dump --port 5433" not in words[-1])
        if words[0] == "createdb":
            words = [word for word in words if word not in {"--owner", "knowledge-system"}]
        if words[0] in {"psql", "createdb", "pg_basebackup"}:
            words = [program(words[0]), *words[1:]]
        environment = {**os.environ, **variables}
        if "pg_basebackup" in words[0]:
            environment.pop("PGDATABASE")
            return subprocess.run(words, env=environment, check=False, **unprivileged()).returncode
        return subprocess.run(words, cwd=self.folder, env=environment, check=False).returncode


_PATHS = (
    "releases",
    "config",
    "credentials",
    "state",
    "logs",
    "backups",
    "key_backups",
    "wal",
    "nginx_logs",
)


@pytest.fixture(scope="module")
def night(certificates: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    night = Night(certificates, tmp_path_factory.mktemp("operator"))
    try:
        night.start()
        yield night
    finally:
        night.stop()


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.postgres
@pytest.mark.nginx
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sections())
def test_every_command_of_a_runbook_runs(
    name: str, night: Night, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = commands(sections()[name])
    monkeypatch.chdir(night.folder)
    monkeypatch.setattr(operations, "_run", lambda words: night._run(list(words)))
    monkeypatch.setattr(operations.time, "sleep", lambda _: None)
    if name == "runbook-restore":
        # The new database is the one that `secrets/database_url` names from then on, and it is empty.
        (night.folder / "secrets/database_url").write_text(night.postgres.url("knowledge_restored"))
    if name == "runbook-move":
        # What the first time on a host has left: an empty database, and a folder without files.
        night._as_postgres(["createdb", "knowledge_moved"])
        (night.host.path("credentials") / "database_url").write_text(night.postgres.url("knowledge_moved"))
        shutil.rmtree(night.host.path("state") / "uploads")
    for line in lines:
        night.type(line, capfd)


def test_a_command_runs_as_the_application_would(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    host = Host()
    try:
        host.render()
        secrets = host.folder / "credentials"
        make_missing(secrets, SETTINGS)
        program = host.path("releases") / "current/venv/bin/show"
        program.parent.mkdir(parents=True)
        program.write_text('#!/bin/sh\necho "$MKS_ENV $MKS_REDIS_URL $1 ${SECRET:-clean}"\nexit 7\n')
        program.chmod(0o755)
        file = tmp_path / "deploy.toml"
        file.write_text(host.settings_text())
        words = ["app", "--settings", str(file), "--secrets", str(secrets)]
        assert cli.main([*words, "show", "--settings"]) == 7
        assert capfd.readouterr().out == "production unix:///run/redis/redis-server.sock --settings clean\n"
        assert cli.main(words) == 2
        assert cli.main([*words, "absent"]) == 2
    finally:
        host.stop()
