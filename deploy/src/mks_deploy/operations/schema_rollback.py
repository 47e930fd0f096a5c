"""Going back with the database: the revision before the migration of each version, and the way back to it."""

from __future__ import annotations

import json
import os
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import replace_file
from mks_deploy.operations.application_command import run_as_application
from mks_deploy.operations.backup import newest_at
from mks_deploy.operations.host_credentials import plain_credentials
from mks_deploy.operations.release import ReleaseError

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["SchemaRollback", "require_backup"]

_REVISION: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LONGEST: Final = 3600.0


def require_backup(settings: Settings) -> None:
    """Refuse to change the database unless a backup is recent enough.

    Raises:
        ReleaseError: none is younger than ``upkeep.backup_max_age``.
    """
    most = settings.upkeep.backup_max_age
    now = datetime.now(UTC).timestamp()
    if now - newest_at(settings, now=now) > most:
        raise ReleaseError(
            f"no backup is younger than {most} s: systemctl start {settings.name}-backup.service"
        )


class SchemaRollback:
    """Records the revision of the database before a migration, and goes back to it.

    Args:
        settings: settings of the deployment.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = Path(settings.paths.releases) / "schema.json"

    def record(self, version: str) -> None:
        """Record the revision before the first migration of a version.

        Raises:
            ReleaseError: ``app.schema`` fails, or prints something else than a revision.
        """
        known = self._known()
        # Released again without going back, the version finds its own schema.
        if self._settings.app.schema and version not in known:
            replace_file(self._file, json.dumps({**known, version: self._revision(version)}, indent=1) + "\n")

    def planned(self, version: str) -> str:
        """Return the revision that leaving this version goes back to.

        Raises:
            ReleaseError: no command goes back, no revision is recorded, or no backup is recent.
        """
        if not self._settings.app.migrate_back:
            raise ReleaseError("app.migrate_back names no command that goes back to a revision")
        revision = self._known().get(version)
        if revision is None:
            raise ReleaseError(
                f"no revision from before version {version} is recorded: it was released without --migrate, "
                "or without app.schema"
            )
        require_backup(self._settings)
        return revision

    def go_back(self, version: str, revision: str) -> None:
        """Run ``app.migrate_back`` of the version that was left, which knows its own migrations.

        Raises:
            ReleaseError: it failed; requests are with the previous version already.
        """
        words = (*self._settings.app.migrate_back, revision)
        if code := self._run(version, words):
            raise ReleaseError(
                f"{' '.join(words)} ended with {code}: the previous version has the requests and works with both "
                "schemas; mend the cause and run the command again with mks-deploy app"
            )
        replace_file(
            self._file,
            json.dumps({each: old for each, old in self._known().items() if each != version}, indent=1)
            + "\n",
        )

    def _known(self) -> dict[str, str]:
        try:
            return {str(version): str(old) for version, old in json.loads(self._file.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError):
            raise ReleaseError(f"{self._file} is damaged: delete it, and go back by hand") from None

    def _revision(self, version: str) -> str:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            code = self._run(version, self._settings.app.schema, output.fileno())
            output.seek(0)
            lines = output.read(10_000).splitlines()
        # Alembic prints "0016 (head)"; a database without tables prints nothing.
        words = lines[-1].split() if lines else ["base"]
        if code or not words or not _REVISION.fullmatch(words[0]):
            raise ReleaseError(
                f"app.schema: {' '.join(self._settings.app.schema)} printed no revision ({code})"
            )
        return words[0]

    def _run(self, version: str, command: tuple[str, ...], output: int | None = None) -> int:
        try:
            return run_as_application(
                self._settings,
                plain_credentials(self._settings),
                command,
                environ=os.environ,
                version=version,
                timeout=_LONGEST,
                output=output,
            )
        except OSError as error:
            raise ReleaseError(f"{' '.join(command)}: {error.strerror or error}") from None
