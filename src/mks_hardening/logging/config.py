"""Set-up of the whole process's logging, as one call or as a dictionary for ``logging.config.dictConfig``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mks_hardening._core.env import Environment, parse_text
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.filters import BelowLevelFilter
from mks_hardening.logging.handlers import ReopeningFileHandler, StandardStreamHandler
from mks_hardening.logging.queue_handler import BoundedQueueHandler
from mks_hardening.logging.rotating import ProcessSafeRotatingFileHandler, Rotation, check_rotation
from mks_hardening.logging.uncaught import UncaughtExceptions

if TYPE_CHECKING:
    from mks_hardening.protocols import Redactor

__all__ = ["dict_config", "remove_logging", "setup_logging"]

_PACKAGE: Final = "mks_hardening.logging"


class _Installed:
    """What the last set-up has put in place, so that the next one can take it away."""

    handlers: tuple[logging.Handler, ...] = ()
    uncaught: UncaughtExceptions | None = None


def setup_logging(
    app_name: str,
    *,
    level: str | int = "INFO",
    log_file: str | os.PathLike[str] | None = None,
    rotation: Rotation | None = None,
    reopen: bool | None = None,
    handlers: Iterable[logging.Handler] = (),
    loggers: Iterable[str] | None = None,
    schema: str = "default",
    queue: bool = False,
    environment: str | None = None,
    static_fields: Mapping[str, object] | None = None,
    redactor: Redactor | None = None,
    encoder: str = "auto",
    max_record_bytes: int = 65_536,
    uncaught: bool = True,
) -> logging.Logger:
    """Send the records of the process, in one form and without secrets, to where operators look for them.

    Records below ERROR go to stdout, the others to stderr, all of them to ``log_file``. The root logger is
    configured, so that libraries' records come out in the same form. What was configured before is replaced and
    closed; calling it again is harmless. A file that cannot be opened is reported once, and the rest goes on.

    Args:
        app_name: name of the application's logger, which is returned.
        level: lowest level of records, as name or number.
        log_file: also write to this file.
        rotation: let the processes rotate the file themselves; ``None`` leaves that to logrotate.
        reopen: open the file anew when it was renamed; the default where ``rotation`` is ``None``.
        handlers: further handlers; those without a formatter get ours.
        loggers: configure these loggers alone and leave the root as it is.
        schema: ``default``, ``ecs`` or ``gcp``.
        queue: put a bounded queue in front of all handlers, so that a request never waits for a disk.
        environment: name of the deployment; ``MKS_ENV`` is read once when ``None``.
        static_fields: fields for every record.
        redactor: takes the secrets out; the package's own when ``None``.
        encoder: ``auto``, ``orjson`` or ``json``.
        max_record_bytes: largest line in bytes.
        uncaught: also log exceptions that nobody catches, in the process and in threads.

    Raises:
        ConfigurationError: an impossible parameter, or two ways of rotation for one file.
    """
    number = _level_number(level)
    targets = _targets(loggers)
    _check_file(log_file, rotation, reopen)
    given = tuple(handlers)
    _check_one_rotation(given, log_file, rotation)
    formatter = _formatter(
        schema=schema,
        environment=_environment(environment),
        static_fields=static_fields,
        redactor=redactor,
        encoder=encoder,
        max_record_bytes=max_record_bytes,
    )
    outputs = [*_standard_handlers(), *_file_handlers(log_file, rotation), *given]
    for handler in outputs:
        if handler.formatter is None:
            handler.setFormatter(formatter)
    chain: list[logging.Handler] = [BoundedQueueHandler(outputs)] if queue else outputs
    _install(targets, chain, number, keep=tuple(outputs))
    logger = logging.getLogger(app_name)
    if uncaught:
        narrowed = loggers is not None and logger not in targets
        _Installed.uncaught = UncaughtExceptions(targets[0] if narrowed else logger)
    return logger


def remove_logging() -> None:
    """Take away and close what the last ``setup_logging`` has put in place."""
    if _Installed.uncaught is not None:
        _Installed.uncaught.remove()
        _Installed.uncaught = None
    for logger in (logging.getLogger(), *_known_loggers()):
        for handler in _Installed.handlers:
            logger.removeHandler(handler)
    for handler in _Installed.handlers:
        handler.close()
    _Installed.handlers = ()


def dict_config(
    app_name: str,
    *,
    level: str | int = "INFO",
    log_file: str | os.PathLike[str] | None = None,
    rotation: Rotation | None = None,
    reopen: bool | None = None,
    loggers: Iterable[str] | None = None,
    schema: str = "default",
    environment: str | None = None,
    static_fields: Mapping[str, object] | None = None,
    max_record_bytes: int = 65_536,
) -> dict[str, Any]:
    """The same set-up as a dictionary for ``logging.config.dictConfig`` (Django's ``LOGGING``, gunicorn, Celery).

    Args:
        app_name: name of the application's logger; its level is set.
        level: as for ``setup_logging``, like all others.
        log_file: see there.
        rotation: see there.
        reopen: see there.
        loggers: see there.
        schema: see there.
        environment: see there.
        static_fields: see there.
        max_record_bytes: see there.

    Raises:
        ConfigurationError: an impossible parameter.
    """
    number = _level_number(level)
    _check_file(log_file, rotation, reopen)
    names = ["stdout", "stderr"]
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": f"{_PACKAGE}.JsonFormatter",
                "schema": schema,
                "environment": _environment(environment),
                "static_fields": dict(static_fields or {}),
                "max_record_bytes": max_record_bytes,
            }
        },
        "filters": {"below_error": {"()": f"{_PACKAGE}.BelowLevelFilter", "level": logging.ERROR}},
        "handlers": {
            "stdout": _handler("StandardStreamHandler", stream="stdout", filters=["below_error"]),
            "stderr": _handler("StandardStreamHandler", stream="stderr", level="ERROR"),
        },
    }
    if log_file is not None:
        names.append("file")
        config["handlers"]["file"] = (
            _handler("ReopeningFileHandler", filename=str(log_file))
            if rotation is None
            else _handler("ProcessSafeRotatingFileHandler", filename=str(log_file), **rotation._asdict())
        )
    if loggers is None:
        config["root"] = {"level": number, "handlers": names}
        config["loggers"] = {app_name: {"level": number}}
    else:
        _targets(loggers := tuple(loggers))
        config["loggers"] = {
            name: {"level": number, "handlers": names, "propagate": False} for name in loggers
        }
    return config


def _handler(name: str, **options: object) -> dict[str, object]:
    return {"()": f"{_PACKAGE}.{name}", "formatter": "json", **options}


def _formatter(**options: Any) -> logging.Formatter:
    from mks_hardening.logging.formatter import JsonFormatter

    return JsonFormatter(**options)


def _standard_handlers() -> list[logging.Handler]:
    below = StandardStreamHandler("stdout")
    below.addFilter(BelowLevelFilter(logging.ERROR))
    return [below, StandardStreamHandler("stderr", level=logging.ERROR)]


def _file_handlers(
    log_file: str | os.PathLike[str] | None, rotation: Rotation | None
) -> list[logging.Handler]:
    if log_file is None:
        return []
    if rotation is None:
        return [ReopeningFileHandler(log_file)]
    return [ProcessSafeRotatingFileHandler(log_file, **rotation._asdict())]


def _install(
    targets: list[logging.Logger],
    chain: list[logging.Handler],
    level: int,
    *,
    keep: tuple[logging.Handler, ...],
) -> None:
    before = _Installed.handlers
    remove = [handler for target in targets for handler in target.handlers]
    if _Installed.uncaught is not None:
        _Installed.uncaught.remove()
        _Installed.uncaught = None
    for target in targets:
        # The new handlers go in before the old ones go out, so that no record of another thread is lost.
        old = list(target.handlers)
        for handler in chain:
            target.addHandler(handler)
        for handler in old:
            if handler not in chain:
                target.removeHandler(handler)
        target.setLevel(level)
        if target is not logging.getLogger():
            target.propagate = False
    _Installed.handlers = tuple(dict.fromkeys((*chain, *keep)))
    for handler in dict.fromkeys((*remove, *before)):
        if handler not in _Installed.handlers and not _in_use(handler):
            handler.close()


def _in_use(handler: logging.Handler) -> bool:
    return any(handler in logger.handlers for logger in (logging.getLogger(), *_known_loggers()))


def _known_loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.values()
    return [logger for logger in list(known) if isinstance(logger, logging.Logger)]


def _level_number(level: str | int) -> int:
    number = (
        logging.getLevelNamesMapping().get(level.strip().upper(), -1) if isinstance(level, str) else level
    )
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ConfigurationError(
            f"level must be the name or number of a level, not {type(level).__name__}", parameter="level"
        )
    return number


def _targets(names: Iterable[str] | None) -> list[logging.Logger]:
    if names is None:
        return [logging.getLogger()]
    listed = [names] if isinstance(names, str) else list(names)
    if not listed or not all(isinstance(name, str) and name for name in listed):
        raise ConfigurationError("loggers must be names of loggers, at least one", parameter="loggers")
    return [logging.getLogger(name) for name in listed]


def _check_file(
    log_file: str | os.PathLike[str] | None,
    rotation: Rotation | None,
    reopen: bool | None,  # noqa: FBT001 - inner
) -> None:
    if rotation is not None:
        if not isinstance(rotation, Rotation):
            raise ConfigurationError(
                f"rotation must be a Rotation, not {type(rotation).__name__}", parameter="rotation"
            )
        check_rotation(rotation)
        if log_file is None:
            raise ConfigurationError("rotation needs log_file", parameter="rotation")
        if reopen:
            raise ConfigurationError(
                "a file is either rotated by its writers (rotation=) or by others (reopen=True), not both",
                parameter="rotation",
            )


def _check_one_rotation(
    given: tuple[logging.Handler, ...], log_file: str | os.PathLike[str] | None, rotation: Rotation | None
) -> None:
    """Two handlers on one file would write every line twice, and rotate it against each other."""
    paths = [os.path.abspath(log_file)] if log_file is not None else []  # noqa: PTH100 - as logging.FileHandler does
    paths += [os.path.abspath(path) for path in (getattr(h, "baseFilename", None) for h in given) if path]  # noqa: PTH100
    if len(set(paths)) != len(paths):
        raise ConfigurationError(
            "two handlers write to the same file", parameter="handlers" if rotation is None else "rotation"
        )


def _environment(given: str | None) -> str | None:
    return Environment().read("MKS_ENV", parse_text) if given is None else given
