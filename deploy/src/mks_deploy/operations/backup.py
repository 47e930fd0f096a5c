"""Backup and restore of database, uploads and keys; only complete, verifiable backups count.

The dump and the row counts come from one database snapshot, so that a restore can be verified. Keys are stored in a
separate directory: a stolen backup must not contain the keys to decrypt it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from mks_deploy.atomic_files import delete_folder, empty_folder, refuse_foreign_path, replace_file, sync

if TYPE_CHECKING:
    import psycopg

    from mks_deploy.settings.definitions import Settings

__all__ = [
    "BackupError",
    "Database",
    "backup",
    "check_keys",
    "damaged_keys",
    "holds_database",
    "newest",
    "newest_at",
    "oldest_at",
    "rehearsal_folder",
    "replace_with",
    "restore",
    "restore_for_test",
    "scratch_database",
    "second_of",
    "size_of",
]

_DUMP, _UPLOADS, _MANIFEST, _COMPLETE = "database.dump", "uploads.tar.gz", "manifest.json", "complete"
_KEYS, _NAMED_BY = "secret_keys-", 16
_REHEARSAL: Final = ".rehearsal-"
_BESIDE: Final = ("-wal", "-shm", "-journal")
"""Ends of the files that SQLite keeps beside a database while it is open; a copy has none."""
_CLUSTER: Final = 128 << 20
"""Bytes of an empty PostgreSQL cluster (39 MiB were measured) and its write-ahead log (65 MiB)."""
_DAY: Final = 86_400
_LOOKS: Final = 2
_ATTEMPTS: Final = 2
"""Of each, PostgreSQL waits five seconds for other sessions to end."""
_DISCONNECT: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usename = current_user"
)
_TABLES: Final = (
    "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
    "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
)


class BackupError(RuntimeError):
    """A backup cannot be made, or is incomplete or damaged."""


@dataclass(frozen=True, slots=True)
class Database:
    """Connection parameters for libpq programs, as variables: passwords never appear in arguments.

    Attributes:
        variables: ``PGHOST`` and so on.
    """

    variables: Mapping[str, str]

    @classmethod
    def from_url(cls, url: str) -> Database:
        """Parse the application's ``DATABASE_URL`` with all parameters: port, TLS, multiple hosts."""
        scheme, _, rest = url.partition("://")
        if scheme.partition("+")[0] not in {"postgresql", "postgres"}:
            raise BackupError("DATABASE_URL must name PostgreSQL: only that is backed up here")
        import psycopg

        try:
            given = psycopg.pq.Conninfo.parse(f"postgresql://{rest}".encode())
        except psycopg.OperationalError:
            raise BackupError("DATABASE_URL is not a URL of PostgreSQL") from None
        return cls({each.envvar.decode(): each.val.decode() for each in given if each.envvar and each.val})

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Database:
        """Read ``DATABASE_URL``, or the file named by ``DATABASE_URL_FILE``."""
        if file := environ.get("DATABASE_URL_FILE"):
            return cls.from_url(Path(file).read_text(encoding="utf-8").strip())
        if url := environ.get("DATABASE_URL"):
            return cls.from_url(url)
        raise BackupError("DATABASE_URL or DATABASE_URL_FILE must name the database")

    def named(self, name: str) -> Database:
        """Return another database of the same server."""
        return Database({**self.variables, "PGDATABASE": name})

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs on the database."""
        environ = {"PATH": _path(), "LANG": "C.UTF-8", **self.variables}
        done = subprocess.run(  # noqa: S603 - a fixed program, no shell
            [_program(program), *arguments], env=environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BackupError(f"{program} failed: {done.stderr.strip() or done.returncode}")

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Open a connection for queries."""
        import psycopg

        known = {each.envvar.decode(): each.keyword.decode() for each in _options() if each.envvar}
        named = {known[name]: value for name, value in self.variables.items()}
        # The server ends transactions idle for a minute, as this one is during pg_dump, and long statements.
        unhurried = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
        named["options"] = f"{named.get('options', '')} {unhurried}".strip()
        try:
            connection = psycopg.connect(**{"dbname": "postgres", "connect_timeout": "10", **named})  # type: ignore[arg-type]
        except psycopg.OperationalError as error:
            raise BackupError(f"PostgreSQL cannot be reached: {error}") from None
        with connection:
            yield connection


