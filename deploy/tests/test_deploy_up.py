"""``mks-deploy up``: from a source tree to hosts over OpenSSH."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploy_laptop import HOST, Laptop, committed_source, make_version
from deploy_machine import OUTSIDE, PREFIX, Machine
from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.operations.release import ReleaseError
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.setup.up import (
    RemoteFacts,
    SecureShell,
    Target,
    archive,
    plan_hosts,
    plan_up,
    read_remote,
    settings_archive,
    up,
)
from testbed.polling import wait_until
from testbed.services import program, unavailable

SETTINGS = read_settings(deployed())

# --- the plan ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_venv", "is_built", "keys"),
    [
        (False, False, ["bootstrap", "source", "environment", "settings", "apply"]),
        (True, False, ["source", "environment", "settings", "apply"]),
        (True, True, ["settings", "apply"]),
    ],
)
def test_what_a_host_lacks_is_done_in_order(has_venv: bool, is_built: bool, keys: list[str]) -> None:  # noqa: FBT001 - a row
    facts = RemoteFacts(is_root=True, has_venv=has_venv, is_built=is_built)
    steps = plan_up(SETTINGS, facts, version="7", run="a1", issue=False)
    assert [step.key for step in steps] == keys
    assert all(step.what and step.undo for step in steps)
    (last,) = steps[-1].commands
    assert last[:2] == ("/opt/knowledge-system/versions/7/venv/bin/mks-deploy", "apply")
    assert last[-3:] == ("--version", "7", "--no-certificate")


def test_up_goes_as_far_as_a_stage() -> None:
    """On several hosts each has the servers, and the command that restores a backup, before any release."""
    ready = RemoteFacts(is_root=True, has_venv=True, is_built=True)
    (last,) = plan_up(SETTINGS, ready, version="7", run="a1", stage="servers")[-1].commands
    assert last[-2:] == ("--stage", "servers")
    several = read_settings(deployed("[host]\nshared_uploads = true\n") + SEVERAL)
    targets = [Target(SecureShell(name), several.on(name), ready) for name in ("first", "second", "third")]
    steps = plan_hosts(targets, version="7", run="a1", stage="servers")
    applied = [(target.shell.host, step.commands[0][-2:]) for target, step in steps if step.key == "apply"]
    assert applied == [(host, ("--stage", "servers")) for host in ("third", "first", "second")]


SEVERAL = """
[[hosts]]
name = "first"
address = "10.0.0.1"
roles = ["edge", "web", "redis", "cache"]
[[hosts]]
name = "second"
address = "10.0.0.2"
roles = ["worker"]
[[hosts]]
name = "third"
address = "10.0.0.3"
roles = ["database"]
"""


def test_packages_of_the_source_tree_are_installed_where_they_were_sent() -> None:
    facts = RemoteFacts(is_root=True, has_venv=True, is_built=False)
    environment = plan_up(SETTINGS, facts, version="7", run="a1")[1]
    assert environment.commands[2][-4:] == tuple(
        f"/opt/knowledge-system/versions/7{place}"
        for place in ("", "/./check", "/./deploy", "/./examples/knowledge_system")
    )
    # The mark comes last: a folder that is half made is made again.
    assert environment.commands[-1] == ("touch", "/opt/knowledge-system/versions/7/.built")


def test_the_folder_of_a_version_is_completed_without_a_secret() -> None:
    text = (
        '[app]\nbuild = [["python", "manage.py", "collectstatic", "--noinput"]]\n[variables]\nDEBUG = "0"\n'
    )
    settings = read_settings(deployed(text, '[secrets]\nSECRET_KEY = "variable"\nTOKEN = "file"'))
    facts = RemoteFacts(is_root=True, has_venv=True, is_built=False)
    folder = "/opt/knowledge-system/versions/7"
    *_, build, mark = plan_up(settings, facts, version="7", run="a1")[1].commands
    assert build == (
        "env",
        f"--chdir={folder}",
        "DEBUG=0",
        "SECRET_KEY=only-for-the-build",
        f"{folder}/venv/bin/python",
        "manage.py",
        "collectstatic",
        "--noinput",
    )
    assert mark[0] == "touch"


def build_values(*texts: str, secrets: str) -> dict[str, str]:
    """What stands in place of the secrets while the folder of a version is completed."""
    settings = read_settings(
        deployed('[app]\nbuild = [["python", "manage.py"]]\n', f"[secrets]\n{secrets}", *texts)
    )
    facts = RemoteFacts(is_root=True, has_venv=True, is_built=False)
    build = plan_up(settings, facts, version="7", run="a1")[1].commands[-2]
    return dict(word.split("=", 1) for word in build[2:] if "=" in word)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"])
def test_the_build_gets_addresses_that_parse(scheme: str) -> None:
    import dj_database_url
    import environ
    import redis
    import sentry_sdk.utils
    from kombu.utils.url import parse_url
    from pydantic import PostgresDsn, RedisDsn, TypeAdapter
    from sqlalchemy import make_url
    from sqlalchemy.ext.asyncio import create_async_engine

    rows = """
