"""Command line: render a deployment, and operate the host it runs on."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mks_deploy.environment_file import variable_errors
from mks_deploy.init.init_command import InitError, Wanted, new_settings, write_new
from mks_deploy.operations import acceptance, certificate, unit_alert, watch
from mks_deploy.operations.application_command import run_as_application
from mks_deploy.operations.backup import (
    BackupError,
    Database,
    backup,
    check_keys,
    holds_database,
    restore,
    restore_for_test,
)
from mks_deploy.operations.base_backup import base_backup
from mks_deploy.operations.concurrent_readers import read_concurrently
from mks_deploy.operations.database_hosts import (
    DatabaseHosts,
    account_statements,
    may_start,
    standby_mark,
)
from mks_deploy.operations.host_steps import HostSteps, ready
from mks_deploy.operations.log_shipping import ShippingError, shipping_command
from mks_deploy.operations.mail_sink import MailSink
from mks_deploy.operations.masking import MaskError, mark_staging, mask, read_mask_table
from mks_deploy.operations.offsite import Repository, fetch, push, rehearse
from mks_deploy.operations.operation_log import Locked, OperationLog, announce, locked, signals_as_exit
from mks_deploy.operations.probe import Target, probe
from mks_deploy.operations.release import (
    ReleaseError,
    Slot,
    State,
    is_version_name,
    release,
    restart,
    rollback,
)
from mks_deploy.operations.schema_rollback import SchemaRollback
from mks_deploy.operations.server_metrics import read_servers
from mks_deploy.operations.version_folders import listed_versions, plan_prune, prune
from mks_deploy.output_files import differences, write
from mks_deploy.rendering import HOST_FILE, RenderedFile, render
from mks_deploy.settings.credentials import credential_errors, credentials_of, make_missing, used_credentials
from mks_deploy.settings.definitions import Host, Settings
from mks_deploy.settings.sealed_secrets import SealError, open_sealed, seal
from mks_deploy.settings.settings_file import DeploySettingsError, example, find_settings_file, read_settings
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
from mks_deploy.setup.up import (
    Target as HostTarget,
)
from mks_deploy.versions import OLDEST_NGINX, Installed, detect, parse_version
from mks_hardening.exceptions import SettingsError

__all__ = ["main", "parser"]

DONE, DIFFERENT, WRONG = 0, 1, 2
_ETC = Path("/etc")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 failed check or operation, 2 invalid input, no change."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except DeploySettingsError as error:
        sys.stderr.write(f"invalid settings; nothing was written\n{error}\n")
        return WRONG
    except ReleaseError as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    except OSError as error:
        sys.stderr.write(f"{error.filename or 'a file'}: {error.strerror or error}\n")
        return WRONG
    return code


def parser() -> argparse.ArgumentParser:
    """Build the argument parser with all commands."""
    whole = argparse.ArgumentParser(prog="mks-deploy", description="Put a web application on one host.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "init", help="find the application in a source tree, import it, and write its deploy.toml"
    )
    command.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="source tree; by default this one"
    )
    command.add_argument("--app", default="", metavar="TARGET", help="module:object, instead of detecting it")
    command.add_argument("--name", default="", help="name of the site, its units and account")
    command.add_argument("--host", action="append", default=[], help="name that is answered; may be repeated")
    command.add_argument("--mail", default="", metavar="ADDRESS", help="who gets alerts")
    command.add_argument("--python", default="", metavar="FILE", help="interpreter of the project")
    command.add_argument("--no-import", action="store_true", help="do not prove the target by importing it")
    command.add_argument("--yes", action="store_true", help="never prompt; missing values are an error")
    command.add_argument("--check", action="store_true", help="write nothing, show what would be written")
    command.add_argument("--out", type=Path, metavar="FILE", help="by default deploy.toml in the source tree")
    command.set_defaults(run=_init)

    command = commands.add_parser("example", help="print a deploy.toml with every option explained")
    command.set_defaults(run=_example)

    command = commands.add_parser(
        "secrets", help="create the folder of secrets and generate those that can be generated"
    )
    command.add_argument(
        "--settings", type=Path, default=Path("deploy.toml"), metavar="FILE", help="deploy.toml"
    )
    command.add_argument("--secrets", type=Path, default=Path("secrets"), metavar="DIR")
    command.add_argument("--seal", type=Path, metavar="FILE", help="then encrypt the folder into FILE by age")
    command.add_argument("--recipients", type=Path, metavar="FILE", help="public keys, one in each line")
    command.add_argument("--open", type=Path, metavar="FILE", help="decrypt FILE into the folder before")
    command.add_argument("--identity", type=Path, metavar="FILE", help="private key of age or ssh")
    command.add_argument("--compose", action="store_true", help="those of the servers of docker/compose.yml")
    command.set_defaults(run=_secrets)

    command = commands.add_parser("render", help="write every file of the deployment, or show what differs")
    command.add_argument(
        "--settings", type=Path, default=Path("deploy.toml"), metavar="FILE", help="deploy.toml"
    )
    command.add_argument(
        "--secrets", type=Path, default=Path("secrets"), metavar="DIR", help="secrets; only checked"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    command.add_argument("--host", default="", metavar="NAME", help="which of several [[hosts]]")
    command.add_argument(
        "--check",
        "--diff",
        action="store_true",
        help="write nothing, show differences, exit with 1 if there are any",
    )
    command.add_argument(
        "--nginx", type=_version, metavar="VERSION", help="render for this nginx, not the one here"
    )
    command.add_argument("--openssl", type=_version, metavar="VERSION", help="and for this OpenSSL")
    command.set_defaults(run=_render)

    command = commands.add_parser(
        "certificate",
        help="create a placeholder, issue the first certificate, check the served one, rehearse its renewal",
    )
    command.add_argument("what", choices=("placeholder", "issue", "check", "rehearse", "rehearsed"))
    _host_options(command)
    command.set_defaults(run=_certificate)

    command = commands.add_parser(
        "watch", help="check this host: certificate, backup, disk; exit with 1 if there is a problem"
    )
    command.add_argument(
        "--record", action="store_true", help="also write metrics, and report new problems only"
    )
    _host_options(command)
    command.set_defaults(run=_watch)

    _add_setup(commands)
    _add_operations(commands)
    return whole


def _add_setup(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "apply", help="set up this host: do what remains between what it has and what the settings say"
    )
    command.add_argument(
        "--settings", type=Path, default=Path("deploy.toml"), metavar="FILE", help="deploy.toml"
    )
    command.add_argument("--secrets", type=Path, default=Path("secrets"), metavar="DIR")
    command.add_argument(
        "--version", required=True, help="a folder below RELEASES/versions, with venv/ in it, to release"
    )
    command.add_argument("--plan", action="store_true", help="change nothing, show what remains")
    command.add_argument("--host", default="", metavar="NAME", help="which of several [[hosts]] this one is")
    command.add_argument(
        "--stage",
        choices=("servers", "migration"),
        default="",
        help="go to PostgreSQL and Redis, or to the change of the database, not to the end",
    )
    command.add_argument(
        "--no-certificate", action="store_true", help="do not ask the provider yet; nginx keeps a placeholder"
    )
    command.add_argument("--no-migrate", action="store_true", help="release without app.migrate")
    command.set_defaults(run=_apply, nginx=None, openssl=None)

    command = commands.add_parser(
        "settings", help="list former settings of this host, show what differs, or apply them again"
    )
    command.add_argument("what", choices=("list", "diff", "rollback"))
    command.add_argument("former", nargs="?", default="", metavar="NAME", help="by default the last ones")
    command.add_argument("--plan", action="store_true", help="rollback: change nothing, show what remains")
    _host_options(command)
    command.set_defaults(run=_settings_history, nginx=None, openssl=None, stage="")

    command = commands.add_parser(
        "up", help="bring the source tree to hosts over OpenSSH, and set each up as `apply` does"
    )
    command.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="USER@HOST",
        help="root of a host, or one of several [[hosts]], which are all chosen by default; may be repeated",
    )
    command.add_argument(
        "folder", type=Path, nargs="?", default=Path(), help="source tree in git; by default this one"
    )
    command.add_argument("--version", default="", help="name of the version; by default the commit")
    command.add_argument(
        "--settings", type=Path, metavar="FILE", help="by default deploy.toml of the source tree"
    )
    command.add_argument("--secrets", type=Path, metavar="DIR", help="by default secrets of the source tree")
    command.add_argument("--ssh-config", type=Path, metavar="FILE", help="instead of ~/.ssh/config")
    command.add_argument("--plan", action="store_true", help="change nothing, show the steps of each host")
    command.add_argument(
        "--no-certificate", action="store_true", help="do not ask the provider yet; nginx keeps a placeholder"
    )
    command.add_argument("--no-migrate", action="store_true", help="release without app.migrate")
    command.set_defaults(run=_up, nginx=None, openssl=None)


def _add_operations(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("release", help="switch requests to a version once it is healthy")
    command.add_argument("version", help="a folder below RELEASES/versions, with venv/ in it")
    command.add_argument(
        "--canary", type=int, default=0, metavar="PERCENT", help="share of the requests that it gets first"
    )
    command.add_argument(
        "--observe", type=int, default=60, metavar="SECONDS", help="minimum time to observe the canary"
    )
    command.add_argument(
        "--migrate", action="store_true", help="migrate the database first; requires a recent backup"
    )
    command.add_argument(
        "--note", metavar="TEXT", help="release note; by default the file RELEASE_NOTES of the version"
    )
    _host_options(command)
    command.set_defaults(run=_release)

    command = commands.add_parser("rollback", help="return to the previous version")
    command.add_argument(
        "--schema",
        action="store_true",
        help="then take back its migrations too (app.migrate_back); requires a recent backup",
    )
    _host_options(command)
    command.set_defaults(run=_rollback)

    command = commands.add_parser(
        "restart", help="start the running version anew beside itself, and switch requests to it"
    )
    _host_options(command)
    command.set_defaults(run=_restart)

    command = commands.add_parser("versions", help="list the versions of the host, or delete old ones")
    command.add_argument("what", choices=("list", "prune"))
    command.add_argument(
        "--keep",
        type=_kept,
        metavar="N",
        help="versions to keep besides those in use; by default release.keep",
    )
    command.add_argument("--plan", action="store_true", help="delete nothing, show what would be deleted")
    _host_options(command)
    command.set_defaults(run=_versions)

    command = commands.add_parser("status", help="show the version in each slot and the last actions")
    _host_options(command)
    command.set_defaults(run=_status)

    command = commands.add_parser("maintenance", help="turn the maintenance page on or off")
    command.add_argument("what", choices=("on", "off"))
    _host_options(command)
    command.set_defaults(run=_maintenance)

    _add_backups(commands)

    command = commands.add_parser(
        "test", help="test a real host from outside: TLS, redirects, header fields, names"
    )
    command.add_argument("url", help="https://host")
    command.add_argument("--http-port", type=int, default=80, metavar="PORT")
    command.add_argument(
        "--address", default="", help="connect to this address instead of resolving the name"
    )
    command.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificate authority to trust instead of the system's"
    )
    command.set_defaults(run=_test)

    _add_acceptance(commands)
    _add_masking(commands)

    command = commands.add_parser(
        "app", help="run a command of the application with its variables and its account"
    )
    _host_options(command)
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    command.set_defaults(run=_app)

    command = commands.add_parser("alert", help="send an alert that a unit failed")
    command.add_argument("unit", nargs="?", default="")
    command.add_argument(
        "--test", action="store_true", help="send a test instead; exit with 1 if none arrives"
    )
    command.set_defaults(run=_alert)


def _add_acceptance(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "accept", help="fill in the acceptance sheet of this site; exit with 1 if a criterion is missed"
    )
    command.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    command.add_argument("--language", choices=("en", "ja"), default="en")
    command.add_argument(
        "--address",
        default="127.0.0.1",
        help="connect to this address; empty to resolve the name of the site",
    )
    command.add_argument("--ca", type=Path, metavar="FILE", help="certificate authority to trust")
    command.add_argument("--path", default="/", help="page to read, which needs no sign-in")
    command.add_argument("--load", action="store_true", help="read that page over many connections, too")
    command.add_argument("--connections", type=_positive, default=1000, metavar="N")
    command.add_argument("--seconds", type=_positive, default=30, metavar="S", help="duration of the load")
    command.add_argument("--send-alert", action="store_true", help="send an alert to all its receivers")
    command.add_argument(
        "--before", type=Path, metavar="FILE", help="earlier sheet in JSON, to compare response times with"
    )
    command.add_argument("--strict", action="store_true", help="a criterion that was not run is missed, too")
    _host_options(command)
    command.set_defaults(run=_accept)


def _add_masking(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("mask", help="mask the personal data in the database of a staging site")
    command.add_argument("--columns", type=Path, metavar="FILE", help="table of columns and masks, TOML")
    command.add_argument("--plan", action="store_true", help="do it, show the numbers of rows, and undo it")
    command.add_argument(
        "--mark", default="", metavar="DATABASE", help="mark this database as one of staging"
    )
    _host_options(command)
    command.set_defaults(run=_mask)

    command = commands.add_parser(
        "logs", help="send the log files to the collector, or check that they can be"
    )
    command.add_argument("what", choices=("ship", "check"))
    _host_options(command)
    command.set_defaults(run=_logs)

    command = commands.add_parser("sink", help="accept the mail of a staging site and keep it; for its unit")
    _host_options(command)
    command.set_defaults(run=_sink)


def _add_backups(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("backup", help="back up database, uploads and keys; the unit does it daily")
    command.add_argument(
        "--restore-test", action="store_true", help="restore it into a database made for that"
    )
    command.add_argument(
        "--base", action="store_true", help="the whole server instead, to go back to a moment from"
    )
    _host_options(command)
    command.set_defaults(run=_backup)

    command = commands.add_parser(
        "offsite",
        help="copies of the backups elsewhere: make, list, fetch and rehearse them (offsite.repository)",
    )
    command.add_argument("what", choices=("init", "push", "list", "fetch", "rehearse"))
    command.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="fetch: a new folder")
    command.add_argument(
        "--snapshot", default="", metavar="ID", help="fetch: this copy; by default the newest"
    )
    command.add_argument(
        "--keys", type=Path, metavar="DIR", help="fetch: a new folder for the copies of the keys"
    )
    _host_options(command)
    command.set_defaults(run=_offsite)

    command = commands.add_parser(
        "database",
        help="servers of the database on several hosts: show them, make a standby, let one take over",
    )
    command.add_argument("what", choices=("status", "standby", "promote", "accounts", "may-start"))
    command.add_argument("--host", default="", metavar="NAME", help="which; by default the only standby")
    command.add_argument("--ssh-config", type=Path, metavar="FILE", help="instead of ~/.ssh/config")
    command.add_argument(
        "--old-primary-is-off",
        action="store_true",
        help="promote: the former primary cannot be reached, and you have switched it off",
    )
    _host_options(command)
    command.set_defaults(run=_database)

    command = commands.add_parser("restore", help="put a backup into an empty database and an empty folder")
    command.add_argument("backup", type=Path, metavar="FOLDER")
    command.add_argument("--uploads", type=Path, required=True, metavar="DIR", help="an empty folder")
    command.set_defaults(run=_restore)


def _host_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--settings", type=Path, metavar="FILE", help="deploy.toml; by default the one below /etc"
    )
    command.add_argument("--secrets", type=Path, metavar="DIR", help="by default the credentials of the host")


def _certificate(options: argparse.Namespace) -> int:
    settings, now = _host_settings(options), datetime.now(UTC)
    if options.what == "placeholder":
        made = certificate.make_placeholder(settings, now=now)
        sys.stdout.write("created a placeholder\n" if made else "a certificate is there\n")
        return DONE
    if options.what == "issue":
        return DIFFERENT if certificate.issue(settings, secrets=_host_secrets(options, settings)) else DONE
    if options.what == "rehearse":
        return _rehearse(settings)
    if options.what == "rehearsed":  # by the unit of the rehearsal
        wrong = list(certificate.check_rehearsal(settings, now=now))
        sys.stdout.write(
            "".join(f"{problem}\n" for problem in wrong) or "the rehearsal got its certificate\n"
        )
        return DIFFERENT if wrong else DONE
    # Without nginx, a renewal has just restarted the application, which takes some time to import.
    served = functools.partial(certificate.served_certificate, timeout=60)
    errors = list(certificate.check(settings, now=now, served=served))
    sys.stdout.write("".join(f"{error}\n" for error in errors) or "the certificate is in order\n")
    return DIFFERENT if errors else DONE


def _rehearse(settings: Settings) -> int:
    """Renew as the unit of the renewal does, against a directory whose certificates nobody trusts."""
    if not settings.rehearsal_directory:
        sys.stderr.write(
            "tls.rehearsal_directory names no directory, and that of tls.directory is not known\n"
        )
        return WRONG
    if certificate.rehearse(settings):
        unit = f"{settings.name}-rehearse.service"
        sys.stderr.write(f"the rehearsal failed, and the renewal would: journalctl -u {unit}\n")
        return DIFFERENT
    sys.stdout.write(f"the rehearsal against {settings.rehearsal_directory} succeeded\n")
    return DONE


def _watch(options: argparse.Namespace) -> int:
    settings = _host_settings(options)
    readings = watch.measure(settings, now=datetime.now(UTC), servers=read_servers(os.environ))
    bad = watch.record(readings, settings) if options.record else watch.find_problems(readings, settings)
    sys.stdout.write("".join(f"{trouble}\n" for trouble in bad))
    return DIFFERENT if bad else DONE


def _release(options: argparse.Namespace) -> int:
    note = _note(options.note)

    def move(state: State, steps: HostSteps, trail: OperationLog) -> State:
        said = note if note is not None else _notes_of(steps.settings, options.version)
        return release(
            options.version, state, steps, trail, canary=options.canary, migrate=options.migrate, note=said
        )

    return _moved(options, move, observed=options.observe)


_LONGEST_NOTE: Final = 4000


def _note(text: str | None) -> str | None:
    if text is not None and len(text) > _LONGEST_NOTE:
        raise ReleaseError(f"--note must have at most {_LONGEST_NOTE} characters")
    return text


def _notes_of(settings: Settings, version: str) -> str:
    """Return the notes that lie in the folder of a version; their beginning if they are long."""
    if not is_version_name(version):
        return ""  # refused by the release
    file = Path(settings.paths.releases) / "versions" / version / "RELEASE_NOTES"
    try:
        return file.read_text(encoding="utf-8", errors="replace")[:_LONGEST_NOTE].strip()
    except OSError:
        return ""


def _rollback(options: argparse.Namespace) -> int:
    def move(state: State, steps: HostSteps, trail: OperationLog) -> State:
        if not options.schema:
            return rollback(state, steps, trail)
        schema, left = SchemaRollback(steps.settings), state.version
        revision = schema.planned(left)  # before anything is changed
        moved = rollback(state, steps, trail)
        facts = {"version": left, "revision": revision}
        try:
            schema.go_back(left, revision)
        except BaseException as error:
            trail.add("schema rollback", outcome="refused", **facts, reason=str(error))
            raise
        trail.add("schema rollback", outcome="done", **facts)
        return moved

    return _moved(options, move)


def _restart(options: argparse.Namespace) -> int:
    return _moved(options, restart)


def _moved(
    options: argparse.Namespace, move: Callable[[State, HostSteps, OperationLog], State], *, observed: int = 0
) -> int:
    settings = _with_slots(options)
    releases = Path(settings.paths.releases)
    # Hardened hosts set root's umask to 027 or 077: nginx could not read the directories of static files.
    os.umask(0o022)
    try:
        with (
            signals_as_exit(),
            locked(releases / ".lock", doing=f"mks-deploy {options.run.__name__.strip('_')}"),
        ):
            steps, trail = HostSteps(settings, observed=observed), OperationLog(releases / "trail.jsonl")
            state = move(State.read(releases / "state.json"), steps, trail)
            _announce(settings, state, trail)
            _prune_after(settings, state, trail)
    except Locked as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    sys.stdout.write(f"{state.version} is in slot {state.active}\n")
    return DONE


def _announce(settings: Settings, state: State, trail: OperationLog) -> None:
    """Tell systemd's journal which version serves the requests, and its release note."""
    found = listed_versions(Path(settings.paths.releases), state, trail)
    note = next((each.note for each in found if each.name == state.version), "")
    announce(
        settings.name,
        f"version {state.version} gets the requests, after {state.before or 'none'}\n{note}".strip(),
        DEPLOY_VERSION=state.version,
        DEPLOY_PREVIOUS=state.before,
    )


