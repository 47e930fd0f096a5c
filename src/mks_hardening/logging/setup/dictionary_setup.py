"""Logging setup as a dictionary for ``logging.config.dictConfig``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from mks_hardening._core.checks import level_number, mapping, path_text, text_of, whole_number
from mks_hardening.logging.formatting._schemas import schema_named
from mks_hardening.logging.handlers.rotating_file_handler import Rotation
from mks_hardening.logging.setup._server_loggers import SERVER_LOGGERS
from mks_hardening.logging.setup._setup_checks import check_file, environment_name, targets_of

__all__ = ["dict_config"]

_PACKAGE: Final = "mks_hardening.logging"


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
    """Return the setup as a dictionary for ``logging.config.dictConfig`` (Django's ``LOGGING``, gunicorn, Celery).

    Args:
        app_name: name of the application's logger; its level is set.
        level: as for ``setup_logging``.
        log_file: as for ``setup_logging``.
        rotation: as for ``setup_logging``.
        reopen: as for ``setup_logging``.
        loggers: as for ``setup_logging``.
        schema: as for ``setup_logging``.
        environment: as for ``setup_logging``.
        static_fields: as for ``setup_logging``.
        max_record_bytes: as for ``setup_logging``.

    Raises:
        ConfigurationError: a parameter is invalid.
    """
    text_of(app_name, parameter="app_name", empty=False)
    number = level_number(level)
    schema_named(schema)
    whole_number(max_record_bytes, parameter="max_record_bytes", minimum=1024)
    check_file(log_file, rotation, reopen)
    names = ["stdout", "stderr"]
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": f"{_PACKAGE}.JsonFormatter",
                "schema": schema,
                "environment": environment_name(environment),
                "static_fields": dict(
                    {}
                    if static_fields is None
                    else mapping(static_fields, parameter="static_fields", of="names to values")
                ),
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
            _handler("ReopeningFileHandler", filename=path_text(log_file, parameter="log_file"))
            if rotation is None
            else _handler("ProcessSafeRotatingFileHandler", filename=str(log_file), **asdict(rotation))
        )
    if loggers is None:
        config["root"] = {"level": number, "handlers": names}
        # Loggers listed without handlers lose their own handlers and propagate their records.
        config["loggers"] = {
            **{name: {"propagate": True} for name in SERVER_LOGGERS},
            app_name: {"level": number},
        }
    else:
        config["loggers"] = {
            logger.name: {"level": number, "handlers": names, "propagate": False}
            for logger in targets_of(loggers)
        }
    return config


def _handler(name: str, **options: object) -> dict[str, object]:
    return {"()": f"{_PACKAGE}.{name}", "formatter": "json", **options}