DATABASE_URL = "variable"
REDIS_URL = {as = "variable", from = "redis_url"}
CACHE_URL = {as = "variable", from = "cache_url"}
CELERY_BROKER_URL = {as = "variable", from = "celery_broker_url"}
APP_SENTRY_DSN = "variable"
API_KEY = "variable"
"""
    values = build_values(f'[stores]\ndatabase_scheme = "{scheme}"\n', secrets=rows)
    database = values["DATABASE_URL"]
    assert TypeAdapter(PostgresDsn).validate_python(database).scheme == scheme
    if "+" in scheme:
        assert create_async_engine(database).url.host == "127.0.0.1"
    else:
        assert make_url(database).host == "127.0.0.1"
        assert dj_database_url.parse(database)["ENGINE"] == "django.db.backends.postgresql"
        assert environ.Env.db_url_config(database)["ENGINE"] == "django.db.backends.postgresql"
    for name in ("REDIS_URL", "CACHE_URL", "CELERY_BROKER_URL"):
        assert TypeAdapter(RedisDsn).validate_python(values[name]).host == "127.0.0.1"
        assert redis.Redis.from_url(values[name]).connection_pool.connection_kwargs["db"] == 0
        assert parse_url(values[name])["transport"] == "redis"
    assert sentry_sdk.utils.Dsn(values["APP_SENTRY_DSN"]).project_id
    assert values["API_KEY"] == "only-for-the-build"
    # No build reaches a server of the host: no one listens at this port.
    assert all(":1/" in value for name, value in values.items() if name != "API_KEY")


def test_only_root_can_set_up_a_host() -> None:
    with pytest.raises(ReleaseError, match="must lead to root"):
        plan_up(SETTINGS, RemoteFacts(is_root=False, has_venv=True, is_built=True), version="1", run="a1")


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=sh", "", "a b", "root@", "a;b", "root@-x", "$(x)", "a\nb", "@h"]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ReleaseError, match="--host must be a name or an address"):
        SecureShell(host)


@pytest.mark.parametrize(
    "host", ["server", "root@server.example.jp", "root@192.0.2.1", "root@[2001:db8::1]", "h1"]
)
def test_what_is_a_host_is_taken(host: str) -> None:
    assert SecureShell(host).host == host


class FakeHost:
    """Records what ssh was asked for; a program that is named fails."""

    def __init__(self, fails: str = "", code: int = 3) -> None:
        self.fails, self.code = fails, code
        self.asked: list[tuple[list[str], bytes]] = []

    def __call__(self, words: Sequence[str], sends: bytes, shown: bool) -> tuple[int, str]:  # noqa: FBT001 - as called
        remote = shlex.split(words[-1])
        self.asked.append((remote, sends))
        return (self.code if self.fails and self.fails in remote else 0), "0\n"


def test_a_connection_that_is_cut_does_not_last_for_hours() -> None:
    asked = list[str]()

    def run(words: Sequence[str], sends: bytes, shown: bool) -> tuple[int, str]:  # noqa: FBT001 - as called
        asked.extend(words)
        return 0, ""

    SecureShell("root@server", run=run).run(["true"])
    assert {"ServerAliveInterval=10", "ServerAliveCountMax=3"} <= set(asked)


def test_words_reach_the_host_as_they_are() -> None:
    fake = FakeHost()
    shell = SecureShell("root@server", run=fake)
    shell.run(["printf", "a b", "$HOME", "';x"], sends=b"content")
    assert fake.asked == [(["printf", "a b", "$HOME", "';x"], b"content")]
    assert read_remote(shell, SETTINGS, "1") == RemoteFacts(is_root=True, has_venv=True, is_built=True)


@pytest.mark.parametrize(
    ("fails", "code", "reason"),
    [
        ("apply", 1, r"root@server: apply: .*mks-deploy apply .* ended with 1"),
        ("venv", 2, r"root@server: environment: python3 -m venv .* ended with 2"),
        ("venv", 75, r"root@server: locked: another mks-deploy up or apply works on this host"),
        ("tar", 255, "root@server: ssh cannot reach it, or was cut off; repeat"),
    ],
)
def test_a_failure_ends_the_steps_and_leaves_no_secret_behind(fails: str, code: int, reason: str) -> None:
    fake = FakeHost(fails, code)
    steps = plan_up(SETTINGS, RemoteFacts(is_root=True, has_venv=True, is_built=False), version="1", run="a1")
    contents: Any = {"source": b"tree", "settings": b"secret"}
    with pytest.raises(ReleaseError, match=reason):
        list(up(SecureShell("root@server", run=fake), steps, contents=contents))
    assert fake.asked[-1][0] == ["rm", "-rf", "/run/mks-deploy/knowledge-system/a1"]
    sent = [content for words, content in fake.asked if content and "tar" in words]
    assert sent == [b"tree", *([b"secret"] if fails == "apply" else [])]


def test_secrets_travel_readable_by_their_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("s")
    with tarfile.open(fileobj=io.BytesIO(settings_archive("[site]\n", tmp_path))) as tar:
        assert {member.name: member.mode for member in tar} == {
            "deploy.toml": 0o600,
            "secrets/secret_key": 0o600,
        }


def test_a_source_tree_must_be_committed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deploy.toml").write_text(deployed())
    words = ["--settings", str(tmp_path / "deploy.toml"), "--secrets", str(tmp_path / "secrets")]
    assert main(["secrets", *words]) == 0
    assert main(["up", "--host", "root@192.0.2.1", str(tmp_path)]) == 1
    assert "must be a git repository with a commit" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["secrets", "deploy/secrets"])
def test_secrets_that_are_committed_are_not_sent(
    tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    (tmp_path / "deploy.toml").write_text(deployed())
    place = ["--secrets", str(tmp_path / where)]
    assert main(["secrets", "--settings", str(tmp_path / "deploy.toml"), *place]) == 0
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    with pytest.raises(ReleaseError, match=f"^{where} is committed, .* git rm -r --cached {where}"):
        archive(tmp_path, tmp_path / where)
    assert main(["up", "--host", "root@192.0.2.1", *place, str(tmp_path)]) == 1
    assert f"{where} is committed" in capsys.readouterr().err
    for words in (["rm", "-q", "-r", "--cached", where], ["commit", "-q", "-m", "without"]):
        subprocess.run([*git, *words], check=True)
    assert archive(tmp_path, tmp_path / where)


# --- two at once --------------------------------------------------------------------------------

# As ``apply`` does: it holds the lock of the host while it works, and reads the secrets again and again.
APPLY = """#!{python}
import pathlib, sys, time
from mks_deploy.operations.operation_log import Locked, locked
secrets, place = pathlib.Path(sys.argv[sys.argv.index("--secrets") + 1]), pathlib.Path({place!r})
try:
    with locked(pathlib.Path("/run/mks-deploy-knowledge-system.lock"), doing="mks-deploy apply"):
        before = sorted(secrets.iterdir())
        (place / "begun").touch()
        while not (place / "go").exists():
            time.sleep(0.05)
        sys.exit(before == [] or before != sorted(secrets.iterdir()))
