"""Running commands with the variables, secrets and account of the application."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mks_deploy.settings.credentials import bindings, used_credentials

if TYPE_CHECKING:
    from mks_deploy.settings.model import Settings

__all__ = ["environment", "run_as_application"]


def environment(settings: Settings, secrets: Path) -> dict[str, str]:
    """Return the variables of the units; secrets as values, because the account cannot read root's files."""
    text = (Path(settings.paths.config) / f"{settings.name}.env").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    variables = dict(line.split("=", 1) for line in lines)
    for credential in used_credentials(secrets, settings):
        value = (secrets / credential.file).read_text(encoding="utf-8").strip()
        variables |= {secret.variable: value for secret in bindings(credential, settings)}
    return variables


def run_as_application(
    settings: Settings, secrets: Path, command: Sequence[str], *, environ: Mapping[str, str]
) -> int:
    """Run a command of the current version; return its exit code.

    Raises:
        OSError: the command does not exist, or settings or secrets cannot be read.
    """
    current = Path(settings.paths.releases) / "current"
    program = current / "venv" / "bin" / command[0]
    kept = {name: value for name, value in environ.items() if name in {"PATH", "TERM", "LANG"}}
    done = subprocess.run(  # noqa: S603 - what the operator typed, no shell
        [str(program), *command[1:]],
        env={**kept, **environment(settings, secrets)},
        cwd=settings.paths.state,
        check=False,
        **_account(settings.name),
    )
    return done.returncode


def _account(name: str) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return {}
    groups = os.getgrouplist(name, found.pw_gid)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": groups}
