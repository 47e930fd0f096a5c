"""A standby of the database that takes over: two real clusters, with the rendered settings, accounts and TLS."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from deploy_laptop import HOST, Laptop, committed_source, make_version
from deploy_machine import Machine
from deploy_settings import deployed
from mks_deploy.cli import main
from mks_deploy.cli.database_commands import run_guard
from mks_deploy.operations.database_hosts import DatabaseHosts, account_statements, may_start
from mks_deploy.operations.primary_guard import PrimaryGuard
from mks_deploy.operations.release import ReleaseError
from mks_deploy.operations.server_metrics import read_servers
from mks_deploy.operations.watch import Readings, find_problems
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import make_missing
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import read_settings
from mks_deploy.setup.store_files import store_files
from mks_deploy.versions import Installed
from testbed.polling import wait_until
from testbed.process import ServerProcess
from testbed.services import program, unprivileged

_HOSTS = """
[[hosts]]
name = "web"
address = "127.0.0.1"
roles = ["edge", "web", "worker", "redis", "cache"]
[[hosts]]
name = "db-1"
address = "{one}"
roles = ["database"]
[[hosts]]
name = "db-2"
address = "{two}"
roles = ["standby"]
"""


def _settings(folder: Path = Path("/srv/x"), network: str = "127.77.1") -> Settings:
    paths = "\n".join(f'{key} = "{folder}/{key}"' for key in ("config", "wal"))
    more = f'[host]\nshared_uploads = true\n[paths]\n{paths}\n[stores]\ndatabase_memory = "256m"\n'
    return read_settings(deployed(more) + _HOSTS.format(one=f"{network}.1", two=f"{network}.2"))


# --- what is refused, without a server -----------------------------------------------------------


class FakeServer:
    """A host that says what it is told to."""

    def __init__(
        self, row: str = "", *, cluster: str = "17 main 5432 online postgres /data /log", timeline: int = 1
    ) -> None:
        self.row, self.cluster, self.former, self.control = row, cluster, "", ""
        self.timeline = timeline if row.startswith("f") else 0
        self.asked: list[list[str]] = []

    def run(self, words: Sequence[str], *, sends: bytes = b"", shown: bool = True) -> tuple[int, str]:
        del sends, shown
        self.asked.append(list(words))
        if self.cluster == "unreachable":
            raise ReleaseError("ssh cannot reach it")
        if words[0] == "pg_lsclusters":
            return (28, "") if self.cluster == "full disk" else (0, self.cluster)
        if words[0] == "find":
            return 0, self.former
        if words[0] == "env":
            return 0, self.control
        if "pg_is_in_recovery" in words[-1]:
            return (0, f"{self.row}|{self.timeline}") if self.row else (2, "")
        return 0, "t"

    @property
    def changed(self) -> bool:
        return any(
            words[0] != "pg_lsclusters" and "pg_is_in_recovery" not in words[-1] for words in self.asked
        )


PRIMARY, FOLLOWER, OTHER = "f|7|100|100|0||", "t|7|90|80|3|1|2026-11-29 10:00:00 UTC", "f|8|100|100|0||"
AHEAD = "t|7|64|95|3|1|"  # it was started again, and streams the whole segment once more


@pytest.mark.parametrize(
    ("what", "name", "one", "two", "reason"),
    [
        ("promote", "db-1", FakeServer(PRIMARY), FakeServer(FOLLOWER), "db-1 is the primary already"),
        ("promote", "db-2", FakeServer(PRIMARY), FakeServer(), "db-2 does not run"),
        ("promote", "db-2", FakeServer(PRIMARY), FakeServer(cluster=""), "db-2 has no PostgreSQL"),
        (
            "promote",
            "db-2",
            FakeServer(cluster="unreachable"),
            FakeServer(FOLLOWER),
            "ssh does not reach db-1, which may",
        ),
        (
            "promote",
            "db-2",
            FakeServer(cluster="full disk"),
            FakeServer(FOLLOWER),
            "ssh does not reach db-1, which may",
        ),
        ("promote", "db-2", FakeServer(AHEAD), FakeServer(FOLLOWER), "db-1 has changes that db-2 lacks"),
        ("promote", "web", FakeServer(PRIMARY), FakeServer(FOLLOWER), "--host must be one of db-1, db-2"),
        (
            "standby",
            "db-1",
            FakeServer(PRIMARY),
            FakeServer(FOLLOWER),
            "there must be one primary besides db-1",
        ),
        ("standby", "db-2", FakeServer(), FakeServer(FOLLOWER), "there is: none"),
        ("standby", "db-2", FakeServer(PRIMARY), FakeServer(PRIMARY), "db-2 takes writes, and so does db-1"),
        ("standby", "db-2", FakeServer(PRIMARY), FakeServer(cluster=""), "mks-deploy up prepares it"),
    ],
)
def test_what_could_make_two_primaries_is_refused_and_changes_nothing(
    what: str, name: str, one: FakeServer, two: FakeServer, reason: str
) -> None:
    servers = DatabaseHosts(_settings(), {"db-1": one, "db-2": two})
    with pytest.raises(ReleaseError, match=reason):
        list(getattr(servers, what)(name))
    assert not one.changed
    assert not two.changed


def test_the_former_primary_is_fenced_before_it_is_stopped_and_before_another_takes_over() -> None:
    order = list[str]()

    class Recorded(FakeServer):
        def run(self, words: Sequence[str], *, sends: bytes = b"", shown: bool = True) -> tuple[int, str]:
            if words[0] in {"install", "systemctl"} or "pg_promote" in words[-1]:
                order.append(f"{words[0]} {words[-1]}")
            return super().run(words)

    # It does not run, and could be started again: fenced all the same.
    for one in (Recorded(PRIMARY), Recorded()):
        order.clear()
        servers = DatabaseHosts(_settings(), {"db-1": one, "db-2": Recorded(FOLLOWER)})
        list(servers.promote("db-2"))
        assert order[:2] == ["install /data/standby.signal", "systemctl postgresql@17-main.service"]
        assert "pg_promote" in order[2]


def test_a_former_primary_that_runs_on_is_named_and_becomes_a_standby() -> None:
    old, new = FakeServer(PRIMARY), FakeServer(PRIMARY, timeline=2)
    servers = DatabaseHosts(_settings(), {"db-1": old, "db-2": new}, pause=lambda _: None)
    one, two = servers.states()
    assert str(one).endswith("because db-2 has taken over: mks-deploy database standby --host db-1")
    assert str(two) == "primary, at 100"
    with pytest.raises(ReleaseError, match="db-2 takes writes, and so does db-1"):
        list(servers.standby("db-2"))
    assert not new.changed
    said = list[str]()
    with pytest.raises(ReleaseError, match="did not follow"):
        said.extend(servers.standby("db-1"))
    order = [" ".join(words) for words in old.asked if words[0] in {"install", "systemctl", "runuser"}]
    fenced = next(number for number, words in enumerate(order) if words.startswith("install"))
    assert order[fenced].endswith("/data/standby.signal")
    assert order[fenced + 1] == "systemctl stop postgresql@17-main.service"
    assert "pg_basebackup" in order[fenced + 2]


class FakeConnection:
    """A connection to a server of PostgreSQL, as libpq opens it."""

    closed = False

    def __init__(self, servers: dict[str, tuple[int, int] | None], place: str) -> None:
        self._servers, self._address = servers, place.split(maxsplit=1)[0].removeprefix("host=")
        self.execute("")

    def execute(self, _query: str) -> Self:
        if self._servers[self._address] is None:
            raise psycopg.OperationalError("no route to host")
        return self

    def fetchone(self) -> tuple[int, int] | None:
        return self._servers[self._address]

    def close(self) -> None:
        self.closed = True


ONE, TWO = "127.77.1.1", "127.77.1.2"


@pytest.mark.parametrize(
    ("one", "two", "newer"),
    [
        ((7, 1), (7, 2), "db-2"),
        ((7, 2), (7, 1), ""),
        ((7, 1), (7, 1), ""),  # nobody can say which one is right
        ((7, 1), (7, 0), ""),  # a standby
        ((7, 0), (7, 2), ""),  # this one is the standby
        ((7, 1), (8, 2), ""),  # another cluster
        ((7, 1), None, ""),
        (None, (7, 2), ""),
    ],
)
def test_the_newest_timeline_decides_which_primary_stops(
    one: tuple[int, int] | None,
    two: tuple[int, int] | None,
    newer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers = {ONE: one, TWO: two}
    monkeypatch.setattr(psycopg, "connect", lambda place, **_: FakeConnection(servers, place))
    guard = PrimaryGuard(_settings().on("db-1"), Path("/data"))
    for _ in range(2):
        assert guard.newer_primary() == newer
    guard.close()


def test_a_primary_that_was_cut_off_stops_itself_when_it_sees_the_new_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers: dict[str, tuple[int, int] | None] = {ONE: (7, 1), TWO: (7, 0)}
    monkeypatch.setattr(psycopg, "connect", lambda place, **_: FakeConnection(servers, place))
    later = iter([None, (7, 2)])
    order = list[bool]()
    guard = PrimaryGuard(
        _settings().on("db-1"),
        tmp_path,
        pause=lambda _: servers.update({TWO: next(later)}),
        stop=lambda: order.append((tmp_path / "standby.signal").exists()),
    )
    assert run_guard(guard) == 3
    assert order == [True]
    assert capsys.readouterr().err.startswith("db-2 has taken over")


def test_the_server_is_stopped_with_the_program_of_its_version(tmp_path: Path) -> None:
    data = tmp_path / "0" / "main"
    data.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="/usr/lib/postgresql/0/bin/pg_ctl"):
        PrimaryGuard(_settings().on("db-1"), data).fence()
    assert (data / "standby.signal").exists()


def test_an_empty_cluster_is_no_second_primary() -> None:
    new = FakeServer(OTHER)
    servers = DatabaseHosts(_settings(), {"db-1": FakeServer(PRIMARY), "db-2": new}, pause=lambda _: None)
    with pytest.raises(ReleaseError, match="did not follow db-1 within"):  # this one says "t", not 1
        list(servers.standby("db-2"))
    assert any("pg_basebackup" in words for words in new.asked)


def test_a_copy_that_was_cut_off_between_its_two_moves_keeps_what_was_there() -> None:
    class Moved(FakeServer):
        def run(self, words: Sequence[str], *, sends: bytes = b"", shown: bool = True) -> tuple[int, str]:
            said = super().run(words)
            return (1, "") if words[0] == "test" else said

    new = Moved(cluster="17 main 5432 down postgres /data /log")
    servers = DatabaseHosts(_settings(), {"db-1": FakeServer(PRIMARY), "db-2": new}, pause=lambda _: None)
    with pytest.raises(ReleaseError, match="did not follow"):
        list(servers.standby("db-2"))
    assert [words for words in new.asked if words[0] == "mv"] == [["mv", "-T", "/data.new", "/data"]]


def test_the_data_of_each_former_run_are_kept() -> None:
    new = FakeServer(OTHER)
    new.former = "/data.before\n/data.before-2\n"
    servers = DatabaseHosts(_settings(), {"db-1": FakeServer(PRIMARY), "db-2": new}, pause=lambda _: None)
    said = list[str]()
    with pytest.raises(ReleaseError, match="did not follow"):
        said.extend(servers.standby("db-2"))
    assert ["mv", "-T", "/data", "/data.before-3"] in new.asked
    assert [words for words in new.asked if words[0] == "rm"] == [["rm", "-rf", "/data.new"]]


_STOPPED = (
    "Database system identifier: 7\nDatabase cluster state: shut down\nLatest checkpoint location: 0/{}\n"
)


def test_a_promotion_that_was_cut_off_still_waits_for_the_last_change() -> None:
    """The primary is stopped by then, and its last change may not have arrived."""
    one = FakeServer()
    one.control = _STOPPED.format("64")  # 100, and the standby has 90
    two = FakeServer(FOLLOWER)
    servers = DatabaseHosts(_settings(), {"db-1": one, "db-2": two}, pause=lambda _: None)
    with pytest.raises(ReleaseError, match=r"db-2 lacks changes .* --lose-changes"):
        list(servers.promote("db-2"))
    assert not two.changed
    for control in (_STOPPED.format("5A"), _STOPPED.format("64").replace("7", "8", 1)):
        one.control = control  # 90; or that of a cluster that has nothing to do with it
        list(servers.promote("db-2"))
    one.control = _STOPPED.format("64")
    list(servers.promote("db-2", lose_changes=True))


@pytest.mark.parametrize(
    ("row", "said", "good"),
    [
        (
            FOLLOWER,
            "follows; lag 20 bytes, newest change 2026-11-29 10:00:00 UTC (3 s ago), replayed 80",
            True,
        ),
        (
            "t|7|100|100|9000|1|then",
            "follows; lag 0 bytes, newest change then (9000 s ago), replayed 100",
            True,
        ),
        ("t|7|90|80|||", "receives nothing from a primary; lag 20 bytes, newest change unknown", False),
        ("t|7|90|80|3|61|then", "received nothing from the primary for 61 s; lag 20 bytes", False),
        ("t|7|100|80|61|1|then", "applies them late; lag 20 bytes, newest change then (61 s ago)", False),
        ("t|7|100|80||1|", "applies them late; lag 20 bytes, newest change unknown", False),
        ("t|8|90|80|3|1|then", "standby of an unknown primary; lag unknown", False),
    ],
)
def test_a_standby_is_said_to_follow_only_where_it_does(row: str, said: str, good: bool) -> None:  # noqa: FBT001 - a row
    servers = DatabaseHosts(_settings(), {"db-1": FakeServer(PRIMARY), "db-2": FakeServer(row)})
    _, state = servers.states()
    assert said in str(state)
    assert ("follows" in str(state), state.is_current) == (good, good)


def test_one_server_alone_has_no_standby(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deploy.toml").write_text(deployed())
    assert main(["database", "status", "--settings", str(tmp_path / "deploy.toml")]) == 1
    assert 'give one the role "standby"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ((PRIMARY, FOLLOWER, FOLLOWER), 0),
        ((PRIMARY, FOLLOWER, ""), 1),
        ((PRIMARY, FOLLOWER, "t|7|90|80|3||"), 1),
        ((FOLLOWER, FOLLOWER, FOLLOWER), 1),
        ((PRIMARY, PRIMARY, FOLLOWER), 1),
    ],
)
def test_the_state_is_good_if_one_is_the_primary_and_all_others_follow(
    tmp_path: Path, states: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = deployed("[host]\nshared_uploads = true\n") + _HOSTS.format(one="127.77.1.1", two="127.77.1.2")
    text += '[[hosts]]\nname = "db-3"\naddress = "127.77.1.3"\nroles = ["standby"]\n'
    (tmp_path / "deploy.toml").write_text(text)
    servers = {f"db-{number}": FakeServer(row) for number, row in enumerate(states, start=1)}
    monkeypatch.setattr("mks_deploy.cli.database_commands.shells_of", lambda *_: servers)
    assert main(["database", "status", "--settings", str(tmp_path / "deploy.toml")]) == code


# --- two clusters --------------------------------------------------------------------------------


class Server:
    """A host with PostgreSQL: what ssh would run there runs here, with the cluster of this host."""

    def __init__(self, rehearsal: Rehearsal, name: str) -> None:
        self.settings = rehearsal.settings.on(name)
        self.folder = rehearsal.folder / name
        self.data = self.folder / "data"
        self.reached = True
        self._identity = unprivileged()
        # That of PostgreSQL's account on a real host.
        self._home = {"HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        self._process: ServerProcess | None = None
        self.folder.mkdir()
        files = render(self.settings, Installed())
        text = next(file.text for file in files if file.path.endswith("/postgresql.conf"))
        assert self.settings.here is not None
        (self.folder / "postgresql.conf").write_text(
            f"{text}\nport = 5432\nunix_socket_directories = '{self.folder}'\ndata_directory = '{self.data}'\n"
            "fsync = off\n"
        )
        # Whether TLS and accounts work is part of the rehearsal; PostgreSQL's own account is not there.
        hba = next(file.text for file in files if file.path.endswith("/pg_hba.conf"))
        hba = hba.replace("local all postgres peer", "local all postgres trust")
        # Between addresses of one machine, all come from the first one.
        hba = re.sub(r"(replicator) \S+", r"\1 127.0.0.1/32", hba)
        (rehearsal.folder / "config" / "pg_hba.conf").write_text(hba)
        if self._identity:
            shutil.chown(self.folder, self._identity["user"])
        self._as_postgres(
            "initdb", "-D", str(self.data), "-U", "postgres", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8"
        )

    def _as_postgres(self, name: str, *words: str, sends: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [program(name), *words],
            input=sends,
            capture_output=True,
            check=False,
            cwd=self.folder,
            env={**os.environ, **self._home, "PGHOST": str(self.folder), "PGUSER": "postgres"},
            **self._identity,
        )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> None:
        self._process = ServerProcess(
            [
                "env",
                f"HOME={self.folder}",
                program("postgres"),
                "-D",
                str(self.data),
                "-c",
                f"config_file={self.folder}/postgresql.conf",
            ],
            log=self.folder / "postgres.log",
            ready=lambda: self.sql("SELECT 1") == "1",
            stop_signal=signal.SIGINT,
            identity=self._identity,
            cwd=self.folder,
        )
        self._process.start(timeout=60)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        if self._process is not None and self.running:
            self._process.signal(number)
            self._process.stop()

    def sql(self, statement: str, *, database: str = "postgres") -> str:
        done = self._as_postgres("psql", "-XAtq", "-d", database, "-c", statement)
        return done.stdout.decode().strip() if not done.returncode else f"failed: {done.stderr.decode()}"

    def accounts(self, text: str) -> None:
        done = self._as_postgres(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", sends=text.encode()
        )
        assert done.returncode == 0, done.stderr

    def run(self, words: Sequence[str], *, sends: bytes = b"", shown: bool = True) -> tuple[int, str]:
        del shown
        if not self.reached:
            raise ReleaseError(f"{self.folder.name}: ssh cannot reach it")
        if words[0] == "pg_lsclusters":
            return (
                0,
                f"15 main 5432 {'online' if self.running else 'down'} postgres {self.data} {self.folder}/log\n",
            )
        if words[:2] == ["systemctl", "stop"]:
            self.stop()
        elif words[:2] == ["systemctl", "start"]:
            if may_start(self.settings, self.data):
                return 1, ""
            self.start()
        elif words[0] == "install":
            signal_file = Path(words[-1])
            signal_file.write_text("")
            shutil.chown(signal_file, self._identity.get("user", os.getuid()))
        elif words[0] in {"runuser", "env"}:
            program_name, *rest = words[4:] if words[0] == "runuser" else words[2:]
            done = self._as_postgres(Path(program_name).name, *rest, sends=sends)
            sys.stderr.write(done.stderr.decode())
            return done.returncode, done.stdout.decode()
        else:
            other = subprocess.run(list(words), stdout=subprocess.PIPE, text=True, check=False)
            return other.returncode, other.stdout
        return 0, ""


class Writer(threading.Thread):
    """An application: writes one number after the other, and reconnects by its address after each failure."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._ends = url, threading.Event()
        self.confirmed: list[int] = []
        self.longest = 0.0
        self._number = 0

    def run(self) -> None:
        last = time.monotonic()
        while not self._ends.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    while not self._ends.is_set():
                        self._number += 1
                        connection.execute("INSERT INTO entry VALUES (%s)", [self._number])
                        self.confirmed.append(self._number)
                        now = time.monotonic()
                        self.longest, last = max(self.longest, now - last), now
                        time.sleep(0.005)
            except psycopg.Error:
                time.sleep(0.05)

    def __enter__(self) -> Self:
        self.start()
        wait_until(lambda: len(self.confirmed) > 50, timeout=60, what="the first writes")
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self.join(60)