except Locked as error:
    sys.exit(str(error))
"""


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[list[str]]:
    """Words that run a program as root with an empty ``/run``."""
    words = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs run /run && echo ready && exec sleep infinity"]
    if os.geteuid() != 0:
        unavailable("a mount namespace", "needs root")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            unavailable("a mount namespace", "needs the right to mount")
        yield ["nsenter", f"--mount=/proc/{process.pid}/ns/mnt", "--"]
        process.kill()


def test_an_up_that_is_refused_leaves_the_secrets_of_the_one_that_runs(
    tmp_path: Path, namespace: list[str]
) -> None:
    """Two processes, with a program in place of ssh."""
    programs = {
        "bin/ssh": f'#!/bin/sh\nfor last; do :; done\nexec {shlex.join(namespace)} sh -c "$last"\n',
        "bin/python3": "#!/bin/sh\n",  # it can make virtual environments
        "releases/versions/1/venv/bin/mks-deploy": APPLY.format(python=sys.executable, place=str(tmp_path)),
    }
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "releases/versions/1/.built").touch()
    source = tmp_path / "source"
    source.mkdir()
    (source / "deploy.toml").write_text(deployed(f'[paths]\nreleases = "{tmp_path}/releases"'))
    git = ["git", "-C", str(source), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    given = ["--settings", str(source / "deploy.toml"), "--secrets", str(source / "secrets")]
    assert main(["secrets", *given]) == 0

    def start(version: str) -> subprocess.Popen[str]:
        up_words = [sys.executable, "-m", "mks_deploy", "up", "--host", "server", "--version", version]
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        return subprocess.Popen(
            [*up_words, str(source)],
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with start("1") as running:
        try:
            wait_until((tmp_path / "begun").exists, timeout=60, what="the first one")
            for version, reason in (
                ("1", "locked: mks-deploy apply by root since"),
                ("2", "server: locked: another mks-deploy up or apply works on this host"),
            ):
                with start(version) as refused:
                    said = refused.communicate(timeout=60)[0]
                assert (refused.returncode, reason in said) == (1, True), said
        finally:
            (tmp_path / "go").touch()
            said = running.communicate(timeout=60)[0]
        assert running.returncode == 0, said
    assert not (tmp_path / "releases/versions/2").exists()
    left = subprocess.run(
        [*namespace, "find", "/run/mks-deploy", "-type", "f"], capture_output=True, text=True, check=True
    )
    assert left.stdout == ""


# --- on a machine -----------------------------------------------------------------------------

KEPT = "server: firewall: keep the firewall, because this new connection passed it"


@pytest.fixture
def machine() -> Iterator[Machine]:
    for name in ("logrotate", "nginx", "git", "certbot", "sshd", "ssh"):
        program(name)
    folder = Path(tempfile.mkdtemp(prefix="mksu"))
    made = Machine(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def laptop(machine: Machine, tmp_path: Path) -> Iterator[Laptop]:
    made = Laptop({"127.0.0.1": machine}, tmp_path)
    yield made
    made.stop()


def _firewall_lets_in_what_it_should(machine: Machine) -> None:
    """From another network: ssh and the site, but no other server; and it stays, as ssh came in again."""
    state = machine.show("shop-firewall-undo.timer", "ActiveState")
    assert state == {"ActiveState": "inactive"}
    assert machine.run("systemctl", "is-active", "shop-firewall.service") == "active\n"
    for line in OUTSIDE:
        machine.run(*line.split())
    python = f"{PREFIX}/python/bin/python3"
    listen = "import socket, time; server = socket.create_server(('', 9000)); time.sleep(600)"
    other = machine.background(python, "-c", listen, variables={})
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

    def reaches(port: int) -> bool:
        ask = ("ip", "netns", "exec", "outside", python, "-c", code, "192.0.2.1", port)
        return not machine.run(*ask, check=False)

    try:
        wait_until(lambda: not machine.run(python, "-c", code, "127.0.0.1", 9000, check=False), timeout=30)
        assert reaches(443)
        assert reaches(80)
        assert not reaches(9000)
        machine.run("systemctl", "stop", "shop-firewall.service")
        assert reaches(9000)
        machine.run("systemctl", "start", "shop-firewall.service")
        assert not reaches(9000)
    finally:
        other.kill()
        other.wait(10)


def _two_at_once(laptop: Laptop, machine: Machine, *words: str) -> None:
    """The second one is refused, and the first one goes on with the secrets that it sent."""
    make_version(machine, "2")
    lock = machine.path("/run/mks-deploy-shop.lock")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(laptop.up, *words, "2")
        wait_until(lambda: lock.read_text().startswith("mks-deploy apply"), timeout=120, what="apply")
        code, said = laptop.up(*words, "2")
        assert (code, "locked: mks-deploy apply by root since" in said) == (1, True), said
        code, said = first.result()
    assert code == 0, said
    assert "2 is in slot" in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_laptop_brings_a_site_to_a_host(
    machine: Machine, laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = committed_source(tmp_path, monkeypatch)
    words = ("--host", "server", str(source), "--version", "1")
    # A bare Debian: its Python has no ensurepip until python3-venv is installed.
    where = machine.run("/usr/bin/python3", "-c", "import ensurepip; print(*ensurepip.__path__)").strip()
    machine.run("mv", where, f"{where}.aside")
    code, said = laptop.up(*words, "--plan")
    assert (code, "server: bootstrap: " in said, "Traceback" in said) == (0, True, False), said
    machine.run("mv", f"{where}.aside", where)
    code, said = laptop.up(*words, "--plan")
    assert code == 0, said
    assert "server: source: send the source tree to /opt/shop/versions/1" in said
    assert not machine.path("/opt/shop").exists()
    make_version(machine, "1")
    # The laptop is closed in the middle.
    lock = machine.path("/run/mks-deploy-shop.lock")
    applies = lambda: lock.exists() and lock.read_text().startswith("mks-deploy apply")  # noqa: E731 - in place
    laptop.close_during_up(*words, when=applies)
    left = sorted(machine.path("/run/mks-deploy/shop").glob("*"))  # for a day, as its work may go on
    code, said = laptop.up(*words)
    while code == 1 and "locked: " in said:
        # What was begun on the host goes on for a while; two at once are refused.
        time.sleep(2)
        code, said = laptop.up(*words)
    assert code == 0, said + machine.journal("shop@blue.service")
    assert said.splitlines()[-2:] == ["nothing remains to be done", KEPT]
    ask = ["curl", "-sk", "--max-time", "60", "--resolve", f"{HOST}:443:127.0.0.1", f"https://{HOST}/who"]
    assert machine.run(*ask) == "127.0.0.1 https"
    _firewall_lets_in_what_it_should(machine)
    code, said = laptop.up(*words)
    assert code == 0, said
    assert said.splitlines()[-2:] == ["nothing remains to be done", KEPT]
    assert "release" not in said
    # A version whose build fails goes with the next release.
    make_version(machine, "broken")
    machine.write("/opt/shop/versions/broken/venv/bin/pip", "#!/bin/sh\nexit 9\n", mode=0o755)
    code, said = laptop.up(*words[:-1], "broken")
    assert (code, "environment: " in said) == (1, True), said
    assert "not built" in machine.run("mks-deploy", "versions", "list")
    _two_at_once(laptop, machine, *words[:-1])
    assert not machine.path("/opt/shop/versions/broken").exists()
    assert sorted(machine.path("/run/mks-deploy/shop").iterdir()) == left
    # What is not committed is not deployed, and the secrets are nobody's but root's.
    assert not machine.path("/opt/shop/versions/1/secrets").exists()
    secret = machine.path("/etc/shop/credentials/secret_key")
    assert (secret.stat().st_mode & 0o777, secret.stat().st_uid) == (0o600, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_reason_of_a_failure_is_printed_on_the_laptop(
    machine: Machine, laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration, then a start that fails; the application prints its secret, which nobody is shown."""
    source = committed_source(tmp_path, monkeypatch)
    settings = source / "deploy.toml"
    text = settings.read_text("utf-8")
    settings.write_text(deployed('[app]\nmigrate = ["python", "migrate.py"]', base=text), "utf-8")
    fails = "import os\nraise RuntimeError('there is no column price, ' + os.environ['SECRET_KEY'])\n"

    def refused(version: str, file: str, unit: str) -> str:
        (source / file).write_text(fails)
        author = ("-c", "user.name=x", "-c", "user.email=x@example.test")
        for words in (["add", file], [*author, "commit", "-qm", "x"]):
            subprocess.run(["git", "-C", source, *words], check=True)
        make_version(machine, version)
        code, said = laptop.up("--host", "server", str(source), "--version", version)
        secret = (source / "secrets" / "secret_key").read_text().strip()
        assert secret in machine.journal(unit, lines=1000)
        assert (code, secret in said) == (1, False), said
        assert "RuntimeError: there is no column price, [REDACTED]" in said, said
        return said

    said = refused("1", "migrate.py", "shop-migrate@1.service")
    assert "failed: systemctl start shop-migrate@1.service" in said
    settings.write_text(text, "utf-8")
    said = refused("2", "guestbook.py", "shop@blue.service")
    assert "slot blue was not ready within 60 s: /healthz did not respond" in said


