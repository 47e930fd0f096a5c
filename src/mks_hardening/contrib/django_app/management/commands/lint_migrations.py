"""``manage.py lint_migrations``: find schema changes that block or break a running application."""

from __future__ import annotations

from mks_hardening.contrib.django_app._django import BaseCommand, CommandError, FromDjango
from mks_hardening.exceptions import ConfigurationError

__all__ = ["Command"]


class Command(BaseCommand):
    """Judges the SQL of all migrations for PostgreSQL, and connects to no database."""

    help = "Find migrations that block or break a running application; connects to no database."
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: FromDjango) -> None:
        """Add the options, which mean the same as those of ``mks-hardening migrations lint``."""
        parser.add_argument(
            "apps", nargs="*", metavar="APP", help="report only these apps (those of the project)"
        )
        parser.add_argument("--server-version", type=int, required=True, help="major version of PostgreSQL")
        parser.add_argument(
            "--lock-timeout-set", action="store_true", help="the database role sets lock_timeout"
        )
        parser.add_argument("--oldest-release", help="oldest release of the project that is running")
        parser.add_argument("--format", choices=("text", "json", "sarif"), default="text")
        parser.add_argument("--fail-on", choices=("error", "warning", "note"), default="error")

    def handle(self, *_: object, **options: FromDjango) -> None:
        """Print the report.

        Raises:
            CommandError: a migration fails, or an option is invalid.
        """
        from mks_hardening.contrib.django_app._recorded_migrations import recorded_migrations
        from mks_hardening.db import MigrationLinter, MigrationReport

        try:
            linter = MigrationLinter(
                server_version=options["server_version"],
                has_lock_timeout=options["lock_timeout_set"],
                oldest_release=options["oldest_release"],
            )
            report = linter.lint(recorded_migrations(server_version=linter.server_version))
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=2) from error
        apps = options["apps"]
        unknown = set(apps) - {name.partition(".")[0] for name in report.migrations}
        if unknown:
            raise CommandError(f"no migrations of {', '.join(sorted(unknown))}", returncode=2)
        wanted = [name for name in report.migrations if not apps or name.partition(".")[0] in apps]
        report = MigrationReport(
            tuple(wanted), tuple(found for found in report.findings if found.migration in set(wanted))
        )
        text = {"text": report.text, "json": report.json, "sarif": report.sarif}[options["format"]]()
        self.stdout.write(text)
        if failures := report.failures(options["fail_on"]):
            raise CommandError(f"{len(failures)} findings", returncode=1)
