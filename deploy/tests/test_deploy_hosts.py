"""Several hosts with roles: what each gets, in which order, and what of it is open to whom."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from deploy_host import HOST, Answer, Host
from deploy_machine import OUTSIDE
from deploy_settings import deployed
from mks_deploy.cli import main, parser
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import credential_errors, credentials_of, is_wanted, make_missing
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings
from mks_deploy.setup.plan import HostFacts, plan_setup, setup_packages
from mks_deploy.setup.store_files import first_replication, redis_accounts, store_files
from mks_deploy.setup.up import RemoteFacts, SecureShell, Target, plan_hosts
from mks_deploy.template_tables import EDGE_HEADERS
from mks_deploy.versions import Installed
from mks_hardening.cache import RedisCache
from testbed.polling import free_port, wait_until
from testbed.process import ServerProcess
from testbed.services import program, unavailable, unprivileged

MORE = "[host]\nshared_uploads = true\nfirewall = true\n[stores]\ndatabase_connections = 400\n"


def tables(**hosts: tuple[str, str]) -> str:
    """Hosts by name, each with its address and its roles."""
    return "".join(
        f'[[hosts]]\nname = "{name}"\naddress = "{address}"\nroles = [{", ".join(map(repr, roles.split()))}]\n'
        for name, (address, roles) in hosts.items()
    )


WEB1 = ("10.0.0.11", "edge web")
FIVE = tables(
    web1=WEB1,
    web2=("10.0.0.12", "web"),
    jobs=("10.0.0.13", "worker"),
    db1=("10.0.0.21", "database"),
    db2=("fd00::22", "standby"),
    store=("10.0.0.31", "redis cache"),
)
SETTINGS = read_settings(deployed(MORE) + FIVE)


def files_of(name: str, settings: Settings = SETTINGS) -> dict[str, str]:
    return {file.path: file.text for file in render(settings.on(name), Installed())}


# --- deploy.toml ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "line", "reason"),
    [
        (
            tables(web1=("203.0.113.7", "edge web")),
            3,
            r"hosts\[1\].address must be an address of a private network",
        ),
        (tables(web1=("0.0.0.0", "edge web")), 3, r"hosts\[1\].address must be an address of a private"),  # noqa: S104
        (tables(web1=("web1", "edge web")), 3, r"hosts\[1\].address must be"),
        (tables(web1=("fd00::1%e;daemon off", "edge web")), 3, r"hosts\[1\].address must be"),
        (tables(web1=("fd00::1%e\\nlocal all all trust", "edge web")), 3, r"hosts\[1\].address must be"),
        (tables(web1=("10.0.0.11", "edge wep")), 4, r"hosts\[1\].roles must be edge or web"),
        (tables(web1=WEB1, web2=("10.0.0.11", "web")), 7, r"hosts\[2\].address is that of another host"),
        (tables(web1=WEB1) + tables(web1=("10.0.0.12", "web")), 6, r"hosts\[2\].name is that of another"),
        (tables(web1=("10.0.0.11", "edge")), 4, r'hosts\[1\].roles must name "web" beside "edge"'),
        (tables(web1=WEB1, db=("10.0.0.2", "database standby")), 8, r"must not name both"),
        (tables(web1=WEB1) + "port = 5\n", 5, r"hosts\[1\].port is unknown"),
        (tables(web1=WEB1) + 'sssh = "x"\n', 5, r"hosts\[1\].sssh is unknown; did you mean ssh\?"),
        ('[[hosts]]\nname = "web1"\n', 1, r"hosts\[1\].address is missing"),
        (tables(web1=WEB1) + 'ssh = "-oProxyCommand=x"\n', 5, r"hosts\[1\].ssh must be what ssh calls it"),
        (tables(web1=("10.0.0.11", "web")), 0, r'must give one host the role "edge"'),
        (tables(web1=WEB1), 0, r'must give one host the role "database"'),
        (FIVE + tables(db3=("10.0.0.3", "database")), 0, 'only one host the role "database"'),
        (FIVE + tables(web3=("10.0.0.3", "edge web")), 0, 'tls.source must be "own" with more than one edge'),
        (FIVE + tables(r2=("10.0.0.3", "redis")), 0, 'three hosts the role "sentinel"'),
        (FIVE + tables(r2=("10.0.0.3", "redis sentinel")), 0, 'the role "sentinel" to three or five'),
        (
            tables(web1=("10.0.0.1", "edge web"), r2=("10.0.0.3", "redis sentinel queue")),
            8,
            r'hosts\[2\].roles must not name both "queue" and "redis" with "sentinel"',
        ),
        ("hosts = 3\n", 0, "must be a list of tables"),
    ],
)
def test_hosts_that_cannot_be_are_told_with_file_and_line(hosts: str, line: int, reason: str) -> None:
    text = deployed(MORE)
    before = text.count("\n")
    whole = hosts + text if hosts.startswith("hosts =") else text + hosts
    with pytest.raises(DeploySettingsError, match=reason) as caught:
        read_settings(whole)
    if line:
        assert re.search(rf"(?m)^deploy\.toml:{before + line}: .*{reason}", str(caught.value))


NONE = "[app]\nhost_variables = []\n"


@pytest.mark.parametrize(
    "more", ["", f'{NONE}[media]\nfolder = "media"\n', f'{NONE}[media]\nurl = "/media/"\n']
)
def test_uploads_of_several_hosts_have_to_be_one_folder(more: str) -> None:
    with pytest.raises(DeploySettingsError, match=r"host\.shared_uploads must be true"):
        read_settings(deployed(f"[stores]\ndatabase_connections = 400\n{more}") + FIVE)
    read_settings(deployed(f"[stores]\ndatabase_connections = 400\n{NONE}") + FIVE)


def test_several_hosts_have_no_file_of_sqlite() -> None:
    with pytest.raises(DeploySettingsError, match=r"stores\.sqlite must be empty with several hosts"):
        read_settings(deployed(f'{MORE}sqlite = "db"\n') + FIVE)


def test_the_connections_of_all_hosts_have_to_fit() -> None:
    with pytest.raises(DeploySettingsError, match="in reserve on all hosts need"):
        read_settings(deployed("[host]\nshared_uploads = true\n") + FIVE)
    env = files_of("web1")["etc/knowledge-system/knowledge-system.env"]
    (share,) = re.findall(r"(?m)^MKS_DB_MAX_CONNECTIONS=(\d+)$", env)
    assert 2 * int(share) <= 400


def test_one_host_is_rendered_as_before() -> None:
    """Without [[hosts]] nothing of them is in any file."""
    for file in render(read_settings(deployed()), Installed()):
        assert "_hosts" not in file.text
        assert file.path.rpartition("/")[2] not in {"host", "inner.conf", "pg_hba.conf"}


# --- what each host gets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        (
            "web1",
            "@.service backup.timer migrate@.service renew.timer certbot.ini",
            "worker beat base pg_hba redis",
        ),
        ("web2", "@.service sites-enabled inner.conf", "backup.service migrate renew certbot worker base"),
        (
            "jobs",
            "worker.service beat.service gunicorn.conf.py",
            "@.socket sites-enabled backup.service base",
        ),
        (
            "db1",
            "base.timer pg_hba.conf postgresql.conf postgresql@.service.d guard.service",
            "gunicorn worker @.socket redis",
        ),
        (
            "db2",
            "base.timer pg_hba.conf postgresql@.service.d guard.service",
            "gunicorn worker redis sites-enabled",
        ),
        (
            "store",
            "redis.conf redis-cache.conf",
            "gunicorn worker postgresql.conf guard sites-enabled backup.service",
        ),
    ],
)
def test_a_host_gets_what_its_roles_need(name: str, there: str, absent: str) -> None:
    paths = " ".join(path for path in files_of(name) if path.startswith(("etc/", "usr/")))
    assert [word for word in there.split() if word not in paths] == []
    assert [word for word in absent.split() if word in paths] == []
    assert files_of(name)["etc/knowledge-system/host"] == f"{name}\n"


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("web1", ["tcp dport { 80, 443 }"]),
        ("web2", ["ip saddr { 10.0.0.11 } tcp dport 8080"]),
        ("jobs", []),
        (
            "db1",
            [
                "ip saddr { 10.0.0.11, 10.0.0.12, 10.0.0.13 } tcp dport 5432",
                "ip6 saddr { fd00::22 } tcp dport 5432",
            ],
        ),
        (
            "store",
            [
                "ip saddr { 10.0.0.11, 10.0.0.12, 10.0.0.13 } tcp dport 6379",
                "ip saddr { 10.0.0.11, 10.0.0.12, 10.0.0.13 } tcp dport 6380",
            ],
        ),
    ],
)
def test_the_firewall_opens_what_the_roles_need(name: str, rules: list[str]) -> None:
    text = files_of(name)["etc/knowledge-system/firewall.nft"]
    opened = [line.strip().removesuffix(" accept") for line in text.splitlines() if "dport" in line]
    assert opened == ["tcp dport 22", *rules]


_OTHER_HOST = """
import socket, sys
server = socket.create_server(("192.0.2.2", 9000))
print("ready", flush=True)
connection = server.accept()[0]
sys.stdin.readline()
connection.sendall(b"news")
sys.stdin.readline()
"""
_WAITING = """
import json, socket, subprocess, sys
network, follow, rules, other = json.loads(sys.argv[1])
for line in ("mount -t tmpfs tmpfs /run", *network):
    subprocess.run(line.split(), check=True)
