"""Release steps for a host with systemd and nginx."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from mks_deploy.atomic_files import relink, replace_file
from mks_deploy.operations.application_command import run_as_application
from mks_deploy.operations.canary import ENOUGH, AccessLog, SlotStatistics, compare, served_by
from mks_deploy.operations.host_credentials import plain_credentials
from mks_deploy.operations.release import Move, ReleaseError, Slot, State
from mks_deploy.operations.schema_rollback import SchemaRollback, require_backup
from mks_deploy.operations.static_files import link_database, link_uploads, publish
from mks_deploy.operations.unit_journal import explained
from mks_deploy.rendering import upstream

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["HostSteps", "read_state", "ready"]

_STATE: Final = re.compile(r"^# state: (.*)$", re.MULTILINE)
_LONGER: Final = 5
_IN_A_ROW: Final = 3
"""A starting process may be ready once and then crash; three consecutive successes count as healthy."""


class HostSteps:
    """The release steps, implemented with systemctl and nginx.

    Args:
        settings: settings of the deployment; also an attribute.
        command: runs a program and returns its exit code.
        patience: seconds a new slot gets to become healthy.
        observed: minimum seconds for which a canary is observed.
        drained: seconds until a slot that no longer gets requests is stopped.
        pause: function that sleeps for a number of seconds.
        hook: runs a command of a version with further variables and returns its exit code.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: Callable[[Sequence[str]], int] | None = None,
        patience: int = 60,
        observed: int = 60,
        drained: int = 5,
        pause: Callable[[float], object] = time.sleep,
        hook: Callable[[Sequence[str], str, Mapping[str, str]], int] | None = None,
    ) -> None:
        self.settings = settings
        self._command = command or _run
        self._patience = patience
        self._observed = observed
        self._drained = drained
        self._pause = pause
        self._hook = hook or self._run_hook
        self._releases = Path(settings.paths.releases)

    def run_hooks(self, moment: Literal["before", "after"], move: Move) -> None:
        """Run ``release.before`` or ``release.after`` as the application, in the folder of the version."""
        chosen = self.settings.release
        commands = chosen.before if moment == "before" else chosen.after
        variables = {
            "DEPLOY_ACTION": move.action,
            "DEPLOY_VERSION": move.version,
            "DEPLOY_PREVIOUS": move.previous,
        }
        for command in commands:
            words = f"release.{moment}: {' '.join(command)}"
            try:
                code = self._hook(command, move.version, variables)
            except OSError as error:  # no such program, or it took too long
                raise ReleaseError(f"{words}: {error.strerror or error}") from None
            if code:
                raise ReleaseError(f"{words} ended with {code}")

    def _run_hook(self, command: Sequence[str], version: str, variables: Mapping[str, str]) -> int:
        return run_as_application(
            self.settings,
            plain_credentials(self.settings),
            command,
            environ={**os.environ, **variables},
            version=version,
            timeout=self.settings.release.hook_timeout,
        )

    def prepare(self, slot: Slot, version: str) -> None:
        """Link the slot to the version, and publish its static files."""
        folder = self._releases / "versions" / version
        program = self.settings.server.program
        if not (folder / "venv" / "bin" / program).exists():
            raise ReleaseError(f"{folder} is not a version: venv/bin/{program} is not there")
        try:
            self._put_files(folder)
        except OSError as error:
            raise ReleaseError(str(error)) from error
        relink(self._releases / "slots" / slot, folder)

    def _put_files(self, version: Path) -> None:
        """Publish the static files of a version, and make links of its uploads and its file of SQLite."""
        if name := self.settings.app.static:
            for place in (version, *version.glob("venv/lib/python3*/site-packages")):
                if (place / name).is_dir():
                    publish(place / name, self._releases / "public", version=version)
                    break
        if name := self.settings.media.folder:
            link_uploads(version / name, Path(self.settings.paths.state) / "uploads", version=version)
        if self.settings.sqlite:
            link_database(version / self.settings.stores.sqlite, Path(self.settings.sqlite), version=version)

    def migrate(self, version: str) -> None:
        """Migrate the database; refused without a fresh backup."""
        if not self.settings.app.migrate:
            raise ReleaseError("there is nothing to migrate: app.migrate names no command")
        require_backup(self.settings)
        SchemaRollback(self.settings).record(version)
        self._must(["systemctl", "start", f"{self.settings.name}-migrate@{version}.service"])

    def start(self, slot: Slot) -> None:
        """Start and enable socket and service."""
        self._must(["systemctl", "enable", "--now", *self._units(slot)])

    def stop(self, slot: Slot) -> None:
        """Stop and disable socket and service; gunicorn finishes running requests."""
        self._must(["systemctl", "disable", "--now", *self._units(slot)])

    def wait_until_healthy(self, slot: Slot) -> None:
        """Wait until ``app.ready`` has succeeded several times in a row."""
        row = 0
        for _ in range(self._patience):
            row = row + 1 if ready(self.settings, slot) else 0
            if row == _IN_A_ROW:
                return
            self._pause(1)
        status = _status(self.settings, slot)
        said = f"responded with {status}" if status else "did not respond"
        error = ReleaseError(
            f"slot {slot} was not ready within {self._patience} s: {self.settings.app.ready} {said}"
        )
        raise explained(error, self._units(slot), self.settings)

    def route(self, state: State) -> None:
        """Write and test the upstream, and reload nginx; restore the old one if the test fails.

        The file that nginx reads holds the state too: whatever ends this process, they are of one moment.
        """
        file = _upstream_file(self.settings)
        # Other visitors are drawn for each canary.
        drawn = ".".join((self._releases / "slots" / slot).resolve().name for slot in sorted(state.weights))
        stored = {"active": state.active, "before": state.before, "canary": state.canary}
        after = upstream(self.settings, state.weights, drawn=drawn, state=json.dumps(stored))
        # A second name of the file instead of a copy: it is put back on a full disk too.
        former = file.with_name(f".{file.name}.former")
        former.unlink(missing_ok=True)
        former.hardlink_to(file)
        try:
            replace_file(file, after)
            self.load()
        except BaseException:
            former.replace(file)
            raise
        former.unlink()

    def load(self) -> None:
        """Test nginx's files and load them: the process that wrote them may have died before."""
        if self._command(["nginx", "-t", "-q", "-c", f"{self.settings.paths.nginx}/nginx.conf"]):
            raise ReleaseError("nginx does not take its files; requests go where they went")
        self._must(["systemctl", "reload", "nginx.service"])

    def observe(self, slot: Slot, old: Slot) -> str:
        """Compare the requests of both slots, once a second.

        On a site with little traffic, observation continues until the canary has had enough requests, up to five
        times ``observed``; then the data at hand decide.
        """
        canary, before = SlotStatistics(), SlotStatistics()
        sockets = {_socket(self.settings, slot): canary, _socket(self.settings, old): before}
        log = AccessLog(Path(self.settings.paths.nginx_logs) / f"{self.settings.name}.access.log")
        with contextlib.closing(log):
            for second in range(self._observed * _LONGER):
                if second >= self._observed and canary.requests >= ENOUGH:
                    break
                self._pause(1)
                if not ready(self.settings, slot):
                    raise ReleaseError(f"slot {slot} became unhealthy while it was observed")
                served_by(log.added(), sockets)
                if reason := compare(canary, before):
                    raise ReleaseError(f"slot {slot} {reason}")
        return f"{canary}; the old version: {before}"

    def drain(self, slot: Slot) -> None:
        """Wait while nginx's old workers finish their requests; they accept no new ones."""
        del slot
        self._pause(self._drained)

    def finish(self, version: str) -> None:
        """Switch the background tasks to the new version."""
        relink(self._releases / "current", self._releases / "versions" / version)
        parts = ["worker"] if self.settings.runs_tasks else []
        parts += ["beat"] if self.settings.runs_beat else []
        if parts:
            units = [f"{self.settings.name}-{part}.service" for part in parts]
            self._must(["systemctl", "try-restart", *units])

    def _units(self, slot: Slot) -> tuple[str, str]:
        return f"{self.settings.name}@{slot}.socket", f"{self.settings.name}@{slot}.service"

    def _must(self, command: Sequence[str]) -> None:
        if self._command(command):
            raise explained(ReleaseError(f"failed: {' '.join(command)}"), command, self.settings)