# --- on two machines --------------------------------------------------------------------------

WEB, DATABASE = "10.77.0.11", "10.77.0.21"
HOSTS = f"""
[[hosts]]
name = "web"
address = "{WEB}"
roles = ["edge", "web", "worker", "redis", "cache"]
[[hosts]]
name = "db"
address = "{DATABASE}"
roles = ["database"]
"""


@pytest.fixture
def two() -> Iterator[tuple[Machine, Machine]]:
    """Two machines, each with its own systemd and network; the second one has an empty PostgreSQL."""
    for name in ("logrotate", "nginx", "git", "sshd", "ssh", "redis-server", "postgres", "nft", "curl"):
        program(name)
    folders = [Path(tempfile.mkdtemp(prefix="mksu")) for _ in range(2)]
    web, database = machines = [Machine(folder) for folder in folders]
    try:
        for machine in machines:
            machine.start()
            version = Path(program("postgres")).resolve().parents[1].name
            machine.run("pg_dropcluster", version, "main", check=False)
        database.run("pg_createcluster", version, "main", "--port", "5432")
        web.connect(database, address=WEB, others=DATABASE)
        yield web, database
    finally:
        for machine, folder in zip(machines, folders, strict=True):
            machine.stop()
            shutil.rmtree(folder, ignore_errors=True)