class Migration(threading.Thread):
    """Changes a table in one transaction, which takes a while."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._failed = url, False
        self._began = threading.Event()
        self.start()
        assert self._began.wait(60)

    def run(self) -> None:
        try:
            self.change(self._url, seconds=60, began=self._began)
        except psycopg.Error:
            self._failed = True

    @staticmethod
    def change(url: str, *, seconds: float, began: threading.Event | None = None) -> None:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE note (n bigint)")
            if began:
                began.set()
            connection.execute("SELECT pg_sleep(%s)", [seconds])

    @property
    def ends_with_an_error(self) -> bool:
        self.join(60)
        return self._failed


class Rehearsal:
    """Two hosts with PostgreSQL, on addresses of this machine."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mkss"))
        self.folder.chmod(0o755)
        self.settings = _settings(self.folder, f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}")
        for name in ("config", "wal"):
            (self.folder / name).mkdir()
        make_missing(self.folder / "secrets", self.settings)
        owner = unprivileged().get("user", os.getuid())
        shutil.chown(self.folder / "wal", owner)
        for file in store_files(self.settings.on("db-1"), self.folder / "secrets"):
            if file.path.is_relative_to(self.folder):
                file.path.write_text(file.text)
                shutil.chown(file.path, owner)
                file.path.chmod(file.mode)
        self.servers = {name: Server(self, name) for name in ("db-1", "db-2")}
        self.hosts = DatabaseHosts(self.settings, self.servers, pause=lambda _: time.sleep(0.1))

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text().strip()

    @property
    def url(self) -> str:
        return self.secret("database_url").replace("postgresql+psycopg://", "postgresql://")

    def primaries(self) -> list[str]:
        return [
            name
            for name, server in self.servers.items()
            if server.running and server.sql("SELECT pg_is_in_recovery()") == "f"
        ]

    def close(self) -> None:
        for server in self.servers.values():
            server.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def rehearsal() -> Iterator[Rehearsal]:
    for name in ("postgres", "pg_basebackup", "pg_controldata", "psql"):
        program(name)
    made = Rehearsal()
    yield made
    made.close()


