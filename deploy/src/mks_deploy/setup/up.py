"""From a laptop to a site: the source and the settings go to a host over OpenSSH, where ``mks-deploy apply`` works.

No agent stays on the host, and the kit speaks no protocol of its own: each step is a command that ssh runs as root.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Literal

from mks_deploy.operations.operation_log import lock_file
from mks_deploy.operations.release import ReleaseError
from mks_deploy.operations.version_folders import BUILDING, BUILT
from mks_deploy.settings.application_secrets import SERVER_SECRETS
from mks_deploy.settings.value_types import an_ssh_name

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Secret, Settings
    from mks_deploy.setup.plan import Stage

__all__ = [
    "RemoteFacts",
    "RemoteStep",
    "SecureShell",
    "Sent",
    "Target",
    "archive",
    "carry_out",
    "commit_name",
    "forget_secrets",
    "plan_hosts",
    "plan_up",
    "read_remote",
    "settings_archive",
    "up",
]

Sent = Literal["", "source", "settings"]

_LOCKED: Final = 75  # EX_TEMPFAIL of sysexits.h


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What a host has.

    Attributes:
        is_root: whether ssh leads to root.
        has_venv: whether its Python can make virtual environments.
        is_built: whether the folder of the version is complete.
    """

    is_root: bool
    has_venv: bool
    is_built: bool


@dataclass(frozen=True, slots=True)
class RemoteStep:
    """A command on the host.

    Attributes:
        key: its name.
        what: what it does, in one line.
        commands: programs with their arguments, run one after the other.
        sends: what the last one reads from its input.
        undo: how to go back.
        lock: file that each of them locks; ``apply`` holds it while it works.
    """

    key: str
    what: str
    commands: tuple[tuple[str, ...], ...]
    undo: str
    sends: Sent = ""
    lock: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """One of several hosts.

    Attributes:
        shell: how it is reached.
        settings: settings as seen from it.
        facts: what it has.
    """

    shell: SecureShell
    settings: Settings
    facts: RemoteFacts


def plan_hosts(
    targets: Sequence[Target],
    *,
    version: str,
    run: str,
    issue: bool = True,
    migrate: bool = True,
    stage: Stage = "",
) -> tuple[tuple[Target, RemoteStep], ...]:
    """Return the steps of several hosts, in order; nothing is read or changed here.

    First each host gets the version, so that one that cannot be built changes nothing. Then come the data servers,
    the migration on one host, the workers, and the web hosts one after the other, the edge first: it has the static
    files of the version by then. Each web host drains its old processes before the next one begins.

    Raises:
        ReleaseError: ssh does not lead to root of one of them.
    """
    steps = list[tuple[Target, RemoteStep]]()
    for target in targets:
        _must_be_root(target.facts)
        steps += (
            (target, step) for step in _prepare(target.settings, target.facts, version=version, run=run)
        )

    def applied(target: Target, stage: Stage = "") -> None:
        step = _apply(target.settings, version, run=run, issue=issue, migrate=migrate, stage=stage)
        steps.append((target, step))

    def chosen(*roles: str) -> list[Target]:
        found = [target for target in targets if target.settings.has_role(*roles)]
        # A primary before its standbys, the edge before the other web hosts.
        return sorted(found, key=lambda target: not target.settings.has_role(roles[0]))

    servers = [*chosen("database", "standby")]
    servers += [each for each in chosen("redis", "cache", "queue", "sentinel") if each not in servers]
    for target in servers:
        applied(target, stage or ("servers" if target.settings.runs_application else ""))
    if migrate and not stage:
        for target in (each for each in targets if each.settings.is_main and each.settings.app.migrate):
            applied(target, "migration")
    webs = chosen("edge", "web")
    for target in (*(each for each in chosen("worker") if each not in webs), *webs):
        if not (stage and target in servers):
            applied(target, stage)
    steps += ((target, step) for target in targets for step in _keep_firewall(target.settings))
    return tuple(steps)


