"""``mks-hardening db``: reports about a PostgreSQL database."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from mks_check.database_reports._client import Client
    from mks_check.database_reports._report import DatabaseReport

__all__ = ["add_commands"]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    top = commands.add_parser("top", help="print the statements that take the most time")
    _add_number(top, "--most", 20, "print at most this many statements", kind=int)
    repeated = commands.add_parser("n+1", help="print statements that often read a single row")
    _add_number(repeated, "--most", 20, "print at most this many statements", kind=int)
    _add_number(repeated, "--calls", 1000, "calls from which a statement is a finding", kind=int)
    locks = commands.add_parser("locks", help="print who blocks whom, and transactions that are idle")
    _add_number(locks, "--idle", 60, "seconds from which an idle transaction is a finding", kind=float)
    indexes = commands.add_parser("indexes", help="print indexes that are INVALID, duplicate or unused")
    _add_number(indexes, "--min-size", 1, "megabytes from which an unused index is a finding", kind=float)
    bloat = commands.add_parser(
        "bloat",
        help="print tables and indexes that waste space, and the distance to the transaction wraparound",
    )
    _add_number(bloat, "--min-size", 10, "wasted megabytes from which one is a finding", kind=float)
    plans = commands.add_parser("plans", help="print plans that changed, and indexes that statements miss")
    _add_number(plans, "--most", 50, "look at most at this many statements", kind=int)
    _add_number(plans, "--min-size", 1, "megabytes of a table from which an index is looked for", kind=float)
    plans.add_argument("--save", metavar="FILE", help="write the plans to this file")
    plans.add_argument("--baseline", metavar="FILE", help="compare with the plans that --save wrote earlier")
    for command in (top, locks):
        command.add_argument(
            "--client",
            action="append",
            metavar="FILE",
            help="client_report() of a process of the application, to show beside the server's figures; repeatable",
        )
    for command, report in (
        (top, _top),
        (repeated, _n_plus_one),
        (locks, _locks),
        (indexes, _indexes),
        (bloat, _bloat),
        (plans, _plans),
    ):
        _add_number(command, "--timeout", 10, "seconds that the server may take for a statement", kind=float)
        command.add_argument(
            "--format", choices=("text", "json"), default="text", help="of the report (text)"
        )
        command.set_defaults(run=partial(_run, report))


def _add_number(
    parser: argparse.ArgumentParser, name: str, default: int, meaning: str, *, kind: type[int | float]
) -> None:
    parser.add_argument(name, type=kind, default=default, metavar="NUMBER", help=f"{meaning} ({default})")


def _run(
    report: Callable[[Connection, argparse.Namespace], DatabaseReport], parsed: argparse.Namespace
) -> int:
    for name in ("most", "calls", "idle", "min_size", "timeout"):
        value = getattr(parsed, name, 1)
        if (
            not 0 <= value < 10**9
            or (value < 1 and name in {"most", "calls"})
            or (not value and name == "timeout")
        ):
            raise ConfigurationError(
                f"--{name.replace('_', '-')} must be a positive number, not {value}", parameter=name
            )
    with _connection(parsed.timeout) as connection:
        made = report(connection, parsed)
    print(made.json() if parsed.format == "json" else made.text())
    if not made.is_possible:
        return 3
    return 1 if made.findings else 0


@contextmanager
def _connection(timeout: float) -> Generator[Connection]:
    """Open a read-only connection to the database of ``DATABASE_URL``."""
    from mks_hardening._core.database.error_text import error_summary
    from mks_hardening.db import hardened_engine
    from mks_hardening.settings import HardeningSettings

    settings = HardeningSettings.from_env().db
    url = settings.url
    if url is None or not url.startswith("postgresql"):
        raise ConfigurationError(
            "DATABASE_URL must point to a PostgreSQL database, for example postgresql+psycopg://user@host/name",
            parameter="url",
        )
    engine = hardened_engine(
        url,
        application_name="mks-hardening db",
        statement_timeout=timeout,
        lock_timeout=timeout,
        transaction_pooling=settings.transaction_pooling,
    )
    try:
        with engine.connect().execution_options(postgresql_readonly=True) as connection:
            yield connection
    except Exception as error:
        # By module name, without importing SQLAlchemy here; ``from None``: a driver's message may contain the URL.
        if type(error).__module__ != "sqlalchemy.exc":
            raise
        raise BackendUnavailableError("database", "error", detail=error_summary(error)) from None
    finally:
        engine.dispose()


def _client(parsed: argparse.Namespace) -> Client | None:
    from mks_check.database_reports._client import read_clients

    return read_clients(parsed.client) if parsed.client else None


def _top(connection: Connection, parsed: argparse.Namespace) -> DatabaseReport:
    from mks_check.database_reports._statements import top

    return top(connection, most=parsed.most, client=_client(parsed))


def _n_plus_one(connection: Connection, parsed: argparse.Namespace) -> DatabaseReport:
    from mks_check.database_reports._statements import n_plus_one

    return n_plus_one(connection, most=parsed.most, calls=parsed.calls)


def _locks(connection: Connection, parsed: argparse.Namespace) -> DatabaseReport:
    from mks_check.database_reports._locks import locks

    return locks(connection, idle_seconds=parsed.idle, client=_client(parsed))


def _indexes(connection: Connection, parsed: argparse.Namespace) -> DatabaseReport:
    from mks_check.database_reports._indexes import indexes

    return indexes(connection, min_megabytes=parsed.min_size)


def _bloat(connection: Connection, parsed: argparse.Namespace) -> DatabaseReport:
    from mks_check.database_reports._bloat import bloat

    return bloat(connection, min_megabytes=parsed.min_size)


def _plans(connection: Connection, parsed: argparse.Namespace) -> DatabaseReport:
    from mks_check.database_reports._plans import plans

    return plans(
        connection,
        most=parsed.most,
        min_megabytes=parsed.min_size,
        baseline=parsed.baseline,
        save=parsed.save,
    )
