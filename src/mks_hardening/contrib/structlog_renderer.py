"""A structlog renderer for the last processor: our JSON and field names, with secrets redacted.

    import structlog
    from mks_hardening.contrib.structlog_renderer import StructlogRenderer

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, StructlogRenderer()])

It uses the output of the usual processors: ``event``, ``level``, ``logger``, ``exc_info`` or ``exception``,
``stack``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from mks_hardening._core.checks import boolean, text_of
from mks_hardening.contrib._foreign_records import exc_info_of, record_of
from mks_hardening.protocols import Redactor

__all__ = ["StructlogRenderer"]

_LEVELS: Final = {"exception": "ERROR", "warn": "WARNING", "fatal": "CRITICAL", "msg": "INFO", "log": "INFO"}


class StructlogRenderer:
    """Processor that renders a structlog event as one line of JSON, as ``JsonFormatter`` does; never raises.

    ``timestamp`` is set here and ``level`` is that of the call, so their processors are not needed. Fields bound
    with ``mks_hardening.logging.bind`` (including those of the request) are added.

    Args:
        as_bytes: return bytes, for ``structlog.BytesLogger``.
        logger: name of the logger if the event has none.
        schema: see ``JsonFormatter``, as for the following parameters.
        static_fields: see ``JsonFormatter``.
        environment: see ``JsonFormatter``.
        redactor: see ``JsonFormatter``.
        encoder: see ``JsonFormatter``.
        max_record_bytes: see ``JsonFormatter``.

    Raises:
        ConfigurationError: a parameter is invalid.
    """

    def __init__(
        self,
        *,
        as_bytes: bool = False,
        logger: str = "structlog",
        schema: str = "default",
        static_fields: Mapping[str, object] | None = None,
        environment: str | None = None,
        redactor: Redactor | None = None,
        encoder: str = "auto",
        max_record_bytes: int = 65_536,
    ) -> None:
        from mks_hardening.logging import JsonFormatter

        self._as_bytes = boolean(as_bytes, parameter="as_bytes")
        self._logger = text_of(logger, parameter="logger", empty=False)
        self._formatter: logging.Formatter = JsonFormatter(
            schema=schema,
            static_fields=static_fields,
            environment=environment,
            redactor=redactor,
            encoder=encoder,
            max_record_bytes=max_record_bytes,
        )

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> str | bytes:
        """Return the line, without a newline."""
        fields = dict(event)
        message = fields.pop("event", "")
        fields.pop("timestamp", None)
        given = given if isinstance(given := fields.get("level"), str) else ""
        level = _LEVELS.get(method, method.upper())
        names = logging.getLevelNamesMapping()
        if level not in names:
            level = given.upper() or level  # from a logger with custom methods
        # Remove what add_log_level has set; any other value is a field of the application.
        if given.upper() in names or given == method:
            fields.pop("level", None)
        exc_info = exc_info_of(fields.pop("exc_info", method == "exception"))
        name = fields.pop("logger", None) or getattr(logger, "name", None)
        exception, stack = fields.pop("exception", None), fields.pop("stack", None)
        record = record_of(
            message,
            logger=name if isinstance(name, str) else self._logger,
            level=names.get(level, logging.INFO),
            level_name=level,
            fields=fields,
            exc_info=exc_info,
        )
        record.exc_text = exception if isinstance(exception, str) else None
        record.stack_info = stack if isinstance(stack, str) else None
        line = self._formatter.format(record)
        # backslashreplace: a lone surrogate must not make a logging call raise.
        return line.encode("utf-8", "backslashreplace") if self._as_bytes else line
