"""PgBouncer as rendered: one account by its socket, in transaction mode, with few connections of the server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_settings import deployed
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import credential_errors, make_missing
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings
from mks_deploy.setup.plan import HostFacts, plan_setup, setup_packages, units_to_enable
from mks_deploy.versions import Installed
from testbed.postgres_server import PostgresServer
from testbed.process import ServerProcess
from testbed.services import program, unprivileged

POOLED = "[stores]\npooler = true\npooler_size = 3\n"
SETTINGS = read_settings(deployed(POOLED))
_HOSTS = """
[[hosts]]
name = "web"
address = "10.0.0.1"
roles = ["edge", "web", "worker", "redis", "cache"]
[[hosts]]
name = "db"
address = "10.0.0.2"
roles = ["database"]
"""


def _files(text: str = POOLED, host: str = "") -> dict[str, str]:
    settings = read_settings(deployed(text) + (_HOSTS if host else ""))
    settings = settings.on(host) if host else settings
    return {file.path: file.text for file in render(settings, Installed())}


def test_the_application_gets_the_pooled_address_and_what_needs_a_session_the_other_one() -> None:
    units = {path.rpartition("/")[2]: text for path, text in _files().items() if path.endswith(".service")}
    folder = "/etc/knowledge-system/credentials"
    for name in ("@", "-worker", "-beat"):
        assert f"LoadCredential=database_url:{folder}/pooled_url" in units[f"knowledge-system{name}.service"]
    for name in ("-migrate@", "-backup", "-base", "-watch", "-alert@"):
        text = units[f"knowledge-system{name}.service"]
        assert f"LoadCredential=database_url:{folder}/database_url" in text
        assert "pooled_url" not in text
    assert "MKS_DB_TRANSACTION_POOLING=1" in _files()["etc/knowledge-system/knowledge-system.env"]
    assert "knowledge-system-pooler.service" in units["knowledge-system@.service"]


def test_without_it_nothing_is_rendered_and_few_connections_suffice_with_it() -> None:
    assert not any("pooler" in path or "pgbouncer" in path for path in _files(""))
    many = "[gunicorn]\nworkers = 8\nthreads = 64\n"
    with pytest.raises(DeploySettingsError, match="database connections, more than"):
        read_settings(deployed(many))
    assert read_settings(deployed(many, POOLED)).stores.pooler_size == 3
    with pytest.raises(
        DeploySettingsError, match=r"stores\.pooler_size on all hosts and 10 in reserve need 130"
    ):
        read_settings(deployed(many, "[stores]\npooler = true\npooler_size = 120\n"))


def test_it_does_not_go_with_a_standby(tmp_path: Path) -> None:
    standby = '[[hosts]]\nname = "db2"\naddress = "10.0.0.3"\nroles = ["standby"]\n'
    given = deployed(POOLED, "[host]\nshared_uploads = true\n") + _HOSTS
    with pytest.raises(
        DeploySettingsError, match=r"deploy\.toml:\d+: stores\.pooler must be false with a standby"
    ):
        read_settings(given + standby)
    make_missing(tmp_path, read_settings(given))
    assert list(credential_errors(tmp_path, read_settings(given))) == []
    password = (tmp_path / "database_password").read_text().strip()
    assert (tmp_path / "pooler_users").read_text() == f'"knowledge-system" "{password}"\n'
    web, db = _files(host="web"), _files(host="db")
    ini = web["etc/knowledge-system/pgbouncer.ini"]
    assert "knowledge = host=10.0.0.2 port=5432 user=knowledge-system\n" in ini
    assert "server_tls_sslmode = verify-full" in ini
    assert not any("pgbouncer" in path for path in db)


def test_it_replaces_the_one_of_the_distribution() -> None:
    facts = HostFacts(wanted={"pooler": "new"}, version="1", cluster="17")
    steps = {step.key: step.commands for step in plan_setup(SETTINGS, facts, issue=False)}
    assert steps["pooler"][0] == ("systemctl", "disable", "--now", "pgbouncer.service")
    assert list(steps).index("pooler") < list(steps).index("release")
    assert "pgbouncer" in setup_packages(SETTINGS)
    assert "knowledge-system-pooler.service" in units_to_enable(SETTINGS)


class Pooler:
    """The rendered PgBouncer, under the account of the application."""

    def __init__(self, server: PostgresServer) -> None:
        self.identity = unprivileged()
        self.account = pwd.getpwuid(self.identity.get("user", os.getuid())).pw_name
        self.folder = Path(tempfile.mkdtemp(prefix="mksp"))
        self.folder.chmod(0o711)
        for path, text in _files().items():
            if "pgbouncer" in path:
                here = text.replace("/etc/knowledge-system", str(self.folder))
                here = here.replace("/run/knowledge-system-pooler", str(self.folder / "run"))
                here = here.replace("host=/run/postgresql", f"host={server.directory} port={server.port}")
                # An account that is there, and may run servers.
                (self.folder / Path(path).name).write_text(here.replace("knowledge-system", self.account))
        (self.folder / "run").mkdir(mode=0o700)
        if self.identity:
            shutil.chown(self.folder / "run", self.account)
        self.process = ServerProcess(
            [program("pgbouncer"), str(self.folder / "pgbouncer.ini")],
            log=self.folder / "log",
            ready=lambda: self.ask("SELECT 1").communicate(timeout=30)[0] == "1\n",
            identity=self.identity,
            cwd=self.folder,
        )

    def ask(
        self, statement: str, *, as_account: bool = True, database: str = "knowledge"
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [program("psql"), "-XAtq", "-d", database, "-c", statement],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PGHOST": str(self.folder / "run"),
                "PGPORT": "6432",
                "PGUSER": self.account,
            },
            **(self.identity if as_account else {}),
        )


@pytest.fixture
def pooler(postgres_server: PostgresServer) -> Iterator[Pooler]:
    made = Pooler(postgres_server)
    try:
        for statement in (
            f'CREATE ROLE "{made.account}" LOGIN',
            f'CREATE DATABASE knowledge OWNER "{made.account}"',
        ):
            postgres_server.execute(statement)
        made.process.start(timeout=60)
        yield made
    finally:
        made.process.stop()
        postgres_server.execute("DROP DATABASE IF EXISTS knowledge WITH (FORCE)")
        postgres_server.execute(f'DROP ROLE IF EXISTS "{made.account}"')
        shutil.rmtree(made.folder, ignore_errors=True)


@pytest.mark.postgres
def test_many_clients_share_few_connections_and_another_account_gets_none(pooler: Pooler) -> None:
    clients = [pooler.ask("BEGIN; SELECT pg_sleep(0.2); SELECT pg_backend_pid(); COMMIT") for _ in range(12)]
    answers = [client.communicate(timeout=100)[0].split() for client in clients]
    assert all(client.returncode == 0 for client in clients), answers
    assert len({answer[-1] for answer in answers}) <= 3
    if pooler.identity:
        refused = pooler.ask("SELECT 1", as_account=False)
        assert "login rejected" in refused.communicate(timeout=60)[0]
        assert refused.returncode
