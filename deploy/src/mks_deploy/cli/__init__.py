"""Command line: render a deployment, and operate the host it runs on."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mks_deploy.cli.arguments import parser
from mks_deploy.cli.command_settings import DIFFERENT, WRONG
from mks_deploy.operations.release import ReleaseError
from mks_deploy.settings.settings_file import DeploySettingsError

__all__ = ["main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 failed check or operation, 2 invalid input, no change."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except DeploySettingsError as error:
        sys.stderr.write(f"invalid settings; nothing was written\n{error}\n")
        return WRONG
    except ReleaseError as error:
        sys.stderr.write("".join(f"{line}\n" for line in (*getattr(error, "__notes__", ()), error)))
        return DIFFERENT
    except OSError as error:
        sys.stderr.write(f"{error.filename or 'a file'}: {error.strerror or error}\n")
        return WRONG
    return code
