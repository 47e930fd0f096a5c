"""The arguments of all commands."""

from __future__ import annotations

import argparse
from pathlib import Path

from mks_deploy.cli.command_settings import version_number
from mks_deploy.cli.database_commands import database_command
from mks_deploy.cli.release_commands import (
    maintenance_command,
    number_kept,
    release_command,
    restart_command,
    rollback_command,
    status_command,
    versions_command,
)
from mks_deploy.cli.setup_commands import (
    apply_command,
    capacity_command,
    cost_of_flag,
    example_command,
    init_command,
    number_above,
    render_command,
    secrets_command,
    settings_history_command,
    up_command,
    whole_number,
)
from mks_deploy.cli.upkeep_commands import (
    accept_command,
    alert_command,
    app_command,
    backup_command,
    certificate_command,
    logs_command,
    mask_command,
    offsite_command,
    positive_number,
    restore_command,
    sink_command,
    test_command,
    watch_command,
)

__all__ = ["parser"]


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
    command.set_defaults(run=init_command)

    command = commands.add_parser("example", help="print a deploy.toml with every option explained")
    command.set_defaults(run=example_command)

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
    command.add_argument(
        "--read",
        default="",
        metavar="FILE",
        help="write secrets that another program decrypted: JSON, from standard input if FILE is -",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="with --read, replace secrets that have another value"
    )
    command.add_argument("--compose", action="store_true", help="those of the servers of docker/compose.yml")
    command.set_defaults(run=secrets_command)

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
        "--nginx", type=version_number, metavar="VERSION", help="render for this nginx, not the one here"
    )
    command.add_argument("--openssl", type=version_number, metavar="VERSION", help="and for this OpenSSL")
    command.set_defaults(run=render_command)

    command = commands.add_parser(
        "certificate",
        help="create a placeholder, issue the first certificate, check the served one, rehearse its renewal",
    )
    command.add_argument("what", choices=("placeholder", "issue", "check", "rehearse", "rehearsed"))
    _host_options(command)
    command.set_defaults(run=certificate_command)

    command = commands.add_parser(
        "watch", help="check this host: certificate, backup, disk; exit with 1 if there is a problem"
    )
    command.add_argument(
        "--record", action="store_true", help="also write metrics, and report new problems only"
    )
    _host_options(command)
    command.set_defaults(run=watch_command)

    _add_setup(commands)
    _add_capacity(commands)
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
    command.set_defaults(run=apply_command, nginx=None, openssl=None)

    command = commands.add_parser(
        "settings", help="list former settings of this host, show what differs, or apply them again"
    )
    command.add_argument("what", choices=("list", "diff", "rollback"))
    command.add_argument("former", nargs="?", default="", metavar="NAME", help="by default the last ones")
    command.add_argument("--plan", action="store_true", help="rollback: change nothing, show what remains")
    _host_options(command)
    command.set_defaults(run=settings_history_command, nginx=None, openssl=None, stage="")

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
        "--stage",
        choices=("servers",),
        default="",
        help="go to PostgreSQL and Redis, not to the release, so that a backup can be restored before",
    )
    command.add_argument(
        "--no-certificate", action="store_true", help="do not ask the provider yet; nginx keeps a placeholder"
    )
    command.add_argument("--no-migrate", action="store_true", help="release without app.migrate")
    command.set_defaults(run=up_command, nginx=None, openssl=None)


