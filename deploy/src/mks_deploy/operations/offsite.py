"""Copies of backups on another machine or in an object store, with restic: encrypted, pruned, read back, restored.

restic encrypts before anything leaves the host, so that the keys of the application may be copied too. Its password
is worth as much as all of them: without it no copy can be read, and it must be kept where the repository is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from mks_deploy.atomic_files import empty_folder, refuse_foreign_path, replace_file
from mks_deploy.operations.application_command import account_identity
from mks_deploy.operations.backup import (
    BackupError,
    holds_database,
    newest,
    newest_at,
    rehearsal_folder,
    restore_for_test,
)
from mks_deploy.operations.host_credentials import plain_credentials
from mks_deploy.settings.credentials import environment_errors

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = [
    "OffsiteState",
    "Repository",
    "Snapshot",
    "fetch",
    "note_rehearsal",
    "push",
    "read_state",
    "rehearse",
]

_BACKUP, _KEYS = "backup", "keys"
_STATE: Final = "offsite.json"
_PROGRAM: Final = "restic"
_SPACE: Final = 3
"""A rehearsal holds the copy, its uploads and its tables at the same time."""
_LONGEST_MESSAGE: Final = 500
_MEANINGS: Final = {
    3: "some files could not be read, so the snapshot is not whole",
    10: "there is no repository yet; make it with: mks-deploy offsite init",
    11: "another run holds its lock",
    12: "the password in restic_password is another one",
}
"""Exit codes of restic from 0.17 on."""
_REPEAT_LOCK: Final = "--retry-lock=10m"
_LONG_LOCK: Final = "--retry-lock=3h"
"""For a copy: another site's check locks the repository while it reads a part of all data, a seventh of 100 GB in
19 minutes at 100 Mbit/s."""
_REPEATED: Final = re.compile(r" returned error, retrying after \S+: (.+)")
_REFUSALS: Final = (
    (
        re.compile(r"(?i)request signature|access ?key ?id|SignatureDoesNotMatch|access ?denied|\(40[13]\)"),
        "the access in restic_environment is refused",
    ),
    (
        re.compile(r"(?i)bucket does not exist|NoSuchBucket"),
        "there is no such bucket: correct offsite.repository, or make it with mks-deploy offsite init",
    ),
    (
        re.compile(r"x509: |response to HTTPS client"),
        "the certificate of the server is not trusted: offsite.ca must name its authority",
    ),
    (re.compile(r"(?i)request ?time ?(and|too|is)"), "the clocks of this host and of the server differ"),
)
"""Errors of a store that do not pass, as AWS, Ceph, MinIO and rclone word them; restic repeats a request for a
quarter of an hour whatever the error."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One copy in the repository.

    Attributes:
        id: identifier of restic.
        at: when it was made, by the clock of the host that made it.
        name: folder of the backup that it holds.
    """

    id: str
    at: datetime
    name: str


@dataclass(frozen=True, slots=True)
class OffsiteState:
    """What was done last.

    Attributes:
        backup_at: time of the newest backup that was copied, in seconds since the epoch; 0 if none was.
        rehearsed_at: time of the last restore, from a copy or from a backup; 0 if there was none.
        first_at: time of the first copy; 0 if there was none.
    """

    backup_at: float = 0.0
    rehearsed_at: float = 0.0
    first_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of restic. Secrets are in files and variables, never in arguments.

    Attributes:
        url: its address.
        host: name under which the copies of this site are stored.
        variables: variables of restic and of the object store.
        options: further arguments, such as those of ssh.
        notice: called with one line when restic cannot reach the repository and tries again.
    """

    url: str
    host: str
    variables: Mapping[str, str] = field(repr=False)
    options: tuple[str, ...] = ()
    notice: Callable[[str], object] = field(default=lambda _line: None, repr=False)

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> Repository:
        """Return the repository of a deployment.

        Args:
            settings: settings of the deployment.
            environ: has ``RESTIC_PASSWORD_FILE``, and as far as the address needs them
                ``OFFSITE_ENVIRONMENT_FILE``, ``OFFSITE_SSH_KEY_FILE`` and ``OFFSITE_KNOWN_HOSTS_FILE``, as units
                have; otherwise the files are those in ``paths.credentials``, which root can read.

        Raises:
            BackupError: there is none, or one of its secrets is missing or malformed.
        """
        url = settings.offsite.repository
        if not url:
            raise BackupError("offsite.repository in deploy.toml names no repository")

        plain = cache(lambda: plain_credentials(settings))

        def secret(variable: str, name: str) -> str:
            file = environ.get(variable) or f"{plain()}/{name}"
            if not os.access(file, os.R_OK):
                raise BackupError(f"{file} cannot be read; {variable} may name another file")
            return file

        variables = {
            "RESTIC_PASSWORD_FILE": secret("RESTIC_PASSWORD_FILE", "restic_password"),
            "RESTIC_CACHE_DIR": environ.get("CACHE_DIRECTORY") or environ.get("RESTIC_CACHE_DIR", ""),
            "RESTIC_CACERT": settings.offsite.ca,
        }
        options: tuple[str, ...] = ()
        if settings.offsite.needs_environment:
            text = Path(secret("OFFSITE_ENVIRONMENT_FILE", "restic_environment")).read_text(encoding="utf-8")
            for problem in environment_errors(text):
                raise BackupError(f"restic_environment {problem}")
            variables |= dict(line.split("=", 1) for line in text.split())
        if settings.offsite.needs_ssh:
            arguments = (
                *("-i", secret("OFFSITE_SSH_KEY_FILE", "restic_ssh_key"), "-o", "IdentitiesOnly=yes"),
                *("-o", f"UserKnownHostsFile={secret('OFFSITE_KNOWN_HOSTS_FILE', 'restic_known_hosts')}"),
                *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"),
                *("-F", "/dev/null"),
            )
            options = ("--option", f"sftp.args={shlex.join(arguments)}")
        return cls(url, settings.name, {name: value for name, value in variables.items() if value}, options)

    def make(self, account: str) -> None:
        """Make the repository; one on this host is made by the account of the units, whose folder it is.

        Raises:
            BackupError: there is one already, or it cannot be made.
        """
        identity = account_identity(account) if self.url.startswith("/") else {}
        if not identity:
            self.run("init")
            return
        others = {name: value for name, value in self.variables.items() if name != "RESTIC_PASSWORD_FILE"}
        # The file is root's; an argument or a variable could be read by other processes of the account.
        password = Path(self.variables["RESTIC_PASSWORD_FILE"]).read_text(encoding="utf-8")
        replace(self, variables=others).run("init", given=password, identity=identity)

    def run(
        self,
        *arguments: str,
        folder: Path | None = None,
        given: str = "",
        identity: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """Run restic and return its output.

        Args:
            arguments: words of the command.
            folder: where it runs.
            given: its input.
            identity: arguments of ``Popen`` for another account.

        Raises:
            BackupError: it failed, or is not installed.
        """
        environ = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": "/nonexistent",
            "RESTIC_REPOSITORY": self.url,
            "TMPDIR": tempfile.gettempdir(),
            **self.variables,
        }
        cache = () if "RESTIC_CACHE_DIR" in environ else ("--no-cache",)
        program = shutil.which(_PROGRAM, path=environ["PATH"])
        if program is None:
            raise BackupError("restic is not installed: apt-get install restic")
        said: list[str] = []
        with subprocess.Popen(  # noqa: S603 - a fixed program, no shell
            [program, *cache, *self.options, *arguments],
            env=environ,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **identity,
        ) as process:
            if process.stdin:
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(given)
            reader = threading.Thread(target=self._read_errors, args=(process, said))
            reader.start()
            output = process.stdout.read() if process.stdout else ""
            reader.join()
        if process.returncode:
            reason = _MEANINGS.get(process.returncode) or _reason(said) or f"exit code {process.returncode}"
            raise BackupError(f"restic {arguments[0]}: {reason[:_LONGEST_MESSAGE]}")
        return output

    def _read_errors(self, process: subprocess.Popen[str], said: list[str]) -> None:
        """Collect what restic writes to stderr; end it when the store refuses a request for good."""
        for line in process.stderr or ():
            said.append(line.strip())
            if repeated := _REPEATED.search(line):
                if _refusal(line):
                    process.kill()
                elif not any(map(_REPEATED.search, said[:-1])):
                    self.notice(f"the repository cannot be reached, trying again: {repeated[1]}")

    def snapshots(self, tag: str = _BACKUP) -> list[Snapshot]:
        """Return the copies of this site, oldest first."""
        listed = json.loads(
            self.run("snapshots", "--json", _REPEAT_LOCK, f"--tag={tag}", f"--host={self.host}")
        )
        found = [
            Snapshot(
                each["id"], datetime.fromisoformat(each["time"][:19] + "+00:00"), Path(each["paths"][0]).name
            )
            for each in listed
        ]
        return sorted(found, key=lambda snapshot: snapshot.at)

    def newest(self, *, now: datetime, tag: str = _BACKUP) -> Snapshot:
        """Return the newest copy; those of the future stem from a wrong clock, or from an intruder.

        Raises:
            BackupError: there is none.
        """
        past = [snapshot for snapshot in self.snapshots(tag) if snapshot.at <= now]
        if not past:
            raise BackupError(f"the repository has no {tag} of {self.host}")
        return past[-1]

    def unlock(self) -> None:
        """Remove the locks that killed runs of this site left.

        restic takes a lock for abandoned if its process does not run, and knows the machine by its host name alone.
        Another machine of that name would lose the lock of a running copy, and with it the copy. So nothing is
        removed while an account of another site has a lock under this host name.
        """
        account = pwd.getpwuid(os.getuid()).pw_name
        listing = ("list", "locks", "--no-lock")
        for name in self.run(*listing).split():
            try:
                lock = json.loads(self.run("cat", "lock", name, "--no-lock"))
            except BackupError:
                if name in self.run(*listing).split():
                    return
                continue  # released in the meantime
            if lock["hostname"] == socket.gethostname() and lock["username"] != account:
                return
        self.run("unlock")

    def save(self, folder: Path, tag: str) -> str:
        """Copy a folder; return the identifier of the snapshot."""
        # A relative path: the copy does not depend on where the folder was.
        lines = self.run(
            *("backup", "--json", _LONG_LOCK, f"--tag={tag}", f"--host={self.host}", folder.name),
            folder=folder.parent,
        ).splitlines()
        summary = json.loads(lines[-1])
        return str(summary["snapshot_id"])

    def restore(self, snapshot: Snapshot, folder: Path) -> None:
        """Restore a snapshot into an empty folder, and compare what was written with it.

        Raises:
            BackupError: it is damaged, or the disk is full.
        """
        source = f"{snapshot.id}:/{snapshot.name}"
        self.run("restore", _REPEAT_LOCK, "--verify", source, "--target", str(folder))

    def prune(self, settings: Settings) -> int:
        """Delete what is older than the rules; return how many snapshots are left.

        Raises:
            BackupError: the repository keeps what should have been deleted, as an append-only server does.
        """
        kept = settings.offsite
        for tag in (_BACKUP, _KEYS):
            groups = json.loads(
                self.run(
                    *("forget", "--json", _LONG_LOCK, "--prune", "--group-by=host,tags"),
                    *(f"--tag={tag}", f"--host={self.host}", f"--keep-daily={kept.keep_days}"),
                    *(f"--keep-weekly={kept.keep_weeks}", f"--keep-monthly={kept.keep_months}"),
                ).splitlines()[0]
                or "[]"
            )
            deleted = {each["id"] for group in groups for each in group.get("remove") or ()}
            # restic 0.18.0 ends with 0 although an append-only server has refused every deletion.
            if still := deleted & {snapshot.id for snapshot in self.snapshots(tag)}:
                raise BackupError(
                    f"the repository still has {len(still)} snapshots that were deleted: is it append-only? Set "
                    "offsite.prune = false, and prune on the machine that holds it"
                )
        return len(self.snapshots())