def _prune_after(settings: Settings, state: State, trail: OperationLog) -> None:
    """Delete old versions after a release; a failure does not affect the release."""
    releases, keep = Path(settings.paths.releases), settings.release.keep
    if not keep:
        return
    try:
        deleted = prune(releases, plan_prune(listed_versions(releases, state, trail), keep))
    except OSError as error:
        sys.stderr.write(f"old versions were not deleted: {error.filename}: {error.strerror}\n")
        return
    if deleted:
        trail.add("prune", outcome="done", versions=deleted)
        sys.stdout.write(f"deleted {', '.join(deleted)}\n")


def _kept(text: str) -> int:
    if not text.isdecimal() or len(text) > 4:
        raise argparse.ArgumentTypeError("must be a whole number from 0 to 9999")
    return int(text)


def _versions(options: argparse.Namespace) -> int:
    settings = _with_slots(options)
    releases = Path(settings.paths.releases)
    trail = OperationLog(releases / "trail.jsonl")
    if options.what == "list":
        for each in listed_versions(releases, State.read(releases / "state.json"), trail):
            first = each.note.partition("\n")[0]
            moved = f"{each.moved[:16].replace('T', ' ')} {each.outcome}" if each.moved else "never released"
            sys.stdout.write(
                f"{each.name:<24} {each.use or '-':<10} {moved:<28} {each.who} {first}".rstrip() + "\n"
            )
        return DONE
    keep = settings.release.keep if options.keep is None else options.keep
    if options.keep is None and not keep:
        sys.stderr.write("release.keep is 0, which keeps all versions: say how many with --keep\n")
        return WRONG
    try:
        with locked(releases / ".lock", doing="mks-deploy versions prune"):
            state = State.read(releases / "state.json")
            chosen = plan_prune(listed_versions(releases, state, trail), keep)
            deleted = list(chosen) if options.plan else prune(releases, chosen)
            if deleted and not options.plan:
                trail.add("prune", outcome="done", versions=deleted)
    except Locked as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    word = "would delete" if options.plan else "deleted"
    sys.stdout.write(f"{word} {', '.join(deleted) or 'nothing'}\n")
    return DONE


