"""Commands for the database and its standbys."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from mks_deploy.cli.command_settings import (
    DIFFERENT,
    DONE,
    host_names,
    host_secrets,
    host_settings,
    read_text,
)
from mks_deploy.cli.setup_commands import say, shells_of
from mks_deploy.operations.database_hosts import DatabaseHosts, account_statements, may_start
from mks_deploy.operations.primary_guard import PrimaryGuard
from mks_deploy.operations.release import ReleaseError
from mks_deploy.settings.settings_file import read_settings

__all__ = ["database_command", "run_guard"]

_REFUSED: Final = 3


def database_command(options: argparse.Namespace) -> int:
    """Show the database servers, add a standby, or let one take over."""
    if options.what in {"accounts", "may-start", "guard"}:
        return _database_here(options)
    options.settings = options.settings or Path("deploy.toml")
    settings = read_settings(read_text(options.settings), file=options.settings.name)
    hosts = settings.with_role("database", "standby")
    if not settings.with_role("standby"):
        raise ReleaseError(
            '[[hosts]] of deploy.toml must give one the role "standby": one server alone has none'
        )
    servers = DatabaseHosts(settings, shells_of(options, settings, host_names(hosts)))
    if options.what == "status":
        states = servers.states()
        sys.stdout.write("".join(f"{state.host:<24} {state}\n" for state in states))
        primaries = sum(state.is_primary for state in states)
        standbys = sum(state.is_current for state in states)
        return DONE if (primaries, standbys) == (1, len(states) - 1) else DIFFERENT
    names = host_names(settings.with_role("standby"))
    name = options.host or (names[0] if len(names) == 1 else "")
    if options.what == "promote":
        lines = servers.promote(
            name, old_is_off=options.old_primary_is_off, lose_changes=options.lose_changes
        )
    else:
        lines = servers.standby(name)
    for line in lines:
        say(line)
    return DONE


def _database_here(options: argparse.Namespace) -> int:
    """Do what concerns the server of this host alone; its own units and steps call it."""
    settings = host_settings(options)
    if options.what in {"may-start", "guard"}:
        newest = max(Path("/var/lib/postgresql").glob("*/main"), key=lambda path: float(path.parent.name))
        if options.what == "guard":
            return run_guard(PrimaryGuard(settings, newest))
        if reason := may_start(settings, newest):
            sys.stderr.write(f"{reason}\n")
            return _REFUSED
        return DONE
    folder = host_secrets(options, settings)
    password, replication = (
        read_text(folder / f"{name}_password").strip() for name in ("database", "replication")
    )
    words = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]
    given = account_statements(settings, password, replication).encode()
    done = subprocess.run(words, input=given, check=False, cwd="/")  # noqa: S603 - fixed words, no shell
    return DIFFERENT if done.returncode else DONE


def run_guard(guard: PrimaryGuard) -> int:
    """Fence the server of this host when another one has taken over, and fail, so that an alert is sent."""
    newer = guard.wait_for_newer()
    guard.fence()
    guard.close()
    sys.stderr.write(
        f"{newer} has taken over: PostgreSQL of this host was stopped, and takes no writes, whoever starts it; "
        "mks-deploy database standby makes it a standby, and keeps the writes that only this host has\n"
    )
    return _REFUSED