def push(settings: Settings, repository: Repository, *, now: datetime) -> Snapshot:
    """Copy the newest backup and the copies of the keys, delete old copies, and read a part of the data back.

    Args:
        settings: settings of the deployment.
        repository: where the copies go.
        now: current time; the part of the data that is read depends on the day.

    Raises:
        BackupError: there is no complete, undamaged backup, or a step failed; a copy that was made stays.
    """
    made = newest(settings, now=now.timestamp())
    if made is None:
        raise BackupError(f"{settings.paths.backups} has no complete backup to copy")
    holds_database(made)  # a damaged backup is not copied
    backup_at = newest_at(settings, now=now.timestamp())
    repository.unlock()
    saved = repository.save(made, _BACKUP)
    keys = Path(settings.paths.key_backups)
    if keys.is_dir() and any(keys.iterdir()):
        repository.save(keys, _KEYS)
    state = read_state(settings)
    first_at = state.first_at or now.timestamp()
    _write_state(settings, replace(state, backup_at=backup_at, first_at=first_at))
    if settings.offsite.prune:
        repository.prune(settings)
    parts = settings.offsite.read_parts
    repository.run("check", _LONG_LOCK, f"--read-data-subset={now.toordinal() % parts + 1}/{parts}")
    return Snapshot(saved, now, made.name)