def _status(options: argparse.Namespace) -> int:
    settings = _with_slots(options)
    releases = Path(settings.paths.releases)
    state = State.read(releases / "state.json")
    slots: tuple[Slot, ...] = ("blue", "green")
    for slot in slots:
        mark = "*" if slot == state.active else " "
        health = "ready" if ready(settings, slot) else "not ready"
        sys.stdout.write(f"{mark} {slot:<6} {state.in_slot(slot) or '-':<24} {health}\n")
    sys.stdout.write("".join(f"{line}\n" for line in OperationLog(releases / "trail.jsonl").last(5)))
    return DONE if state.active and ready(settings, state.active) else DIFFERENT


def _maintenance(options: argparse.Namespace) -> int:
    flag = Path(_with_slots(options).paths.state) / "maintenance.on"
    if options.what == "on":
        flag.touch()
    else:
        flag.unlink(missing_ok=True)
    return DONE


def _backup(options: argparse.Namespace) -> int:
    settings = _host_settings(options)
    keys = os.environ.get("MKS_SECRET_KEYS_FILE")
    try:
        database = Database.from_environment(os.environ) if settings.has_database else None
        if options.base:
            if database is None:
                sys.stderr.write("a base backup needs PostgreSQL, which app.needs does not name\n")
                return WRONG
            sys.stdout.write(f"{base_backup(settings, database, now=datetime.now(UTC))}\n")
            return DONE
        made = backup(settings, database, now=datetime.now(UTC), keys=Path(keys) if keys else None)
        sys.stdout.write(f"{made}\n")
        if options.restore_test:
            with tempfile.TemporaryDirectory() as folder:
                rows = restore_for_test(made, database, folder=Path(folder))
            check_keys(made, settings)
            sys.stdout.write(f"restored {sum(rows.values())} rows in {len(rows)} tables, all as written\n")
    except BackupError as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    return DONE


