"""``mks-hardening sign-in``: help a user who cannot sign in."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

from mks_hardening.cli._target import convert_errors, import_target
from mks_hardening.exceptions import ConfigurationError

if TYPE_CHECKING:
    from mks_hardening.security import SignIn

__all__ = ["add_commands"]

_TARGET = "MODULE:NAME of the application's SignIn, or of a function that returns it"


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    parser.add_argument("--target", required=True, metavar="MODULE:NAME", help=_TARGET)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    unlock = commands.add_parser("unlock", help="unlock an account and reset its wrong codes")
    unlock.add_argument("--end-sessions", action="store_true", help="also end all its sessions")
    unlock.set_defaults(run=_unlock)
    reset = commands.add_parser("reset", help="remove the second factor and end all sessions")
    reset.set_defaults(run=_reset)
    for command in (unlock, reset):
        command.add_argument("user_id", help="the user id, as in the application's sessions")
        command.add_argument(
            "--actor", required=True, help="who does this, for the log and the notice to the owner"
        )
        command.add_argument("--reason", required=True, help="why, for the log and the notice")


def _unlock(parsed: argparse.Namespace) -> int:
    def unlock(sign_in: SignIn) -> bool:
        return sign_in.unlock(
            parsed.user_id, actor=parsed.actor, reason=parsed.reason, end_sessions=parsed.end_sessions
        )

    return _done(parsed, unlock, worked="unlocked", failed="was not locked")


def _reset(parsed: argparse.Namespace) -> int:
    def reset(sign_in: SignIn) -> bool:
        return sign_in.admin_reset(parsed.user_id, actor=parsed.actor, reason=parsed.reason)

    return _done(parsed, reset, worked="second factor removed", failed="had no second factor")


def _done(parsed: argparse.Namespace, help_: Callable[[SignIn], bool], *, worked: str, failed: str) -> int:
    with _load_sign_in(parsed.target) as sign_in:
        found = help_(sign_in)
    print(f"{parsed.user_id}  {worked if found else failed}")
    return 0 if found else 1


@contextmanager
def _load_sign_in(target: str) -> Generator[SignIn]:
    """Load the application's own ``SignIn``, so that its servers, event observers and notices are used."""
    from mks_hardening.security import SignIn

    with ExitStack() as opened:
        with convert_errors(target):
            found = import_target(target)
            if not isinstance(found, SignIn) and callable(found):
                found = found()
            if isinstance(found, AbstractContextManager):
                found = opened.enter_context(cast("AbstractContextManager[object]", found))
        if not isinstance(found, SignIn):
            raise ConfigurationError(
                f"{target} must be a SignIn or a function that returns one, perhaps as a context manager, "
                f"not {type(found).__name__}",
                parameter="target",
            )
        yield found