def fetch(
    repository: Repository, folder: Path, *, now: datetime, snapshot: str = "", keys: Path | None = None
) -> Snapshot:
    """Bring a copy back into a new folder, and check it.

    Args:
        repository: where the copies are.
        folder: new folder for the backup, which ``mks-deploy restore`` takes.
        now: current time.
        snapshot: beginning of its identifier; by default the newest.
        keys: folder for the copies of the keys; they are left out by default.

    Raises:
        BackupError: there is no such copy, it is damaged, a folder is not empty, or a disk is full; the folders are
            empty again then.
    """
    targets = (folder, *([keys] if keys else []))
    for target in targets:
        refuse_foreign_path(target)
        if target.exists() and any(target.iterdir()):
            raise BackupError(f"{target} is not empty")
    if snapshot:
        matching = [each for each in repository.snapshots() if each.id.startswith(snapshot)]
        if len(matching) != 1:
            raise BackupError(f"{len(matching)} copies of {repository.host} begin with {snapshot[:20]!r}")
        [chosen] = matching
    else:
        chosen = repository.newest(now=now)
    try:
        repository.restore(chosen, folder)
        holds_database(folder)
        if keys:
            repository.restore(repository.newest(now=now, tag=_KEYS), keys)
    except BaseException:
        for target in targets:
            empty_folder(target)
        raise
    return chosen