for words in follow:
    subprocess.run(words, check=True)
words = ["ip", "netns", "exec", "outside", sys.executable, "-c", other]
with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
    process.stdout.readline()
    connection = socket.create_connection(("192.0.2.2", 9000), 20)
    subprocess.run(["nft", "--file", rules], check=True)
    process.stdin.write("send\\n")
    process.stdin.flush()
    connection.settimeout(20 if follow else 1)
    try:
        print(connection.recv(9).decode())
    except TimeoutError:
        print("nothing")
"""


@pytest.mark.parametrize(("followed", "received"), [(True, "news"), (False, "nothing")])
def test_a_connection_that_waits_for_another_host_outlives_the_start_of_the_firewall(
    tmp_path: Path,
    followed: bool,  # noqa: FBT001 - a row
    received: str,
) -> None:
    if os.geteuid():
        unavailable("a network of its own", "needs root")
    facts = HostFacts(wanted={"firewall": "new"})
    *_, step = (each for each in plan_setup(SETTINGS.on("db2"), facts) if each.key == "connections")
    follow = step.commands if followed else ()
    rules = tmp_path / "firewall.nft"
    rules.write_text(files_of("db2")["etc/knowledge-system/firewall.nft"])
    given = json.dumps([OUTSIDE, follow, str(rules), _OTHER_HOST])
    words = [program("unshare"), "--net", "--mount", sys.executable, "-c", _WAITING, given]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == f"{received}\n", done.stderr


def test_postgresql_takes_the_application_and_standbys_over_tls_alone() -> None:
    lines = files_of("db1")["etc/knowledge-system/pg_hba.conf"].splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[:2] == ["local all postgres peer", "local all all peer"]
    assert all(line.startswith("hostssl ") and line.endswith(" scram-sha-256") for line in rules[2:])
    assert "hostssl knowledge knowledge-system 10.0.0.13/32 scram-sha-256" in rules
    assert "hostssl replication replicator fd00::22/128 scram-sha-256" in rules
    assert not any("10.0.0.31" in line for line in rules)
    conf = files_of("db1")["etc/knowledge-system/postgresql.conf"]
    assert "max_slot_wal_keep_size = 8192MB" in conf
    assert "listen_addresses = '10.0.0.21'" in conf


def test_the_host_of_the_backups_has_the_programs_of_postgresql() -> None:
    assert {"postgresql", "nginx", "certbot"} <= set(setup_packages(SETTINGS.on("web1")))
    copies = read_settings(deployed(MORE, '[offsite]\nrepository = "/srv/copies"\n') + FIVE)
    assert {"postgresql", "restic"} <= set(setup_packages(copies.on("web1")))
    assert not {"restic", "certbot", "postgresql"} & set(setup_packages(copies.on("web2")))
    assert setup_packages(SETTINGS.on("store")) == ("logrotate", "nftables", "redis-server")


def test_beat_runs_once_and_so_do_backups_and_migrations() -> None:
    settings = read_settings(deployed(MORE) + FIVE + tables(jobs2=("10.0.0.14", "worker")))
    hosts = [host.name for host in settings.hosts]
    assert [name for name in hosts if settings.on(name).runs_beat] == ["jobs"]
    assert [name for name in hosts if settings.on(name).runs_tasks] == ["jobs", "jobs2"]
    assert [name for name in hosts if settings.on(name).is_main] == ["web1"]


# --- the pages ---------------------------------------------------------------------------------

PAGES = Path(__file__).parents[2] / "docs" / "en" / "how-to"


@pytest.mark.skipif(not PAGES.exists(), reason="the documentation is not part of the wheel")
def test_the_pages_show_hosts_and_commands_that_exist() -> None:
    # A site with tasks and without a size of its own, as one that follows the pages has it.
    site = deployed(without=("stores",)).replace('"MKS_UPLOADS", ', "")
    hosts = ""
    for page in ("several-hosts.md", "database-standby.md"):
        blocks = re.findall(r"(?m)^ *```(toml|sh)\n(.*?)```", (PAGES / page).read_text("utf-8"), re.DOTALL)
        assert blocks
        for kind, text in blocks:
            if kind == "toml":
                # The second page adds to the hosts and to the table of the first one.
                lines = "\n".join(line.strip() for line in text.splitlines()) + "\n"
                if lines.startswith("[stores]\n") and "[stores]\n" in hosts:
                    hosts = hosts.replace("[stores]\n", lines, 1)
                else:
                    hosts += lines
                assert read_settings(site + hosts).hosts
                continue
            for line in text.splitlines():
                if words := shlex.split(line):
                    assert words[0] == "mks-deploy"
                    parser().parse_args(words[1:])
    names = [host.name for host in read_settings(site + hosts).hosts]
    with pytest.raises(DeploySettingsError, match=r"need 206 database connections, .* \(205\): raise it$"):
        read_settings(site + hosts.replace("240", "205"))
    assert names == ["web1", "web2", "db1", "store", "db2"]


# --- secrets -------------------------------------------------------------------------------------


def test_secrets_go_where_they_are_read_and_name_the_hosts(tmp_path: Path) -> None:
    make_missing(tmp_path, SETTINGS)
    assert list(credential_errors(tmp_path, SETTINGS)) == []
    wanted = {
        host.name: {each.file for each in credentials_of(SETTINGS.on(host.name))} for host in SETTINGS.hosts
    }
    assert "secret_keys" in wanted["web2"]
    assert not {"secret_keys", "redis_url", "redis_password"} & wanted["db1"]
    assert not {"secret_keys", "database_url", "database_password"} & wanted["store"]
    assert not {"database_password", "redis_password", "store_key", "replication_password"} & wanted["web1"]
    url = (tmp_path / "database_url").read_text()
    assert "host=10.0.0.21,fd00::22&port=5432,5432&target_session_attrs=read-write&sslmode=verify" in url
    assert (tmp_path / "database_password").read_text().strip() in url
    more = read_settings(deployed(MORE) + FIVE + tables(db3=("10.0.0.23", "standby")))
    errors = list(credential_errors(tmp_path, more))
    assert [error[:40] for error in errors] == [
        "the secret database_url must name 10.0.0",
        "the secret store_certificate must name 1",
    ]


def test_the_application_reads_from_the_standby_if_it_is_told_to(tmp_path: Path) -> None:
    """One address names both servers, and leads to the one that is a standby now."""
    settings = read_settings(deployed(MORE + "standby_reads = true\n") + FIVE)
    make_missing(tmp_path, settings)
    assert list(credential_errors(tmp_path, settings)) == []
    file = tmp_path / "database_replica_urls"
    expected = (tmp_path / "database_url").read_text().replace("=read-write", "=standby")
    assert file.read_text() == expected
    for host, reads in (("web1", True), ("db1", False)):
        assert (file.name in {each.file for each in credentials_of(settings.on(host))}) is reads
    units = {file.path.rpartition("/")[2]: file.text for file in render(settings.on("web1"), Installed())}
    assert "MKS_DATABASE_REPLICA_URLS_FILE=%d/database_replica_urls" in units["knowledge-system@.service"]
    file.write_text(expected.replace("10.0.0.21", "10.0.0.29"))
    errors = list(credential_errors(tmp_path, settings))
    assert ["the secret database_replica_urls must name 10.0.0.21" in error for error in errors] == [True]
    file.write_text("sqlite:///x.db\n")
    assert "must begin with one of" in "".join(credential_errors(tmp_path, settings))
    with pytest.raises(
        DeploySettingsError, match=r'stores\.standby_reads needs a host with the role "standby"'
    ):
        read_settings(deployed("[stores]\nstandby_reads = true\n"))


def test_a_host_alone_asks_for_no_secret_of_several(tmp_path: Path) -> None:
    alone = read_settings(deployed())
    make_missing(tmp_path, alone)
    assert not {"store_key", "redis_password", "replication_password"} & {
        path.name for path in tmp_path.iterdir()
    }
    assert not any(each.file == "store_key" and is_wanted(each, alone) for each in credentials_of(alone))
    errors = list(credential_errors(tmp_path, SETTINGS))
    assert any("the secret database_url must name 10.0.0.21" in error for error in errors)
    assert any("the secret store_certificate is missing" in error for error in errors)


# --- the order -----------------------------------------------------------------------------------


def _targets(settings: Settings, **facts: RemoteFacts) -> list[Target]:
    ready = RemoteFacts(is_root=True, has_venv=True, is_built=True)
    return [
        Target(SecureShell(host.name), settings.on(host.name), facts.get(host.name, ready))
        for host in settings.hosts
    ]


def _order(settings: Settings, **options: Any) -> list[str]:
    steps = plan_hosts(_targets(settings), version="7", run="a1", **options)
    return [
        f"{target.shell.host} {step.commands[0][-1] if '--stage' in step.commands[0] else ''}".strip()
        for target, step in steps
        if step.key == "apply"
    ]


def test_the_order_is_servers_migration_workers_and_web_hosts_one_by_one() -> None:
    assert _order(SETTINGS) == ["db1", "db2", "store", "web1 migration", "jobs", "web1", "web2"]
    assert "web1 migration" not in _order(SETTINGS, migrate=False)
    two = tables(both=("10.0.0.1", "edge web worker redis cache"), db=("10.0.0.2", "database"))
    assert _order(read_settings(deployed(MORE) + two)) == ["db", "both servers", "both migration", "both"]


def test_every_host_is_built_before_any_is_changed() -> None:
    bare = RemoteFacts(is_root=True, has_venv=False, is_built=False)
    keys = [step.key for _, step in plan_hosts(_targets(SETTINGS, web2=bare), version="7", run="a1")]
    assert keys.index("apply") > max(i for i, key in enumerate(keys) if key in {"environment", "settings"})


def _keys(name: str, facts: HostFacts, **options: Any) -> list[str]:
    return [step.key for step in plan_setup(SETTINGS.on(name), facts, issue=False, **options)]


def test_a_standby_that_is_no_copy_yet_does_not_answer() -> None:
    facts = HostFacts(wanted={"postgresql": "new"}, cluster="17", version="1", linked="1", has_command=True)
    steps = plan_setup(SETTINGS.on("db2"), facts, stage="servers")
    commands = next(step.commands for step in steps if step.key == "postgresql")
    assert ("systemctl", "stop", "postgresql@17-main.service") in commands
    assert commands[-1][-1] == "/var/lib/postgresql/17/main/standby.signal"
    assert not {"accounts", "database", "role"} & {step.key for step in steps}
    primary = [step.key for step in plan_setup(SETTINGS.on("db1"), facts, stage="servers")]
    assert primary[-3:] == ["postgresql", "accounts", "database"]


def test_stages_end_where_they_say() -> None:
    facts = HostFacts(wanted={"migration": "7", "nginx": "new"}, version="7")
    assert _keys("web1", facts, stage="migration")[-2:] == ["backup", "migration"]
    assert "nginx" not in _keys("web1", facts, stage="servers")
    whole = _keys("web1", facts)
    assert "release" in whole
    assert "migration" not in whole
    assert _keys("jobs", facts)[-3:] == ["workers", "units", "firewall"]


def test_a_host_that_is_not_named_or_not_known_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deploy.toml").write_text(deployed(MORE) + FIVE)
    words = ["--settings", str(tmp_path / "deploy.toml"), "--secrets", str(tmp_path / "secrets")]
    assert main(["secrets", *words]) == 0
    assert main(["render", *words, "--out", str(tmp_path / "out")]) == 2
    assert "--host must name one of [[hosts]]: web1, web2, jobs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["render", *words, "--out", str(tmp_path / "out"), "--host", "db1"]) == 0
    assert main(["render", *words, "--out", str(tmp_path / "out"), "--host", "db1", "--diff"]) == 0
    assert main(["render", *words, "--out", str(tmp_path / "out"), "--host", "db2", "--diff"]) == 1
    assert "+db2" in capsys.readouterr().out


# --- nginx of two web hosts ----------------------------------------------------------------------


class Web:
    """An edge, and another web host behind it, each with nginx and gunicorn, on addresses of this machine."""

    def __init__(self, certificates: Any) -> None:
        second, port = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}.2", free_port()
        hosts = tables(
            # Where the others see its requests come from.
            web1=("127.0.0.1", "edge web worker database redis cache"),
            web2=(second, "web"),
        )
        edge = f"inner_port = {port}"
        more = {"edge": edge, "app": "host_variables = []"}
        self.one = Host(certificates, hosts=hosts, here="web1", **more)
        self.two = Host(certificates, hosts=hosts, here="web2", **more)
        self.places = {"web1": ("127.0.0.1", port), "web2": (second, port)}
        self.gunicorn = {}
        for host in (self.one, self.two):
            host.render()
            self.gunicorn[host.here] = host.start_application(ECHO_VERSION=host.here)
            place = self.places[host.here]
            host.start_nginx(ready=lambda place=place: _accepts(place))

    def ask(self, path: str = "/", **options: Any) -> Answer:
        answer = self.one.ask(path, **options)
        assert answer is not None
        return answer

    def stop(self) -> None:
        self.one.stop()
        self.two.stop()


def _accepts(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, 5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def web(certificates: Any) -> Iterator[Web]:
    made = Web(certificates)
    yield made
    made.stop()


def _read_in_parts(edge: Host) -> None:
    """Read a stream through both nginx, each part before the next one is made."""
    context = ssl.create_default_context(cafile=str(edge.certificates.cert_file))
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pipe = edge.folder / "more"
    os.mkfifo(pipe, 0o644)
    connection = http.client.HTTPConnection(HOST)
    plain = socket.create_connection(("127.0.0.1", edge.https), timeout=20)
    with context.wrap_socket(plain, server_hostname=HOST) as connection.sock:
        connection.request("GET", f"/parts?{pipe}")
        with connection.getresponse() as answer:
            assert answer.readline() == b"first\n"
            pipe.write_bytes(b"on")
            assert answer.read() == b"second\n"


@pytest.mark.nginx
def test_requests_reach_all_web_hosts_as_they_came_and_survive_one_that_is_down(web: Web) -> None:
    answers = [
        web.ask("/", fields={"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6"}) for _ in range(20)
    ]
    assert {answer.json()["version"] for answer in answers} == {"web1", "web2"}
    for answer in answers:
        said = answer.json()["environ"]
        assert said["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
        port = {"web1": web.one, "web2": web.two}[answer.json()["version"]].https
        assert (said["wsgi.url_scheme"], said["HTTP_HOST"]) == ("https", f"{HOST}:{port}")
        assert said["REMOTE_ADDR"] == "127.0.0.1"
        assert said["HTTP_X_REQUEST_ID"] == answer.one("X-Request-ID")
        assert "HTTP_FORWARDED" not in said
        for field in (*EDGE_HEADERS, "Content-Security-Policy", "Strict-Transport-Security", "Cache-Control"):
            answer.one(field)  # once, although two nginx may add it
    upgraded = web.ask("/", fields={"Connection": "Upgrade", "Upgrade": "websocket"}).json()["environ"]
    assert (upgraded["HTTP_UPGRADE"], upgraded["HTTP_CONNECTION"]) == ("websocket", "upgrade")
    _read_in_parts(web.one)
    own = web.ask("/own-headers")
    assert own.one("Content-Security-Policy") == "default-src 'self'"
    assert own.one("Cache-Control") == "private, max-age=7"

    # The processes of one host die: its nginx answers 502, and what can be repeated goes to the other host.
    web.gunicorn["web2"].stop()
    web.two.socket_file().unlink(missing_ok=True)
    assert {(answer.status, answer.json()["version"]) for answer in (web.ask("/") for _ in range(20))} == {
        (200, "web1")
    }
    # After its time it is asked again, and a request that may have been begun is not repeated.
    web.gunicorn["web2"] = web.two.start_application(ECHO_VERSION="web2")
    wait_until(lambda: web.ask("/").json()["version"] == "web2", timeout=30, what="the second host")
    web.gunicorn["web2"].stop()
    web.two.socket_file().unlink(missing_ok=True)
    posts = [web.ask("/", method="POST", body=b"x").status for _ in range(8)]
    assert set(posts) == {200, 502}
    # Once other requests have failed there, the host is left out for both.
    assert {web.ask("/").status for _ in range(8)} == {200}
    assert {web.ask("/", method="POST", body=b"x").status for _ in range(8)} == {200}
    # The whole host is gone.
    web.two.stop()
    assert {web.ask("/").status for _ in range(10)} == {200}


@pytest.mark.nginx
def test_nobody_but_the_edge_is_believed_by_a_web_host(web: Web) -> None:
    def status(source: str) -> int:
        to = http.client.HTTPConnection(*web.places["web2"], timeout=10, source_address=(source, 0))
        with contextlib.closing(to):
            to.request("GET", "/", headers={"Host": HOST, "X-Forwarded-For": "6.6.6.6"})
            with to.getresponse() as answer:
                return answer.status

    assert status("127.0.0.1") == 200
    assert status("127.0.0.9") == 403


@pytest.mark.nginx
def test_nginx_of_each_host_has_nothing_to_say(web: Web) -> None:
    for host in (web.one, web.two):
        done = subprocess.run(host.nginx_command("-t"), capture_output=True, text=True, check=False)
        assert (done.returncode, "[warn]" in done.stderr) == (0, False), done.stderr
        gixy = [Path(sys.executable).parent / "gixy", "-f", "json", host.path("nginx") / "nginx.conf"]
        found = subprocess.run(gixy, capture_output=True, text=True, check=False)
        assert json.loads(found.stdout) == [], found.stdout


# --- Redis over the network ----------------------------------------------------------------------


class Redis:
    """Redis or Sentinel with the rendered settings of a host, in a folder of this machine."""

    def __init__(self, folder: Path, settings: Settings, name: str, *, sentinel: bool = False) -> None:
        self.folder = folder / f"{name}{'-sentinel' if sentinel else ''}"
        self.folder.mkdir()
        here = settings.on(name)
        assert here.here is not None
        self.address = here.here.address
        rendered = {file.path: file.text for file in render(here, Installed())}
        kind = "sentinel" if sentinel else "redis"
        text = next(text for path, text in rendered.items() if path.endswith(f"config/{kind}.conf"))
        for file in store_files(here, folder / "secrets"):
            if file.path.is_relative_to("/etc/redis"):
                (self.folder / file.path.name).write_text(file.text)
        text = text.replace("/etc/redis/", f"{self.folder}/").replace("/var/lib/redis", str(self.folder))
        text = text.replace(
            "down-after-milliseconds knowledge-system 5000", "down-after-milliseconds knowledge-system 500"
        )
        # On one machine, only one could listen there.
        text = re.sub(r"(?m)^(bind \S+) 127\.0\.0\.1$", r"\1", text)
        lines = "\n".join(first_replication(here)) if not sentinel else ""
        if sentinel:
            password = (folder / "secrets/replication_password").read_text().strip()
            lines = f'sentinel auth-pass knowledge-system "{password}"'
        (self.folder / "server.conf").write_text(f"{text}\n{lines}\n")
        identity = unprivileged()
        if identity:
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, identity["user"])
        self.process = ServerProcess(
            [
                program("redis-server"),
                str(self.folder / "server.conf"),
                *(["--sentinel"] if sentinel else []),
            ],
            log=self.folder / "log",
            ready=lambda: _accepts((self.address, 26379 if sentinel else 6379)),
            identity=identity,
            cwd=self.folder,
        )


@pytest.fixture
def shop() -> Iterator[tuple[Path, str]]:
    folder = Path(tempfile.mkdtemp(prefix="mksr"))
    folder.chmod(0o755)
    (folder / "config").mkdir()
    yield folder, f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
    shutil.rmtree(folder, ignore_errors=True)


def _with_sentinel(folder: Path, network: str, *, third: str = "sentinel") -> Settings:
    more = f'{MORE}[paths]\nconfig = "{folder}/config"\n'
    hosts = tables(
        web1=("127.0.0.1", "edge web worker database cache"),
        r1=(f"{network}.1", "redis sentinel"),
        r2=(f"{network}.2", "redis sentinel"),
        s3=(f"{network}.3", third),
        q4=(f"{network}.4", "queue"),
    )
    settings = read_settings(deployed(more) + hosts)
    make_missing(folder / "secrets", settings)
    (folder / "config" / "stores.pem").write_text((folder / "secrets" / "store_certificate").read_text())
    for name in ("r1", "r2", "s3"):  # apply writes it before its files of secrets
        files = render(settings.on(name), Installed())
        text = next(file.text for file in files if file.path.endswith("config/sentinel.conf"))
        (folder / "config" / "sentinel.conf").write_text(text)
    return settings


@pytest.mark.redis
def test_redis_takes_the_account_of_the_application_over_tls_alone(shop: tuple[Path, str]) -> None:
    folder, network = shop
    settings = _with_sentinel(folder, network)
    server = Redis(folder, settings, "r1")
    server.process.start(timeout=60)
    try:
        password = (folder / "secrets" / "redis_password").read_text().strip()
        ca = str(folder / "config" / "stores.pem")

        def client(**more: Any) -> redis.Redis:
            return redis.Redis(server.address, ssl=True, ssl_ca_certs=ca, socket_timeout=10, **more)

        mine = client(username=settings.name, password=password)
        assert mine.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        with pytest.raises(redis.ResponseError, match="permissions"):
            mine.config_set("maxmemory", "1gb")
        with pytest.raises(redis.ResponseError, match="permissions"):
            mine.shutdown()
        with pytest.raises(redis.AuthenticationError):
            client().ping()
        with pytest.raises(redis.AuthenticationError):
            client(username=settings.name, password="guess").ping()
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            redis.Redis(server.address, username=settings.name, password=password, socket_timeout=5).ping()
        peer = client(
            username="peer", password=(folder / "secrets" / "replication_password").read_text().strip()
        )
        with pytest.raises(redis.ResponseError, match="permissions"):
            peer.get("x")
    finally:
        server.process.stop()


@pytest.mark.redis
def test_the_queue_takes_tasks_although_no_replica_follows_it(shop: tuple[Path, str]) -> None:
    folder, network = shop
    settings = _with_sentinel(folder, network, third="redis sentinel")
    server = Redis(folder, settings, "q4")
    server.process.start(timeout=60)
    try:
        url = (folder / "secrets" / "celery_broker_url").read_text().strip()
        assert redis.Redis.from_url(url.replace("ssl_cert_reqs=required&", "")).lpush("celery", "task") == 1
    finally:
        server.process.stop()


def test_accounts_of_redis_hold_no_password() -> None:
    text = redis_accounts("shop", "open-sesame-1234567890", "other-word-0987654321")
    assert "sesame" not in text
    assert "other-word" not in text
    assert text.startswith("user default off\n")


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_sentinel_lets_a_replica_take_over_and_the_application_finds_it(shop: tuple[Path, str]) -> None:
    folder, network = shop
    settings = _with_sentinel(folder, network)
    started = list[Redis]()
    try:
        for name, sentinel in (("r1", False), ("r2", False), ("r1", True), ("r2", True), ("s3", True)):
            server = Redis(folder, settings, name, sentinel=sentinel)
            server.process.start(timeout=60)
            started.append(server)
        url = (folder / "secrets" / "redis_url").read_text().strip()
        wait_until(lambda: _written(url, "before"), timeout=60, what="a first write")
        wait_until(
            lambda: all(map(_knows_all, started[2:])), timeout=60, what="Sentinels that know each other"
        )
        begun = time.monotonic()
        started[0].process.kill()
        wait_until(lambda: _written(url, "after"), timeout=60, what="a write to the replica")
        print(f"Redis took {time.monotonic() - begun:.1f} s to take over")  # noqa: T201
    finally:
        for server in started:
            server.process.stop()


def _knows_all(sentinel: Redis) -> bool:
    """Whether it sees a replica in step, and the other two Sentinels."""
    ca = str(sentinel.folder.parent / "config" / "stores.pem")
    with redis.Redis(
        sentinel.address, 26379, ssl=True, ssl_ca_certs=ca, socket_timeout=10, decode_responses=True
    ) as client:
        others = client.execute_command("SENTINEL", "SENTINELS", "knowledge-system")
        replicas = client.execute_command("SENTINEL", "REPLICAS", "knowledge-system")
    up = [each for each in replicas if each.get("master-link-status") == "ok"]
    return len(others) == 2 and len(up) == 1


def _written(url: str, key: str) -> bool:
    with RedisCache(url) as cache:
        cache.set(key, "1", ttl=60)
    with RedisCache(url) as another:
        return bool(another.get(key) == "1")


# --- up, over a program that stands for ssh -------------------------------------------------------

# Notes host and words; what is a question is answered as a host of Debian would.
_SSH = """#!{python}
import os, shlex, sys
host, words = sys.argv[-2], shlex.split(sys.argv[-1])
sent = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
folder = os.environ["FAKE_SSH"]
with open(os.path.join(folder, "asked"), "a") as file:
    file.write(shlex.join([host, *words]) + "\\n")
