"""Field names of the schemas: our own, Elastic (ECS) and Google Cloud."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from mks_hardening._core.checks import choice

__all__ = ["SCHEMAS", "Schema", "schema_named"]


class Schema(NamedTuple):
    """Names of the canonical fields, and the format of levels and exceptions.

    ``renames`` maps context and extra fields that have a canonical name in the schema.
    """

    timestamp: str
    level: str
    logger: str
    message: str
    environment: str
    exception: str
    stack: str
    level_text: Callable[[str], str]
    exception_fields: Callable[[Mapping[str, object], str], dict[str, object]]
    renames: Mapping[str, str]
    constants: Mapping[str, object]

    def canonical(self) -> frozenset[str]:
        """Return the names that no extra field may use."""
        exception = self.exception_fields({}, "")
        return frozenset((*self[:7], *exception, *self.constants, *self.renames.values()))


def _severity(level: str) -> str:
    """Map a level to a severity of Cloud Logging; custom levels are mapped by their number."""
    number = logging.getLevelNamesMapping().get(level)
    if number is None:
        digits = level.removeprefix("Level ")
        number = int(digits) if digits.isdecimal() else 0
    for floor, severity in ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (25, "NOTICE"), (20, "INFO")):
        if number >= floor:
            return severity
    return "DEBUG" if number > 0 else "DEFAULT"


def _nested(structure: Mapping[str, object], text: str) -> dict[str, object]:
    return {"exception": {**structure, "text": text}}


def _ecs_error(structure: Mapping[str, object], text: str) -> dict[str, object]:
    return {
        "error.type": structure.get("type"),
        "error.message": structure.get("message"),
        "error.stack_trace": text,
        "error.exception": structure,
    }


def _gcp_error(structure: Mapping[str, object], text: str) -> dict[str, object]:
    return {"stack_trace": text, "exception": structure}


SCHEMAS: Final[Mapping[str, Schema]] = {
    "default": Schema(
        "timestamp", "level", "logger", "message", "environment", "exception", "stack",
        str, _nested, {}, {},
    ),
    # Elastic Common Schema 8.11, dotted names as in its logging libraries.
    "ecs": Schema(
        "@timestamp", "log.level", "log.logger", "message", "service.environment", "error.exception",
        "error.stack_info", str.lower, _ecs_error,
        {
            "request_id": "http.request.id",
            "trace_id": "trace.id",
            "span_id": "span.id",
            "user_id": "user.id",
            "user_agent": "user_agent.original",
            "client_ip": "client.ip",
            "method": "http.request.method",
            "status": "http.response.status_code",
            "path": "url.path",
        },
        {"ecs.version": "8.11.0"},
    ),
    # Special fields of structured payloads in Cloud Logging.
    "gcp": Schema(
        "time", "severity", "logger", "message", "environment", "exception", "stack",
        _severity, _gcp_error,
        {"trace_id": "logging.googleapis.com/trace", "span_id": "logging.googleapis.com/spanId"},
        {},
    ),
    # Names for records that cannot be formatted otherwise; the line follows that library's own rules.
    "python-json-logger": Schema(
        "timestamp", "levelname", "name", "message", "environment", "exc_info", "stack_info",
        str, _nested, {}, {},
    ),
}  # fmt: skip


def schema_named(name: str) -> Schema:
    """Return the schema with a name.

    Raises:
        ConfigurationError: the schema is unknown.
    """
    return SCHEMAS[choice(name, SCHEMAS, parameter="schema")]
