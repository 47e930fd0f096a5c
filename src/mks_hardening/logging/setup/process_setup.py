"""Logging setup of the whole process, and its removal."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from mks_hardening._core.checks import boolean, instances, level_number, text_of
from mks_hardening.logging.filters.below_level_filter import BelowLevelFilter
from mks_hardening.logging.handlers.bounded_queue_handler import BoundedQueueHandler
from mks_hardening.logging.handlers.reopening_file_handler import ReopeningFileHandler
from mks_hardening.logging.handlers.rotating_file_handler import ProcessSafeRotatingFileHandler, Rotation
from mks_hardening.logging.handlers.standard_stream_handler import StandardStreamHandler
from mks_hardening.logging.setup._server_loggers import (
    remove_console_handlers,
    unwatch_servers,
    watch_servers,
)
from mks_hardening.logging.setup._setup_checks import (
    check_file,
    check_one_rotation,
    check_open,
    environment_name,
    targets_of,
)
from mks_hardening.logging.setup.uncaught_exceptions import UncaughtExceptions

if TYPE_CHECKING:
    from mks_hardening.protocols import Redactor

__all__ = ["remove_logging", "setup_logging"]


class _InstalledLogging:
    """State of the last setup, so that the next one can remove it."""

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
    """Set up logging for the process: JSON records without secrets on stdout, stderr and in a file.

    Records below ERROR go to stdout, the others to stderr, all of them to ``log_file``. The root logger is
    configured, so records of libraries have the same format. The previous configuration is replaced and closed,
    except for the handlers of pytest; the function may be called again. If the file cannot be opened, this is
    reported once, and the other outputs still work. Loggers of servers and frameworks that print to the console
    themselves (gunicorn, uvicorn, a ``flask.Flask.logger`` that was used before) propagate their records to the
    root, even if the server is set up later. Loggers that an earlier ``fileConfig`` or ``dictConfig`` has disabled
    (Alembic's ``env.py`` does so by default) are enabled again. A Celery worker keeps this setup if Celery was
    imported before this call; its ``--logfile`` is written in addition.

    Args:
        app_name: name of the application's logger, which is returned.
        level: minimum level of records, as name or number.
        log_file: path of a file that also receives all records.
        rotation: rotation of the file by the processes themselves; ``None`` leaves it to logrotate.
        reopen: reopen the file after it was renamed; the default if ``rotation`` is ``None``.
        handlers: additional handlers; those without a formatter receive the JSON formatter.
        loggers: configure only these loggers and leave the root unchanged.
        schema: ``default``, ``ecs``, ``gcp`` or ``python-json-logger``.
        queue: put a bounded queue in front of all handlers, so that a request never waits for a disk.
        environment: name of the deployment; ``None`` reads ``MKS_ENV`` once.
        static_fields: fields for every record.
        redactor: redactor of secrets; the package's own if ``None``.
        encoder: ``auto``, ``orjson`` or ``json``.
        max_record_bytes: maximum size of a line in bytes.
        uncaught: also log uncaught exceptions, of the process and of threads.

    Raises:
        ConfigurationError: a parameter is invalid, a file would be rotated in two ways, or a handler is closed.
    """
    from mks_hardening.logging.formatting.json_formatter import JsonFormatter

    text_of(app_name, parameter="app_name", empty=False)
    for name, switch in (("queue", queue), ("uncaught", uncaught)):
        boolean(switch, parameter=name)
    number = level_number(level)
    targets = targets_of(loggers)
    check_file(log_file, rotation, reopen)
    given = instances(handlers, logging.Handler, parameter="handlers")
    check_one_rotation(given, log_file, rotation)
    check_open(given)
    formatter = JsonFormatter(
        schema=schema,
        environment=environment_name(environment),
        static_fields=static_fields,
        redactor=redactor,
        encoder=encoder,
        max_record_bytes=max_record_bytes,
    )
    outputs = [*_standard_handlers(), *_file_handlers(log_file, rotation), *given]
    for handler in outputs:
        if handler.formatter is None:
            handler.setFormatter(formatter)
    # One queue in front of all handlers, so that the lines of a record are written in a fixed order.
    chain: list[logging.Handler] = [BoundedQueueHandler(outputs)] if queue else outputs
    _install(targets, chain, number, keep=tuple(outputs))
    if loggers is None:
        remove_console_handlers(_known_loggers())
        watch_servers(_keep_in_celery, in_place=_in_place)
    else:
        unwatch_servers()
    logger = logging.getLogger(app_name)
    _enable(targets)
    if uncaught:
        narrowed = loggers is not None and logger not in targets
        _InstalledLogging.uncaught = UncaughtExceptions(targets[0] if narrowed else logger)
    return logger


def remove_logging() -> None:
    """Remove and close the handlers of the last ``setup_logging``."""
    _remove_uncaught()
    unwatch_servers()
    for logger in (logging.getLogger(), *_known_loggers()):
        for handler in _InstalledLogging.handlers:
            logger.removeHandler(handler)
    for handler in _InstalledLogging.handlers:
        handler.close()
    _InstalledLogging.handlers = ()


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
    return [ProcessSafeRotatingFileHandler(log_file, **asdict(rotation))]


def _install(
    targets: list[logging.Logger],
    chain: list[logging.Handler],
    level: int,
    *,
    keep: tuple[logging.Handler, ...],
) -> None:
    replaced = dict.fromkeys(_InstalledLogging.handlers)
    _remove_uncaught()
    for target in targets:
        # Add the new handlers before removing the old ones, so that no record of another thread is lost.
        old = [handler for handler in target.handlers if not _watches_tests(handler)]
        replaced |= dict.fromkeys(old)
        for handler in chain:
            target.addHandler(handler)
        for handler in old:
            if handler not in chain:
                target.removeHandler(handler)
        target.setLevel(level)
        if target is not logging.getLogger():
            target.propagate = False
    _InstalledLogging.handlers = tuple(dict.fromkeys((*chain, *keep)))
    for handler in replaced:
        if handler not in _InstalledLogging.handlers and not _in_use(handler):
            handler.close()


def _remove_uncaught() -> None:
    if _InstalledLogging.uncaught is not None:
        _InstalledLogging.uncaught.remove()
        _InstalledLogging.uncaught = None


def _enable(targets: list[logging.Logger]) -> None:
    """Undo ``disable_existing_loggers``, the default of ``fileConfig`` and ``dictConfig``."""
    roots = [f"{target.name}." for target in targets if target is not logging.getLogger()]
    for logger in (*targets, *_known_loggers()):
        if logger in targets or not roots or logger.name.startswith(tuple(roots)):
            logger.disabled = False


def _in_place() -> bool:
    return any(handler in _InstalledLogging.handlers for handler in logging.getLogger().handlers)


def _keep_in_celery(*, logfile: str | None = None, **_options: object) -> None:
    """Handle the start of a Celery worker, which skips its own logging setup because this listens to its signal."""
    root = logging.getLogger()
    written = [getattr(handler, "baseFilename", None) for handler in _InstalledLogging.handlers]
    if not logfile or os.path.abspath(logfile) in written:  # noqa: PTH100 - as text, like the paths of the handlers
        return
    handler = ReopeningFileHandler(logfile)
    handler.setFormatter(next(known.formatter for known in _InstalledLogging.handlers if known.formatter))
    root.addHandler(handler)
    _InstalledLogging.handlers = (*_InstalledLogging.handlers, handler)


def _watches_tests(handler: logging.Handler) -> bool:
    """Whether the handler is ``caplog`` or the live log of pytest, without which tests would see no records."""
    return type(handler).__module__.partition(".")[0] == "_pytest"


def _in_use(handler: logging.Handler) -> bool:
    return any(handler in logger.handlers for logger in (logging.getLogger(), *_known_loggers()))


def _known_loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.values()
    return [logger for logger in list(known) if isinstance(logger, logging.Logger)]
