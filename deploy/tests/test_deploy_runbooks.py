"""Runbooks and the page on deploying: every alert has a section, and every command is typed on a booted host."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_acme import ON_MACHINE, start_on
from deploy_host import Host
from deploy_laptop import Laptop, make_version
from deploy_machine import PREFIX, Machine
from deploy_settings import deployed
from mks_deploy import cli
from mks_deploy.alerts import alerts_of
from mks_deploy.operations import host_steps as operations
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import make_missing
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.versions import Installed
from testbed.polling import wait_until
from testbed.services import POSTGRES_17, program, unavailable

DOCS = Path(__file__).parents[2] / "docs" / "en"
RUNBOOKS, INSTALLATION = DOCS / "how-to/runbooks/index.md", DOCS / "how-to/deploy.md"
SETTINGS = read_settings(deployed())
UNITS = {Path(file.path).name for file in render(SETTINGS, Installed()) if "/systemd/" in file.path}
UNITS |= {"nginx.service", "postgresql.service", "redis-server.service", "redis-server@cache.service"}
UNITS |= {"prometheus.service", "prometheus-alertmanager.service", "prometheus-node-exporter.service"}

pytestmark = pytest.mark.skipif(not RUNBOOKS.exists(), reason="the documentation is not part of the wheel")


def sections(text: str = "") -> dict[str, str]:
    """Anchor and text of each runbook."""
    page = text or (RUNBOOKS.read_text("utf-8") if RUNBOOKS.exists() else "")
    parts = re.split(r"(?m)^\(([\w-]+)\)=$", page)
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


# --- the commands, typed on a site of another name ---------------------------------------------

SITE, HOST, DATABASE = "shop", "shop.example.test", "orders"
CHANGED = f"""
[site]
name = "{SITE}"
hosts = ["{HOST}"]
[edge]
ipv6 = false
[stores]
database_name = "{DATABASE}"
[tls]
directory = "{ON_MACHINE}"
rehearsal_directory = "{ON_MACHINE}"
[upkeep]
disk_free_percent = 1
smtp_host = "localhost"
smtp_port = 2525
"""
"""How full this machine is says nothing about the commands."""

_HAS_NEWER = (POSTGRES_17 / "usr/lib/postgresql/17/bin/psql").exists()
NEWER = "17" if _HAS_NEWER and not Path("/usr/lib/postgresql/17").exists() else ""
"""A PostgreSQL beside the one of the system."""
NOT_TYPED = set[str]() if NEWER else {"pg_dropcluster --stop 18 main", "pg_upgradecluster 17 main"}
"""An upgrade needs a second version of PostgreSQL. Everything else on the page is typed."""
# What the page asks to change before `mks-deploy up`, and where it is seen on the host.
CHANGES = {
    "runbook-redis": ('[stores]\nredis_memory = "300m"', f"/etc/{SITE}/redis.conf", "300mb"),
    "runbook-limits": ("[edge]\nburst = 777", "/etc/nginx/sites-enabled/shop.conf", "burst=777"),
    "runbook-cache": ('[stores]\nredis_cache_memory = "70m"', "/etc/redis/redis-cache.conf", "70mb"),
}
ANSWERS = {"systemctl status": {0, 3}}
"""Exit codes that are an answer: 3 stands for a unit that does not run, here the slot without a version."""

_SERVERS = {
    "mail": """
import asyncio, pathlib
from mks_deploy.operations.mail_sink import MailSink
asyncio.run(MailSink(pathlib.Path("/root/mails")).serve(2525))
""",
    "alerts": f"""
import os
os.execv("/usr/bin/prometheus-alertmanager", ["prometheus-alertmanager",
    "--config.file=/usr/share/{SITE}/alertmanager.yml", "--storage.path=/run/alerts",
    "--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="])