def read_state(settings: Settings) -> State:
    """Return where nginx sends the requests, and what the slots are linked to.

    Raises:
        ReleaseError: the file is damaged; a wrong guess of the active slot could stop it.
    """
    links = Path(settings.paths.releases) / "slots"
    linked = {
        slot: (links / slot).resolve().name for slot in ("blue", "green") if (links / slot).is_symlink()
    }
    file = _upstream_file(settings)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    stored = _STATE.search(text)
    # As it is copied to a new host, the file names a slot and no state.
    words = stored[1] if stored else "{}" if "upstream" in text or not file.exists() else ""
    try:
        return State(**{**linked, **json.loads(words)})
    except (ValueError, TypeError):
        releases = settings.paths.releases
        raise ReleaseError(f"{file} is damaged; {releases}/trail.jsonl lists the last operations") from None


def _upstream_file(settings: Settings) -> Path:
    return Path(settings.paths.nginx) / settings.name / "upstream.conf"


def ready(settings: Settings, slot: Slot) -> bool:
    """Whether a slot reports that it is ready."""
    return _status(settings, slot) == 200


def _status(settings: Settings, slot: Slot) -> int | None:
    """Return the status of a slot's response to ``app.ready``; ``None`` without a response."""
    connection = _UnixConnection(_socket(settings, slot))
    host = settings.canonical_host
    headers = {
        "Host": host,
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": host,
    }
    try:
        connection.request("GET", settings.app.ready, headers=headers)
        with connection.getresponse() as answer:
            return answer.status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _socket(settings: Settings, slot: Slot) -> str:
    return f"{settings.paths.runtime}/{settings.name}/{slot}.sock"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


def _run(command: Sequence[str]) -> int:
    return subprocess.run(list(command), check=False).returncode  # noqa: S603 - programs and units by name, no shell
