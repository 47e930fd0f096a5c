"""The command ``mks-hardening``; the same as ``python -m mks_hardening``.

Each command imports what it needs when it runs, so that ``--help`` and ``version`` stay quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows the program's name; the process's own by default.

    Returns:
        The exit status: 0 when all is well, 2 for a usage error.
    """
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mks-hardening", description="Production hardening for web applications."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    version = commands.add_parser("version", help="print the versions of this package and of Python")
    version.set_defaults(run=_version)
    env = commands.add_parser(
        "env", help="print every environment variable with its form, default and meaning"
    )
    env.set_defaults(run=_env)
    return parser


def _version(_: argparse.Namespace) -> int:
    import mks_hardening

    print(f"mks-hardening {mks_hardening.__version__} (Python {sys.version.split()[0]})")
    return 0


def _env(_: argparse.Namespace) -> int:
    from mks_hardening.settings import variables

    area = ""
    for variable in variables():
        if variable.area != area:
            area = variable.area
            print(f"\n[{area}]")
        unit = "s" if variable.form.startswith("duration") else ""
        default = "" if variable.default in (None, ()) else f", default {variable.default}{unit}"
        secret = f", secret; {variable.name}_FILE names a file instead" if variable.secret else ""
        print(f"{variable.name}\n    {variable.help}\n    {variable.form}{default}{secret}")
    return 0
