"""``mks-hardening migrations``: judge schema changes before they run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mks_hardening.cli._report_stream import report_stream
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_check import MigrationLinter, MigrationReport

__all__ = ["add_commands"]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    lint = commands.add_parser(
        "lint",
        help="find operations that block or break a running application",
        description="Reads migrations for PostgreSQL and connects to no database. The exit status is 1 if it finds "
        "something of the level --fail-on that no comment (mks: allow RULE reason) accepts.",
    )
    lint.add_argument("files", nargs="*", metavar="FILE", help="SQL files, or folders of them, in order")
    lint.add_argument(
        "--alembic",
        metavar="PATH",
        help="alembic.ini, or the folder that contains versions, instead of files",
    )
    lint.add_argument(
        "--since",
        metavar="REVISION",
        help="report only what is newer than this revision of Alembic, for example the one in production",
    )
    lint.add_argument(
        "--server-version",
        type=int,
        required=True,
        metavar="NUMBER",
        help="major version of PostgreSQL in production, for example 16",
    )
    lint.add_argument(
        "--lock-timeout-set",
        action="store_true",
        help="the program that runs the migrations, or its database role, sets lock_timeout",
    )
    lint.add_argument(
        "--oldest-release",
        metavar="RELEASE",
        help="oldest release of the application that is running, for the marks mks: contract RELEASE REASON",
    )
    lint.add_argument(
        "--no-transaction",
        action="store_true",
        help="SQL files run outside of a transaction, as in psql without --single-transaction",
    )
    lint.add_argument(
        "--format", choices=("text", "json", "sarif"), default="text", help="of the report (text)"
    )
    lint.add_argument(
        "--fail-on",
        choices=("error", "warning", "note"),
        default="error",
        help="least severe level that fails (error)",
    )
    lint.set_defaults(run=_lint)


def _lint(parsed: argparse.Namespace) -> int:
    from mks_check import MigrationLinter

    linter = MigrationLinter(
        server_version=parsed.server_version,
        has_lock_timeout=parsed.lock_timeout_set,
        oldest_release=parsed.oldest_release,
    )
    with report_stream() as stdout:
        report = _report(linter, parsed)
        print({"text": report.text, "json": report.json, "sarif": report.sarif}[parsed.format](), file=stdout)
    return 1 if report.failures(parsed.fail_on) else 0


def _report(linter: MigrationLinter, parsed: argparse.Namespace) -> MigrationReport:
    if bool(parsed.alembic) == bool(parsed.files):
        raise ConfigurationError("give either SQL files or --alembic", parameter="files")
    if parsed.alembic:
        return linter.lint_alembic(parsed.alembic, since=parsed.since)
    if parsed.since:
        raise ConfigurationError("--since is for --alembic only", parameter="since")
    return linter.lint_sql_files(_sql_files(parsed.files), in_transaction=not parsed.no_transaction)


def _sql_files(given: list[str]) -> list[str]:
    """Replace each folder by its SQL files, in the order of their names."""
    files: list[str] = []
    for name in given:
        path = Path(name)
        found = sorted(str(file) for file in path.glob("*.sql")) if path.is_dir() else [name]
        if not found:
            raise ConfigurationError(f"{name} contains no SQL files", parameter="files")
        files += found
    return files
