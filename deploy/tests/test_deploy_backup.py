"""Backup and restore with a real PostgreSQL: what is restored is compared; what cannot be trusted is refused."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from deploy_host import Host
from deploy_links import own_folder, plant
from deploy_scratch import let_postgres_run
from mks_deploy.cli import main
from mks_deploy.operations.backup import (
    BackupError,
    Database,
    backup,
    check_keys,
    newest,
    rehearsal_folder,
    replace_with,
    restore,
    restore_for_test,
    size_of,
)
from mks_deploy.operations.base_backup import base_backup
from mks_deploy.operations.offsite import note_rehearsal
from mks_deploy.operations.watch import find_problems, measure
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import read_settings
from testbed.polling import free_port
from testbed.postgres_server import PostgresServer
from testbed.process import ServerProcess
from testbed.services import program, unprivileged
from testbed.small_disk import resize, small_disk

pytestmark = pytest.mark.postgres

NOW = datetime(2026, 11, 26, 2, 30, tzinfo=UTC)


class Place:
    """A host with a filled database, an upload and keys."""

    def __init__(self, url: str) -> None:
        self.host = Host()
        self.settings: Settings = read_settings(self.host.settings_text())
        self.backups = self.host.path("backups")
        self.backups.mkdir()
        self.url, self.database = url, Database.from_url(url)
        uploads = self.host.path("state") / "uploads"
        uploads.mkdir()
        (uploads / "写真.jpg").write_bytes(b"\xff\xd8" + bytes(1000))
        self.keys = self.host.folder / "secret_keys"
        self.keys.write_text("first")
        with self.database.connection() as connection:
            connection.execute("CREATE TABLE article (id int PRIMARY KEY, title text)")
            connection.execute('CREATE TABLE "odd ""name" (x int)')
            connection.execute("INSERT INTO article SELECT n, '養生 ' || n FROM generate_series(1, 500) n")

    def make(self, *, days: int = 0) -> Path:
        return backup(self.settings, self.database, now=NOW + timedelta(days=days), keys=self.keys)


@pytest.fixture
def place(postgres_url: str) -> Iterator[Place]:
    place = Place(postgres_url)
    yield place
    place.host.stop()


@pytest.fixture
def empty(place: Place) -> Iterator[Database]:
    """A database without tables on the same server."""
    name = place.database.variables["PGDATABASE"] + "_empty"
    place.database.run("createdb", name)
    yield place.database.named(name)
    place.database.run("dropdb", "--force", name)


def test_what_is_restored_is_what_was_there(place: Place, empty: Database, tmp_path: Path) -> None:
    made = place.make()
    assert made.stat().st_mode & 0o777 == 0o700
    # What comes after the backup is not in it.
    with place.database.connection() as connection:
        connection.execute("DELETE FROM article")
    rows = restore(made, empty, uploads=tmp_path / "uploads")
    assert rows == {"public.article": 500, 'public."odd ""name"': 0}
    with empty.connection() as connection:
        assert connection.execute("SELECT title FROM article WHERE id = 7").fetchone() == ("養生 7",)
    assert (tmp_path / "uploads/写真.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_a_backup_does_not_mind_what_people_do_with_files_meanwhile(
    place: Place, empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = place.host.path("state") / "uploads"
    for name in (".new/half", ".removed/back", "ab/aside"):
        (uploads / name).parent.mkdir()
        (uploads / name).write_text(name)
    add = tarfile.TarFile.add

    def meanwhile(packed: tarfile.TarFile, name: Any, *more: Any, **named: Any) -> None:
        half = uploads / ".new/half"
        if Path(name) == half and half.exists():
            half.unlink()
            (uploads / ".removed/back").rename(uploads / "ab/back")
            (uploads / "ab/aside").rename(uploads / ".removed/aside")
        add(packed, name, *more, **named)

    monkeypatch.setattr(tarfile.TarFile, "add", meanwhile)
    made = place.make()
    restored = tmp_path / "uploads"
    restore(made, empty, uploads=restored)
    assert (restored / "ab/back").read_text() == ".removed/back"
    assert (restored / ".removed/aside").read_text() == "ab/aside"
    assert restored.stat().st_mode & 0o777 == 0o750


def _database(place: Place) -> Path:
    place.settings = read_settings(place.host.settings_text('[stores]\nsqlite = "db.sqlite3"\n'))
    assert place.settings.sqlite
    file = Path(place.settings.sqlite)
    file.parent.mkdir(parents=True)
    return file


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_of_sqlite_is_one_state_of_it(
    place: Place, empty: Database, tmp_path: Path, mode: str
) -> None:
    file = _database(place)
    (file.parent / "notes-wal").write_text("of no database")
    # What somebody has handed in is not opened.
    (file.parents[2] / "report.db").write_bytes(b"SQLite format 3\0" + b"damaged" * 1000)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as live:
        live.execute(f"PRAGMA journal_mode = {mode}")
        live.execute("CREATE TABLE article (title text)")
        live.execute("INSERT INTO article VALUES ('養生')")
        live.execute("BEGIN")
        live.execute("INSERT INTO article VALUES ('half')")
        made = place.make()
        live.execute("ROLLBACK")
    restored = tmp_path / "uploads"
    restore(made, empty, uploads=restored)
    folder = restored / "private/database"
    assert {each.name for each in folder.iterdir()} == {"db.sqlite3", "notes-wal"}
    assert (folder / "db.sqlite3").stat().st_mode == file.stat().st_mode
    with contextlib.closing(sqlite3.connect(folder / "db.sqlite3")) as copy:
        assert copy.execute("SELECT title FROM article").fetchall() == [("養生",)]
    assert not list(place.backups.rglob("*.copy"))


def test_a_damaged_database_of_sqlite_makes_no_backup(place: Place) -> None:
    file = _database(place)
    with contextlib.closing(sqlite3.connect(file)) as live, live:
        live.execute("CREATE TABLE article (title text)")
        live.executemany("INSERT INTO article VALUES (?)", [("x" * 500,)] * 100)
    data = bytearray(file.read_bytes())
    data[4096:8192] = bytes(4096)
    file.write_bytes(data)
    with pytest.raises(BackupError, match=rf"^the database {file} "):
        place.make()
    assert list(place.backups.iterdir()) == []


LINKS_THAT_STAY = {
    "近道.jpg": "写真.jpg",
    "absolute": "{uploads}/写真.jpg",
    "folder": "deep",
    "deep/up": "../写真.jpg",
    "deep/deeper/round": "../../写真.jpg",
    "disk": "{elsewhere}",
}


def test_a_backup_holds_what_a_link_shows(place: Place, empty: Database, tmp_path: Path) -> None:
    uploads, elsewhere = place.host.path("state") / "uploads", place.host.folder / "elsewhere"
    for folder in (uploads / "deep/deeper", elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "film").write_text("of another disk")
    for name, target in LINKS_THAT_STAY.items():
        (uploads / name).symlink_to(target.format(uploads=uploads, elsewhere=elsewhere))
    os.link(uploads / "写真.jpg", uploads / "second name")
    os.mkfifo(uploads / "pipe")
    (uploads / "gone").symlink_to("absent")
    more = f'[sandbox]\nwrite_paths = {{"{elsewhere}" = "a larger disk"}}'
    place.settings = read_settings(place.host.settings_text(more))
    restored = tmp_path / "uploads"
    restore(place.make(), empty, uploads=restored)
    shutil.rmtree(elsewhere)
    assert not [path for path in restored.rglob("*") if path.is_symlink()]
    photo = (uploads / "写真.jpg").read_bytes()
    for name in ("近道.jpg", "absolute", "deep/up", "folder/up", "folder/deeper/round", "second name"):
        assert (restored / name).read_bytes() == photo
    assert (restored / "disk/film").read_text() == "of another disk"
    assert {path.name for path in restored.iterdir()} & {"pipe", "gone"} == set()


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("secret", "/etc/shadow", "is a link to /etc/shadow, which no folder of the backup holds"),
        ("up", "../../deploy.toml", "which no folder of the backup holds"),
        ("deep/folder", "/etc", "is a link to /etc, which"),
        ("beside", "{uploads}-other", "which no folder of the backup holds"),
        ("absent", "/absent", "is a link to /absent, which"),
        ("deep/above", "..", "is a link to a folder that it is in"),
        ("itself", "itself", "is a link that leads to itself"),
    ],
)
def test_a_link_that_leads_elsewhere_is_named_before_anything_is_written(
    place: Place, name: str, target: str, reason: str
) -> None:
    uploads = place.host.path("state") / "uploads"
    (uploads / "deep").mkdir()
    Path(f"{uploads}-other").mkdir()
    (uploads / name).symlink_to(target.format(uploads=uploads))
    with pytest.raises(BackupError, match=f"^{uploads / name} .*{reason}"):
        place.make()
    assert list(place.backups.iterdir()) == []
    assert not place.host.path("key_backups").exists()


def _repack(made: Path, add: Callable[[tarfile.TarFile], object]) -> None:
    """Give a backup another archive of uploads, whose checksum is right."""
    archive = made / "uploads.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        add(packed)
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["sha256"][archive.name] = hashlib.sha256(archive.read_bytes()).hexdigest()
    (made / "manifest.json").write_text(json.dumps(manifest))


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "members",
    [
        # As a backup of a former version holds it.
        [_member("fine"), _member("link", tarfile.SYMTYPE, "/etc/shadow")],
        [_member("fine"), _member("link", tarfile.SYMTYPE, "../../x")],
        [_member("fine"), _member("hard", tarfile.LNKTYPE, "../x")],
        [_member("fine"), _member("../x")],
        [_member("fine"), _member("pipe", tarfile.FIFOTYPE)],
        # Each of them stays inside, and together they do not.
        [_member("a/b", tarfile.DIRTYPE), _member("a/b/c", tarfile.SYMTYPE, ".."), _member("a/b/c/../../x")],
    ],
    ids=["absolute link", "link above", "hard link above", "name above", "pipe", "chain of links"],
)
def test_an_archive_that_cannot_be_unpacked_is_refused_before_the_database_is_restored(
    place: Place, empty: Database, tmp_path: Path, members: list[tarfile.TarInfo]
) -> None:
    made = place.make()
    _repack(made, lambda packed: [packed.addfile(member) for member in members])
    with pytest.raises(BackupError, match=r"uploads\.tar\.gz cannot be unpacked, and nothing was restored"):
        restore(made, empty, uploads=tmp_path / "uploads")
    assert not list((tmp_path / "uploads").glob("*"))
    with empty.connection() as connection:
        assert connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").fetchone() is None


def test_a_disk_that_fills_while_uploads_are_restored_leaves_nothing(
    place: Place, empty: Database, tmp_path: Path
) -> None:
    (place.host.path("state") / "uploads/film").write_bytes(os.urandom(3_000_000))
    made = place.make()
    with small_disk(tmp_path / "uploads", "size=2m", "mode=755") as uploads:
        with pytest.raises(OSError, match="No space left on device"):
            restore(made, empty, uploads=uploads)
        assert not list(uploads.iterdir())
        resize(uploads, "8m")
        assert restore(made, empty, uploads=uploads)["public.article"] == 500


def test_keys_are_kept_apart_and_every_state_of_them(place: Place) -> None:
    made = place.make()
    place.keys.write_text("second,first")
    place.make(days=1)
    place.make(days=2)
    kept = list(place.host.path("key_backups").iterdir())
    assert sorted(file.read_text() for file in kept) == ["first", "second,first"]
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o600}
    assert not [file for file in made.iterdir() if b"first" in file.read_bytes()]


def test_a_full_disk_leaves_no_empty_copy_of_the_keys(place: Place) -> None:
    folder = place.host.path("key_backups")
    with small_disk(folder, "size=4k", "mode=700"):
        (folder / "filler").write_bytes(bytes(4096))
        with pytest.raises(OSError, match="No space left on device"):
            place.make()
        # Without its keys a backup cannot be read, so it does not count either.
        assert newest(place.settings, now=math.inf) is None
        assert [file.name for file in folder.iterdir()] == ["filler"]
        (folder / "filler").unlink()
        made = place.make()
        assert [file.read_text() for file in folder.iterdir()] == ["first"]
        check_keys(made, place.settings)


def test_a_damaged_copy_of_the_keys_is_told_and_written_again(place: Place) -> None:
    made = place.make()
    (copy,) = place.host.path("key_backups").iterdir()
    copy.write_bytes(b"")
    readings = measure(place.settings, now=NOW, served=lambda _: None)
    assert f"the copy of the keys {copy.name} is damaged" in find_problems(readings, place.settings)
    with pytest.raises(BackupError, match="is a damaged copy of the keys"):
        check_keys(made, place.settings)
    place.make(days=1)
    assert copy.read_text() == "first"
    assert not measure(place.settings, now=NOW, served=lambda _: None).damaged_keys


def test_a_backup_is_tried_in_a_cluster_of_its_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made = place.make()
    let_postgres_run(monkeypatch)
    with rehearsal_folder(place.settings, size_of(made)) as folder:
        assert restore_for_test(made, folder)["public.article"] == 500
    assert list(place.backups.iterdir()) == [made]
    with pytest.raises(BackupError, match=r"a rehearsal needs \d+ MiB on"):
        rehearsal_folder(place.settings, 1 << 60).__enter__()


@pytest.mark.parametrize("spoilt", ["database.dump", "uploads.tar.gz"])
def test_a_spoilt_file_is_refused_before_anything_is_written(
    place: Place, empty: Database, tmp_path: Path, spoilt: str
) -> None:
    made = place.make()
    data = bytearray((made / spoilt).read_bytes())
    data[len(data) // 2] ^= 1
    (made / spoilt).write_bytes(data)
    with pytest.raises(BackupError, match="checksum differs"):
        restore(made, empty, uploads=tmp_path / "uploads")
    with empty.connection() as connection:
        assert connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").fetchone() is None


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"sha256": {}, "rows": {}}', '{"rows": {}}', "\x00"])
def test_a_damaged_manifest_is_refused_before_anything_is_written(
    place: Place, empty: Database, tmp_path: Path, manifest: str
) -> None:
    made = place.make()
    (made / "manifest.json").write_text(manifest)
    with pytest.raises(BackupError, match="damaged; use another backup"):
        restore(made, empty, uploads=tmp_path / "uploads")
    assert not (tmp_path / "uploads").exists()


def test_a_file_that_is_missing_is_refused(place: Place, empty: Database, tmp_path: Path) -> None:
    made = place.make()
    (made / "uploads.tar.gz").unlink()
    with pytest.raises(BackupError, match="checksum differs"):
        restore(made, empty, uploads=tmp_path / "uploads")


def test_rows_that_are_missing_after_a_restore_are_told(
    place: Place, empty: Database, tmp_path: Path
) -> None:
    made = place.make()
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["rows"]["public.article"] = 501
    (made / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BackupError, match=r"rows differ after the restore: public\.article"):
        restore(made, empty, uploads=tmp_path / "uploads")


def test_nothing_is_overwritten(place: Place, empty: Database, tmp_path: Path) -> None:
    made = place.make()
    with pytest.raises(BackupError, match="the database is not empty"):
        restore(made, place.database, uploads=tmp_path / "uploads")
    (tmp_path / "mine").touch()
    with pytest.raises(BackupError, match="is not empty"):
        restore(made, empty, uploads=tmp_path)


class Served:
    """A site of its own, with a database and uploads that a backup replaces, and what is in both."""

    def __init__(self, place: Place, server: Database) -> None:
        self.server, self.database = server, server.named("served")
        self.uploads = place.host.folder / "served" / "uploads"
        self.uploads.mkdir(parents=True)
        (self.uploads / "new").touch()
        server.run("createdb", "served")
        with self.database.connection() as connection:
            connection.execute("CREATE TABLE later (x int)")

    def replace(self, made: Path) -> dict[str, int]:
        return replace_with(made, self.database, uploads=self.uploads, suffix="at")

    def databases(self) -> set[str]:
        with self.server.connection() as connection:
            return {row[0] for row in connection.execute("SELECT datname FROM pg_database")} - _OF_POSTGRESQL

    def tables(self, name: str = "served") -> set[str]:
        with self.server.named(name).connection() as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            return {row[0] for row in found}

    def folders(self) -> set[str]:
        return {path.name for path in self.uploads.parent.iterdir()}


_OF_POSTGRESQL = {"postgres", "template0", "template1"}


@pytest.fixture
def served(place: Place) -> Iterator[Served]:
    server = PostgresServer()
    server.start()
    try:
        yield Served(place, Database.from_url(server.url("postgres")))
    finally:
        server.stop()
        shutil.rmtree(server.directory, ignore_errors=True)


def test_a_backup_takes_the_place_of_what_a_site_has(place: Place, served: Served) -> None:
    made = place.make()
    with served.database.connection() as process:
        # A process of the site, which is connected.
        assert served.replace(made)["public.article"] == 500
        with pytest.raises(psycopg.OperationalError):
            process.execute("SELECT 1")
        process.close()
    assert served.tables() == {"article", 'odd "name'}
    assert served.tables("served-at") == {"later"}
    assert served.databases() == {"served", "served-at"}
    assert [path.name for path in served.uploads.iterdir()] == ["写真.jpg"]
    assert served.uploads.stat().st_mode & 0o777 == 0o750
    assert (served.uploads.with_name("uploads-at") / "new").exists()
    assert served.folders() == {"uploads", "uploads-at"}


def _damage(made: Path) -> None:
    (made / "uploads.tar.gz").write_bytes(b"x")


def _forget_a_row(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["rows"]["public.article"] += 1
    (made / "manifest.json").write_text(json.dumps(manifest))


def _use_the_name(made: Path) -> None:
    """What would be kept cannot get its name."""
    (made.parents[1] / "served" / "uploads-at").mkdir()
    (made.parents[1] / "served" / "uploads-at" / "mine").touch()


@pytest.mark.parametrize("spoil", [_damage, _forget_a_row, _use_the_name])
def test_a_refused_backup_leaves_what_a_site_has(
    place: Place, served: Served, spoil: Callable[[Path], None]
) -> None:
    made = place.make()
    spoil(made)
    before = served.folders()
    with pytest.raises((BackupError, OSError)):
        served.replace(made)
    assert served.tables() == {"later"}
    assert served.databases() == {"served"}
    assert served.folders() == before
    assert [path.name for path in served.uploads.iterdir()] == ["new"]


def test_a_mount_point_is_refused_before_anything_is_restored(place: Place, served: Served) -> None:
    made = place.make()
    with small_disk(served.uploads, "size=2m"), pytest.raises(BackupError, match="is a mount point"):
        served.replace(made)
    assert served.databases() == {"served"}
    assert served.folders() == {"uploads"}


@pytest.mark.slow
def test_a_database_that_somebody_else_uses_is_not_replaced(place: Place, served: Served) -> None:
    with served.database.connection() as connection:
        connection.execute("CREATE ROLE somebody LOGIN PASSWORD 'x'")
    other = Database({**served.database.variables, "PGUSER": "somebody", "PGPASSWORD": "x"})
    with (
        other.connection(),
        pytest.raises(BackupError, match=r"served was not replaced: .*accessed by other users"),
    ):
        served.replace(place.make())
    assert served.databases() == {"served"}
    assert [path.name for path in served.uploads.iterdir()] == ["new"]


def test_root_restores_nothing_where_the_account_can_put_a_link(
    place: Place, empty: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, victim = place.make(), place.host.folder / "victim"
    victim.mkdir()
    uploads = own_folder(place.host.path("state")) / "uploads.restored"
    plant(uploads, victim)
    name = empty.variables["PGDATABASE"]
    monkeypatch.setenv("DATABASE_URL", place.url.rpartition("/")[0] + "/" + name)
    assert main(["restore", str(made), "--uploads", str(uploads)]) == 2
    assert "root follows no link that another account can make" in capsys.readouterr().err
    assert list(victim.iterdir()) == []
    with empty.connection() as connection:
        assert connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").fetchone() is None
    own_folder(place.backups)
    with pytest.raises(PermissionError, match="root follows no link"):
        place.make(days=1)


def test_two_backups_of_one_second_are_two(place: Place) -> None:
    first, second = place.make(), place.make()
    assert second.name == f"{first.name}-2"
    assert newest(place.settings, now=math.inf) == second
    running = place.backups / f".{first.name}-3.new"
    running.mkdir()
    assert place.make().name == f"{first.name}-4"
    assert running.is_dir()


def test_what_a_killed_backup_left_goes_a_day_later(place: Place) -> None:
    old, young = place.backups / ".20261001T000000Z.new", place.backups / ".rehearsal-x"
    for folder, age in ((old, timedelta(days=2)), (young, timedelta(hours=2))):
        folder.mkdir()
        when = (NOW - age).timestamp()
        os.utime(folder, (when, when))
    place.make()
    assert not old.exists()
    assert young.is_dir()


def test_what_was_not_written_whole_does_not_count(place: Place, empty: Database, tmp_path: Path) -> None:
    made = place.make()
    wrong = Database({**place.database.variables, "PGDATABASE": "absent"})
    with pytest.raises(Exception, match="absent"):
        backup(place.settings, wrong, now=NOW + timedelta(days=1), keys=None)
    assert [path.name for path in place.backups.iterdir()] == [made.name]
    (made / "complete").unlink()
    assert newest(place.settings, now=math.inf) is None
    with pytest.raises(BackupError, match="complete backup"):
        restore(made, empty, uploads=tmp_path / "uploads")


def test_old_backups_go(place: Place) -> None:
    for number in range(16):
        folder = place.backups / f"202610{number + 10}T000000Z"
        folder.mkdir()
        (folder / "complete").touch()
    made = place.make()
    assert newest(place.settings, now=math.inf) == made
    assert len(list(place.backups.iterdir())) == place.settings.upkeep.backup_days


def test_a_backup_that_was_half_deleted_does_not_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(place.settings.upkeep.backup_days):
        place.make(days=number)

    def killed(folder: Path) -> None:
        (folder / "uploads.tar.gz").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            place.make(days=30)
    assert all(
        (folder / "uploads.tar.gz").exists()
        for folder in place.backups.iterdir()
        if not folder.name.startswith(".")
    )


def test_a_clock_that_was_ahead_does_not_make_an_old_backup_the_newest(place: Place) -> None:
    ahead, made = place.make(days=400), place.make()
    for folder, days in ((ahead, 400), (made, 0)):
        when = (NOW + timedelta(days=days)).timestamp()
        os.utime(folder / "complete", (when, when))
    assert newest(place.settings, now=NOW.timestamp() + 60) == made


def test_many_backups_of_one_day_push_out_no_older_day(place: Place) -> None:
    days = [place.make(days=number) for number in range(3)]
    again = [place.make(days=3) for _ in range(place.settings.upkeep.backup_days)]
    assert {*days, *again} == set(place.backups.iterdir())


def test_a_dump_may_take_longer_than_the_server_lets_a_transaction_rest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``postgresql.conf`` of the kit ends a transaction that waits for a minute, as that of the snapshot does."""
    name = place.database.variables["PGDATABASE"]
    with place.database.connection() as connection:
        for setting in ("idle_in_transaction_session_timeout", "statement_timeout"):
            connection.execute(f"ALTER DATABASE {name} SET {setting} = '20ms'")  # type: ignore[arg-type]
    run = Database.run

    def slowly(database: Database, program: str, *arguments: str) -> None:
        run(database, program, *arguments)
        with place.database.connection() as other:
            other.execute("SELECT pg_sleep(0.1)")

    monkeypatch.setattr(Database, "run", slowly)
    assert newest(place.settings, now=math.inf) is None
    assert place.make() == newest(place.settings, now=math.inf)


