"""The ``flask mks`` commands for operators."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import click
from flask import current_app
from flask.cli import AppGroup

from mks_hardening._core.check_package import check_tool
from mks_hardening.contrib._limited_views import client_of, user_of
from mks_hardening.contrib.flask_app._installed import installed
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, MissingDependencyError
from mks_hardening.settings import variables

__all__ = ["commands"]

commands: Final = AppGroup("mks", help="Manage what mks_hardening stores for this application.")


@commands.command("check")
def check() -> None:
    """Check the configuration for problems; exits with status 1 on errors."""
    try:
        found = list(check_tool("flask")(current_app))
    except MissingDependencyError as error:
        raise click.ClickException(str(error)) from None
    for finding in found:
        click.echo(f"{finding.id} {'error' if finding.error else 'warning'}: {finding.text}")
    if not found:
        click.echo("no problems found")
    if any(finding.error for finding in found):
        raise SystemExit(1)


@commands.command("sessions")
@click.argument("user")
@click.option("--end", is_flag=True, help="Also end them all.")
def sessions(user: str, *, end: bool) -> None:
    """List the active sessions of USER."""
    if not user:
        raise click.UsageError("USER is missing: the user_id that the application passed at sign-in")
    manager = installed(current_app).sessions
    try:
        living = manager.sessions(user)
        if not living:
            click.echo("no active session")
        for record in living:
            since, seen = (_time(moment) for moment in (record.created_at, record.seen_at))
            # A part of the hash: enough to tell sessions apart, and not the key in the store.
            click.echo(f"{record.key[:16]}  since {since}  seen {seen}")
        if end:
            click.echo(f"{manager.end_user(user)} ended")
    except BackendUnavailableError as error:
        raise click.ClickException(str(error)) from None


@commands.command("unlock")
@click.option("--account", help="A locked account, whatever limit locked it.")
@click.option("--reason", help="The reason, for the notice to its owner.")
@click.option("--end-sessions", is_flag=True, help="Also end its sessions.")
@click.option("--group", help="A group of limits; resets its counters for one of these:")
@click.option("--user", help="A signed-in user.")
@click.option("--client", help="The address of a client.")
@click.option("--key", help="The value returned by limit(key=...).")
def unlock(
    *,
    account: str | None,
    reason: str | None,
    group: str | None,
    user: str | None,
    client: str | None,
    key: str | None,
    end_sessions: bool,
) -> None:
    """Unlock an account, or reset the counters of a limit."""
    whom = [user_of(user)] if user else []
    whom += [client_of(client)] if client else []
    whom += [key] if key else []
    if not account and not (group and whom):
        raise click.UsageError("give --account NAME --reason TEXT, or --group with --user, --client or --key")
    try:
        if account:
            _unlock_account(account, reason, end_sessions=end_sessions)
        for each in whom:
            _forget(str(group), each)
    except (BackendUnavailableError, ConfigurationError) as error:
        raise click.ClickException(str(error)) from None


def _unlock_account(account: str, reason: str | None, *, end_sessions: bool) -> None:
    sign_in = installed(current_app).sign_in
    if sign_in is None:
        raise click.ClickException("no SignIn is configured: Hardening(app, settings, sign_in=SignIn(...))")
    if not reason:
        raise click.UsageError("the notice to the owner gives a reason: --reason TEXT")
    done = sign_in.unlock(account, actor="flask mks unlock", reason=reason, end_sessions=end_sessions)
    click.echo(f"{account}: {'unlocked' if done else 'was not locked'}")


def _forget(group: str, key: str) -> None:
    reset = getattr(installed(current_app).limiter, "reset", None)
    if reset is None:
        raise click.ClickException("the limiter of this application cannot reset counters")
    reset(group, key)
    click.echo(f"{group}: {key} was reset")


@commands.command("env")
def env() -> None:
    """List all environment variables with format, default and meaning."""
    for variable in variables():
        default = f" (default {variable.default_text})" if variable.default_text else ""
        click.echo(f"{variable.name}: {variable.form}{default}\n    {variable.help}")


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