def _entries(server: Server) -> set[int]:
    return {int(line) for line in server.sql("SELECT n FROM entry", database="knowledge").splitlines()}


def _outage(writer: Writer, during: Callable[[], Any]) -> float:
    """Return the longest time without a confirmed write while something was done."""
    writer.longest = 0.0
    during()
    before = len(writer.confirmed)
    wait_until(lambda: len(writer.confirmed) > before + 50, timeout=60, what="writes afterwards")
    return writer.longest


def _make_primary(rehearsal: Rehearsal) -> None:
    one, settings = rehearsal.servers["db-1"], rehearsal.settings
    one.start()
    given = account_statements(
        settings, rehearsal.secret("database_password"), rehearsal.secret("replication_password")
    )
    one.accounts(given)
    one.accounts(given)  # again: nothing changes but the salt
    assert "SCRAM-SHA-256$" in given
    assert rehearsal.secret("database_password") not in given
    one.sql(f'CREATE DATABASE knowledge OWNER "{settings.name}"')
    one.sql(f'SET ROLE "{settings.name}"; CREATE TABLE entry (n bigint PRIMARY KEY)', database="knowledge")
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba|no encryption"):
        psycopg.connect(rehearsal.url.replace("verify-full", "disable"))


def _a_standby_without_a_primary_does_not_follow(primary: Server, hosts: DatabaseHosts) -> None:
    primary.stop(signal.SIGQUIT)
    wait_until(lambda: hosts.states()[1].heard is None, timeout=60, what="the end of the connection")
    assert "receives nothing from a primary; lag unknown" in str(hosts.states()[1])