def test_the_commands(
    place: Place, empty: Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = place.host.folder / "deploy.toml"
    file.write_text(place.host.settings_text())
    url = place.host.folder / "database_url"
    url.write_text(postgres_url + "\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(url))
    monkeypatch.setenv("MKS_SECRET_KEYS_FILE", str(place.keys))
    let_postgres_run(monkeypatch)
    assert main(["backup", "--restore-test", "--settings", str(file)]) == 0
    out = capsys.readouterr().out
    assert "restored 500 rows in 2 tables" in out
    made = out.splitlines()[0]
    # Each day, as the unit does: it is restored again when a week has passed.
    for days, tested in ((1, False), (6, False), (7, True), (8, True)):
        note_rehearsal(place.settings, now=datetime.now(UTC) - timedelta(days=days, minutes=-5))
        assert main(["backup", "--restore-test=weekly", "--settings", str(file)]) == 0
        assert ("restored 500 rows" in capsys.readouterr().out) is tested
    assert not list(place.backups.glob(".rehearsal-*"))
    monkeypatch.delenv("DATABASE_URL_FILE")
    assert main(["restore", made, "--uploads", str(place.host.folder / "u")]) == 1
    assert "DATABASE_URL" in capsys.readouterr().err
    name = empty.variables["PGDATABASE"]
    monkeypatch.setenv("DATABASE_URL", postgres_url.rpartition("/")[0] + "/" + name)
    assert main(["restore", made, "--uploads", str(place.host.folder / "u")]) == 0
    assert "500 public.article" in capsys.readouterr().out


def test_no_password_among_arguments() -> None:
    database = Database.from_url("postgresql+psycopg://u:s%40cret@db:5433/kb")
    assert database.variables == {
        "PGHOST": "db",
        "PGPORT": "5433",
        "PGUSER": "u",
        "PGPASSWORD": "s@cret",
        "PGDATABASE": "kb",
    }
    assert Database.from_url("postgresql:///kb?host=/run/postgresql").variables["PGHOST"] == "/run/postgresql"
    whole = Database.from_url("postgresql+psycopg:///kb?host=/run/postgresql&port=5433&sslmode=verify-full")
    assert (whole.variables["PGPORT"], whole.variables["PGSSLMODE"]) == ("5433", "verify-full")
    with pytest.raises(BackupError, match="must name PostgreSQL"):
        Database.from_url("sqlite:///x")
    assert os.environ.get("PGPASSWORD") is None


# --- back to a moment ---------------------------------------------------------------------------


def test_a_base_backup_is_made_where_the_server_is(place: Place) -> None:
    there = Database.from_url("postgresql+psycopg://kb@db.example.jp/kb")
    with pytest.raises(BackupError, match=r"at db\.example\.jp, not here"):
        base_backup(place.settings, there, now=NOW)


def _refuse_a_second_at_once(settings: Settings, here: Database, wal: Path) -> None:
    with (wal / ".base.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BackupError, match="locked"):
            base_backup(settings, here, now=NOW)


@pytest.mark.slow
def test_the_archive_leads_back_to_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runbook's steps with the rendered ``archive_command``: what was deleted after the moment is there."""
    host = Host()
    settings, wal = read_settings(host.settings_text()), host.path("wal")
    wal.mkdir()
    host.render()
    text = (host.path("config") / "postgresql.conf").read_text()
    archive = next(line for line in text.splitlines() if line.startswith("archive_command = "))
    server = PostgresServer(archive_mode="on", archive_command=archive.partition(" = ")[2].strip("'"))
    if identity := unprivileged():
        os.chown(wal, identity["user"], identity["group"])
    try:
        server.start()
        database = Database.from_url(server.url("postgres"))
        with database.connection() as connection:
            connection.execute("CREATE TABLE article AS SELECT n FROM generate_series(1, 10) n")
        run, named = subprocess.run, {"PGUSER": server.user, **os.environ}

        def as_the_server(command: list[str], *, env: dict[str, str], **options: Any) -> Any:
            return run(command, env={**named, **env}, **options, **identity)

        here = Database({**database.variables, "PGHOST": str(server.directory)})
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "run", as_the_server)
            patched.setattr(os, "geteuid", lambda: 1000)
            bases = [base_backup(settings, here, now=NOW + timedelta(days=day)) for day in range(3)]
            # Two are kept, and of the segments those that they need.
            assert sorted(wal.glob("base-*")) == bases[1:]
            # The clock was set back: the newest has the oldest name, and is not the one that goes.
            bases.append(base_backup(settings, here, now=NOW - timedelta(days=30)))
            _refuse_a_second_at_once(settings, here, wal)
        assert set(wal.glob("base-*")) == set(bases[2:])
        label = (bases[2] / "backup_label").read_text()
        assert min(path.name for path in wal.glob("0*[0-9A-F]") if len(path.name) == 24) in label
        with database.connection() as connection:
            connection.execute("INSERT INTO article VALUES (11)")
        with database.connection() as connection:
            moment = connection.execute("SELECT clock_timestamp()::text").fetchone()
            assert moment is not None
        with database.connection() as connection:
            connection.execute("DELETE FROM article")
        with database.connection() as connection:
            connection.execute("SELECT pg_switch_wal()")
        # A stop archives what is left.
        server.stop()
        restored = _recovered(bases[-1], moment[0], identity)
        try:
            found = Database({**database.variables, "PGPORT": str(restored.port)})
            with found.connection() as connection:
                assert connection.execute("SELECT count(*) FROM article").fetchone() == (11,)
        finally:
            restored.stop()
    finally:
        shutil.rmtree(server.directory, ignore_errors=True)
        host.stop()


class _Recovered(NamedTuple):
    port: int
    process: ServerProcess

    def stop(self) -> None:
        self.process.stop()


def _recovered(base: Path, moment: str, identity: dict[str, Any]) -> _Recovered:
    wal, port = base.parent, free_port()
    lines = {
        "restore_command": f"cp {wal}/%f %p",
        "recovery_target_time": moment,
        "recovery_target_action": "promote",
    }
    (base / "postgresql.auto.conf").write_text(
        "".join(f"{name} = '{value}'\n" for name, value in lines.items())
    )
    (base / "recovery.signal").touch()
    for file in ("postgresql.auto.conf", "recovery.signal"):
        if identity:
            os.chown(base / file, identity["user"], identity["group"])
    arguments = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": wal,
        "archive_mode": "off",
    }
    words = [word for name, value in arguments.items() for word in ("-c", f"{name}={value}")]
    process = ServerProcess(
        [program("postgres"), "-D", str(base), *words],
        log=wal.parent / "recovered.log",
        ready=lambda: _answers(port),
        stop_signal=signal.SIGINT,
        identity=identity,
        cwd=wal,
    )
    process.start(timeout=60)
    return _Recovered(port, process)


def _answers(port: int) -> bool:
    """Whether the recovery is over and writing is allowed."""
    import psycopg

    try:
        with psycopg.connect(host="127.0.0.1", port=port, user="postgres", connect_timeout=2) as connection:
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    except psycopg.OperationalError:
        return False
