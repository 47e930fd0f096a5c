"""Sending the log files elsewhere: syslog-ng with the rendered settings, and the secret in a file of its own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mks_deploy.atomic_files import refuse_foreign_path, replace_file

if TYPE_CHECKING:
    from mks_deploy.settings.definitions import Settings

__all__ = ["ShippingError", "shipping_command"]

_AUTHORIZATION: Final = re.compile(r"[A-Za-z]+ [A-Za-z0-9._~+/=:-]{8,2000}")


class ShippingError(RuntimeError):
    """Shipping cannot start; the message never contains the secret."""


def shipping_command(
    settings: Settings, secrets: Path, *, environ: Mapping[str, str], check: bool = False
) -> list[str]:
    """Write the secret for syslog-ng, and return the command that runs it in the foreground.

    Args:
        settings: settings of the deployment.
        secrets: folder with the file ``logs_authorization``.
        environ: holds ``RUNTIME_DIRECTORY``, a folder in memory that the unit's account alone can read.
        check: return the command that only checks the configuration.

    Raises:
        ShippingError: nothing is to be shipped, syslog-ng is not installed, or the secret is missing or malformed.
    """
    if not settings.logs.ship:
        raise ShippingError("logs.ship names no collector")
    program = shutil.which("syslog-ng", path=f"{environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        raise ShippingError("syslog-ng is not installed: apt-get install syslog-ng-core syslog-ng-mod-http")
    runtime = environ.get("RUNTIME_DIRECTORY", "")
    if not runtime.startswith("/") or '"' in runtime:
        raise ShippingError("RUNTIME_DIRECTORY must name a folder: the unit sets it")
    try:
        value = (secrets / "logs_authorization").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ShippingError("the secret logs_authorization cannot be read") from None
    if not _AUTHORIZATION.fullmatch(value):
        raise ShippingError(
            "the secret logs_authorization must be a value of the field Authorization, such as ApiKey ..., "
            "Bearer ..., Basic ... or Splunk ..."
        )
    replace_file(Path(runtime) / "authorization.conf", f'@define authorization "{value}"\n', mode=0o600)
    state = Path(settings.paths.state) / "log-buffer"
    if not check:
        refuse_foreign_path(state)
        state.mkdir(mode=0o700, exist_ok=True)
    words = [program, "--foreground", "--no-caps", "--cfgfile", f"{settings.paths.config}/logs.conf"]
    words += [
        "--persist-file",
        f"{state}/positions",
        "--pidfile",
        f"{runtime}/pid",
        "--control",
        f"{runtime}/ctl",
    ]
    return [*words, "--syntax-only"] if check else [*words, "--stderr"]
