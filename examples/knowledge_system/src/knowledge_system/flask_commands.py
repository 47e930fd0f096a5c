"""Operator commands: ``flask --app "knowledge_system.app:from_env()" knowledge ...``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click
from flask import current_app
from flask.cli import AppGroup

from knowledge_system.components import Services
from knowledge_system.domain.problems import Problem
from knowledge_system.services.identity import accounts
from mks_hardening.exceptions import BackendUnavailableError

commands = AppGroup("knowledge", help="Operate the knowledge system / ナレッジシステムの運用")


@commands.command("upgrade")
@click.option("--without-backup", metavar="REASON", help="In production, without a fresh one / 理由")
def upgrade(*, without_backup: str | None) -> None:
    """Migrate the tables to the newest revision / テーブルを最新の版にする."""
    # A web process does not need Alembic, which takes a third of the time of its imports.
    from knowledge_system import database
    from knowledge_system.migrations.runner import MigrationError

    parts = _parts()
    try:
        done = database.upgrade(
            parts.engine, parts.settings, clock=parts.clock, without_backup=without_backup
        )
    except MigrationError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"テーブルを更新しました: {', '.join(done)}" if done else "表は最新です。")


@commands.command("sessions")
@click.argument("username")
@click.option("--end", is_flag=True, help="End all of them / すべて終了する")
def sessions(username: str, *, end: bool) -> None:
    """List the sessions of a user, or end them / 利用者のセッション."""
    parts = _parts()
    if parts.session_manager is None:
        raise click.ClickException("the area wsgi is switched off / wsgi は無効です")
    user_id = _user_id(parts, username)
    with report_outages():
        found = parts.session_manager.sessions(user_id)
        if end:
            parts.session_manager.end_user(user_id)
    for session in found:
        since, seen = (datetime.fromtimestamp(at, UTC) for at in (session.created_at, session.seen_at))
        click.echo(f"{session.key[:12]}  {since:%Y-%m-%d %H:%M} → {seen:%Y-%m-%d %H:%M} UTC")
    if end:
        click.echo(f"{len(found)} 件のセッションを終了しました。")


@commands.command("devices")
@click.argument("username")
@click.option("--revoke", metavar="ID", help="Forget this one / 1 台を解除する")
@click.option("--revoke-all", is_flag=True, help="Forget all of them / すべて解除する")
@click.option("--actor", help="Who does it, for the record / 操作した人")
def devices(username: str, *, revoke: str | None, revoke_all: bool, actor: str | None) -> None:
    """List the remembered devices of a user, or revoke them / 利用者の覚えた端末."""
    parts = _parts()
    if (revoke or revoke_all) and not actor:
        raise click.UsageError("--actor is needed / 操作した人を指定してください")
    user_id = _user_id(parts, username)
    number: int | None = None
    with report_outages():
        if revoke_all:
            number = parts.sign_in.forget_devices(user_id)
        elif revoke:
            number = int(parts.sign_in.revoke_device(user_id, revoke))
            if not number:
                raise click.ClickException("there is no such device / その端末はありません")
        left = parts.sign_in.devices(user_id)
    if number is not None:
        which = "every one" if revoke_all else "one"
        parts.trail.note("device.revoke", user_id, actor=str(actor), which=which)
        click.echo(f"{number} 台の端末を解除しました。")
    for device in left:
        since, until = (datetime.fromtimestamp(at, UTC) for at in (device.remembered_at, device.expires_at))
        click.echo(f"{device.id}  {since:%Y-%m-%d %H:%M} → {until:%Y-%m-%d %H:%M} UTC")


@commands.command("second-factor")
@click.argument("username")
@click.option("--unlock", is_flag=True, help="Forget wrong codes / ロックを解除する")
@click.option("--reset", is_flag=True, help="Take it off and end all sessions / 二段階認証を取り消す")
@click.option("--actor", help="Who does it, for the record / 操作した人")
@click.option("--reason", help="Why, for the record / 理由")
def second_factor(username: str, *, unlock: bool, reset: bool, actor: str | None, reason: str | None) -> None:
    """Show, unlock or take off the second factor of a user / 利用者の二段階認証."""
    parts = _parts()
    if parts.two_factor is None:
        raise click.ClickException("the area security is switched off / security は無効です")
    if (unlock or reset) and not actor:
        raise click.UsageError("--actor is needed / 操作した人を指定してください")
    if reset and not reason:
        raise click.UsageError("--reason is needed / 理由を指定してください")
    user_id = _user_id(parts, username)
    why = reason or "asked on the command line"
    with report_outages():
        if unlock:
            parts.sign_in.unlock(user_id, actor=str(actor), reason=why)
        if reset:
            parts.sign_in.admin_reset(user_id, actor=str(actor), reason=why)
    status = parts.two_factor.status(user_id)
    state = "on / 有効" if status.enabled else "off / 無効"
    locked = ", locked / ロック中" if status.locked else ""
    left = f", {status.recovery_codes_left} recovery codes / リカバリーコード" if status.enabled else ""
    click.echo(f"{username}: {state}{locked}{left}")


@contextmanager
def report_outages() -> Iterator[None]:
    """Report a backend outage as a message instead of a traceback; every operation here is safe to repeat."""
    try:
        yield
    except BackendUnavailableError as error:
        raise click.ClickException(f"{error}; type it again / もう一度実行してください") from error


def _user_id(parts: Services, username: str) -> str:
    try:
        with parts.sessions() as database_session:
            return str(accounts.id_of(database_session, username))
    except Problem:
        raise click.ClickException("there is no such user / その利用者はいません") from None


def _parts() -> Services:
    parts: Services = current_app.extensions["knowledge"]
    return parts
