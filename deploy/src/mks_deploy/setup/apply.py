"""Carrying out the plan on this host, step by step, until nothing remains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import replace_file
from mks_deploy.operations.host_credentials import write_credential
from mks_deploy.operations.release import ReleaseError
from mks_deploy.operations.unit_journal import explained
from mks_deploy.output_files import write
from mks_deploy.setup.facts import REDIS_CONF, applied_file, read_facts, redis_include
from mks_deploy.setup.former_settings import keep_former
from mks_deploy.setup.plan import plan_setup
from mks_deploy.setup.store_files import first_replication, store_files

if TYPE_CHECKING:
    from mks_deploy.rendering import RenderedFile
    from mks_deploy.settings.definitions import Settings
    from mks_deploy.setup.plan import HostFacts, SetupStep, Stage

__all__ = ["HostSetup", "apply"]

_ON_A_HOST: Final = ("etc/", "usr/")


class HostSetup:
    """A host, and the files, secrets and version that it is to have.

    Args:
        settings: settings of the deployment.
        rendered: renders the files, for the versions that the host has by then.
        secrets: folder of the secrets.
        version: version to release.
        issue: whether to ask the provider for a certificate.
        migrate: whether a release runs ``app.migrate``.
        stage: how far to go.
        command: runs a program and returns its exit code.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        rendered: Callable[[], Sequence[RenderedFile]],
        secrets: Path,
        version: str,
        issue: bool = True,
        migrate: bool = True,
        stage: Stage = "",
        command: Callable[[Sequence[str]], int] | None = None,
    ) -> None:
        self._settings = settings
        self._rendered = rendered
        self._secrets = secrets
        self._version = version
        self._issue = issue
        self._migrate = migrate
        self._stage: Stage = stage
        self._command = command or _run

    def remaining(self) -> tuple[SetupStep, ...]:
        """Return the steps that remain."""
        return plan_setup(
            self._settings, self._facts(), issue=self._issue, migrate=self._migrate, stage=self._stage
        )

    def carry_out(self, step: SetupStep) -> None:
        """Do one step.

        Raises:
            ReleaseError: a command of it failed.
            OSError: a file could not be written.
        """
        if step.call == "write files":
            files = self._files()
            own = f"{self._settings.paths.config[1:]}/deploy.toml"
            for text in (file.text for file in files if file.path == own):
                keep_former(self._settings, text, now=datetime.now(UTC))
            write(files, Path("/"), listed=Path(self._settings.paths.config) / "rendered.list")
        elif step.call == "copy secrets":
            self._copy_secrets(self._facts())
        elif step.call == "put secrets aside":
            self._put_aside(self._facts())
        elif step.call == "write store files":
            for topic in ("postgresql", "redis", "sentinel"):
                self._remember(topic, "")  # each reads them when it starts
            for file in store_files(self._settings, self._secrets):
                file.write()
        elif step.call == "include Redis settings":
            self._include_redis()
        for words in step.commands:
            if code := self._command(words):
                error = ReleaseError(f"{step.key}: {' '.join(words)} ended with {code}")
                raise explained(error, words, self._settings)
        if step.topic:
            self._remember(step.topic, self._facts().wanted[step.topic])

    def _facts(self) -> HostFacts:
        return read_facts(self._settings, self._files(), secrets=self._secrets, version=self._version)

    def _files(self) -> list[RenderedFile]:
        return [file for file in self._rendered() if file.path.startswith(_ON_A_HOST)]

    def _copy_secrets(self, facts: HostFacts) -> None:
        # Services read the new ones after a restart, also if this process ends here.
        for topic in ("application", *(("accounts",) if self._settings.hosts else ())):
            self._remember(topic, "")
        for name in facts.secrets_differ:
            write_credential(self._settings, name, (self._secrets / name).read_bytes())

    def _put_aside(self, facts: HostFacts) -> None:
        # Processes still have them until they are started again.
        self._remember("application", "")
        there = Path(self._settings.paths.credentials)
        former = there / "former"
        former.mkdir(mode=0o700, exist_ok=True)
        for name in facts.secrets_left:
            (there / name).replace(former / name)

    def _include_redis(self) -> None:
        line = redis_include(self._settings)
        text = REDIS_CONF.read_text(encoding="utf-8")
        if line in text.splitlines():
            return
        before = REDIS_CONF.stat()
        lines = "\n".join((line, *first_replication(self._settings)))
        replace_file(
            REDIS_CONF,
            f"{text.rstrip()}\n{lines}\n",
            mode=before.st_mode & 0o777,
            owner=(before.st_uid, before.st_gid),
        )

    def _remember(self, topic: str, digest: str) -> None:
        file = applied_file(self._settings)
        try:
            known = dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            known = {}
        replace_file(file, json.dumps({**known, topic: digest}, indent=1) + "\n")


def apply(host: HostSetup) -> Iterator[SetupStep]:
    """Do what remains, and yield each step before it is done.

    The plan is made again after each step, because a step may change what the others find.

    Raises:
        ReleaseError: a step failed, or was done and is still to be done.
    """
    done = list[str]()
    while steps := host.remaining():
        step = steps[0]
        if step.key in done:
            raise ReleaseError(f"{step.key}: it was done, and the host is still not as it should be")
        yield step
        host.carry_out(step)
        done.append(step.key)


def _run(command: Sequence[str]) -> int:
    words = list(command)
    if words[0] == "mks-deploy":
        # The kit of the version that is being set up, whatever the path names.
        words = [sys.executable, "-m", "mks_deploy", *words[1:]]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(words, check=False, env=environment, cwd="/").returncode  # noqa: S603 - steps of the plan