def _must_be_root(facts: RemoteFacts) -> None:
    if not facts.is_root:
        raise ReleaseError(
            "--host must lead to root, such as root@server: units, accounts and packages are root's"
        )


def plan_up(
    settings: Settings,
    facts: RemoteFacts,
    *,
    version: str,
    run: str,
    issue: bool = True,
    migrate: bool = True,
    stage: Stage = "",
) -> tuple[RemoteStep, ...]:
    """Return the steps that remain, in order; nothing is read or changed here.

    Args:
        settings: settings of the deployment.
        facts: what the host has.
        version: name of the version.
        run: name of this run, whose folder on the host no other run has.
        issue: whether ``apply`` asks the provider for a certificate.
        migrate: whether ``apply`` runs ``app.migrate``.
        stage: how far ``apply`` goes.

    Raises:
        ReleaseError: ssh does not lead to root.
    """
    _must_be_root(facts)
    return (
        *_prepare(settings, facts, version=version, run=run),
        _apply(settings, version, run=run, issue=issue, migrate=migrate, stage=stage),
        *_keep_firewall(settings),
    )


def _prepare(settings: Settings, facts: RemoteFacts, *, version: str, run: str) -> Iterator[RemoteStep]:
    lock = str(lock_file(settings))
    folder = f"{settings.paths.releases}/versions/{version}"
    venv = f"{folder}/venv"
    if not facts.has_venv:
        yield RemoteStep(
            "bootstrap",
            "install Python's virtual environments",
            (
                ("apt-get", "update", "-q"),
                ("apt-get", "install", "-q", "-y", "--no-install-recommends", "python3-venv"),
            ),
            "apt-get remove python3-venv",
            lock=lock,
        )
    if not facts.is_built:
        pip = (f"{venv}/bin/pip", "install", "-q", "--disable-pip-version-check")
        places = tuple(f"{folder}/{place}" if place != "." else folder for place in settings.image.install)
        yield RemoteStep(
            "source",
            f"send the source tree to {folder}",
            (
                ("mkdir", "-p", folder),
                ("touch", f"{folder}/{BUILDING}"),
                ("tar", "--extract", "--no-same-owner", "--directory", folder),
            ),
            f"rm -r {folder}",
            sends="source",
            lock=lock,
        )
        yield RemoteStep(
            "environment",
            f"install {settings.image.requirements} into {venv}",
            (
                ("python3", "-m", "venv", venv),
                (*pip, "--require-hashes", "-r", f"{folder}/{settings.image.requirements}"),
                *(((*pip, "--no-deps", *places),) if places else ()),
                *_build(settings, folder),
                ("touch", f"{folder}/{BUILT}"),
            ),
            f"rm -r {folder}",
            lock=lock,
        )
    place = _place(settings, run)
    yield RemoteStep(
        "settings",
        f"send deploy.toml and the secrets to {place}, for root alone",
        (
            ("install", "-d", "-m", "700", *map(str, (place.parents[1], place.parent, place))),
            ("tar", "--extract", "--no-same-owner", "--directory", str(place)),
        ),
        f"rm -r {place}",
        sends="settings",
    )


def _place(settings: Settings, run: str) -> PurePosixPath:
    """Return the folder of a run, in memory; what a run that was cut off left there goes after a day."""
    return PurePosixPath("/run/mks-deploy", settings.name, run)


def _apply(
    settings: Settings, version: str, *, run: str, issue: bool, migrate: bool, stage: Stage = ""
) -> RemoteStep:
    place = _place(settings, run)
    given = ("--settings", f"{place}/deploy.toml", "--secrets", f"{place}/secrets", "--version", version)
    program = f"{settings.paths.releases}/versions/{version}/venv/bin/mks-deploy"
    words = (program, "apply", *given, *(() if issue else ("--no-certificate",)))
    words = words if migrate else (*words, "--no-migrate")
    words = (*words, "--host", settings.here.name) if settings.here else words
    words = (*words, "--stage", stage) if stage else words
    what = {
        "": "do what remains on the host",
        "servers": "do what remains of PostgreSQL and Redis",
        "migration": "change the database, once for all hosts",
    }
    return RemoteStep("apply", what[stage], (words,), "each step that apply shows says how to go back")