def _offsite(options: argparse.Namespace) -> int:
    settings, now = _host_settings(options), datetime.now(UTC)
    if (options.what == "fetch") != bool(options.folder):
        sys.stderr.write("fetch needs a new folder for the copy, and only fetch takes one\n")
        return WRONG
    units = {"push": "offsite", "rehearse": "offsite-rehearse"}
    if options.what in units and os.geteuid() == 0:
        unit = f"{settings.name}-{units[options.what]}.service"
        sys.stderr.write(f"not as root, which would own the files: systemctl start {unit}\n")
        return WRONG
    try:
        repository = Repository.of(settings, os.environ)
        if options.what == "init":
            repository.make(settings.name)
            lines = [f"made {repository.url}; without restic_password no copy in it can be read"]
        elif options.what == "push":
            saved = push(settings, repository, now=now)
            lines = [f"copied {saved.name} as {saved.id[:8]}"]
        elif options.what == "fetch":
            found = fetch(repository, options.folder, now=now, snapshot=options.snapshot, keys=options.keys)
            lines = [f"fetched {found.name} of {found.at:%Y-%m-%d %H:%M} UTC into {options.folder}"]
        elif options.what == "rehearse":
            found, rows = rehearse(settings, repository, now=now)
            lines = [
                f"restored {sum(rows.values())} rows in {len(rows)} tables of {found.name}, all as written"
            ]
        else:
            lines = [
                f"{each.id[:8]}  {each.at:%Y-%m-%d %H:%M} UTC  {each.name}" for each in repository.snapshots()
            ]
    except BackupError as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return DONE


