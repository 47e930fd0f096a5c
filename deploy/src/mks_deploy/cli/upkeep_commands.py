"""Commands that look after a host: certificates, backups, alerts, tests, masked data."""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mks_deploy.cli.command_settings import DIFFERENT, DONE, WRONG, host_secrets, host_settings, read_text
from mks_deploy.operations import acceptance, certificate, unit_alert, watch
from mks_deploy.operations.application_command import account_identity, run_as_application
from mks_deploy.operations.backup import (
    BackupError,
    Database,
    backup,
    check_keys,
    holds_database,
    rehearsal_folder,
    replace_with,
    restore,
    restore_for_test,
    second_of,
    size_of,
)
from mks_deploy.operations.base_backup import base_backup
from mks_deploy.operations.concurrent_readers import read_concurrently
from mks_deploy.operations.log_shipping import ShippingError, shipping_command
from mks_deploy.operations.mail_sink import MailSink
from mks_deploy.operations.masking import MaskError, mark_staging, mask, read_mask_table
from mks_deploy.operations.offsite import Repository, fetch, note_rehearsal, push, read_state, rehearse
from mks_deploy.operations.operation_log import signals_as_exit
from mks_deploy.operations.probe import Target, probe
from mks_deploy.operations.server_metrics import read_servers
from mks_deploy.settings.definitions import Settings
from mks_deploy.settings.settings_file import DeploySettingsError
from mks_hardening.exceptions import ConfigurationError, SettingsError

__all__ = [
    "accept_command",
    "alert_command",
    "app_command",
    "backup_command",
    "certificate_command",
    "logs_command",
    "mask_command",
    "offsite_command",
    "positive_number",
    "restore_command",
    "sink_command",
    "test_command",
    "watch_command",
]


def certificate_command(options: argparse.Namespace) -> int:
    """Issue, check, rehearse or install a certificate."""
    settings, now = host_settings(options), datetime.now(UTC)
    if options.what == "placeholder":
        if account := account_identity(f"{settings.name}-acme"):  # whose folder it is
            file = ("--settings", str(options.settings.absolute())) if options.settings else ()
            words = [sys.executable, "-m", "mks_deploy", "certificate", "placeholder", *file]
            return subprocess.run(words, check=False, cwd="/", **account).returncode  # noqa: S603 - our own program
        made = certificate.make_placeholder(settings, now=now)
        sys.stdout.write("created a placeholder\n" if made else "a certificate is there\n")
        return DONE
    if options.what == "issue":
        return DIFFERENT if certificate.issue(settings, secrets=host_secrets(options, settings)) else DONE
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


def watch_command(options: argparse.Namespace) -> int:
    """Take the readings of this host."""
    settings = host_settings(options)
    readings = watch.measure(settings, now=datetime.now(UTC), servers=read_servers(os.environ))
    bad = watch.record(readings, settings) if options.record else watch.find_problems(readings, settings)
    sys.stdout.write("".join(f"{trouble}\n" for trouble in bad))
    return DIFFERENT if bad else DONE


def backup_command(options: argparse.Namespace) -> int:
    """Back up the database and files, on request with a test of the copy."""
    settings = host_settings(options)
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
        if options.restore_test == "now" or (options.restore_test and _is_due(settings)):
            with rehearsal_folder(settings, _SPACE * size_of(made)) as folder:
                rows = restore_for_test(made, folder)
            check_keys(made, settings)
            note_rehearsal(settings, now=datetime.now(UTC))
            sys.stdout.write(f"restored {sum(rows.values())} rows in {len(rows)} tables, all as written\n")
    except BackupError as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    return DONE


_SPACE = 2
"""A test of a restore holds the uploads and the tables, beside the backup."""
_WEEK = 6.5 * 86_400
"""Seconds after which a weekly test is due: a daily run may begin a little earlier than a week before."""


def _is_due(settings: Settings) -> bool:
    return datetime.now(UTC).timestamp() - read_state(settings).rehearsed_at > _WEEK


def offsite_command(options: argparse.Namespace) -> int:
    """Copy backups to another place, list, fetch or rehearse them."""
    settings, now = host_settings(options), datetime.now(UTC)
    if (options.what == "fetch") != bool(options.folder):
        sys.stderr.write("fetch needs a new folder for the copy, and only fetch takes one\n")
        return WRONG
    units = {"push": "offsite", "rehearse": "offsite-rehearse"}
    if options.what in units and os.geteuid() == 0:
        unit = f"{settings.name}-{units[options.what]}.service"
        sys.stderr.write(f"not as root, which would own the files: systemctl start {unit}\n")
        return WRONG
    try:
        repository = replace(
            Repository.of(settings, os.environ), notice=lambda line: sys.stderr.write(f"{line}\n")
        )
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


