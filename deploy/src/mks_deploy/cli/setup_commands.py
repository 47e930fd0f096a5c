"""Commands that write settings and files, and set up hosts."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from secrets import token_hex

from mks_deploy.cli.command_settings import (
    DIFFERENT,
    DONE,
    WRONG,
    checked_settings,
    host_names,
    host_settings,
    installed_versions,
    notes_on,
    own_name,
    read_text,
)
from mks_deploy.init.init_command import InitError, Wanted, ignore_generated, new_settings, write_new
from mks_deploy.operations.capacity import (
    BUSY,
    FASTEST,
    CapacityError,
    Costs,
    Load,
    Machine,
    limits_of,
    read_costs,
    reference_costs,
    size_for,
)
from mks_deploy.operations.database_hosts import DatabaseHosts, standby_mark
from mks_deploy.operations.host_credentials import plain_credentials
from mks_deploy.operations.host_steps import read_state
from mks_deploy.operations.operation_log import Locked, lock_file, locked
from mks_deploy.operations.release import ReleaseError, is_version_name
from mks_deploy.output_files import differences, write
from mks_deploy.rendering import RenderedFile, render
from mks_deploy.settings.credentials import credentials_of, make_missing, used_credentials
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.sealed_secrets import SealError, open_sealed, read_decrypted, seal
from mks_deploy.settings.settings_file import example, read_settings
from mks_deploy.setup.apply import HostSetup, apply
from mks_deploy.setup.former_settings import find_former, list_former
from mks_deploy.setup.plan import Stage
from mks_deploy.setup.up import (
    SecureShell,
    Sent,
    archive,
    carry_out,
    commit_name,
    forget_secrets,
    plan_hosts,
    plan_up,
    read_remote,
    settings_archive,
    up,
)
from mks_deploy.setup.up import Target as HostTarget

__all__ = [
    "apply_command",
    "capacity_command",
    "cost_of_flag",
    "example_command",
    "init_command",
    "number_above",
    "render_command",
    "say",
    "secrets_command",
    "settings_history_command",
    "shells_of",
    "up_command",
    "whole_number",
]


_BILLION = 1_000_000_000


def example_command(_options: argparse.Namespace) -> int:
    """Print all options with their explanation."""
    sys.stdout.write(example())
    return DONE


def capacity_command(options: argparse.Namespace) -> int:
    """Print what a number of users needs, and where the limits lie."""
    try:
        costs = read_costs(read_text(options.costs) if options.costs else reference_costs())
    except CapacityError as error:
        sys.stderr.write(f"{options.costs}: {error}\n")
        return WRONG
    costs = replace(costs, **dict(options.cost))
    load = Load(users=options.users, active=options.active, pause=options.pause, cached=options.cached)
    machine = Machine(
        cores=options.cores,
        connections=options.connections,
        redis_gib=options.redis_gib,
        disk_gib=options.disk_gib,
    )
    size = size_for(costs, load, machine)
    rows = [
        ("requests/s in the busiest minute", f"{size.requests:,.0f}"),
        ("worker processes, with threads of each", f"{size.workers} x {size.threads}"),
        (f"web hosts of {machine.cores} cores, at most {BUSY:.0%} busy", str(size.web_hosts)),
        ("cores of PostgreSQL", str(size.database_cores)),
        ("connections to PostgreSQL without PgBouncer", str(size.connections)),
        ("connections to PostgreSQL with PgBouncer", str(size.pooled)),
        ("memory of Redis", f"{size.redis_mib:,} MiB"),
        ("Redis servers that share the keys", str(size.shards)),
        ("logs a day, uncompressed", f"{size.log_gib:.1f} GiB"),
    ]
    text = "".join(f"{name:<48} {value:>12}\n" for name, value in rows)
    text += f"\nlimits up to {FASTEST:,} requests/s, the first one in front\n"
    for limit in limits_of(costs, load, machine):
        reached = f"{limit.requests:,.0f}" if limit.requests <= FASTEST else "beyond"
        text += f"{limit.name:<48} {reached:>12}\n"
    sys.stdout.write(text)
    return DONE


def number_above(minimum: float, maximum: float = _BILLION) -> Callable[[str], float]:
    """Return the type of an argument that is a number above the minimum."""

    def read(text: str) -> float:
        value = float(text)
        if not minimum < value <= maximum:  # nan is neither
            raise ValueError
        return value

    read.__name__ = f"number above {minimum:g}, at most {maximum:g}"
    return read


def whole_number(text: str) -> int:
    """Parse a whole number from 1 to a billion, as an argument."""
    if not text.isdecimal() or not 1 <= int(text) <= _BILLION:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 1000000000")
    return int(text)


def cost_of_flag(text: str) -> tuple[str, float]:
    """Read ``application_ms=4.5``."""
    name, _, value = text.partition("=")
    if name not in {field.name for field in fields(Costs)}:
        raise argparse.ArgumentTypeError(
            f"unknown; there are {', '.join(field.name for field in fields(Costs))}"
        )
    try:
        return name, 0.0 if value in {"0", "0.0"} else number_above(0)(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} must be a number from 0") from None


def init_command(options: argparse.Namespace) -> int:
    """Write the settings of an application that is looked at."""
    wanted = Wanted(
        folder=options.folder,
        target=options.app,
        name=options.name,
        hosts=tuple(options.host),
        mail=options.mail,
        python=options.python,
        proven=not options.no_import,
    )
    file = options.out or options.folder / "deploy.toml"
    try:
        # Never prompt on a pipe: input() would fail or wait for ever.
        text = new_settings(wanted, ask=_prompt if sys.stdin.isatty() and not options.yes else None)
        if options.check:
            sys.stdout.write(text)
            return DONE
        write_new(file, text)
    except InitError as error:
        sys.stderr.write(f"{error}\nnothing was written\n")
        return WRONG
    sys.stdout.write(f"{file}: written; read it, then mks-deploy secrets and mks-deploy render\n")
    if not options.out and ignore_generated(options.folder):
        sys.stdout.write(f"{options.folder / '.gitignore'}: git ignores the secrets and what render writes\n")
    return DONE


def _prompt(question: str) -> str:
    try:
        return input(question)
    except EOFError:
        return ""


def secrets_command(options: argparse.Namespace) -> int:
    """Make missing secrets, or seal and open them for the repository."""
    if bool(options.seal) != bool(options.recipients) or bool(options.open) != bool(options.identity):
        sys.stderr.write("--seal needs --recipients, and --open needs --identity\n")
        return WRONG
    if sum(map(bool, (options.seal, options.open, options.read))) > 1:
        sys.stderr.write("--seal, --open and --read exclude each other\n")
        return WRONG
    try:
        if options.open or options.read:
            if options.read:
                content = sys.stdin.buffer.read() if options.read == "-" else Path(options.read).read_bytes()
                opened = read_decrypted(content, options.secrets, overwrite=options.overwrite)
            else:
                opened = open_sealed(options.open, options.secrets, identity=options.identity)
            sys.stdout.write(f"{options.secrets}: {', '.join(opened) or 'nothing'} changed\n")
            return DONE
        code = _made_secrets(options)
        if options.seal and code == DONE:
            names = seal(options.secrets, options.seal, recipients=options.recipients)
            sys.stdout.write(f"{options.seal}: {len(names)} secrets\n")
    except SealError as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    return code


def _made_secrets(options: argparse.Namespace) -> int:
    settings = read_settings(read_text(options.settings), file=options.settings.name)
    made = make_missing(options.secrets, settings, compose=options.compose)
    sys.stdout.write(f"{options.secrets}: made {', '.join(made) or 'nothing, all were there'}\n")
    return DONE


def render_command(options: argparse.Namespace) -> int:
    """Write all files, or show what would change."""
    settings = checked_settings(options)
    rendered = render(
        settings, installed_versions(options), credentials=used_credentials(options.secrets, settings)
    )
    # The commands on the host read the settings that the files were rendered from.
    own = RenderedFile(
        f"{settings.paths.config[1:]}/deploy.toml", options.settings.read_text(encoding="utf-8")
    )
    files = (*rendered, own)
    if options.check:
        _write_notes(options, notes_on(settings, options.secrets))
        found = list(differences(files, options.out))
        sys.stdout.write("".join(found))
        return DIFFERENT if found else DONE
    changed = write(files, options.out)
    sys.stdout.write(f"{options.out}: {len(files)} files, {changed} changed\n")
    return DONE


def _write_notes(options: argparse.Namespace, notes: Iterable[str]) -> None:
    sys.stderr.write("".join(f"{options.settings}: {note}\n" for note in notes))


def apply_command(options: argparse.Namespace) -> int:
    """Set up this host."""
    settings = checked_settings(options)
    if settings.edge.mode != "nginx":
        raise ReleaseError('apply needs edge.mode = "nginx"; see "Without nginx" for the other one')
    version = Path(settings.paths.releases) / "versions" / options.version
    if not is_version_name(options.version) or not (version / "venv/bin" / settings.server.program).exists():
        raise ReleaseError(f"{version} is not a version: make the folder with its virtual environment first")
    used = used_credentials(options.secrets, settings)
    own = RenderedFile(f"{settings.paths.config[1:]}/deploy.toml", read_text(options.settings))
    stage: Stage = options.stage
    host = HostSetup(
        settings,
        rendered=lambda: (*render(settings, installed_versions(options), credentials=used), own),
        secrets=options.secrets.resolve(),
        version=options.version,
        issue=not options.no_certificate,
        migrate=not options.no_migrate,
        stage=stage,
    )
    if options.plan:
        for step in host.remaining():
            sys.stdout.write(f"{step.key}: {step.what}\n")
            sys.stdout.write("".join(f"    {' '.join(words)}\n" for words in step.commands))
            sys.stdout.write(f"    to go back: {step.undo}\n")
        return DONE
    if os.geteuid() != 0:
        raise ReleaseError("apply changes the host: run it as root, or show the steps with --plan")
    # Over ssh, root's path may lack what only root uses: nginx, runuser, sshd.
    os.environ["PATH"] = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin"
    try:
        # A laptop that was closed may have left one running.
        with locked(lock_file(settings), doing="mks-deploy apply"):
            for step in apply(host):
                sys.stdout.write(f"{step.key}: {step.what}\n")
                sys.stdout.flush()
    except Locked as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    sys.stdout.write("nothing remains to be done\n")
    return DONE


def settings_history_command(options: argparse.Namespace) -> int:
    """List, compare or apply former settings of this host."""
    settings = host_settings(options)
    if options.what == "list":
        sys.stdout.write("".join(f"{each.stem}\n" for each in list_former(settings)))
        return DONE
    former = find_former(settings, options.former)
    if former is None:
        sys.stderr.write("there are no such former settings: mks-deploy settings list\n")
        return WRONG
    present = Path(settings.paths.config) / "deploy.toml"
    if options.what == "diff":
        before, after = (read_text(file).splitlines(keepends=True) for file in (present, former))
        sys.stdout.writelines(difflib.unified_diff(before, after, present.name, former.name))
        return DONE
    # The same version and secrets; whatever the settings decide about the host is done again.
    encrypts = bool(read_settings(read_text(former), file=former.name).host.encrypt_secrets)
    # A copy of plain files: from themselves they would not be encrypted.
    options.secrets = options.secrets or plain_credentials(settings, copied=encrypts)
    options.settings = former
    options.host = own_name(settings, present.parent)
    options.version = read_state(settings).version
    options.no_certificate = options.no_migrate = True
    return apply_command(options)


def up_command(options: argparse.Namespace) -> int:
    """Set up hosts over SSH and release there."""
    options.settings = options.settings or options.folder / "deploy.toml"
    options.secrets = options.secrets or options.folder / "secrets"
    settings = checked_settings(options)
    _write_notes(options, notes_on(settings, options.secrets))
    version = options.version or commit_name(options.folder)
    if not is_version_name(version):
        raise ReleaseError("a version is named by letters, digits and . _ -")
    if settings.hosts:
        return _up_hosts(options, settings, version)
    if not options.host:
        raise ReleaseError("--host must name the host, such as root@server, or deploy.toml several [[hosts]]")
    run = token_hex(8)
    shells = [SecureShell(host, config=options.ssh_config) for host in options.host]
    contents: dict[Sent, bytes] = {
        "source": archive(options.folder, options.secrets),
        "settings": settings_archive(read_text(options.settings), options.secrets),
    }
    for shell in shells:
        facts = read_remote(shell, settings, version)
        steps = plan_up(
            settings,
            facts,
            version=version,
            run=run,
            issue=not options.no_certificate,
            migrate=not options.no_migrate,
            stage=options.stage,
        )
        for step in steps if options.plan else up(shell, steps, contents=contents):
            sys.stdout.write(f"{shell.host}: {step.key}: {step.what}\n")
            if options.plan:
                sys.stdout.write("".join(f"    {' '.join(words)}\n" for words in step.commands))
                sys.stdout.write(f"    to go back: {step.undo}\n")
            sys.stdout.flush()
    return DONE


def _up_hosts(options: argparse.Namespace, settings: Settings, version: str) -> int:
    names = options.host or [host.name for host in settings.hosts]
    shells = shells_of(options, settings, names)
    targets = [
        HostTarget(shell, settings.on(name), read_remote(shell, settings, version))
        for name, shell in shells.items()
    ]
    steps = plan_hosts(
        targets,
        version=version,
        run=token_hex(8),
        issue=not options.no_certificate,
        migrate=not options.no_migrate,
        stage=options.stage,
    )
    source, text = archive(options.folder, options.secrets), read_text(options.settings)
    copies = DatabaseHosts(
        settings, shells_of(options, settings, host_names(settings.with_role("database", "standby")))
    )
    try:
        for target, step in steps:
            name = target.settings.here.name if target.settings.here else ""
            sys.stdout.write(f"{name}: {step.key}: {step.what}\n")
            if options.plan:
                sys.stdout.write("".join(f"    {' '.join(words)}\n" for words in step.commands))
                sys.stdout.write(f"    to go back: {step.undo}\n")
                continue
            sys.stdout.flush()
            only = frozenset(each.file for each in credentials_of(target.settings))
            contents: dict[Sent, bytes] = {
                "source": source,
                "settings": settings_archive(text, options.secrets, only=only),
            }
            carry_out(target.shell, step, contents=contents)
            if step.key == "apply" and target.settings.has_role("standby"):
                made = ["test", "-e", str(standby_mark(settings))]
                for line in copies.standby(name) if target.shell.run(made, shown=False)[0] else ():
                    say(line)
    finally:
        for target in targets if not options.plan else ():
            with contextlib.suppress(ReleaseError):  # one that cannot be reached hides none of the others
                forget_secrets(target.shell, [step for each, step in steps if each is target])
    return DONE


def shells_of(
    options: argparse.Namespace, settings: Settings, names: Sequence[str]
) -> dict[str, SecureShell]:
    """Return how each of the hosts is reached."""
    known = {host.name: host for host in settings.hosts}
    if unknown := [name for name in names if name not in known]:
        raise ReleaseError(f"--host must be one of {', '.join(known)}, not {unknown[0][:60]!r}")
    return {
        name: SecureShell(known[name].ssh or f"root@{known[name].address}", config=options.ssh_config)
        for name in names
    }


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
