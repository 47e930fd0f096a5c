"""Parameter checks shared by both setup functions."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from mks_hardening._core.checks import boolean, instance, path_text, strings, text_of
from mks_hardening._core.environment.parsers import parse_text
from mks_hardening._core.environment.variables import Environment
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.handlers.rotating_file_handler import Rotation

__all__ = ["check_file", "check_one_rotation", "check_open", "environment_name", "targets_of"]


def targets_of(names: Iterable[str] | None) -> list[logging.Logger]:
    """Return the loggers to configure: the named ones, or the root."""
    if names is None:
        return [logging.getLogger()]
    listed = [names] if isinstance(names, str) else list(strings(names, parameter="loggers", of="loggers"))
    if not listed or not all(listed):
        raise ConfigurationError("loggers must contain at least one logger name", parameter="loggers")
    return [logging.getLogger(name) for name in listed]


def check_file(
    log_file: str | os.PathLike[str] | None,
    rotation: Rotation | None,
    reopen: bool | None,  # noqa: FBT001 - internal
) -> None:
    """Reject a rotation without a file, and rotation by both the handler and another program."""
    if log_file is not None:
        path_text(log_file, parameter="log_file")
    if reopen is not None:
        boolean(reopen, parameter="reopen")
    if rotation is not None:
        instance(rotation, Rotation, parameter="rotation")
        if log_file is None:
            raise ConfigurationError("rotation needs log_file", parameter="rotation")
        if reopen:
            raise ConfigurationError(
                "a file is either rotated by its writers (rotation=) or by others (reopen=True), not both",
                parameter="rotation",
            )


def check_one_rotation(
    given: tuple[logging.Handler, ...], log_file: str | os.PathLike[str] | None, rotation: Rotation | None
) -> None:
    """Reject two handlers on one file, which would write each line twice and rotate it independently."""
    paths = [os.path.abspath(log_file)] if log_file is not None else []  # noqa: PTH100 - as logging.FileHandler does
    paths += [os.path.abspath(path) for path in (getattr(h, "baseFilename", None) for h in given) if path]  # noqa: PTH100
    if len(set(paths)) != len(paths):
        raise ConfigurationError(
            "two handlers write to the same file", parameter="handlers" if rotation is None else "rotation"
        )


def check_open(given: tuple[logging.Handler, ...]) -> None:
    """Reject closed handlers, for example closed by ``remove_logging``: they would drop every record.

    The handlers of ``logging`` itself still work after they are closed.
    """
    for handler in given:
        if getattr(handler, "_closed", False) and not type(handler).__module__.startswith("logging"):
            raise ConfigurationError(
                f"handlers contains a {type(handler).__name__} that is closed; build a new one",
                parameter="handlers",
            )


def environment_name(given: str | None) -> str | None:
    """Return the name of the deployment: the given one, or that in ``MKS_ENV``."""
    if given is None:
        return Environment().read("MKS_ENV", parse_text)
    return text_of(given, parameter="environment")
