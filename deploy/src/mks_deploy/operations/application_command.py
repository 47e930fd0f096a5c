"""Running commands with the variables, secrets and account of the application."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mks_deploy.settings.credentials import bindings, used_credentials

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["account_identity", "environment", "run_as_application"]

_KEPT: Final = frozenset({"PATH", "TERM", "LANG"})


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
    settings: Settings,
    secrets: Path,
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    version: str = "",
    timeout: float | None = None,
    output: int | None = None,
) -> int:
    """Run a command of a version; return its exit code.

    Args:
        settings: settings of the deployment.
        secrets: folder of the credentials.
        command: a program of the version's virtual environment, and its arguments.
        environ: variables; of these the command gets ``PATH``, ``TERM``, ``LANG`` and those beginning ``DEPLOY_``.
        version: version whose command runs in its folder; the current one by default.
        timeout: seconds after which the command is killed; it may take any time by default.
        output: file descriptor, or ``subprocess.DEVNULL``, for what it prints; that of this process by default.

    Raises:
        OSError: the command does not exist, or settings or secrets cannot be read.
        TimeoutError: the command was killed.
    """
    folder = Path(settings.paths.releases, f"versions/{version}" if version else "current")
    program = folder / "venv" / "bin" / command[0]
    kept = {name: value for name, value in environ.items() if name in _KEPT or name.startswith("DEPLOY_")}
    with ExitStack() as stack:
        variables = environment(settings, secrets)
        handles = list[int]()
        for secret in settings.secrets:
            if not secret.as_value and secret.variable in variables:
                # In memory: the account may not read root's file, and a command that is killed leaves none.
                file = stack.enter_context(os.fdopen(os.memfd_create(secret.variable), "wb", 0))
                file.write(variables.pop(secret.variable).encode())
                handles.append(file.fileno())
                variables[f"{secret.variable}_FILE"] = f"/proc/self/fd/{file.fileno()}"
        process = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - what the operator typed or the settings name, no shell
                [str(program), *command[1:]],
                env={**kept, **variables},
                cwd=folder,
                pass_fds=handles,
                # Its children are killed with it; without a limit it stays in the foreground of its terminal.
                start_new_session=timeout is not None,
                stdout=output,
                **account_identity(settings.name),
            )
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError(f"{command[0]} took longer than {timeout:.0f} s") from None
        except BaseException:
            process.kill()
            raise


def account_identity(name: str) -> dict[str, Any]:
    """Return the arguments of ``Popen`` for another account; empty if we are not root, or it does not exist."""
    if os.geteuid() != 0:
        return {}
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return {}
    groups = os.getgrouplist(name, found.pw_gid)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": groups}
