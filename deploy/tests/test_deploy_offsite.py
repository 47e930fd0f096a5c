"""Copies of backups elsewhere, with the real restic: another disk, a REST server, ssh, and an object store."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deploy_host import Host
from deploy_links import own_folder, plant
from deploy_scratch import let_postgres_run
from mks_deploy.cli import main, parser
from mks_deploy.operations.backup import BackupError, Database, backup
from mks_deploy.operations.offsite import OffsiteState, Repository, fetch, push, read_state, rehearse
from mks_deploy.operations.watch import Readings, find_problems, measure, record
from mks_deploy.rendering import render
from mks_deploy.settings.credentials import credential_errors, make_missing
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import DeploySettingsError, read_settings
from mks_deploy.versions import Installed
from testbed.certificates import Certificates
from testbed.polling import accepts_connections, free_port, wait_until
from testbed.process import ServerProcess
from testbed.services import program, unavailable
from testbed.small_disk import resize, small_disk

NOW = datetime.now(UTC)
PASSWORD = "long words that nobody guesses 1"
_run = subprocess.run


@pytest.fixture(autouse=True)
def _restic_is_here() -> None:
    program("restic")


class Site:
    """A host with a backup, and the place for its copies."""

    def __init__(
        self, folder: Path, repository: str, extra: str = "", secrets: dict[str, str] | None = None
    ) -> None:
        self.host, self.folder = Host(), folder
        self.text = self.host.settings_text() + f'\n[offsite]\nrepository = "{repository}"\n{extra}\n'
        self.settings: Settings = read_settings(self.text)
        self.backups = self.host.path("backups")
        self.backups.mkdir()
        uploads = self.host.path("state") / "uploads"
        uploads.mkdir()
        (uploads / "写真.jpg").write_bytes(os.urandom(50_000))
        self.keys = folder / "secret_keys"
        self.keys.write_text("first")
        self.environ = {}
        for name, value in {"password": PASSWORD, **(secrets or {})}.items():
            (folder / name).write_text(value)
            (folder / name).chmod(0o600)
            known = {"password": "RESTIC_PASSWORD_FILE"}
            self.environ[known.get(name, f"OFFSITE_{name.upper()}_FILE")] = str(folder / name)
        self.repository = Repository.of(self.settings, self.environ)

    def make(self, database: Database | None = None, *, days: int = 0) -> Path:
        return backup(self.settings, database, now=NOW + timedelta(days=days), keys=self.keys)

    def push(self, *, days: int = 0) -> Any:
        return push(self.settings, self.repository, now=NOW + timedelta(days=days, minutes=5))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, str(tmp_path / "repository"))
    made.repository.run("init")
    yield made
    made.host.stop()


LATER = NOW + timedelta(hours=1)


@pytest.mark.slow
def test_what_comes_back_is_what_was_copied(site: Site, tmp_path: Path) -> None:
    made = site.make()
    saved = site.push()
    back, keys = tmp_path / "back", tmp_path / "keys"
    found = fetch(site.repository, back, now=LATER, keys=keys)
    assert (found.id, found.name) == (saved.id, made.name)
    for file in made.iterdir():
        assert (back / file.name).read_bytes() == file.read_bytes()
    assert [path.read_text() for path in keys.iterdir()] == ["first"]
    # Encrypted: neither a name nor content of a file is in the repository.
    for path in (tmp_path / "repository").rglob("*"):
        assert not path.is_file() or b"manifest" not in path.read_bytes()


@pytest.mark.slow
def test_an_older_copy_by_its_identifier(site: Site, tmp_path: Path) -> None:
    first = site.make()
    saved = site.push()
    site.make(days=0)
    site.push()
    found = fetch(site.repository, tmp_path / "back", now=LATER, snapshot=saved.id[:8])
    assert found.name == first.name
    with pytest.raises(BackupError, match="0 copies"):
        fetch(site.repository, tmp_path / "other", now=LATER, snapshot="feedbeef")
    with pytest.raises(BackupError, match="is not empty"):
        fetch(site.repository, tmp_path / "back", now=LATER)


@pytest.mark.slow
def test_a_copy_of_the_future_is_not_the_newest(site: Site, tmp_path: Path) -> None:
    """Whoever may append can write a snapshot with any date: it must not become the one that is restored."""
    site.make()
    saved = site.push()
    site.repository.run("backup", "--tag=backup", f"--host={site.settings.name}", "--time=2036-01-01 00:00:00",
                        "secret_keys", folder=tmp_path)  # fmt: skip
    assert fetch(site.repository, tmp_path / "back", now=LATER).id == saved.id


@pytest.mark.slow
def test_other_sites_share_a_repository_and_are_left_alone(site: Site) -> None:
    site.make()
    site.push()
    other = replace(site.repository, host="other")
    assert other.snapshots() == []
    with pytest.raises(BackupError, match="no backup of other"):
        other.newest(now=LATER)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_backup_is_not_copied(site: Site, damage: str) -> None:
    file = site.make() / "uploads.tar.gz"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BackupError, match="damaged"):
        site.push()
    assert site.repository.snapshots() == []
    assert read_state(site.settings) == OffsiteState()


def test_without_a_backup_there_is_nothing_to_copy(site: Site) -> None:
    with pytest.raises(BackupError, match="no complete backup"):
        site.push()


@pytest.mark.slow
def test_old_copies_go_by_day_week_and_month(tmp_path: Path) -> None:
    site = Site(tmp_path, str(tmp_path / "repository"), "keep_days = 2\nkeep_weeks = 0\nkeep_months = 0")
    site.repository.run("init")
    for day in range(4, 0, -1):
        moment = (NOW - timedelta(days=day)).strftime("%Y-%m-%d %H:%M:%S")
        site.repository.run("backup", "--tag=backup", f"--host={site.settings.name}", f"--time={moment}",
                            "secret_keys", folder=tmp_path)  # fmt: skip
    site.repository.run("backup", "--tag=backup", "--host=other", "--time=2020-01-01 00:00:00",
                        "secret_keys", folder=tmp_path)  # fmt: skip
    made = site.make()
    site.push()
    left = site.repository.snapshots()
    assert len(left) == 2
    assert left[-1].name == made.name
    assert len(replace(site.repository, host="other").snapshots()) == 1
    site.host.stop()


@pytest.mark.slow
def test_decay_is_found_within_so_many_days_as_there_are_parts(site: Site) -> None:
    site.make()
    site.push()
    packs = sorted((site.folder / "repository" / "data").rglob("*"), key=lambda path: path.stat().st_size)
    pack = next(path for path in reversed(packs) if path.is_file())
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pack.chmod(0o600)
    pack.write_bytes(data)
    site.settings = replace(site.settings, offsite=replace(site.settings.offsite, read_parts=2, prune=False))
    assert sorted(_push_error(site, day) for day in range(2)) == ["", "restic check"]


def _push_error(site: Site, day: int) -> str:
    try:
        site.push(days=day)
    except BackupError as error:
        return str(error)[:12]
    return ""


@pytest.mark.slow
@pytest.mark.postgres
def test_a_rehearsal_restores_into_a_cluster_of_its_own(site: Site, postgres_url: str) -> None:
    database = Database.from_url(postgres_url)
    with database.connection() as connection:
        connection.execute("CREATE TABLE article AS SELECT n FROM generate_series(1, 500) n")
    try:
        made = site.make(database)
        site.push()
        found, rows = _rehearsed(site)
        assert (found.name, rows) == (made.name, {"public.article": 500})
        assert read_state(site.settings).rehearsed_at == LATER.timestamp()
        assert not list(site.backups.glob(".rehearsal-*"))
    finally:
        with database.connection() as connection:
            connection.execute("DROP TABLE article")


@pytest.mark.slow
def test_the_account_makes_its_repository_and_root_follows_none_of_its_links(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, victim = own_folder(tmp_path / "disk"), tmp_path / "victim"
    victim.mkdir()
    plant(place / "data", victim)
    repository = replace(site.repository, url=str(place))
    with pytest.raises(BackupError, match="restic init"):
        repository.make("nobody")
    (place / "data").unlink()
    repository.make("nobody")
    assert {path.owner() for path in place.rglob("*")} == {"nobody"}
    assert repository.run("snapshots", "--json").strip() == "[]"  # with the password of the site
    # What root fetches goes where root alone can change something.
    site.make()
    site.push()
    plant(place / "fetched", victim)
    for target in (place / "fetched", place / "new"):
        with pytest.raises(PermissionError, match="root follows no link"):
            fetch(site.repository, target, now=LATER)
    assert list(victim.iterdir()) == []


def _rehearsed(site: Site) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        let_postgres_run(patched)
        return rehearse(site.settings, site.repository, now=LATER)


@pytest.mark.slow
def test_a_rehearsal_without_space_does_not_begin(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.make()
    site.push()
    used = shutil.disk_usage(site.backups)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: used._replace(free=100_000))
    with pytest.raises(BackupError, match="MiB are free"):
        _rehearsed(site)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RESTIC_PASSWORD_FILE": "wrong"}, "the password in restic_password is another one"),
        ({"RESTIC_PASSWORD_FILE": ""}, "RESTIC_PASSWORD_FILE may name another file"),
        ({"RESTIC_PASSWORD_FILE": "nowhere"}, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(site: Site, change: dict[str, str], message: str) -> None:
    (site.folder / "wrong").write_text("another long password 2")
    given = {name: value and str(site.folder / value) for name, value in change.items()}
    with pytest.raises(BackupError, match=message) as refused:
        Repository.of(site.settings, {**site.environ, **given}).snapshots()
    assert "another long" not in str(refused.value)
    assert PASSWORD not in repr(site.repository)


def test_a_repository_that_is_not_there_is_said(tmp_path: Path) -> None:
    site = Site(tmp_path, str(tmp_path / "none"))
    with pytest.raises(BackupError, match="mks-deploy offsite init"):
        site.repository.snapshots()
    site.host.stop()


# --- other places


@pytest.fixture
def rest_server(tmp_path: Path) -> Iterator[int]:
    """A server that takes copies and deletes none, as another machine should run it."""
    port = free_port()
    folder = tmp_path / "served"
    folder.mkdir()
    # htpasswd of "shop" with "a-long-password"; SHA, for bcrypt needs a program.
    (folder / ".htpasswd").write_text("shop:{SHA}" + "Pv8PtxADHhOrS1+A4t/VRVNzvv8=" + "\n")
    server = ServerProcess(
        [
            program("restic-rest-server"),
            "--path",
            str(folder),
            "--listen",
            f"127.0.0.1:{port}",
            "--append-only",
        ],
        log=tmp_path / "rest.log",
        ready=lambda: accepts_connections(port),
    )
    server.start()
    yield port
    server.stop()


@pytest.mark.slow
def test_a_server_that_only_appends(rest_server: int, tmp_path: Path) -> None:
    access = "RESTIC_REST_USERNAME=shop\nRESTIC_REST_PASSWORD=a-long-password\n"
    url = f"rest:http://127.0.0.1:{rest_server}/shop/"
    site = Site(tmp_path, url, "keep_days = 1\nkeep_weeks = 0\nkeep_months = 0", {"environment": access})
    site.repository.run("init")
    old = (NOW - timedelta(days=3)).strftime("%Y-%m-%d %H:%M:%S")
    site.repository.run("backup", "--tag=backup", f"--host={site.settings.name}", f"--time={old}",
                        "secret_keys", folder=tmp_path)  # fmt: skip
    site.make()
    with pytest.raises(BackupError, match=r"append-only\? Set offsite.prune = false|restic forget"):
        site.push()
    assert len(site.repository.snapshots()) == 2
    kept = replace(site.settings, offsite=replace(site.settings.offsite, prune=False))
    push(kept, site.repository, now=NOW + timedelta(minutes=10))
    assert fetch(site.repository, tmp_path / "back", now=LATER).name
    wrong = replace(
        site.repository, variables={**site.repository.variables, "RESTIC_REST_PASSWORD": "another-password"}
    )
    with pytest.raises(BackupError, match=r"the access in restic_environment is refused .*401"):
        wrong.snapshots()
    site.host.stop()


@pytest.mark.slow
def test_another_machine_over_ssh(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a server of ssh needs root")
    program("ssh")
    for name in ("host", "user"):
        _run([program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    port = free_port()
    (tmp_path / "sshd").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path / 'user.pub'}\nStrictModes no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\n"
    )
    server = ServerProcess(
        [program("sshd"), "-D", "-e", "-f", str(tmp_path / "sshd")],
        log=tmp_path / "sshd.log",
        ready=lambda: accepts_connections(port),
    )
    server.start()
    known = f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}"
    secrets = {"ssh_key": (tmp_path / "user").read_text(), "known_hosts": known}
    url = f"sftp://root@127.0.0.1:{port}/{tmp_path / 'far'}"
    site = Site(tmp_path, url, secrets=secrets)
    try:
        site.repository.run("init")
        site.make()
        site.push()
        assert fetch(site.repository, tmp_path / "back", now=LATER).name
        # Another machine at that address is not spoken to.
        (tmp_path / "known_hosts").write_text(
            known.replace("AAAAC3", "AAAAC3x"[:6]).rpartition("AAAA")[0] + OTHER
        )
        with pytest.raises(BackupError):
            site.repository.snapshots()
    finally:
        server.stop()
        site.host.stop()


OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"


# --- an object store


ACCESS = {"AWS_ACCESS_KEY_ID": "KEYOFTHESHOP", "AWS_SECRET_ACCESS_KEY": "7e1b-Long-Secret-Of-The-Store"}


class ObjectStore:
    """rclone, which serves a folder as S3 over TLS and checks the signature of each request."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        rclone = Path(sys.executable).parent / "rclone"
        if not rclone.exists():
            unavailable("rclone", "its package has no wheel for this platform")
        self.port, self.ca = free_port(), certificates.ca_file
        self.bucket, self.log = folder / "store" / "copies", folder / "store.log"
        self.bucket.mkdir(parents=True)
        tls = ("--cert", certificates.cert_file, "--key", certificates.key_file)
        self.server = ServerProcess(
            [str(word) for word in (rclone, "serve", "s3", f"--addr=127.0.0.1:{self.port}", *tls,
                                    "--config=/dev/null", self.bucket.parent)],
            log=self.log,
            ready=lambda: accepts_connections(self.port),
            identity={"env": {"HOME": str(folder), "RCLONE_AUTH_KEY": '"{}"'.format(",".join(ACCESS.values()))}},
        )  # fmt: skip

    def site(self, folder: Path, *, bucket: str = "copies", trusted: bool = True, **access: str) -> Site:
        lines = "".join(f"{name}={value}\n" for name, value in (ACCESS | access).items())
        ca = f'ca = "{self.ca}"' if trusted else ""
        return Site(folder, f"s3:https://localhost:{self.port}/{bucket}/shop", ca, {"environment": lines})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every process that was started from here."""
    found: list[Any] = []
    start = subprocess.Popen.__init__

    def noted(self: Any, *arguments: Any, **options: Any) -> None:
        found.append(self)
        start(self, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", noted)
    return found


@pytest.fixture
def store(tmp_path: Path, certificates: Certificates) -> Iterator[ObjectStore]:
    made = ObjectStore(tmp_path, certificates)
    made.server.start()
    yield made
    made.server.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_object_store_by_the_commands(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, started: list[Any]
) -> None:
    site = store.site(tmp_path)
    file = tmp_path / "deploy.toml"
    file.write_text(site.text)
    for name, value in site.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    made = site.make()
    written = ""
    for words, said in (
        (["push"], "there is no repository yet; make it with: mks-deploy offsite init"),
        (["init"], f"made s3:https://localhost:{store.port}/copies/shop"),
        (["push"], f"copied {made.name} as "),
        (["list"], made.name),
        (["fetch", str(tmp_path / "back"), "--keys", str(tmp_path / "keys")], f"fetched {made.name}"),
        (["rehearse"], "restored 0 rows in 0 tables"),
    ):
        main(["offsite", *words, "--settings", str(file)])
        output = "".join(capsys.readouterr())
        assert said in output
        written += output
    for each in made.iterdir():
        assert (tmp_path / "back" / each.name).read_bytes() == each.read_bytes()
    assert [path.read_text() for path in (tmp_path / "keys").iterdir()] == ["first"]
    assert read_state(site.settings).rehearsed_at > 0
    # The key is in its file, and in the variables of restic: neither in arguments nor in what is written.
    commands = [str(process.args) for process in started if "restic" in str(process.args)]
    assert len(commands) > 6
    for value in (*ACCESS.values(), PASSWORD):
        assert value not in written + "".join(commands) + repr(site.repository)
    site.host.stop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "another-secret-of-somebody"},
            "the access in restic_environment is refused (Stat: The request signature",
        ),
        ({"AWS_ACCESS_KEY_ID": "SOMEBODYELSE"}, "the access in restic_environment is refused (Stat: "),
        (
            {"bucket": "other"},
            "there is no such bucket: correct offsite.repository, or make it with mks-deploy",
        ),
        ({"trusted": False}, "the certificate of the server is not trusted: offsite.ca must"),
    ],
    ids=["secret", "key", "bucket", "authority"],
)
def test_an_object_store_that_refuses_is_not_asked_for_a_quarter_of_an_hour(
    store: ObjectStore, tmp_path: Path, change: Any, message: str
) -> None:
    site = store.site(tmp_path, **change)
    site.make()
    for action in (site.push, site.repository.snapshots):
        with pytest.raises(BackupError) as refused:
            action()
        said = str(refused.value)
        assert message in said
        assert "\n" not in said
        assert not any(
            value in said for value in (*ACCESS.values(), *map(str, change.values())) if len(value) > 5
        )
    assert not list(store.bucket.parent.glob("other"))
    assert read_state(site.settings) == OffsiteState()
    site.host.stop()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("The AWS Access Key Id you provided does not exist in our records.", "the access in restic_env"),
        ("The access key ID you provided does not exist in our records.", "the access in restic_environment"),
        ("Error response code SignatureDoesNotMatch.", "the access in restic_environment is refused"),
        ("Access Denied.", "the access in restic_environment is refused"),
        ("Error response code NoSuchBucket.", "there is no such bucket"),
        (
            "The difference between the request time and the server's time is too large.",
            "the clocks of this host",
        ),
        ("tls: failed to verify certificate: x509: certificate has expired", "the certificate of the server"),
    ],
)
def test_refusals_as_stores_word_them(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    program = tmp_path / "restic"
    error = f"Stat(<config/>) returned error, retrying after 1.2s: Stat: {words}"
    program.write_text(f'#!/bin/sh\necho "{error}" >&2\nexec sleep 1000\n')
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda *_arguments, **_options: str(program))
    with pytest.raises(BackupError, match=re.escape(words)) as refused:
        site.repository.snapshots()
    assert str(refused.value).startswith(f"restic snapshots: {message}")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_object_store_that_is_gone_in_the_middle_of_a_copy(store: ObjectStore, tmp_path: Path) -> None:
    site = store.site(tmp_path)
    site.repository.run("init")
    (site.host.path("state") / "uploads" / "film").write_bytes(os.urandom(30_000_000))
    made = site.make()
    notices: list[str] = []
    slow = replace(site.repository, options=("--limit-upload=8192",), notice=notices.append)
    packs = store.bucket / "shop" / "data"
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push, site.settings, slow, now=LATER)
        wait_until(lambda: any(packs.glob("*/*")), what="the first part of the copy")
        store.server.kill()
        wait_until(lambda: notices, what="the notice")
        store.server.start()
        assert pushing.result().name == made.name
    assert len(notices) == 1
    assert notices[0].startswith("the repository cannot be reached, trying again: ")
    site.repository.run("check", "--read-data")
    assert fetch(site.repository, tmp_path / "back", now=LATER + timedelta(hours=1)).name == made.name
    site.host.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_command_that_is_ended_while_it_waits_for_the_store_says_why(
    store: ObjectStore, tmp_path: Path, started: list[Any]
) -> None:
    site = store.site(tmp_path)
    store.server.kill()
    notices: list[str] = []
    waiting = replace(site.repository, notice=notices.append)
    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(waiting.snapshots)
        wait_until(lambda: notices, what="the notice")
        started[-1].terminate()
        with pytest.raises(BackupError, match=r"^restic snapshots: unable to open config file: [^{}\n]+$"):
            listing.result()
    assert "connection refused" in notices[0]
    site.host.stop()


def _killed_copy(site: Site, started: list[Any]) -> None:
    """Copy with the first part stored and the lock left."""
    slow = replace(site.repository, options=("--limit-upload=4096",))
    folder = Path(site.settings.offsite.repository)
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push, site.settings, slow, now=LATER)
        wait_until(
            lambda: [*(folder / "locks").iterdir(), *(folder / "data").glob("*/*-tmp-*")][1:], what="a copy"
        )
        started[-1].kill()
        with pytest.raises(BackupError, match="restic backup: "):
            pushing.result()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_copy_that_is_killed_leaves_no_lock_for_the_next(
    site: Site, started: list[Any], tmp_path: Path
) -> None:
    (site.host.path("state") / "uploads" / "film").write_bytes(os.urandom(30_000_000))
    made = site.make()
    _killed_copy(site, started)
    locks = tmp_path / "repository" / "locks"
    assert len(list(locks.iterdir())) == 1
    assert read_state(site.settings) == OffsiteState()
    assert site.push().name == made.name
    assert not list(locks.iterdir())
    site.repository.run("check", "--read-data")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_lock_of_another_site_stays_even_under_the_same_host_name(
    site: Site, started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine of the same name may hold it: without its lock, its copy would be pruned while it is made."""
    (site.host.path("state") / "uploads" / "film").write_bytes(os.urandom(30_000_000))
    site.make()
    _killed_copy(site, started)
    locks = tmp_path / "repository" / "locks"
    own = pwd.getpwuid(os.getuid())
    other = pwd.struct_passwd(("other-site", *own[1:]))
    with monkeypatch.context() as patch:
        patch.setattr(pwd, "getpwuid", lambda _uid: other)
        site.repository.unlock()
    assert len(list(locks.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(pwd, "getpwuid", lambda _uid: other)
        patch.setattr(socket, "gethostname", lambda: "another-host")
        site.repository.unlock()  # its name differs, so that restic itself decides
    assert not list(locks.iterdir())


# --- together with something else


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_hosts_copy_into_one_repository_at_once_and_prune_their_own(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Site(
        tmp_path / "other", str(tmp_path / "repository"), "keep_days = 1\nkeep_weeks = 0\nkeep_months = 0"
    )
    other.settings = replace(other.settings, site=replace(other.settings.site, name="other"))
    other.repository = Repository.of(other.settings, other.environ)
    try:
        for each in (site, other):
            each.make()
        with ThreadPoolExecutor(2) as pool:
            for _ in range(2):
                first, second = pool.map(lambda each: each.push(), (site, other))
        # Locks of the other one are waited for; what one forgets, the other keeps.
        assert first.id in {each.id for each in site.repository.snapshots()}
        assert [each.id for each in other.repository.snapshots()] == [second.id]
        assert second.id not in {each.id for each in site.repository.snapshots()}
        site.repository.run("check", "--read-data")
        assert fetch(site.repository, tmp_path / "back", now=LATER).id == first.id
    finally:
        other.host.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_full_disk_of_the_copies_is_said_and_the_next_copy_is_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "size=4m") as small:
        site = Site(tmp_path, str(small / "repository"))
        site.repository.run("init")
        site.make()
        kept = site.push()
        (site.host.path("state") / "uploads" / "film").write_bytes(os.urandom(6_000_000))
        made = site.make()
        before = read_state(site.settings)
        with pytest.raises(BackupError, match="restic backup: "):
            site.push()
        # Not counted as a copy: the watch raises its alert in time. What was there can be read.
        assert read_state(site.settings) == before
        assert fetch(site.repository, tmp_path / "back", now=LATER).id == kept.id
        resize(small, "64m")
        assert site.push().name == made.name
        site.repository.run("check", "--read-data")
        site.host.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_disk_that_fills_while_a_copy_is_fetched_is_said_and_left_as_it_was(
    site: Site, tmp_path: Path
) -> None:
    (site.host.path("state") / "uploads" / "film").write_bytes(os.urandom(6_000_000))
    site.make()
    site.push()
    with small_disk(tmp_path / "small", "size=4m", "mode=755") as small:
        back, keys = small / "back", small / "keys"
        for _ in range(2):
            with pytest.raises(BackupError, match=r"restic restore: .*no space left on device$"):
                fetch(site.repository, back, now=LATER, keys=keys)
            assert not list(back.iterdir())
        resize(small, "64m")
        assert fetch(site.repository, back, now=LATER, keys=keys).name


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(300)
def test_a_disk_that_fills_during_a_rehearsal_is_said_and_given_back(site: Site, postgres_url: str) -> None:
    """Rows that compress well need far more than three times their copy."""
    database = Database.from_url(postgres_url)
    with small_disk(site.backups, "size=200m", "mode=755"):
        try:
            with database.connection() as connection:
                connection.execute(
                    "CREATE TABLE log AS SELECT repeat('x', 1000) FROM generate_series(1, 150000)"
                )
            site.make(database)
            site.push()
            free = shutil.disk_usage(site.backups).free
            with pytest.raises(BackupError, match=r"No space left on device|Check free disk space"):
                _rehearsed(site)
            assert read_state(site.settings).rehearsed_at == 0
            assert not list(site.backups.glob(".rehearsal-*"))
            assert shutil.disk_usage(site.backups).free >= free
        finally:
            with database.connection() as connection:
                connection.execute("DROP TABLE IF EXISTS log")


# --- settings, secrets, units


PAGE = Path(__file__).parents[2] / "docs" / "en" / "how-to" / "backups-elsewhere.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not part of the wheel")
def test_the_page_shows_settings_and_commands_that_exist() -> None:
    blocks = re.findall(r"```(toml|sh)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    host = Host()
    units = {file.path.rpartition("/")[2] for file in render(_with(host, "/srv/copies"), Installed())}
    for kind, text in blocks:
        if kind == "toml":
            assert read_settings(f"{host.settings_text()}\n{text}").offsite.repository
            continue
        for line in text.splitlines():
            words = shlex.split(line.strip().removeprefix("mks-deploy app "))
            if words[:1] == ["mks-deploy"]:
                parser().parse_args(words[1:])
            named = {word.replace("shop-", "knowledge-system-") for word in words if word.startswith("shop-")}
            assert named <= units
    host.stop()


def _with(host: Host, repository: str) -> Settings:
    return read_settings(f'{host.settings_text()}\n[offsite]\nrepository = "{repository}"\n')


@pytest.mark.parametrize(
    "address",
    [
        "rest:https://user:secret@host/x",
        "rest:http://backup.example.jp/x",
        "s3:http://host/bucket",
        "sftp:user@host:relative",
        "sftp:user@host:/a b",
        "sftp:-oProxyCommand=x:/a",
        "s3:host/bucket",
        "/",
        "relative",
    ],
)
def test_addresses_are_plain_and_encrypted_on_the_way(address: str) -> None:
    host = Host()
    try:
        with pytest.raises(
            DeploySettingsError, match=r"offsite.repository must be an address of restic"
        ) as refused:
            read_settings(host.settings_text() + f'\n[offsite]\nrepository = "{address}"\n')
        assert "secret@" not in str(refused.value)
    finally:
        host.stop()


@pytest.mark.parametrize(
    ("repository", "wanted"),
    [
        ("", set()),
        ("/srv/restic", {"restic_password"}),
        ("s3:https://s3.example.jp/shop", {"restic_password", "restic_environment"}),
        (
            "sftp:backup@backup.example.jp:/srv/shop",
            {"restic_password", "restic_ssh_key", "restic_known_hosts"},
        ),
    ],
)
def test_secrets_and_units_follow_the_address(repository: str, wanted: set[str], tmp_path: Path) -> None:
    host = Host()
    settings = read_settings(host.settings_text() + f'\n[offsite]\nrepository = "{repository}"\n')
    made = make_missing(tmp_path / "secrets", settings)
    assert ("restic_password" in made) == bool(repository)
    missing = {
        error.split()[2] for error in credential_errors(tmp_path / "secrets", settings) if "missing" in error
    }
    assert missing == wanted - {"restic_password"}
    files = {file.path: file.text for file in render(settings, Installed())}
    units = {Path(name).name: text for name, text in files.items() if "systemd/system" in name}
    copies = {name for name in units if "-offsite" in name}
    name = settings.name
    assert copies == ({f"{name}-offsite.service", f"{name}-offsite-rehearse.service",
                       f"{name}-offsite-rehearse.timer"} if repository else set())  # fmt: skip
    assert (f"OnSuccess={name}-offsite.service" in units[f"{name}-backup.service"]) == bool(repository)
    loaded = {
        line.removeprefix("LoadCredential=").partition(":")[0]
        for line in units.get(f"{name}-offsite.service", "").splitlines()
        if line.startswith("LoadCredential=")
    }
    assert loaded == wanted
    # The application itself never gets them.
    assert not any("restic" in text for unit, text in units.items() if "-offsite" not in unit)
    host.stop()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("AWS_ACCESS_KEY_ID=abc\nAWS_SECRET_ACCESS_KEY=def\n", ""),
        ("PATH=/tmp/evil\n", "line 1 is none"),
        ("AWS_ACCESS_KEY_ID=abc\nsecret value\n", "line 2 is none"),
        ("LD_PRELOAD=x", "line 1 is none"),
    ],
)
def test_variables_of_an_object_store(text: str, problem: str, tmp_path: Path) -> None:
    host = Host()
    settings = read_settings(
        host.settings_text() + '\n[offsite]\nrepository = "s3:https://s3.example.jp/shop"\n'
    )
    make_missing(tmp_path / "secrets", settings)
    file = tmp_path / "secrets" / "restic_environment"
    file.write_text(text)
    file.chmod(0o600)
    errors = [error for error in credential_errors(tmp_path / "secrets", settings) if "restic" in error]
    assert len(errors) == bool(problem)
    assert problem in "".join(errors)
    assert "evil" not in "".join(errors)
    host.stop()