if sent:
    with open(os.path.join(folder, host.replace("@", "-") + "-" + str(len(sent))), "wb") as file:
        file.write(sent)
text = " ".join(words)
if os.environ.get("FAKE_FAILS") and os.environ["FAKE_FAILS"] in host + " " + text:
    sys.exit(3)
if words == ["id", "-u"]:
    print(0)
elif words[0] == "pg_lsclusters":
    print("17 main 5432 online postgres /var/lib/postgresql/17/main /log")
elif "pg_is_in_recovery" in text:
    print("f|7|100|100|0|||1" if "10.0.0.21" in host else "f|9|1|1|0|||1")
elif "pg_stat_replication" in text:
    print(1)
sys.exit(1 if words[0] == "test" else 0)
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "ssh"
    (folder / "bin").mkdir(parents=True)
    file = folder / "bin" / "ssh"
    file.write_text(_SSH.replace("{python}", sys.executable))
    file.chmod(0o755)
    monkeypatch.setenv("FAKE_SSH", str(folder))
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    source = tmp_path / "source"
    source.mkdir()
    hosts = FIVE.replace("fd00::22", "10.0.0.22")
    (source / "deploy.toml").write_text(deployed(MORE) + hosts)
    author = ("-c", "user.name=x", "-c", "user.email=x@example.test")
    for words in (["init", "-q"], ["add", "deploy.toml"], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", source, *words], check=True)
    given = ["--settings", str(source / "deploy.toml"), "--secrets", str(source / "secrets")]
    assert main(["secrets", *given]) == 0
    return folder


def _asked(ssh: Path) -> list[str]:
    return (ssh / "asked").read_text().splitlines()


def test_up_goes_through_all_hosts_and_makes_the_standby(
    ssh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", str(tmp_path / "source"), "--version", "7", "--plan"]) == 0
    assert not [line for line in _asked(ssh) if "apply" in line or "tar" in line]
    capsys.readouterr()
    assert main(["up", str(tmp_path / "source"), "--version", "7"]) == 0
    said = capsys.readouterr().out.splitlines()
    applied = [line.partition(": ")[0] for line in said if ": apply: " in line]
    assert applied == ["db1", "db2", "store", "web1", "jobs", "web1", "web2"]
    # The copy is made after both servers have their settings, and before the database is changed.
    assert said.index("db2 follows db1") < said.index("web1: apply: change the database, once for all hosts")
    forgotten = [line.split()[0] for line in _asked(ssh) if "rm -rf /run/mks-deploy/" in line]
    assert sorted(forgotten) == [
        f"root@{host.address}" for host in sorted(_HOSTS_OF_SSH, key=lambda h: h.address)
    ]
    # No host gets what it does not read.
    for file in ssh.iterdir():
        if file.name.startswith("root-10.0.0.31") and tarfile.is_tarfile(file):
            with tarfile.open(file) as tar:
                names = set(tar.getnames())
            assert not names & {"secrets/secret_keys", "secrets/database_url"}


_HOSTS_OF_SSH = read_settings(deployed(MORE) + FIVE.replace("fd00::22", "10.0.0.22")).hosts


_GUARDED = "flock --nonblock --conflict-exit-code=75 /run/mks-deploy-knowledge-system.lock"


@pytest.mark.parametrize(
    ("fails", "said", "applied"),
    [
        (
            f"10.0.0.12 {_GUARDED} /opt/knowledge-system/versions/7/venv/bin/pip",
            "root@10.0.0.12: environment:",
            0,
        ),
        ("10.0.0.31 /opt/knowledge-system/versions/7/venv/bin/mks-deploy", "root@10.0.0.31: apply:", 3),
    ],
)
def test_a_host_that_fails_ends_it_and_leaves_no_secret_anywhere(
    fails: str, said: str, applied: int, ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS", fails)
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        assert main(["up", str(ssh.parent / "source"), "--version", "7"]) == 1
    assert said in errors.getvalue()
    assert len([line for line in _asked(ssh) if " apply " in line]) == applied
    assert len([line for line in _asked(ssh) if "rm -rf /run/mks-deploy/" in line]) == len(_HOSTS_OF_SSH)


def test_up_of_one_host_and_of_one_that_is_not_there(
    ssh: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", str(tmp_path / "source"), "--version", "7", "--host", "web2"]) == 0
    assert {line.split()[0] for line in _asked(ssh)} == {"root@10.0.0.12"}
    assert main(["up", str(tmp_path / "source"), "--version", "7", "--host", "web9"]) == 1
    assert "--host must be one of web1, web2" in capsys.readouterr().err
    given = ["--settings", str(tmp_path / "source" / "deploy.toml")]
    assert main(["database", "status", *given]) == 1  # two clusters, none follows
    assert "db1                      primary, at 100" in capsys.readouterr().out
