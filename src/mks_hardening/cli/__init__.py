"""The command ``mks-hardening``; the same as ``python -m mks_hardening``.

Each command imports what it needs when it runs, so that ``--help`` and ``version`` stay fast.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, cast

from mks_hardening.cli._bans import add_commands as add_ban_commands
from mks_hardening.cli._cache import add_commands as add_cache_commands
from mks_hardening.cli._maintenance import add_commands as add_maintenance_commands
from mks_hardening.cli._passwords import add_commands as add_password_commands
from mks_hardening.cli._report_stream import stdout_to_stderr
from mks_hardening.cli._second_factor import add_commands as add_second_factor_commands
from mks_hardening.cli._settings import add_commands as add_settings_commands
from mks_hardening.cli._settings import list_variables
from mks_hardening.cli._sign_in import add_commands as add_sign_in_commands
from mks_hardening.cli._tasks import add_commands as add_task_commands
from mks_hardening.exceptions import BackendUnavailableError, ConfigurationError, MissingDependencyError

__all__ = ["main"]

_OF_OUTPUT: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EBADF, errno.EIO})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: command-line arguments; those of the process by default.

    Returns:
        The exit status: 0 for success, 1 if there was nothing to do, the command was interrupted or the output
        could not be written, 2 for a usage error, 3 if a server is unavailable.
    """
    output, status = _Output(), 0
    try:
        with output:
            given = sys.argv[1:] if arguments is None else list(arguments)
            parsed = parser(given[0] if given else "").parse_args(given)
            status = parsed.run(parsed)
    except (ConfigurationError, MissingDependencyError) as error:
        print(error, file=sys.stderr)
        return 2
    except ImportError as error:  # a database driver, for example
        print(f"{error.name or error} is not installed", file=sys.stderr)
        return 2
    except BackendUnavailableError as error:
        print(error, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    if arguments is None and not output.failed:  # code that a command has imported may print at exit
        stdout_to_stderr()
    return 1 if output.failed else status


class _Output:
    """Standard output: a write error is reported once, in one line, and not again at interpreter exit."""

    failed: bool = False

    def __enter__(self) -> None:
        if cast("object", sys.stdout) is None:  # closed by the caller
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        # Errors of a named file, or of a server, are handled elsewhere.
        broken = (
            error if isinstance(error, OSError) and error.errno in _OF_OUTPUT and not error.filename else None
        )
        try:
            sys.stdout.flush()
        except OSError as unwritten:
            broken = unwritten
        if broken is None:
            return False
        self.failed = True
        if not isinstance(broken, BrokenPipeError):  # the reader, `head` for example, has closed the pipe
            print(f"the output cannot be written: {broken.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error is None or isinstance(error, (OSError, SystemExit))


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the argument parser, for ``main`` and for the reference page.

    Args:
        command: the only command that gets its options, because no other one will be parsed; all by default.

    Raises:
        MissingDependencyError: the command is one of ``mks-check``, which is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="mks-hardening", description="Production hardening for web applications."
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the versions of this package and of Python"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (summary, add_options, description) in _COMMANDS.items():
        added = commands.add_parser(name, help=summary, description=description)
        if command in {None, name}:
            add_options(added)
    return parser


def _of_mks_check(name: str) -> Callable[[argparse.ArgumentParser], None]:
    def add_options(parser: argparse.ArgumentParser) -> None:
        from mks_hardening._core.check_package import check_tool

        add: Callable[[argparse.ArgumentParser], None] = check_tool(name)
        add(parser)

    return add_options


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_version)


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=list_variables, target=None)


_COMMANDS: Final[dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], str | None]]] = {
    "version": ("print the versions of this package and of Python", _add_version, None),
    "env": ("print every environment variable with its format, default and meaning", _add_env, None),
    "settings": (
        "list and check environment variables, and print a template for them",
        add_settings_commands,
        None,
    ),
    "check": (
        "check settings, application, files, host and live site before and after go-live",
        _of_mks_check("check"),
        (
            "Changes nothing. Without a source, the environment is checked. The exit status is 0 without "
            "findings, 1 with findings, 2 for a usage error, 3 if something could not be checked at all."
        ),
    ),
    "tasks": (
        "inspect, retry and cancel background tasks",
        add_task_commands,
        "Uses the database that DATABASE_URL points to.",
    ),
    "second-factor": ("re-encrypt second factors under a new key", add_second_factor_commands, None),
    "cache": (
        "show what is cached in Redis, and invalidate it",
        add_cache_commands,
        "Needs the MKS_CACHE_SIGNING_KEYS of the application: values with other signatures are not listed.",
    ),
    "bans": ("list, lift and add temporary bans of clients", add_ban_commands, None),
    "db": (
        "report what slows down or endangers a PostgreSQL database",
        _of_mks_check("db"),
        (
            "Reads catalogs and statistics of the database that DATABASE_URL points to, and changes nothing. "
            "Statements are printed without their values. The exit status is 0 without findings, 1 with findings, "
            "2 for a usage error, 3 if the database could not be read."
        ),
    ),
    "maintenance": ("turn maintenance mode on and off", add_maintenance_commands, None),
    "migrations": ("judge schema changes before they run", _of_mks_check("migrations"), None),
    "passwords": ("build a filter of leaked passwords", add_password_commands, None),
    "sign-in": ("help a user who cannot sign in", add_sign_in_commands, None),
}
"""Commands with their summary, the function that adds their options, and their description."""


class _Version(argparse.Action):
    """Print the version, which is only read on request: ``--help`` stays fast."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        _version(namespace)
        parser.exit()


def _version(_: argparse.Namespace) -> int:
    import mks_hardening

    print(f"mks-hardening {mks_hardening.__version__} (Python {sys.version.split()[0]})")
    return 0
