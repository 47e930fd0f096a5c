"""Secrets as values, for applications that read variables: ``python -m mks_deploy.secret_values PROGRAM ...``.

systemd hands secrets on as files. The values are put into the variables when a process starts, so they
are in no unit file, whose environment every account of the host may read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ["main", "set_values"]


def set_values(environ: MutableMapping[str, str]) -> None:
    """Set each variable that ``DEPLOY_SECRET_VALUES`` names from the file that its ``NAME_FILE`` names.

    Raises:
        OSError: a file cannot be read.
    """
    for name in filter(None, environ.get("DEPLOY_SECRET_VALUES", "").split(",")):
        if file := environ.get(f"{name}_FILE"):
            environ[name] = Path(file).read_text(encoding="utf-8").strip()


def main(arguments: Sequence[str]) -> NoReturn:
    """Set the values, then become a program of the virtual environment of this interpreter."""
    if not arguments:
        sys.exit("usage: python -m mks_deploy.secret_values PROGRAM ...")
    set_values(os.environ)
    program = Path(sys.executable).with_name(arguments[0])
    os.execv(program, [str(program), *arguments[1:]])  # noqa: S606 - the command of a unit, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