def _restore(options: argparse.Namespace) -> int:
    try:
        database = Database.from_environment(os.environ) if holds_database(options.backup) else None
        rows = restore(options.backup, database, uploads=options.uploads)
    except BackupError as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    sys.stdout.write("".join(f"{number:>10} {table}\n" for table, number in rows.items()))
    return DONE


def _test(options: argparse.Namespace) -> int:
    try:
        target = Target.from_url(
            options.url, http_port=options.http_port, address=options.address, ca_file=options.ca
        )
    except ValueError as error:
        sys.stderr.write(f"the URL must be {error}\n")
        return WRONG
    failed = 0
    for finding in probe(target):
        failed += not finding.holds
        sys.stdout.write(f"{'✓' if finding.holds else '✗'} {finding.promise:<58} {finding.seen}\n")
    sys.stdout.write("all promises hold\n" if not failed else f"{failed} do not hold\n")
    return DIFFERENT if failed else DONE


def _accept(options: argparse.Namespace) -> int:
    settings = _host_settings(options)
    target = Target(
        settings.canonical_host,
        settings.edge.https_port,
        settings.edge.http_port,
        options.address,
        options.ca,
    )
    before = _figures(options.before) if options.before else None
    load = None
    if options.load:
        load = read_concurrently(
            target, options.path, connections=options.connections, seconds=options.seconds
        )
    evidence = acceptance.Evidence(
        tuple(probe(target)),
        acceptance.collect_metrics(settings),
        log=acceptance.log_lines(settings),
        alert_delivered=_quiet(options, settings, "mks-deploy", "alert", "--test") == DONE
        if options.send_alert
        else None,
        before=before,
        static=acceptance.static_times(settings, target, options.path),
        n_plus_one=_quiet(options, settings, "mks-hardening", "db", "n+1") if settings.has_database else None,
        load=load,
        has_database=settings.has_database,
        has_tasks=settings.has_tasks,
    )
    verdicts = acceptance.judge(evidence)
    if options.format == "json":
        facts = {"site": settings.name, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        sys.stdout.write(acceptance.as_json(verdicts, evidence, facts=facts))
    elif options.format == "markdown":
        sys.stdout.write(acceptance.as_markdown(verdicts, options.language))
    else:
        sys.stdout.write(acceptance.as_text(verdicts, options.language))
    bad = {"missed", "not run"} if options.strict else {"missed"}
    return DIFFERENT if any(each.outcome in bad for each in verdicts) else DONE


def _mask(options: argparse.Namespace) -> int:
    if bool(options.columns) == bool(options.mark):
        sys.stderr.write("mask takes a table of --columns, or a database to --mark\n")
        return WRONG
    settings = _host_settings(options)
    try:
        table = read_mask_table(_text(options.columns)) if options.columns else None
        with Database.from_environment(os.environ).connection() as connection:
            if table is None:
                mark_staging(connection, settings, options.mark)
                return DONE
            changed = mask(connection, settings, table, rehearse=options.plan)
    except (MaskError, BackupError) as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    sys.stdout.write("".join(f"{number:>10} {name}\n" for name, number in changed.items()))
    return DONE


def _logs(options: argparse.Namespace) -> int:
    settings, secrets = _host_settings(options), _host_secrets(options, _host_settings(options))
    try:
        if options.what == "ship":
            words = shipping_command(settings, secrets, environ=os.environ)
            os.execv(words[0], words)  # noqa: S606 - no shell; systemd watches the shipper itself
        with tempfile.TemporaryDirectory() as folder:
            environ = {**os.environ, "RUNTIME_DIRECTORY": folder}
            words = shipping_command(settings, secrets, environ=environ, check=True)
            return DIFFERENT if subprocess.run(words, check=False, env=environ).returncode else DONE  # noqa: S603 - a fixed program
    except ShippingError as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT


def _sink(options: argparse.Namespace) -> int:
    settings = _host_settings(options)
    if not settings.upkeep.mail_sink:
        sys.stderr.write("this site has no mail sink (upkeep.mail_sink)\n")
        return WRONG
    with signals_as_exit():
        sink = MailSink(Path(settings.paths.state) / "mail-sink")
        asyncio.run(sink.serve(settings.upkeep.mail_sink_port))
    return DONE


def _quiet(options: argparse.Namespace, settings: Settings, *command: str) -> int | None:
    """Run a command of the application; return its exit code, or ``None`` if it cannot be run here."""
    secrets = _host_secrets(options, settings)
    try:
        return run_as_application(
            settings, secrets, command, environ=os.environ, timeout=120, output=subprocess.DEVNULL
        )
    except (OSError, TimeoutError):
        return None


def _figures(file: Path) -> dict[str, float]:
    try:
        figures = json.loads(_text(file))["figures"]
        return {str(name): float(value) for name, value in figures.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DeploySettingsError(
            [f"--before: {file.name} must be a sheet of accept --format json"]
        ) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 10000")
    return int(text)


def _app(options: argparse.Namespace) -> int:
    if not options.command:
        sys.stderr.write("a command of the application must be named, for example: flask --help\n")
        return WRONG
    settings = _host_settings(options)
    secrets = _host_secrets(options, settings)
    return run_as_application(settings, secrets, options.command, environ=os.environ)


def _alert(options: argparse.Namespace) -> int:
    if options.test == bool(options.unit):
        sys.stderr.write("alert takes the name of a unit, or --test\n")
        return WRONG
    try:
        delivered = unit_alert.send_alert(options.unit, environ=os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG
    return DIFFERENT if options.test and not delivered else DONE


def _host_settings(options: argparse.Namespace) -> Settings:
    file = options.settings or find_settings_file(_ETC)
    settings = read_settings(_text(file), file=file.name)
    return _on_host(settings, _own_name(settings, file.parent))


def _own_name(settings: Settings, folder: Path) -> str:
    """Return the name of this host in ``[[hosts]]``; empty if there is only one host."""
    which = folder / HOST_FILE
    return _text(which).strip() if settings.hosts and which.exists() else ""


def _with_slots(options: argparse.Namespace) -> Settings:
    settings = _host_settings(options)
    if settings.edge.mode == "direct":
        raise ReleaseError(
            'with edge.mode = "direct" there is nothing between two versions: see "Without nginx"'
        )
    if not settings.has_role("web"):
        raise ReleaseError('this host has not the role "web": mks-deploy up --version VERSION moves it')
    return settings


def _host_secrets(options: argparse.Namespace, settings: Settings) -> Path:
    return options.secrets or Path(settings.paths.credentials)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DeploySettingsError([f"{file.name} must be UTF-8 text"]) from None


def _version(text: str) -> tuple[int, ...]:
    try:
        return parse_version(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {error}") from None


def _example(_options: argparse.Namespace) -> int:
    sys.stdout.write(example())
    return DONE


def _init(options: argparse.Namespace) -> int:
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
    return DONE


def _prompt(question: str) -> str:
    try:
        return input(question)
    except EOFError:
        return ""


def _secrets(options: argparse.Namespace) -> int:
    if bool(options.seal) != bool(options.recipients) or bool(options.open) != bool(options.identity):
        sys.stderr.write("--seal needs --recipients, and --open needs --identity\n")
        return WRONG
    if options.seal and options.open:
        sys.stderr.write("--seal and --open exclude each other\n")
        return WRONG
    try:
        if options.open:
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
    settings = read_settings(_text(options.settings), file=options.settings.name)
    made = make_missing(options.secrets, settings, compose=options.compose)
    sys.stdout.write(f"{options.secrets}: made {', '.join(made) or 'nothing, all were there'}\n")
    return DONE


def _render(options: argparse.Namespace) -> int:
    settings = _settings(options)
    rendered = render(settings, _installed(options), credentials=used_credentials(options.secrets, settings))
    # The commands on the host read the settings that the files were rendered from.
    own = RenderedFile(
        f"{settings.paths.config[1:]}/deploy.toml", options.settings.read_text(encoding="utf-8")
    )
    files = (*rendered, own)
    sys.stderr.write("".join(f"{options.settings}: {note}\n" for note in settings.notes))
    if options.check:
        found = list(differences(files, options.out))
        sys.stdout.write("".join(found))
        return DIFFERENT if found else DONE
    changed = write(files, options.out)
    sys.stdout.write(f"{options.out}: {len(files)} files, {changed} changed\n")
    return DONE


def _apply(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if settings.edge.mode != "nginx":
        raise ReleaseError('apply needs edge.mode = "nginx"; see "Without nginx" for the other one')
    version = Path(settings.paths.releases) / "versions" / options.version
    if not is_version_name(options.version) or not (version / "venv/bin" / settings.server.program).exists():
        raise ReleaseError(f"{version} is not a version: make the folder with its virtual environment first")
    used = used_credentials(options.secrets, settings)
    own = RenderedFile(f"{settings.paths.config[1:]}/deploy.toml", _text(options.settings))
    stage: Stage = options.stage
    host = HostSetup(
        settings,
        rendered=lambda: (*render(settings, _installed(options), credentials=used), own),
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
        with locked(Path(f"/run/mks-deploy-{settings.name}.lock"), doing="mks-deploy apply"):
            for step in apply(host):
                sys.stdout.write(f"{step.key}: {step.what}\n")
                sys.stdout.flush()
    except Locked as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    sys.stdout.write("nothing remains to be done\n")
    return DONE


def _settings_history(options: argparse.Namespace) -> int:
    settings = _host_settings(options)
    if options.what == "list":
        sys.stdout.write("".join(f"{each.stem}\n" for each in list_former(settings)))
        return DONE
    former = find_former(settings, options.former)
    if former is None:
        sys.stderr.write("there are no such former settings: mks-deploy settings list\n")
        return WRONG
    present = Path(settings.paths.config) / "deploy.toml"
    if options.what == "diff":
        before, after = (_text(file).splitlines(keepends=True) for file in (present, former))
        sys.stdout.writelines(difflib.unified_diff(before, after, present.name, former.name))
        return DONE
    # The same version and secrets; whatever the settings decide about the host is done again.
    options.secrets = _host_secrets(options, settings)
    options.settings = former
    options.host = _own_name(settings, present.parent)
    options.version = State.read(Path(settings.paths.releases) / "state.json").version
    options.no_certificate = options.no_migrate = True
    return _apply(options)


def _up(options: argparse.Namespace) -> int:
    options.settings = options.settings or options.folder / "deploy.toml"
    options.secrets = options.secrets or options.folder / "secrets"
    settings = _settings(options)
    version = options.version or commit_name(options.folder)
    if not is_version_name(version):
        raise ReleaseError("a version is named by letters, digits and . _ -")
    if settings.hosts:
        return _up_hosts(options, settings, version)
    if not options.host:
        raise ReleaseError("--host must name the host, such as root@server, or deploy.toml several [[hosts]]")
    shells = [SecureShell(host, config=options.ssh_config) for host in options.host]
    contents: dict[Sent, bytes] = {
        "source": archive(options.folder, options.secrets),
        "settings": settings_archive(_text(options.settings), options.secrets),
    }
    for shell in shells:
        facts = read_remote(shell, settings, version)
        steps = plan_up(
            settings, facts, version=version, issue=not options.no_certificate, migrate=not options.no_migrate
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
    shells = _shells(options, settings, names)
    targets = [
        HostTarget(shell, settings.on(name), read_remote(shell, settings, version))
        for name, shell in shells.items()
    ]
    steps = plan_hosts(
        targets, version=version, issue=not options.no_certificate, migrate=not options.no_migrate
    )
    source, text = archive(options.folder, options.secrets), _text(options.settings)
    copies = DatabaseHosts(
        settings, _shells(options, settings, _names(settings.with_role("database", "standby")))
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
                    _say(line)
    finally:
        for target in targets if not options.plan else ():
            with contextlib.suppress(ReleaseError):  # one that cannot be reached hides none of the others
                forget_secrets(target.shell, [step for each, step in steps if each is target])
    return DONE


def _names(hosts: Sequence[Host]) -> list[str]:
    return [host.name for host in hosts]


def _shells(options: argparse.Namespace, settings: Settings, names: Sequence[str]) -> dict[str, SecureShell]:
    """Return how each of the hosts is reached."""
    known = {host.name: host for host in settings.hosts}
    if unknown := [name for name in names if name not in known]:
        raise ReleaseError(f"--host must be one of {', '.join(known)}, not {unknown[0][:60]!r}")
    return {
        name: SecureShell(known[name].ssh or f"root@{known[name].address}", config=options.ssh_config)
        for name in names
    }


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _database(options: argparse.Namespace) -> int:
    if options.what in {"accounts", "may-start"}:
        return _database_here(options)
    options.settings = options.settings or Path("deploy.toml")
    settings = read_settings(_text(options.settings), file=options.settings.name)
    hosts = settings.with_role("database", "standby")
    if not settings.with_role("standby"):
        raise ReleaseError(
            '[[hosts]] of deploy.toml must give one the role "standby": one server alone has none'
        )
    servers = DatabaseHosts(settings, _shells(options, settings, _names(hosts)))
    if options.what == "status":
        states = servers.states()
        sys.stdout.write("".join(f"{state.host:<24} {state}\n" for state in states))
        followers = sum(state.follows for state in states)
        primaries = sum(state.is_primary for state in states)
        return DONE if (primaries, followers) == (1, len(states) - 1) else DIFFERENT
    standbys = _names(settings.with_role("standby"))
    name = options.host or (standbys[0] if len(standbys) == 1 else "")
    if options.what == "promote":
        lines = servers.promote(name, old_is_off=options.old_primary_is_off)
    else:
        lines = servers.standby(name)
    for line in lines:
        _say(line)
    return DONE


def _database_here(options: argparse.Namespace) -> int:
    """Do what concerns the server of this host alone; its own units and steps call it."""
    settings = _host_settings(options)
    if options.what == "may-start":
        newest = max(Path("/var/lib/postgresql").glob("*/main"), key=lambda path: float(path.parent.name))
        if reason := may_start(settings, newest):
            sys.stderr.write(f"{reason}\n")
            return _REFUSED
        return DONE
    folder = _host_secrets(options, settings)
    password, replication = (
        _text(folder / f"{name}_password").strip() for name in ("database", "replication")
    )
    words = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
    given = account_statements(settings, password, replication).encode()
    done = subprocess.run(words, input=given, check=False, cwd="/")  # noqa: S603 - fixed words, no shell
    return DIFFERENT if done.returncode else DONE


_REFUSED: Final = 3
"""Exit code by which `database may-start` keeps PostgreSQL from starting; any other lets it start."""


def _settings(options: argparse.Namespace) -> Settings:
    """Validate settings and secrets together, so that one message lists all errors."""
    text = _text(options.settings)
    errors = list(_version_errors(options))
    file = options.settings.name
    try:
        settings = read_settings(text, file=file)
        settings = _on_host(settings, getattr(options, "host", ""))
    except DeploySettingsError as error:
        further = [*credential_errors(options.secrets, error.readable), *errors]
        raise DeploySettingsError([*error.errors, *further], text=text, file=file) from None
    if errors := [*credential_errors(options.secrets, settings), *variable_errors(settings), *errors]:
        raise DeploySettingsError(errors, text=text, file=file)
    return settings


def _on_host(settings: Settings, name: str | list[str]) -> Settings:
    """Return the settings as seen from the host that --host names, where one has to be named."""
    if isinstance(name, list):
        return settings  # `up`, which goes to several
    known = ", ".join(_names(settings.hosts))
    if settings.hosts and not name:
        raise DeploySettingsError([f"--host must name one of [[hosts]]: {known}"])
    if not settings.hosts and name:
        raise DeploySettingsError(["--host needs [[hosts]] in deploy.toml"])
    try:
        return settings.on(name) if name else settings
    except ValueError:
        raise DeploySettingsError([f"--host must name one of [[hosts]]: {known}"]) from None


def _version_errors(options: argparse.Namespace) -> list[str]:
    wanted = ".".join(map(str, OLDEST_NGINX))
    return [f"nginx must be {wanted} or newer"] if _installed(options).nginx < OLDEST_NGINX else []


def _installed(options: argparse.Namespace) -> Installed:
    here = detect() or Installed()
    return Installed(options.nginx or here.nginx, options.openssl or here.openssl)