def rehearse(settings: Settings, repository: Repository, *, now: datetime) -> tuple[Snapshot, dict[str, int]]:
    """Restore the newest copy into a temporary PostgreSQL cluster, compare it, and delete both.

    Returns:
        The copy, and the rows of each table.

    Raises:
        BackupError: the copy is damaged or differs, or there is too little space for it.
    """
    chosen = repository.newest(now=now)
    size = json.loads(repository.run("stats", "--json", _REPEAT_LOCK, "--mode=restore-size", chosen.id))
    with rehearsal_folder(settings, _SPACE * int(size["total_size"])) as folder:
        fetch(repository, folder / "backup", now=now, snapshot=chosen.id)
        rows = restore_for_test(folder / "backup", folder)
    note_rehearsal(settings, now=now)
    return chosen, rows


def note_rehearsal(settings: Settings, *, now: datetime) -> None:
    """Record that a backup was restored."""
    _write_state(settings, replace(read_state(settings), rehearsed_at=now.timestamp()))


def _refusal(line: str) -> str:
    """Return what an error means that does not pass, with the words of the store; nothing for another one."""
    for pattern, meaning in _REFUSALS:
        if pattern.search(line):
            repeated = _REPEATED.search(line)
            words = repeated[1] if repeated else line.removeprefix("Fatal: ")
            return f"{meaning} ({words})"
    return ""


def _reason(said: list[str]) -> str:
    """Return the line of stderr that says why restic failed: the address of the repository may follow it."""
    refusals = [refusal for line in said if (refusal := _refusal(line))]
    lines = [line for each in said for line in _plain(each).splitlines()]
    # With a full disk, for example: the last line only counts them.
    items = [line for line in lines if line.startswith("ignoring error for ")]
    if items:
        return items[0].removeprefix("ignoring error for ")
    fatal = [line.removeprefix("Fatal: ") for line in lines if line.startswith("Fatal: ")]
    return next(iter([*refusals, *fatal, *lines[-1:]]), "")


def _plain(line: str) -> str:
    """Return a line of stderr as text: with --json, restic 0.17 and later end with an object."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def read_state(settings: Settings) -> OffsiteState:
    """Return what was done last; nothing if the record is missing or damaged."""
    try:
        read: dict[str, Any] = json.loads((Path(settings.paths.backups) / _STATE).read_text(encoding="utf-8"))
        return OffsiteState(*(float(read[name]) for name in ("backup_at", "rehearsed_at", "first_at")))
    except (OSError, ValueError, KeyError, TypeError):
        return OffsiteState()


def _write_state(settings: Settings, state: OffsiteState) -> None:
    replace_file(Path(settings.paths.backups) / _STATE, json.dumps(asdict(state)) + "\n")