def _a_split_brain_ends(rehearsal: Rehearsal, *, old: str, new: str) -> None:
    """The former primary could not reach the others when it started: the guard of its host stops it."""
    server = rehearsal.servers[old]
    server.start()
    assert rehearsal.primaries() == sorted((old, new))
    (state,) = (each for each in rehearsal.hosts.states() if each.host == old)
    assert f"because {new} has taken over" in str(state)

    def stop() -> None:
        shutil.chown(server.data / "standby.signal", unprivileged().get("user", os.getuid()))
        server.stop()

    guards = {name: PrimaryGuard(rehearsal.settings.on(name), server.data, stop=stop) for name in (old, new)}
    assert [guards[name].newer_primary() for name in (new, old)] == ["", new]
    guards[old].fence()
    assert [guards[name].newer_primary() for name in (new, old)] == ["", ""]
    for guard in guards.values():
        guard.close()
    server.start()
    assert rehearsal.primaries() == [new]
    server.stop()
    # Without a guard, the command of the page does it.
    (server.data / "standby.signal").unlink()
    server.start()


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_a_standby_takes_over_and_there_are_never_two_primaries(rehearsal: Rehearsal) -> None:
    hosts, settings = rehearsal.hosts, rehearsal.settings
    one, two = rehearsal.servers["db-1"], rehearsal.servers["db-2"]
    _make_primary(rehearsal)
    assert list(hosts.standby("db-2"))[-1] == "db-2 follows db-1"
    assert rehearsal.primaries() == ["db-1"]
    assert [state.is_primary for state in hosts.states()] == [True, False]
    wait_until(lambda: hosts.states()[1].is_current, timeout=60, what="the standby")
    assert "follows; lag " in str(hosts.states()[1])

    with Writer(rehearsal.url) as writer:
        # Planned, in the middle of a release: nothing that was confirmed is lost, and a migration is done or not.
        migration = Migration(rehearsal.url)
        planned = _outage(writer, lambda: list(hosts.promote("db-2")))
        assert migration.ends_with_an_error
        exists = "SELECT to_regclass('note') IS NOT NULL"
        assert two.sql(exists, database="knowledge") == "f"
        Migration.change(rehearsal.url, seconds=0)  # `up`, repeated
        assert two.sql(exists, database="knowledge") == "t"
        assert rehearsal.primaries() == ["db-2"]
        assert set(writer.confirmed) <= _entries(two)
        # Whoever starts the former one gets a server that takes no writes.
        one.start()
        assert one.sql("INSERT INTO entry VALUES (0)", database="knowledge").startswith("failed: ERROR")
        assert rehearsal.primaries() == ["db-2"]
        assert list(hosts.standby("db-1"))[-1] == "db-1 follows db-2"

        assert not read_servers({"DATABASE_URL": rehearsal.url}).standby_absent

        # A crash, and ssh does not reach the host either.
        def crash() -> None:
            two.stop(signal.SIGQUIT)
            two.reached = False
            with pytest.raises(ReleaseError, match="ssh does not reach db-2"):
                list(hosts.promote("db-1"))
            list(hosts.promote("db-1", old_is_off=True))

        crashed = _outage(writer, crash)
        lost = set(writer.confirmed) - _entries(one)
        assert rehearsal.primaries() == ["db-1"]
        # The watch says that nothing follows any more.
        absent = read_servers({"DATABASE_URL": rehearsal.url})
        reading = Readings(1.0, 1.0, 1e9, 1.0, {}, 0, servers=absent)
        assert "a standby of PostgreSQL does not follow" in find_problems(reading, settings.on("db-1"))
        # It comes back, with the data of a primary, and is not started as a second one.
        two.reached = True
        assert "does not run" in str(hosts.states()[1])
        assert two.run(["systemctl", "start", "postgresql@15-main.service"])[0] == 1
        assert may_start(settings.on("db-2"), two.data).startswith("db-1 is the primary")
        assert may_start(settings.on("db-1"), one.data) == ""
        _a_split_brain_ends(rehearsal, old="db-2", new="db-1")
        assert list(hosts.standby("db-2"))[-1] == "db-2 follows db-1"
        assert rehearsal.primaries() == ["db-1"]
        # What it held as a standby of the first run, and as the primary that crashed.
        kept = sorted(path.name for path in two.folder.glob("data.before*"))
        assert kept == ["data.before", "data.before-2"]
    _a_standby_without_a_primary_does_not_follow(one, hosts)
    print(f"planned {planned:.1f} s, crash {crashed:.1f} s, lost {len(lost)} of {len(writer.confirmed)}")  # noqa: T201
    assert planned < 30
    assert crashed < 30
    # What was confirmed within the last moments may be: it is sent after the answer.
    assert len(lost) <= 20