def _add_capacity(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "capacity", help="compute what a number of users needs: workers, connections, memory, disk, limits"
    )
    command.add_argument(
        "--users", type=whole_number, required=True, metavar="N", help="accounts of the site"
    )
    command.add_argument(
        "--active",
        type=number_above(0, 1),
        default=0.1,
        metavar="SHARE",
        help="share of the users in the busiest minute",
    )
    command.add_argument(
        "--pause",
        type=number_above(0, 86_400),
        default=30,
        metavar="SECONDS",
        help="between two requests of a user",
    )
    command.add_argument(
        "--cached", type=whole_number, default=20_000, metavar="N", help="entries of the cache"
    )
    command.add_argument(
        "--costs", type=Path, metavar="FILE", help="measured costs; by default those of the reference"
    )
    command.add_argument(
        "--cost",
        type=cost_of_flag,
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="mean cost of a request, such as application_ms=4; may be repeated",
    )
    command.add_argument("--cores", type=whole_number, default=8, metavar="N", help="processors of a host")
    command.add_argument(
        "--connections", type=whole_number, default=200, metavar="N", help="max_connections of PostgreSQL"
    )
    command.add_argument(
        "--redis-gib", type=number_above(0), default=4, metavar="GIB", help="memory of one Redis server"
    )
    command.add_argument(
        "--disk-gib", type=number_above(0), default=20, metavar="GIB", help="disk for a day of logs"
    )
    command.set_defaults(run=capacity_command)


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
    command.set_defaults(run=release_command)

    command = commands.add_parser("rollback", help="return to the previous version")
    command.add_argument(
        "--schema",
        action="store_true",
        help="then take back its migrations too (app.migrate_back); requires a recent backup",
    )
    _host_options(command)
    command.set_defaults(run=rollback_command)

    command = commands.add_parser(
        "restart", help="start the running version again beside itself, and switch requests to it"
    )
    _host_options(command)
    command.set_defaults(run=restart_command)

    command = commands.add_parser("versions", help="list the versions of the host, or delete old ones")
    command.add_argument("what", choices=("list", "prune"))
    command.add_argument(
        "--keep",
        type=number_kept,
        metavar="N",
        help="versions to keep besides those in use; by default release.keep",
    )
    command.add_argument("--plan", action="store_true", help="delete nothing, show what would be deleted")
    _host_options(command)
    command.set_defaults(run=versions_command)

    command = commands.add_parser("status", help="show the version in each slot and the last actions")
    _host_options(command)
    command.set_defaults(run=status_command)

    command = commands.add_parser("maintenance", help="turn the maintenance page on or off")
    command.add_argument("what", choices=("on", "off"))
    _host_options(command)
    command.set_defaults(run=maintenance_command)

    _add_backups(commands)

    command = commands.add_parser(
        "test", help="test a real host from outside: TLS, redirects, header fields, names, pages"
    )
    command.add_argument("url", help="https://host")
    command.add_argument("--http-port", type=int, default=80, metavar="PORT")
    command.add_argument(
        "--address", default="", help="connect to this address instead of resolving the name"
    )
    command.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificate authority to trust instead of the system's"
    )
    command.add_argument(
        "--page", action="append", default=[], metavar="PATH",
        help="page to open as a browser does, beside the front page and the sign-in page; may be repeated",
    )  # fmt: skip
    command.add_argument("--websocket", default="", metavar="PATH", help="WebSocket that must be reached")
    command.set_defaults(run=test_command)

    _add_acceptance(commands)
    _add_masking(commands)

    command = commands.add_parser(
        "app", help="run a command of the application with its variables and its account"
    )
    _host_options(command)
    command.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    command.set_defaults(run=app_command)

    command = commands.add_parser("alert", help="send an alert that a unit failed")
    command.add_argument("unit", nargs="?", default="")
    command.add_argument(
        "--test",
        action="store_true",
        help="send a test instead; exit with 1, and say why, if no channel accepts it",
    )
    command.set_defaults(run=alert_command)


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
    command.add_argument("--connections", type=positive_number, default=1000, metavar="N")
    command.add_argument(
        "--seconds", type=positive_number, default=30, metavar="S", help="duration of the load"
    )
    command.add_argument("--send-alert", action="store_true", help="send an alert to all its receivers")
    command.add_argument(
        "--before", type=Path, metavar="FILE", help="earlier sheet in JSON, to compare response times with"
    )
    command.add_argument("--strict", action="store_true", help="a criterion that was not run is missed, too")
    _host_options(command)
    command.set_defaults(run=accept_command)


def _add_masking(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("mask", help="mask the personal data in the database of a staging site")
    command.add_argument("--columns", type=Path, metavar="FILE", help="table of columns and masks, TOML")
    command.add_argument("--plan", action="store_true", help="do it, show the numbers of rows, and undo it")
    command.add_argument(
        "--mark", default="", metavar="DATABASE", help="mark this database as one of staging"
    )
    _host_options(command)
    command.set_defaults(run=mask_command)

    command = commands.add_parser(
        "logs", help="send the log files to the collector, or check that they can be"
    )
    command.add_argument("what", choices=("ship", "check"))
    _host_options(command)
    command.set_defaults(run=logs_command)

    command = commands.add_parser("sink", help="accept the mail of a staging site and keep it; for its unit")
    _host_options(command)
    command.set_defaults(run=sink_command)


def _add_backups(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("backup", help="back up database, uploads and keys; the unit does it daily")
    command.add_argument(
        "--restore-test",
        nargs="?",
        const="now",
        choices=("now", "weekly"),
        help="restore it into a PostgreSQL of its own, and compare it; weekly: if a week has passed",
    )
    command.add_argument(
        "--base", action="store_true", help="the whole server instead, to go back to a moment from"
    )
    _host_options(command)
    command.set_defaults(run=backup_command)

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
    command.set_defaults(run=offsite_command)

    command = commands.add_parser(
        "database",
        help="servers of the database on several hosts: show them, make a standby, let one take over",
    )
    command.add_argument("what", choices=("status", "standby", "promote", "accounts", "may-start", "guard"))
    command.add_argument("--host", default="", metavar="NAME", help="which; by default the only standby")
    command.add_argument("--ssh-config", type=Path, metavar="FILE", help="instead of ~/.ssh/config")
    command.add_argument(
        "--old-primary-is-off",
        action="store_true",
        help="promote: the former primary cannot be reached, and you have switched it off",
    )
    command.add_argument(
        "--lose-changes",
        action="store_true",
        help="promote: without the changes that only the stopped former primary has",
    )
    _host_options(command)
    command.set_defaults(run=database_command)

    command = commands.add_parser("restore", help="put a backup into an empty database and an empty folder")
    command.add_argument("backup", type=Path, metavar="FOLDER")
    command.add_argument("--uploads", type=Path, required=True, metavar="DIR", help="an empty folder")
    command.add_argument(
        "--replace",
        action="store_true",
        help="restore beside the database and DIR, which need not be empty, then put it in their place; keep both",
    )
    command.set_defaults(run=restore_command)


def _host_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--settings", type=Path, metavar="FILE", help="deploy.toml; by default the one below /etc"
    )
    command.add_argument("--secrets", type=Path, metavar="DIR", help="by default the credentials of the host")
