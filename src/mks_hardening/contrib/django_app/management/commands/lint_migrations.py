"""``manage.py lint_migrations``: find schema changes that block or break a running application."""

from __future__ import annotations

from mks_hardening._core.check_package import check_tool
from mks_hardening.contrib.django_app._django import BaseCommand, CommandError, FromDjango
from mks_hardening.exceptions import ConfigurationError, MissingDependencyError

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
            CommandError: a migration fails, an option is invalid, or ``mks-check`` is not installed.
        """
        try:
            report = check_tool("django_migrations")(
                options["apps"],
                server_version=options["server_version"],
                has_lock_timeout=options["lock_timeout_set"],
                oldest_release=options["oldest_release"],
            )
        except (ConfigurationError, MissingDependencyError) as error:
            raise CommandError(str(error), returncode=2) from error
        text = {"text": report.text, "json": report.json, "sarif": report.sarif}[options["format"]]()
        self.stdout.write(text)
        if failures := report.failures(options["fail_on"]):
            raise CommandError(f"{len(failures)} findings", returncode=1)