""",
}


class Operator:
    """Somebody with a laptop and a host, who types what the runbooks say.

    Args:
        folder: a new folder for the source tree and the secrets.
    """

    def __init__(self, folder: Path) -> None:
        self.source, self._folder = folder / "source", folder
        self.version = Path(program("postgres")).resolve().parents[1].name
        self._ends = contextlib.ExitStack()
        self._commits = list[str]()
        self.machine, self._laptop = self._new_host("old")
        self._make_source()

    def stop(self) -> None:
        self._ends.close()

    def move(self) -> None:
        """Give up the host; what is typed from now on reaches an empty one of the same name."""
        for name in ("", "-keys"):
            shutil.copytree(self.machine.path(f"/var/backups/{SITE}{name}"), self._folder / f"copy{name}")
        self._ends.close()
        self.machine, self._laptop = self._new_host("new")
        for commit in self._commits:
            make_version(self.machine, commit)

    def copy_backups(self) -> None:
        for name in ("", "-keys"):
            there = self.machine.path(f"/var/backups/{SITE}{name}")
            shutil.copytree(self._folder / f"copy{name}", there, dirs_exist_ok=True)

    def _new_host(self, name: str) -> tuple[Machine, Laptop]:
        """A host with an empty PostgreSQL, a provider of certificates, a mail server and an Alertmanager."""
        place, here = Path(tempfile.mkdtemp(prefix="mksr")), self._folder / name
        self._ends.callback(shutil.rmtree, place, ignore_errors=True)
        here.mkdir()
        machine = Machine(place)
        self._ends.callback(machine.stop)
        machine.start()
        laptop = Laptop({"127.0.0.1": machine}, here)
        self._ends.callback(laptop.stop)
        machine.run(
            "pg_dropcluster", Path(program("postgres")).resolve().parents[1].name, "main", check=False
        )
        if self.version == NEWER:
            install_newer(machine)
        else:
            machine.run("pg_createcluster", self.version, "main")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", "postgresql.service")
        for server in start_on(machine):
            self._ends.callback(server.wait, 10)
            self._ends.callback(server.kill)
        return machine, laptop

    def start_server(self, name: str) -> None:
        """Start one that the kit does not bring."""
        path = (
            f"{PREFIX}/sources/deploy/src:{PREFIX}/sources/check/src:{PREFIX}/sources/src:{PREFIX}/packages"
        )
        words = (f"{PREFIX}/python/bin/python3", "-c", _SERVERS[name])
        server = self.machine.background(*words, variables={"PYTHONPATH": path})
        self._ends.callback(server.wait, 10)
        self._ends.callback(server.kill)

    def _make_source(self) -> None:
        (self.source / "requirements").mkdir(parents=True)
        (self.source / "requirements/demo.txt").touch()
        (self.source / "deploy.toml").write_text(deployed(CHANGED))
        (self.source / ".gitignore").write_text("secrets\n")
        words = ["--settings", str(self.source / "deploy.toml"), "--secrets", str(self.source / "secrets")]
        assert cli.main(["secrets", *words]) == 0
        self._git("init", "-q")

    def release(self) -> None:
        """Commit, and bring the commit to the host."""
        self._git("add", ".")
        self._git("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "x")
        self._commits.append(self._git("rev-parse", "--short=12", "HEAD").strip())
        make_version(self.machine, self._commits[-1])
        self.type(f"mks-deploy up --host root@{HOST}")

    def _git(self, *words: str) -> str:
        return subprocess.run(
            ["git", "-C", self.source, *words], check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    def type(self, line: str, *, refused: bool = False) -> str:
        """Type a line, on the laptop or on the host; return what it said."""
        if line.startswith("mks-deploy up "):
            what, *words = shlex.split(line)[1:]
            code, said = self._laptop.run(what, *words, folder=self.source)
        else:
            for there, here in self._names().items():
                line = re.sub(there, here, line)
            words = ["sh", "-c", f'cd /root; {line}\necho "exit $?"']
            said, _, last = self.machine.run(*words).rpartition("exit ")
            code = int(last)
        allowed = {1} if refused else ANSWERS.get(" ".join(line.split()[:2]), {0})
        if code not in allowed:
            raise AssertionError(f"{line}: {code}\n{said}\n{self.machine.journal()}")
        return said

    def _names(self) -> dict[str, str]:
        """What the page cannot know: the version of PostgreSQL of this machine, and when backups were made."""
        folder = self.machine.path(f"/var/backups/{SITE}")
        bases = sorted(self.machine.path(f"/var/backups/{SITE}-wal").glob("base-*"))
        names = {r"\b17\b": self.version, r"\b18\b": NEWER}
        names |= {"base-20261123T023000Z": bases[-1].name} if bases else {}
        return names | {"20261126T023000Z": self.newest} if folder.exists() else names

    @property
    def newest(self) -> str:
        """The name of the newest backup."""
        return max(path.parent.name for path in self.machine.path(f"/var/backups/{SITE}").glob("2*/complete"))

    def sql(self, query: str, database: str = DATABASE) -> str:
        words = ("runuser", "-u", SITE, "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database)
        return self.machine.run("env", "--chdir=/", *words, "-c", query).strip()

    def ask(self, path: str) -> str:
        """The status with which nginx responds."""
        words = ("curl", "-sk", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}")
        return self.machine.run(*words, "--resolve", f"{HOST}:443:127.0.0.1", f"https://{HOST}{path}")

    def uploads(self) -> set[str]:
        folder = self.machine.path(f"/var/lib/{SITE}/uploads")
        return {path.name for path in folder.iterdir() if path.name in {"kept", "later"}}


def install_newer(machine: Machine) -> None:
    """What its package does."""
    packages = (f"postgresql-{NEWER}", f"postgresql-client-{NEWER}")
    machine.run("apt-get", "install", "-q", "-y", "--no-install-recommends", *packages)
    for part in ("lib", "share"):
        machine.run("ln", "-s", POSTGRES_17 / f"usr/{part}/postgresql/{NEWER}", f"/usr/{part}/postgresql/")
    machine.run("pg_createcluster", NEWER, "main")


def renamed() -> dict[str, str]:
    """The runbooks of the site, as the page says how to make them."""
    page = RUNBOOKS.read_text("utf-8")
    found = re.search(r"`(sed -e [^`]*) docs/en/\S+`", page)
    assert found is not None
    words = shlex.split(found[1])
    for name, ours in (("NAME", SITE), ("HOST", HOST), ("DATABASE", DATABASE)):
        words = [re.sub(rf"\b{name}\b", ours, word) for word in words]
    made = subprocess.run([*words, RUNBOOKS], check=True, stdout=subprocess.PIPE, text=True).stdout
    return sections(made)


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    wanted = ("certbot", "pebble", "logrotate", "nginx", "redis-server", "postgres", "git", "sshd", "ssh")
    for name in (*wanted, "prometheus-alertmanager", "amtool"):
        program(name)
    operator = Operator(tmp_path)
    try:
        yield operator
    finally:
        operator.stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_every_runbook_does_what_it_says_on_a_site_of_another_name(
    operator: Operator,
) -> None:
    """Also a restore that is refused, which leaves the site as it was, and the move to an empty machine."""
    runbooks = renamed()
    typed = {line for text in runbooks.values() for line in commands(text)}
    assert typed >= NOT_TYPED
    operator.start_server("mail")
    operator.release()
    operator.start_server("alerts")
    operator.release()
    _fill(operator)
    special = {
        "runbook-spool": _test_alert_arrives,
        "runbook-restore": _backup_is_restored,
        "runbook-moment": _moment_comes_back,
        "runbook-upgrade": _cluster_is_upgraded,
        "runbook-keys": _keys_are_rotated,
        "runbook-move": _site_moves,
    }
    changed = [CHANGED]
    for name, text in runbooks.items():
        change, file, seen = CHANGES.get(name, ("", "", ""))
        changed.append(change)
        (operator.source / "deploy.toml").write_text(deployed(*changed))
        run = special.get(name, _is_typed)
        run(operator, commands(text))
        assert not file or seen in operator.machine.path(file).read_text()
        assert operator.ask("/readyz") == "200", name


def _is_typed(operator: Operator, lines: list[str]) -> None:
    for line in lines:
        if line not in NOT_TYPED:
            operator.type(line)


def _fill(operator: Operator) -> None:
    """A user, a table, a file, a request that was refused, and the backups of a host in the middle of its life."""
    password = "echo long-enough-for-a-password"
    operator.type(f"{password} | mks-deploy app knowledge-system create-admin tanaka --name 田中")
    operator.sql("CREATE TABLE marks (mark text); INSERT INTO marks VALUES ('kept')")
    operator.type(f"runuser -u {SITE} -- touch /var/lib/{SITE}/uploads/kept")
    operator.type(f"echo '{{\"status\":429}}' >> /var/log/nginx/{SITE}.access.log")
    operator.type(f"systemctl start {SITE}-backup.service {SITE}-base.service")


def _test_alert_arrives(operator: Operator, lines: list[str]) -> None:
    mails = operator.machine.path("/root/mails")
    before = len(list(mails.glob("*")))
    _is_typed(operator, lines)
    assert len(list(mails.glob("*"))) == before + 1


def _backup_is_restored(operator: Operator, lines: list[str]) -> None:
    operator.type(f"systemctl start {SITE}-backup.service")
    operator.sql("UPDATE marks SET mark = 'later'")
    operator.type(f"cd /var/lib/{SITE}/uploads && mv kept later")
    good, folder = operator.newest, f"/var/backups/{SITE}"
    operator.type(f"cp -a {folder}/{good} {folder}/20260101T000000Z")
    operator.type(f"echo >> {folder}/20260101T000000Z/uploads.tar.gz")
    for line in lines:
        damaged = line.replace("20261126T023000Z", "20260101T000000Z")
        said = operator.type(damaged, refused=damaged != line)
        assert damaged == line or "is damaged: its checksum differs" in said
    assert operator.sql("SELECT mark FROM marks") == "later"
    assert operator.uploads() == {"later"}
    assert operator.ask("/sign-in") == "200"
    said = "".join(operator.type(line) for line in lines)
    assert operator.sql("SELECT mark FROM marks") == "kept"
    assert operator.uploads() == {"kept"}
    former = re.search(rf"kept: database (\S+) and (/var/lib/{SITE}/\S+);", said)
    assert former is not None, said
    assert operator.sql("SELECT mark FROM marks", former[1]) == "later"
    assert (operator.machine.path(former[2]) / "later").exists()
    assert operator.machine.show(f"{SITE}-worker.service", "ActiveState") == {"ActiveState": "active"}
    operator.type(f"rm -r {folder}/20260101T000000Z")


def _moment_comes_back(operator: Operator, lines: list[str]) -> None:
    operator.type(f"systemctl start {SITE}-base.service")
    operator.sql("UPDATE marks SET mark = 'deleted'")
    moment = operator.sql("SELECT clock_timestamp()")
    operator.sql("DELETE FROM marks")
    (text,) = re.findall(r"```\n(restore_command.*?)```", renamed()["runbook-moment"], re.DOTALL)
    operator.machine.write("/root/recovery.conf", re.sub(r"(?<=time = ').*(?=')", moment, text))
    segment = operator.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    for line in lines:
        said = operator.type(line)
        if "pg_switch_wal" in line:
            kept = operator.machine.path(f"/var/backups/{SITE}-wal/{segment}")
            wait_until(kept.exists, timeout=60, what="the segment in the archive")
        if "pg_is_in_recovery" in line:
            wait_until(lambda at=line: " f\n" in operator.type(at), timeout=60, what="the recovery")  # type: ignore[misc]  # bound now
        if line.endswith(" mks-deploy backup"):
            assert said.split()[-1] == f"/var/backups/{SITE}/{operator.newest}"
    (dump,) = operator.machine.path(f"/var/backups/{SITE}/{operator.newest}").glob("*.dump")
    rows = subprocess.run(
        [program("pg_restore"), "--table=marks", "--data-only", "--file=-", dump],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert "\ndeleted\n" in rows.stdout
    _is_typed(operator, commands(renamed()["runbook-restore"]))  # as the page says
    assert operator.sql("UPDATE marks SET mark = 'kept' WHERE mark = 'deleted' RETURNING mark") == "kept"


def _keys_are_rotated(operator: Operator, lines: list[str]) -> None:
    """The new key comes last, then first; the page says when."""
    make, bring, *resolved = lines
    old = (operator.source / "secrets/secret_keys").read_text().strip()
    new = operator.type(make).split()[-1]
    for keys in (f"{old},{new}", f"{new},{old}"):
        (operator.source / "secrets/secret_keys").write_text(f"{keys}\n")
        assert "\nrestart: start version " in operator.type(bring)
        there = operator.machine.path(f"/etc/{SITE}/credentials/secret_keys")
        assert there.read_text().strip() == keys
    _is_typed(operator, resolved)


def _cluster_is_upgraded(operator: Operator, lines: list[str]) -> None:
    if NEWER:
        install_newer(operator.machine)
    _is_typed(operator, lines)
    operator.version = NEWER or operator.version
    assert operator.sql("SHOW server_version").partition(".")[0] == operator.version
    assert operator.sql("SELECT mark FROM marks") == "kept"


def _site_moves(operator: Operator, lines: list[str]) -> None:
    *first, stop_early, owners, restore, release, status, watch = lines
    _is_typed(operator, first)
    operator.move()
    operator.start_server("mail")
    operator.type(stop_early)
    assert not operator.machine.path(f"/opt/{SITE}/slots").exists() or not list(
        operator.machine.path(f"/opt/{SITE}/slots").iterdir()
    )
    operator.copy_backups()
    _is_typed(operator, [owners, restore, release, status, watch])
    assert operator.sql("SELECT mark FROM marks") == "kept"
    assert operator.uploads() == {"kept"}


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