def _ask(machine: Machine, path: str, *more: str) -> str:
    """Ask the site from a machine, over the network."""
    words = ["curl", "-sk", "--max-time", "60", "--resolve", f"{HOST}:443:{WEB}", *more]
    return machine.run(*words, f"https://{HOST}{path}")


def _applied(said: str) -> list[str]:
    """Return the hosts on which ``apply`` was begun, in order."""
    return re.findall(r"(?m)^(\w+): apply: ", said)


def _is_encrypted_between(web: Machine) -> None:
    url = web.path("/etc/shop/credentials/database_url").read_text().strip()
    ask = ("psql", "-XAtq", "-c", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert web.run(*ask, url).endswith("t\n")
    assert "no encryption" in web.run(*ask, url.replace("verify-full", "disable"), check=False)
    assert "certificate" in web.run(
        *ask, url.replace("/etc/shop/stores.pem", "/etc/ssl/none.pem"), check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_laptop_brings_a_site_to_two_hosts(
    two: tuple[Machine, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web, database = two
    source = committed_source(tmp_path, monkeypatch, "flask_jobs", hosts=HOSTS)
    laptop = Laptop({WEB: web, DATABASE: database}, tmp_path)
    try:
        _two_hosts(laptop, web, database, source)
    finally:
        laptop.stop()


def _two_hosts(laptop: Laptop, web: Machine, database: Machine, source: Path) -> None:
    for machine in (web, database):
        make_version(machine, "1")
    # The second host cannot build the version: neither has been changed.
    database.write("/opt/shop/versions/1/venv/bin/pip", "#!/bin/sh\nexit 9\n", mode=0o755)
    code, said = laptop.up(str(source), "--version", "1")
    assert (code, "root@10.77.0.21: environment: " in said, _applied(said)) == (1, True, []), said
    for machine in (web, database):
        assert not machine.path("/etc/shop").exists()
        assert not list(machine.path("/run/mks-deploy/shop").glob("*"))
    database.write("/opt/shop/versions/1/venv/bin/pip", "#!/bin/sh\n", mode=0o755)
    code, said = laptop.up(str(source), "--version", "1")
    assert code == 0, said + web.journal("shop@blue.service") + database.journal()
    # First the servers, then the change of the database, then the application.
    assert _applied(said) == ["db", "web", "web", "web"]
    assert said.index("accounts: ") < said.index("migration: ") < said.index("release: ")
    _is_encrypted_between(web)
    # From the other host, through the firewall of the edge, which admits nothing else from there.
    assert _ask(database, "/jobs", "-d", "text=21") == "taken"
    wait_until(lambda: _ask(database, "/jobs/21") == "42", timeout=60, what="the task")
    code = "import socket; socket.create_connection(('10.77.0.11', 6379), 3)"
    assert "Error" in database.run(f"{PREFIX}/python/bin/python3", "-c", code, check=False)
    # A second run changes nothing.
    exit_code, said = laptop.up(str(source), "--version", "1")
    assert exit_code == 0, said
    steps = [line.split(": ")[1] for line in said.splitlines() if ": " in line and str(source) not in line]
    assert set(steps) == {"settings", "apply", "firewall"}
    assert said.count("nothing remains to be done") == 4
    _a_release_that_fails_on_one_host(laptop, web, database, source)
    for machine in (web, database):
        units = machine.run("systemctl", "list-units", "--failed", "--no-legend", "--no-pager", "--plain")
        assert units == ""
    # What was sent before the network was cut goes after a day.
    sent = [len(list(machine.path("/run/mks-deploy/shop").glob("*"))) for machine in (web, database)]
    assert sent == [0, 1]


def _cut_once_begun(web: Machine, database: Machine) -> None:
    wait_until(database.path("/run/begun").exists, timeout=300, what="the host's work")
    web.run("ip", "link", "set", "cable", "down")


def _a_release_that_fails_on_one_host(laptop: Laptop, web: Machine, database: Machine, source: Path) -> None:
    """The version before serves, whichever host it is; the same command completes the release."""
    for machine in (web, database):
        make_version(machine, "2")
    command = "/opt/shop/versions/2/venv/bin/mks-deploy"
    upstream = web.path("/etc/nginx/shop/upstream.conf")
    before = upstream.read_text()
    whole = web.path(command).read_text()

    def fails(reason: str, applied: list[str]) -> None:
        code, said = laptop.up(str(source), "--version", "2")
        assert (code, reason in said, _applied(said)) == (1, True, applied), said
        assert upstream.read_text() == before

    # The network is cut while the host works: ssh says so, and does not wait for hours.
    database.write(command, "#!/bin/sh\necho $$ >/run/begun\nexec sleep 600\n", mode=0o755)
    cut = threading.Thread(target=_cut_once_begun, args=(web, database))
    cut.start()
    fails(f"root@{DATABASE}: ssh cannot reach it, or was cut off; repeat the same command", ["db"])
    cut.join()
    web.run("ip", "link", "set", "cable", "up")
    database.run("kill", database.path("/run/begun").read_text().strip())
    database.write(command, whole, mode=0o755)
    assert _ask(database, "/jobs/21") == "42"
    web.write(command, "#!/bin/sh\nexit 9\n", mode=0o755)
    fails(f"root@{WEB}: apply: ", ["db", "web"])
    web.write(command, whole, mode=0o755)
    assert _ask(database, "/jobs/21") == "42"
    code, said = laptop.up(str(source), "--version", "2")
    assert code == 0, said
    assert "* green  2 " in web.run("mks-deploy", "status")
    assert _ask(database, "/jobs/21") == "42"