def _keep_firewall(settings: Settings) -> Iterator[RemoteStep]:
    if settings.host.firewall:
        yield RemoteStep(
            "firewall",
            "keep the firewall, because this new connection passed it",
            (("systemctl", "stop", f"{settings.name}-firewall-undo.timer"),),
            f"systemctl disable --now {settings.name}-firewall.service",
        )


def _build(settings: Settings, folder: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands that complete the folder of a version; stand-ins of the same form replace secrets."""
    given = {secret.variable: _stand_in(settings, secret) for secret in settings.secrets if secret.as_value}
    variables = tuple(f"{name}={value}" for name, value in {**settings.variables, **given}.items())
    for program, *words in settings.app.build:
        yield ("env", f"--chdir={folder}", *variables, f"{folder}/venv/bin/{program}", *words)


def _stand_in(settings: Settings, secret: Secret) -> str:
    """Return a value that parses as the secret does; no server listens at its address."""
    if secret.file == "database_url":
        return f"{settings.stores.database_scheme}://build@127.0.0.1:1/build"
    if secret.file in SERVER_SECRETS:
        return "redis://127.0.0.1:1/0"
    return (
        "https://build@127.0.0.1:1/1" if secret.variable.endswith(("_DSN", "_URL")) else "only-for-the-build"
    )


class SecureShell:
    """A host, reached by the ``ssh`` of this machine: its configuration, keys and known hosts count.

    Args:
        host: what ssh calls it, such as ``root@server``.
        config: file of ssh's configuration instead of the user's.
        run: runs a program with an input; returns its exit code and what it wrote to its output.

    Raises:
        ReleaseError: the name is none.
    """

    def __init__(
        self,
        host: str,
        *,
        config: Path | None = None,
        run: Callable[[Sequence[str], bytes, bool], tuple[int, str]] | None = None,
    ) -> None:
        try:
            self.host = an_ssh_name.read(host)
        except ValueError:
            raise ReleaseError(
                f"--host must be a name or an address, such as root@server, not {host[:60]!r}"
            ) from None
        self._options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
        # Where the network is cut, ssh would wait for hours: it ends after half a minute without an answer.
        self._options += ["-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"]
        self._options += ["-F", str(config)] if config else []
        self._run = run or _run

    def run(self, words: Sequence[str], *, sends: bytes = b"", shown: bool = True) -> tuple[int, str]:
        """Run a program on the host; return its exit code, and its output if it is not shown.

        Raises:
            ReleaseError: the host cannot be reached.
        """
        # sshd hands the text to a shell; quoted, it is these words again.
        code, said = self._run(["ssh", *self._options, "--", self.host, shlex.join(words)], sends, shown)
        if code == _NO_CONNECTION:
            raise ReleaseError(f"{self.host}: ssh cannot reach it, or was cut off; repeat the same command")
        return code, said


_NO_CONNECTION: Final = 255


def read_remote(shell: SecureShell, settings: Settings, version: str) -> RemoteFacts:
    """Read what a host has; nothing is changed.

    Raises:
        ReleaseError: the host cannot be reached.
    """
    built = f"{settings.paths.releases}/versions/{version}/{BUILT}"
    # Debian's python3-venv adds ensurepip. Looked up, not imported: a failed import prints a traceback.
    finds = "from importlib.util import find_spec; raise SystemExit(not find_spec('ensurepip'))"
    return RemoteFacts(
        is_root=shell.run(["id", "-u"], shown=False)[1].strip() == "0",
        has_venv=shell.run(["python3", "-c", finds], shown=False)[0] == 0,
        is_built=shell.run(["test", "-e", built], shown=False)[0] == 0,
    )


def up(
    shell: SecureShell, steps: Sequence[RemoteStep], *, contents: dict[Sent, bytes]
) -> Iterator[RemoteStep]:
    """Carry out the steps, and yield each before it is done. What was sent for this run is deleted at the end.

    Raises:
        ReleaseError: a step failed; the same command continues where this one ended.
    """
    try:
        for step in steps:
            yield step
            carry_out(shell, step, contents=contents)
    finally:
        forget_secrets(shell, steps)


def carry_out(shell: SecureShell, step: RemoteStep, *, contents: Mapping[Sent, bytes]) -> None:
    """Do one step.

    Raises:
        ReleaseError: it failed.
    """
    for number, words in enumerate(step.commands, start=1):
        sends = contents[step.sends] if step.sends and number == len(step.commands) else b""
        guard = ("flock", "--nonblock", f"--conflict-exit-code={_LOCKED}", step.lock) if step.lock else ()
        if code := shell.run((*guard, *words), sends=sends)[0]:
            if guard and code == _LOCKED:
                raise ReleaseError(f"{shell.host}: locked: another mks-deploy up or apply works on this host")
            raise ReleaseError(f"{shell.host}: {step.key}: {shlex.join(words)} ended with {code}")


def forget_secrets(shell: SecureShell, steps: Iterable[RemoteStep]) -> None:
    """Delete the settings and secrets that this run sent to a host."""
    place = next((step.undo.removeprefix("rm -r ") for step in steps if step.sends == "settings"), "")
    if place:
        shell.run(["rm", "-rf", place], shown=False)


def archive(folder: Path, secrets: Path) -> bytes:
    """Return the source tree as git has it committed, as a tar file: nothing that is ignored or secret is sent.

    Raises:
        ReleaseError: the folder is no git repository, or has no commit, or the secrets are in it.
    """
    if secrets.resolve().is_relative_to(folder.resolve()):
        place = str(secrets.resolve().relative_to(folder.resolve()))
        if _git(folder, "ls-tree", "HEAD", "--", place):
            raise ReleaseError(
                f"{place} is committed, and each account of the host could read it: git rm -r --cached {place}, "
                "commit, and replace every secret; nothing was changed"
            )
    return _git(folder, "archive", "--format=tar", "HEAD")


def commit_name(folder: Path) -> str:
    """Return the short name of the commit that is deployed.

    Raises:
        ReleaseError: the folder is no git repository, or has no commit.
    """
    return _git(folder, "rev-parse", "--short=12", "HEAD").decode().strip()


def _git(folder: Path, *words: str) -> bytes:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed words, no shell
    if done.returncode:
        raise ReleaseError(f"{folder} must be a git repository with a commit: what is committed is deployed")
    return done.stdout


def settings_archive(settings_text: str, secrets: Path, *, only: frozenset[str] | None = None) -> bytes:
    """Return ``deploy.toml`` and the secrets as a tar file, each readable by its owner alone.

    Args:
        settings_text: content of ``deploy.toml``.
        secrets: folder of the secrets.
        only: names of the secrets that the host needs; all by default.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        _add(tar, "deploy.toml", settings_text.encode())
        for file in sorted(path for path in secrets.iterdir() if path.is_file()):
            if only is not None and file.name not in only:
                continue
            _add(tar, f"secrets/{file.name}", file.read_bytes())
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    tar.addfile(entry, io.BytesIO(content))


def _run(words: Sequence[str], sends: bytes, shown: bool) -> tuple[int, str]:  # noqa: FBT001 - by position alone
    done = subprocess.run(  # noqa: S603 - ssh with judged words, no shell of this machine
        list(words), input=sends, stdout=None if shown else subprocess.PIPE, check=False
    )
    return done.returncode, "" if shown else done.stdout.decode("utf-8", "replace")
