"""What both ways of setting up accept and refuse."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from mks_hardening._core.checks import flag, instance, path_text, text_of, texts
from mks_hardening._core.environment.parsers import parse_text
from mks_hardening._core.environment.variables import Environment
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.handlers.rotating_file_handler import Rotation

__all__ = ["check_file", "check_one_rotation", "check_open", "environment_name", "targets_of"]


def targets_of(names: Iterable[str] | None) -> list[logging.Logger]:
    """The loggers to configure: those named, or the root."""
    if names is None:
        return [logging.getLogger()]
    listed = [names] if isinstance(names, str) else list(texts(names, parameter="loggers", of="loggers"))
    if not listed or not all(listed):
        raise ConfigurationError("loggers must be names of loggers, at least one", parameter="loggers")
    return [logging.getLogger(name) for name in listed]


def check_file(
    log_file: str | os.PathLike[str] | None,
    rotation: Rotation | None,
    reopen: bool | None,  # noqa: FBT001 - inner
) -> None:
    """Refuse a rotation without a file, and one that others do as well."""
    if log_file is not None:
        path_text(log_file, parameter="log_file")
    if reopen is not None:
        flag(reopen, parameter="reopen")
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
    """Two handlers on one file would write every line twice, and rotate it against each other."""
    paths = [os.path.abspath(log_file)] if log_file is not None else []  # noqa: PTH100 - as logging.FileHandler does
    paths += [os.path.abspath(path) for path in (getattr(h, "baseFilename", None) for h in given) if path]  # noqa: PTH100
    if len(set(paths)) != len(paths):
        raise ConfigurationError(
            "two handlers write to the same file", parameter="handlers" if rotation is None else "rotation"
        )


def check_open(given: tuple[logging.Handler, ...]) -> None:
    """Refuse handlers that were closed, by ``remove_logging`` for example: they would drop every record.

    Those of ``logging`` itself go on when they are closed.
    """
    for handler in given:
        if getattr(handler, "_closed", False) and not type(handler).__module__.startswith("logging"):
            raise ConfigurationError(
                f"handlers contains a {type(handler).__name__} that is closed; build a new one",
                parameter="handlers",
            )


def environment_name(given: str | None) -> str | None:
    """Name of the deployment: what was given, or ``MKS_ENV``."""
    if given is None:
        return Environment().read("MKS_ENV", parse_text)
    return text_of(given, parameter="environment")