def backup(settings: Settings, database: Database | None, *, now: datetime, keys: Path | None) -> Path:
    """Make a backup, and delete those older than ``upkeep.backup_days``; return its directory.

    Args:
        settings: settings of the deployment.
        database: database to dump; ``None`` if the deployment has none.
        now: current time, which names the directory. Further backups in the same second get the suffix ``-2``,
            ``-3`` …
        keys: file of the application's keys, which is stored separately.

    Raises:
        BackupError: the backup failed; no directory counts as a backup then.
    """
    root, uploads = Path(settings.paths.backups), Path(settings.paths.state) / "uploads"
    refuse_foreign_path(root)
    further = (Path(path) for path, _ in settings.sandbox.write_paths)
    declared = [path.resolve() for path in (uploads, *further)]
    for _ in _uploaded(uploads, declared):
        pass  # a link that leads elsewhere is named before anything is written
    made, partial = _claimed(root, second_of(now))
    try:
        rows = _dump(database, partial / _DUMP) if database else {}
        _pack(uploads, partial / _UPLOADS, declared, Path(settings.sqlite) if settings.sqlite else None)
        files = {file: _digest(partial / file) for file in ((_DUMP, _UPLOADS) if database else (_UPLOADS,))}
        manifest: dict[str, object] = {
            "made_at": now.astimezone(UTC).isoformat(),
            "sha256": files,
            "rows": rows,
        }
        manifest |= {} if database else {"database": False}
        if keys is not None:
            # First: a backup that cannot be decrypted is useless.
            manifest["keys"] = _keep_keys(keys, Path(settings.paths.key_backups)).name
        replace_file(partial / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
        (partial / _COMPLETE).touch()
        _to_disk(partial)
        partial.rename(made)
        sync(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    days = settings.upkeep.backup_days
    # By count and by age: many manual backups on one day delete none of other days, and if the clock jumps
    # ahead, that many are still kept.
    for old in _complete(root)[:-days]:
        if old.name < second_of(now - timedelta(days=days)):
            delete_folder(old)
    for left in _interrupted(root, now):
        shutil.rmtree(left)
    return made


def newest(settings: Settings, *, now: float) -> Path | None:
    """Return the newest complete backup.

    One with a time in the future stems from a wrong clock, and is returned only if there is no other.

    Args:
        settings: settings of the deployment.
        now: current time, in seconds since the epoch.
    """
    made = _complete(Path(settings.paths.backups))
    past = [each for each in made if _completed_at(each) <= now]
    return max(past or made, key=_completed_at, default=None)


def newest_at(settings: Settings, *, now: float) -> float:
    """Return the time of the newest complete backup, in seconds since the epoch; 0 if there is none.

    A time in the future is ignored; it would count as fresh until then.
    """
    made = newest(settings, now=now)
    at = _completed_at(made) if made else 0.0
    return at if at <= now else 0.0


def oldest_at(settings: Settings) -> float:
    """Return the time of the oldest complete backup, in seconds since the epoch; 0 if there is none."""
    made = _complete(Path(settings.paths.backups))
    return _completed_at(made[0]) if made else 0.0


def damaged_keys(settings: Settings) -> list[str]:
    """Return the names of key copies whose checksum does not match their name."""
    folder = Path(settings.paths.key_backups)
    copies = sorted(folder.glob(f"{_KEYS}*")) if folder.is_dir() else []
    return [copy.name for copy in copies if not _is_whole(copy)]


def check_keys(made: Path, settings: Settings) -> None:
    """Check that the keys of a backup are stored.

    Raises:
        BackupError: the copy is missing or damaged.
    """
    if name := _checked_manifest(made).get("keys"):
        copy = Path(settings.paths.key_backups) / str(name)
        if not copy.is_file() or not _is_whole(copy):
            raise BackupError(f"{copy} is a damaged copy of the keys; use another backup")


def holds_database(made: Path) -> bool:
    """Whether a backup holds a database.

    Raises:
        BackupError: the backup is incomplete or damaged.
    """
    return bool(_checked_manifest(made).get("database", True))


def restore(made: Path, database: Database | None, *, uploads: Path) -> dict[str, int]:
    """Restore a backup into an empty database and an empty directory, and verify it; return the rows per table.

    Raises:
        BackupError: a checksum or row count differs, a file cannot be unpacked, or the target is not empty; nothing
            is overwritten.
    """
    refuse_foreign_path(uploads)
    manifest = _checked_manifest(made)
    if database is None and manifest.get("database", True):
        raise BackupError(f"{made} contains a database, but DATABASE_URL names none to restore into")
    if database:
        _refuse_tables(database)
    if uploads.exists() and any(uploads.iterdir()):
        raise BackupError(f"{uploads} is not empty")
    archive = made / _UPLOADS
    try:
        with tarfile.open(archive) as packed:
            for member in packed:
                tarfile.data_filter(member, str(uploads))
        # Same mode as the original directory, which only nginx may read, through its group.
        uploads.mkdir(mode=0o750, parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            packed.extractall(uploads, filter="data")
        if database:
            options = ("--exit-on-error", "--no-owner", "--no-privileges", "--single-transaction")
            name = f"--dbname={database.variables['PGDATABASE']}"
            database.run("pg_restore", *options, name, str(made / _DUMP))
    except BaseException as error:
        empty_folder(uploads)
        if isinstance(error, (tarfile.TarError, EOFError, zlib.error)):
            raise BackupError(f"{archive} cannot be unpacked, and nothing was restored: {error}") from None
        raise
    return _checked_rows(database, manifest["rows"]) if database else {}


def replace_with(made: Path, database: Database | None, *, uploads: Path, suffix: str) -> dict[str, int]:
    """Restore a backup beside a database and its uploads, then put it in their place; return the rows per table.

    Args:
        made: the backup.
        database: database of the site; its account makes and renames databases.
        uploads: folder of the uploads.
        suffix: what the names of the former database and folder end with from then on.

    Raises:
        BackupError: the backup is refused as by ``restore``, somebody else uses the database, or the folder cannot
            get another name; nothing of the site has changed then.
    """
    if uploads.is_mount():
        raise BackupError(f"{uploads} is a mount point, which cannot be replaced: mount the folder above it")
    beside = uploads.with_name(f".{uploads.name}-{suffix}")
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, beside, ignore_errors=True)
        name = database.variables["PGDATABASE"] if database else ""
        new, former_name = f"{name}-{suffix}-new", f"{name}-{suffix}"
        if database:
            database.run("createdb", new)
            undo.callback(database.run, "dropdb", "--if-exists", "--force", new)
        rows = restore(made, database and database.named(new), uploads=beside)
        former = uploads.with_name(f"{uploads.name}-{suffix}")
        if uploads.exists():
            uploads.rename(former)
            undo.callback(former.rename, uploads)
        beside.rename(uploads)
        undo.callback(uploads.rename, beside)
        if database:
            _swap(database, new, former_name)
        undo.pop_all()
    return rows


def _swap(database: Database, new: str, former: str) -> None:
    """Rename a database, and give its name to a new one in the same transaction."""
    import psycopg
    from psycopg import sql

    name = database.variables["PGDATABASE"]
    renamed = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    for left in reversed(range(_ATTEMPTS)):
        try:
            with database.named("postgres").connection() as connection:
                connection.execute(_DISCONNECT.encode(), (name,))
                for before, after in ((name, former), (new, name)):
                    connection.execute(renamed.format(sql.Identifier(before), sql.Identifier(after)))
        except psycopg.Error as error:
            # A process of the site may have connected again.
            if not (left and isinstance(error, psycopg.errors.ObjectInUse)):
                raise BackupError(f"the database {name} was not replaced: {error}") from None
        else:
            return


def _refuse_tables(database: Database) -> None:
    with database.connection() as connection:
        if connection.execute(_TABLES.encode()).fetchone():
            raise BackupError("the database is not empty; restore into a new one")


def _checked_rows(database: Database, written: Mapping[str, int]) -> dict[str, int]:
    with database.connection() as connection:
        rows = _count(connection)
    if rows != written:
        differing = sorted(
            table for table in rows.keys() | written.keys() if rows.get(table) != written.get(table)
        )
        raise BackupError(f"rows differ after the restore: {', '.join(differing)}")
    return rows


def restore_for_test(made: Path, folder: Path) -> dict[str, int]:
    """Restore a backup into a folder and a temporary PostgreSQL cluster, and compare it; return the rows per table.

    Raises:
        BackupError: it is damaged, or what was restored differs.
    """
    with contextlib.ExitStack() as stack:
        cluster = scratch_database(folder / "cluster")
        database = stack.enter_context(cluster) if holds_database(made) else None
        return restore(made, database, uploads=folder / "uploads")


@contextlib.contextmanager
def rehearsal_folder(settings: Settings, size: int) -> Iterator[Path]:
    """Make a folder beside the backups for a restore, and delete it at the end.

    Args:
        settings: settings of the deployment.
        size: bytes that the restore needs besides the PostgreSQL cluster.

    Raises:
        BackupError: there is too little space.
    """
    root = Path(settings.paths.backups)
    needed = size + (_CLUSTER if settings.has_database else 0)
    free = shutil.disk_usage(root).free
    if free < needed:
        raise BackupError(f"a rehearsal needs {needed >> 20} MiB on {root}, and {free >> 20} MiB are free")
    folder = Path(tempfile.mkdtemp(prefix=_REHEARSAL, dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def size_of(made: Path) -> int:
    """Return the bytes of a backup."""
    return sum(file.stat().st_size for file in made.iterdir())


@contextlib.contextmanager
def scratch_database(folder: Path) -> Iterator[Database]:
    """Run a PostgreSQL cluster with one empty database for the time of a rehearsal; nobody else can connect to it.

    Args:
        folder: new folder for its files.

    Raises:
        BackupError: it could not be made or started.
    """
    # A socket's path may have 107 characters.
    sockets = tempfile.mkdtemp(prefix="mks-scratch-")
    server = Database({"PGHOST": sockets, "PGUSER": "scratch", "PGDATABASE": "postgres"})
    # Nothing of it has to survive; a sandbox may forbid compilers and shared memory segments.
    settings = "-c fsync=off -c full_page_writes=off -c jit=off -c dynamic_shared_memory_type=mmap"
    # Its write-ahead log would take up to a gigabyte beside the backups.
    settings += " -c wal_level=minimal -c max_wal_senders=0 -c min_wal_size=32MB -c max_wal_size=64MB"
    options = f"-k {sockets} -c listen_addresses= -c autovacuum=off {settings}"
    try:
        server.run(
            "initdb", f"--pgdata={folder}", "--username=scratch", "--auth=trust", "--no-sync", "--encoding=UTF8",
            "--locale=C.UTF-8",
        )  # fmt: skip
        log = f"--log={folder / 'log'}"
        server.run(
            "pg_ctl", "start", f"--pgdata={folder}", log, "--wait", "--timeout=120", f"--options={options}"
        )
        try:
            server.run("createdb", "restored")
            yield server.named("restored")
        finally:
            server.run("pg_ctl", "stop", f"--pgdata={folder}", "--mode=immediate", "--wait")
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _dump(database: Database, file: Path) -> dict[str, int]:
    with database.connection() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        found = connection.execute("SELECT pg_export_snapshot()").fetchone()
        snapshot = found[0] if found else ""
        database.run("pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={file}")
        return _count(connection)


def _count(connection: psycopg.Connection[Any]) -> dict[str, int]:
    tables = [row[0] for row in connection.execute(_TABLES.encode())]
    rows = {}
    for table in tables:
        counted = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()  # noqa: S608 - quoted by %I
        rows[table] = counted[0] if counted else 0
    return rows


def _pack(folder: Path, file: Path, declared: Sequence[Path], database: Path | None) -> None:
    """Archive the directory while uploads and the cleanup change it; of the database of SQLite, one state of it."""
    beside = {database.with_name(database.name + end) for end in _BESIDE} if database else set()
    # Links are followed below, and a second hard link is a second file: the archive holds no links.
    with tarfile.open(file, "w:gz", dereference=True) as packed:
        known: set[PurePosixPath] = set()
        # The second pass finds files that were moved to a place already visited.
        for _ in range(_LOOKS):
            for name, path in _uploaded(folder, declared):
                if name not in known and folder / name not in beside:
                    known.add(name)
                    copied = (
                        _copied(path, file) if folder / name == database else contextlib.nullcontext(path)
                    )
                    # Vanished: a temporary file, deleted, or moved and found by the next pass.
                    with contextlib.suppress(FileNotFoundError), copied as content:
                        packed.add(content, arcname=str(name), recursive=False)


@contextlib.contextmanager
def _copied(database: Path, archive: Path) -> Iterator[Path]:
    """Yield a copy of a database of SQLite, beside the archive: others write to it during this time."""
    copy = archive.with_name("sqlite.copy")
    try:
        with contextlib.ExitStack() as stack:
            live = stack.enter_context(contextlib.closing(sqlite3.connect(database, timeout=60)))
            target = stack.enter_context(contextlib.closing(sqlite3.connect(copy)))
            live.backup(target)
            found = target.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise BackupError(f"the database {database} is damaged: {found}")
        shutil.copystat(database, copy)
        yield copy
    except sqlite3.Error as error:
        raise BackupError(f"the database {database} cannot be copied: {error}") from None
    finally:
        copy.unlink(missing_ok=True)


def _uploaded(folder: Path, declared: Sequence[Path]) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield the names below a folder, each with the file or folder that it shows.

    Args:
        folder: folder of the uploads.
        declared: folders to which a link may lead.

    Raises:
        BackupError: a link leads elsewhere, or to a folder that it is in.
    """
    left = [(PurePosixPath(), folder.resolve(), frozenset[Path]())]
    while left:
        name, shown, above = left.pop()
        try:
            entries = sorted(shown.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            real = _shown(entry, declared) if entry.is_symlink() else entry
            if real.is_dir():
                if real in (inside := above | {shown}):
                    raise BackupError(f"{entry} is a link to a folder that it is in; remove it")
                left.append((name / entry.name, real, inside))
            if real.is_dir() or real.is_file():  # neither sockets nor pipes, which hold nothing
                yield name / entry.name, real


def _shown(link: Path, declared: Sequence[Path]) -> Path:
    try:
        link.stat()  # resolve() says nothing of a loop since Python 3.13
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BackupError(f"{link} is a link that leads to itself; remove it") from None
    real = link.resolve()
    if not any(real.is_relative_to(each) for each in declared):
        raise BackupError(
            f"{link} is a link to {real}, which no folder of the backup holds: remove it, or name the folder in "
            "sandbox.write_paths"
        )
    return real


def second_of(moment: datetime) -> str:
    """Format a time as a directory name that sorts chronologically."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checked_manifest(made: Path) -> dict[str, Any]:
    if not (made / _COMPLETE).exists():
        raise BackupError(f"{made} is not a complete backup")
    try:
        manifest: dict[str, Any] = json.loads((made / _MANIFEST).read_text(encoding="utf-8"))
        digests, _ = manifest["sha256"], manifest["rows"]
        parts = (_DUMP, _UPLOADS) if manifest.get("database", True) else (_UPLOADS,)
        written = {file: digests[file] for file in parts}
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{made / _MANIFEST} is damaged; use another backup") from None
    for file, digest in written.items():
        if not (made / file).is_file() or _digest(made / file) != digest:
            raise BackupError(f"{made / file} is damaged: its checksum differs")
    return manifest


def _keep_keys(keys: Path, folder: Path) -> Path:
    """Store one copy per version of the keys, named by checksum, so that older backups stay restorable."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = keys.read_bytes()
    kept = folder / f"{_KEYS}{hashlib.sha256(content).hexdigest()[:_NAMED_BY]}"
    if not kept.is_file() or not _is_whole(kept):
        replace_file(kept, content, mode=0o600)
    return kept


def _is_whole(copy: Path) -> bool:
    """Whether the checksum of a key copy matches its name."""
    return copy.name.removeprefix(_KEYS) == _digest(copy)[:_NAMED_BY]


def _claimed(root: Path, second: str) -> tuple[Path, Path]:
    """Return an unused directory name and its temporary directory: another backup may run in the same second."""
    for number in itertools.count(1):
        name = second if number == 1 else f"{second}-{number}"
        made, partial = root / name, root / f".{name}.new"
        if not made.exists():
            with contextlib.suppress(FileExistsError):
                partial.mkdir(mode=0o700)
                return made, partial
    raise AssertionError  # pragma: no cover - the numbers do not end


def _interrupted(root: Path, now: datetime) -> list[Path]:
    """Return temporary directories of killed backups and rehearsals, older than a day: none takes that long."""
    yesterday = now.timestamp() - _DAY
    left = (*root.glob(".[0-9]*.new"), *root.glob(f"{_REHEARSAL}*"))
    return [folder for folder in left if folder.stat().st_mtime < yesterday]


def _complete(root: Path) -> list[Path]:
    return sorted(mark.parent for mark in root.glob(f"[0-9]*/{_COMPLETE}"))


def _completed_at(made: Path) -> float:
    return (made / _COMPLETE).stat().st_mtime


def _to_disk(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        sync(path)


def _options() -> list[psycopg.pq.ConninfoOption]:
    """Return every option of libpq with its variable."""
    import psycopg

    return psycopg.pq.Conninfo.get_defaults()


def _program(name: str) -> str:
    return shutil.which(name, path=_path()) or name


def _path() -> str:
    """Return the search path: Debian installs the programs per version; the newest can dump all older servers."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return os.pathsep.join([*map(str, reversed(versions)), "/usr/local/bin", "/usr/bin", "/bin"])