# --- two machines --------------------------------------------------------------------------------

FIRST, SECOND = "10.77.0.21", "10.77.0.22"
_MACHINES = f"""
[[hosts]]
name = "db1"
address = "{FIRST}"
roles = ["database"]
[[hosts]]
name = "web"
address = "{SECOND}"
roles = ["edge", "web", "worker", "redis", "cache", "standby"]
"""
_PYTHON = "/opt/shop/current/venv/bin/python"
# A connection for each write: such applications are the first to reach a server that must not take writes.
_APPLICATION = """
import sys, time
from pathlib import Path

import psycopg

url = Path("/etc/shop/credentials/database_url").read_text().strip().replace("+psycopg", "")
kept, number = sys.argv[1] == "kept", int(sys.argv[2])
with open(sys.argv[3], "a", buffering=1) as log:
    while True:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while True:
                    number += 1
                    connection.execute("INSERT INTO entry VALUES (%s)", [number])
                    log.write(f"{time.time()} {number} {connection.info.hostaddr}\\n")
                    time.sleep(0.01)
                    if not kept:
                        break
        except psycopg.Error:
            time.sleep(0.05)
"""


class MachineWriter:
    """An application on a machine that writes one number after the other, and notes what was confirmed by whom."""

    def __init__(self, machine: Machine, kind: str, first: int) -> None:
        self._file = machine.path(f"/root/{kind}")
        machine.write("/usr/local/lib/application.py", _APPLICATION)
        words = (_PYTHON, "/usr/local/lib/application.py", kind, first, f"/root/{kind}")
        self._process = machine.background(*words, variables={})

    def confirmed(self, *, by: str, after: float = 0.0) -> dict[int, float]:
        """Return the numbers that a server confirmed after a moment, each with its time."""
        lines = self._file.read_text().splitlines(keepends=True) if self._file.exists() else []
        words = [line.split() for line in lines if line.endswith("\n")]
        return {int(number): float(at) for at, number, host in words if host == by and float(at) > after}

    def wait_for(self, *, by: str, after: float) -> float:
        """Wait until a server has confirmed some; return when it confirmed the first one."""
        # Not many: while the former primary cannot be reached, each new connection first waits 3 s for it.
        wait_until(lambda: len(self.confirmed(by=by, after=after)) >= 5, timeout=120, what=f"writes of {by}")
        return min(self.confirmed(by=by, after=after).values())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