def restore_command(options: argparse.Namespace) -> int:
    """Restore a backup."""
    suffix = second_of(datetime.now(UTC)).lower()
    try:
        database = Database.from_environment(os.environ) if holds_database(options.backup) else None
        if options.replace:
            with signals_as_exit():
                rows = replace_with(options.backup, database, uploads=options.uploads, suffix=suffix)
        else:
            rows = restore(options.backup, database, uploads=options.uploads)
    except BackupError as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    sys.stdout.write("".join(f"{number:>10} {table}\n" for table, number in rows.items()))
    if options.replace:
        former = f"database {database.variables['PGDATABASE']}-{suffix} and " if database else ""
        sys.stdout.write(f"kept: {former}{options.uploads}-{suffix}; delete them when nobody needs them\n")
    return DONE


def test_command(options: argparse.Namespace) -> int:
    """Test a host from outside."""
    try:
        target = Target.from_url(
            options.url, http_port=options.http_port, address=options.address, ca_file=options.ca
        )
    except ValueError as error:
        sys.stderr.write(f"the URL must be {error}\n")
        return WRONG
    failed = 0
    try:
        for finding in probe(target, pages=options.page, websocket=options.websocket):
            failed += not (finding.holds or finding.note)
            mark = "✓" if finding.holds else "–" if finding.note else "✗"
            sys.stdout.write(f"{mark} {finding.promise:<58} {finding.seen}\n")
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG
    sys.stdout.write("all promises hold\n" if not failed else f"{failed} do not hold\n")
    return DIFFERENT if failed else DONE


def accept_command(options: argparse.Namespace) -> int:
    """Fill in the acceptance sheet."""
    settings = host_settings(options)
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


def mask_command(options: argparse.Namespace) -> int:
    """Mask personal data in a staging database."""
    if bool(options.columns) == bool(options.mark):
        sys.stderr.write("mask takes a table of --columns, or a database to --mark\n")
        return WRONG
    settings = host_settings(options)
    try:
        table = read_mask_table(read_text(options.columns)) if options.columns else None
        with Database.from_environment(os.environ).connection() as connection:
            if table is None:
                mark_staging(connection, settings, options.mark)
                return DONE
            changed = mask(connection, settings, table, rehearse=options.plan)
    except (MaskError, BackupError) as error:
        sys.stderr.write(f"{error}\n")
        return DIFFERENT
    named = {*table.rows, *(name for name, _ in table.columns)}
    for name, number in changed.items():
        cause = "" if name in named else " (by a foreign key or a trigger)"
        sys.stdout.write(f"{number:>10} {name}{cause}\n")
    return DONE


def logs_command(options: argparse.Namespace) -> int:
    """Run the program that ships logs, or check its file."""
    settings, secrets = host_settings(options), host_secrets(options, host_settings(options))
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


def sink_command(options: argparse.Namespace) -> int:
    """Receive mail of a staging host."""
    settings = host_settings(options)
    if not settings.upkeep.mail_sink:
        sys.stderr.write("this site has no mail sink (upkeep.mail_sink)\n")
        return WRONG
    with signals_as_exit():
        sink = MailSink(Path(settings.paths.state) / "mail-sink")
        asyncio.run(sink.serve(settings.upkeep.mail_sink_port))
    return DONE


def _quiet(options: argparse.Namespace, settings: Settings, *command: str) -> int | None:
    """Run a command of the application; return its exit code, or ``None`` if it cannot be run here."""
    secrets = host_secrets(options, settings)
    try:
        return run_as_application(
            settings, secrets, command, environ=os.environ, timeout=120, output=subprocess.DEVNULL
        )
    except (OSError, TimeoutError):
        return None


def _figures(file: Path) -> dict[str, float]:
    try:
        figures = json.loads(read_text(file))["figures"]
        return {str(name): float(value) for name, value in figures.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DeploySettingsError(
            [f"--before: {file.name} must be a sheet of accept --format json"]
        ) from None


def positive_number(text: str) -> int:
    """Parse a number from 1 to 10,000, as an argument."""
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 10000")
    return int(text)


def app_command(options: argparse.Namespace) -> int:
    """Run a command of the application in its environment."""
    if not options.command:
        sys.stderr.write("a command of the application must be named, for example: flask --help\n")
        return WRONG
    settings = host_settings(options)
    secrets = host_secrets(options, settings)
    return run_as_application(settings, secrets, options.command, environ=os.environ)


def alert_command(options: argparse.Namespace) -> int:
    """Send an alert on a failed unit, or a test."""
    if options.test == bool(options.unit):
        sys.stderr.write("alert takes the name of a unit, or --test\n")
        return WRONG
    try:
        outcomes = unit_alert.send_alert(options.unit, environ=os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return WRONG
    for each in outcomes:
        reason = "no response in time" if each.reason == "closed" else each.reason
        sys.stderr.write(f"{each.channel}: {each.state}{f' ({reason})' if reason else ''}\n")
    if not outcomes:
        sys.stderr.write(
            "no alert was sent: MKS_SMTP_HOST and MKS_SLACK_WEBHOOK_URL are not set; upkeep.smtp_host and the "
            "secret slack_webhook_url set them for the site (mks-deploy app mks-deploy alert --test)\n"
        )
    return DIFFERENT if options.test and not any(each.state == "delivered" for each in outcomes) else DONE