# --- watching


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "problems"),
    [
        (OffsiteState(), ["the newest copy of a backup elsewhere is too old"]),
        (OffsiteState(backup_at=9_990_000.0, first_at=9_900_000.0), []),
        (
            OffsiteState(backup_at=9_990_000.0, first_at=8_000_000.0),
            ["no copy elsewhere was restored for two weeks"],
        ),
        (OffsiteState(backup_at=9_990_000.0, first_at=8_000_000.0, rehearsed_at=9_000_000.0), []),
        (
            OffsiteState(backup_at=9_000_000.0, first_at=9_900_000.0),
            ["the newest copy of a backup elsewhere is too old"],
        ),
    ],
)
def test_copies_are_watched(state: OffsiteState, problems: list[str], site: Site) -> None:
    readings = Readings(10_000_000.0, 1.0, 1e12, 9_999_000.0, {}, 0, offsite=state)
    assert find_problems(readings, site.settings) == problems
    record(readings, site.settings)
    metrics = (site.host.path("state") / "metrics" / "host.prom").read_text()
    assert f"mks_host_offsite_seconds {state.backup_at:.0f}" in metrics


@pytest.mark.slow
def test_before_the_first_copy_time_runs_from_the_first_backup(site: Site) -> None:
    def problems(now: datetime) -> list[str]:
        readings = measure(site.settings, now=now, served=lambda _settings: None)
        return [problem for problem in find_problems(readings, site.settings) if "elsewhere" in problem]

    assert problems(NOW) == []
    made = site.make()
    os.utime(made / "complete", (NOW.timestamp(), NOW.timestamp()))
    assert problems(NOW + timedelta(days=1)) == []
    assert problems(NOW + timedelta(days=3)) == ["the newest copy of a backup elsewhere is too old"]