@pytest.fixture
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines with an empty PostgreSQL each, joined by a cable."""
    for name in ("logrotate", "nginx", "git", "sshd", "ssh", "redis-server", "postgres", "nft", "curl"):
        program(name)
    version = Path(program("postgres")).resolve().parents[1].name
    folders = [Path(tempfile.mkdtemp(prefix="mksu")) for _ in range(2)]
    machines = [Machine(folder) for folder in folders]
    try:
        for machine in machines:
            machine.start()
            machine.run("pg_dropcluster", version, "main", check=False)
            machine.run("pg_createcluster", version, "main", "--port", "5432")
        first, second = machines
        second.connect(first, address=SECOND, others=FIRST)
        yield first, second
    finally:
        for machine, folder in zip(machines, folders, strict=True):
            machine.stop()
            shutil.rmtree(folder, ignore_errors=True)


def _sql(machine: Machine, statement: str, *, check: bool = True) -> str:
    words = (
        "env",
        "--chdir=/",
        "runuser",
        "-u",
        "postgres",
        "--",
        "psql",
        "-XAtq",
        "-d",
        "shop",
        "-c",
        statement,
    )
    return machine.run(*words, check=check).strip()


def _numbers(machine: Machine) -> set[int]:
    lines = _sql(machine, "SELECT n FROM entry").splitlines()
    return {int(line) for line in lines if line.lstrip("-").isdigit()}


def _job(machine: Machine, number: int) -> str:
    """Let the site do a task, which its database takes and gives back."""
    ask = ["curl", "-sk", "--max-time", "60", "--resolve", f"{HOST}:443:{SECOND}"]
    return machine.run(*ask, "-d", f"text={number}", f"https://{HOST}/jobs")


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(1800)
def test_a_standby_takes_over_from_a_machine_that_is_cut_off_and_comes_back(
    two_machines: tuple[Machine, Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_machines
    source = committed_source(tmp_path, monkeypatch, "flask_jobs", hosts=_MACHINES)
    laptop = Laptop({SECOND: second, FIRST: first}, tmp_path)
    writers = list[MachineWriter]()
    try:
        for machine in two_machines:
            make_version(machine, "1")
        code, said = laptop.up(str(source), "--version", "1", seconds=900)
        assert code == 0, said + first.journal() + second.journal()
        # No connection of the standby may be stopped by the firewall, which started last.
        code, said = laptop.run("database", "status", "--settings", str(source / "deploy.toml"))
        assert code == 0, said
        _sql(first, "SET ROLE shop; CREATE TABLE entry (n bigint PRIMARY KEY)")
        writers += [MachineWriter(second, "kept", 0), MachineWriter(second, "new", 1_000_000)]
        _a_machine_is_cut_off(laptop, first, second, writers, str(source / "deploy.toml"))
    finally:
        for writer in writers:
            writer.stop()
        laptop.stop()


def _a_machine_is_cut_off(
    laptop: Laptop, first: Machine, second: Machine, writers: Sequence[MachineWriter], settings: str
) -> None:
    def database(*words: str) -> tuple[int, str]:
        return laptop.run("database", *words, "--settings", settings)

    for writer in writers:
        writer.wait_for(by=FIRST, after=0)
    assert _job(second, 20) == "taken"
    cut = time.time()
    first.run("ip", "link", "set", "cable", "down")
    code, said = database("promote", "--host", "web")
    assert (code, "ssh does not reach db1, which may still take writes" in said) == (1, True), said
    # It does, from whoever still reaches it: the operator has to switch it off, and has not.
    _sql(first, "INSERT INTO entry VALUES (-1)")
    command = time.time()
    code, said = database("promote", "--host", "web", "--old-primary-is-off")
    assert code == 0, said
    back = [writer.wait_for(by=SECOND, after=command) for writer in writers]
    assert _job(second, 21) == "taken"
    entries = _numbers(second)
    sent = [number for writer in writers for number in writer.confirmed(by=FIRST)]
    lost, count = set(sent) - entries, len(sent)

    # The network is back, and so is a primary that does not know that it is none any more.
    returned = time.time()
    first.run("ip", "link", "set", "cable", "up")
    wait_until(lambda: "down" in first.run("pg_lsclusters"), timeout=120, what="the end of the old primary")
    ended = time.time()
    strays = [number for writer in writers for number in writer.confirmed(by=FIRST, after=returned)]
    for writer in writers:
        writer.wait_for(by=SECOND, after=ended)
    assert not [number for writer in writers for number in writer.confirmed(by=FIRST, after=ended)]
    assert "web has taken over: PostgreSQL of this host was stopped" in first.journal("shop-guard.service")
    # Whoever starts it gets a server that takes no writes.
    version = next(second.path("/var/lib/postgresql").glob("*/main")).parent.name
    first.run("systemctl", "start", f"postgresql@{version}-main.service")
    wait_until(
        lambda: _sql(first, "SELECT 1", check=False).endswith("1"), timeout=120, what="the old primary"
    )
    assert "read-only" in _sql(first, "INSERT INTO entry VALUES (-2)", check=False)
    for writer in writers:
        writer.wait_for(by=SECOND, after=time.time())
    assert not [number for writer in writers for number in writer.confirmed(by=FIRST, after=ended)]

    # Its writes are not lost: the operator finds them in the former cluster.
    code, said = database("standby", "--host", "db1")
    assert (code, f"stays in /var/lib/postgresql/{version}/main.before" in said) == (0, True), said
    wait_until(lambda: database("status")[0] == 0, timeout=120, what="a good state")
    confirmed = {number for writer in writers for number in writer.confirmed(by=SECOND)}
    entries = _numbers(second)
    assert confirmed <= entries
    assert -1 not in entries
    print(  # noqa: T201 - figures of the page
        f"without writes {back[0] - command:.1f} s (kept connection) and {back[1] - command:.1f} s (new ones) "
        f"after the command, {command - cut:.1f} s before it; lost {len(lost)} of {count}; the old "
        f"primary stopped {ended - returned:.1f} s after its return, and took {len(strays)} writes"
    )
    # What was confirmed within the last moments may be: it is sent after the answer.
    assert len(lost) <= 40