def test_a_damaged_record_counts_as_none(site: Site) -> None:
    (site.backups / "offsite.json").write_text('{"backup_at": "x"')
    assert read_state(site.settings) == OffsiteState()


@pytest.mark.slow
def test_the_commands(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    file = tmp_path / "deploy.toml"
    shutil.rmtree(tmp_path / "repository")
    file.write_text(site.text)
    monkeypatch.setenv("RESTIC_PASSWORD_FILE", str(tmp_path / "password"))
    made = site.make()

    def run(*words: str) -> tuple[int, str]:
        code = main(["offsite", *words, "--settings", str(file)])
        said = capsys.readouterr()
        return code, said.out + said.err

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "systemctl start knowledge-system-offsite.service" in run("push")[1]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run("push")[0] == 1
    assert run("init")[0] == 0
    assert run("push")[1].startswith(f"copied {made.name} as ")
    assert made.name in run("list")[1]
    assert run("fetch") == (2, "fetch needs a new folder for the copy, and only fetch takes one\n")
    assert run("list", str(tmp_path / "x"))[0] == 2
    assert made.name in run("fetch", str(tmp_path / "back"))[1]
    assert "restored 0 rows in 0 tables" in run("rehearse")[1]
    assert json.loads((site.backups / "offsite.json").read_text())["rehearsed_at"] > 0
