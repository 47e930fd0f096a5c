"""Name and attributes of the span of a request (HTTP semantic conventions 1.33)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

__all__ = ["Attributes", "end_attributes", "method_of", "outcome_of", "span_name", "start_attributes"]

Attributes: TypeAlias = "dict[str, str | int]"

_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"}
)
_LONGEST_METHOD: Final = 32


def method_of(method: str) -> str:
    """Return the method if it is a known one, else ``_OTHER``."""
    return method if method in _METHODS else "_OTHER"


def span_name(method: str, route: str | None) -> str:
    """Return the method, and the route if it is known; never the path, which has too many values."""
    known = method if method in _METHODS else "HTTP"
    return f"{known} {route}" if route else known


def start_attributes(environ: Mapping[str, Any]) -> Attributes:
    """Return the attributes at the start of a span, which samplers may use."""
    return {
        "http.request.method": method_of(environ.get("REQUEST_METHOD", "")),
        "url.scheme": environ.get("wsgi.url_scheme", "http"),
        "url.path": environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
    }


def outcome_of(fields: Mapping[str, Any]) -> Attributes:
    """Return the outcome attributes, from the log record; they are also labels of the metric."""
    status, route = fields["status"], fields.get("route")
    attributes: Attributes = {}
    if status:
        attributes["http.response.status_code"] = status
    if route:
        attributes["http.route"] = route
    if fields["outcome"] == "error" and fields["exc_type"]:
        attributes["error.type"] = fields["exc_type"]
    elif status >= 500:
        attributes["error.type"] = str(status)
    return attributes


def end_attributes(fields: Mapping[str, Any]) -> Attributes:
    """Return the remaining attributes of the span, from the log record, which contains no secret."""
    attributes: Attributes = {
        "url.path": fields["path"],
        "mks.request.id": fields["request_id"],
        "mks.request.outcome": fields["outcome"],
    }
    if fields["method"] not in _METHODS:
        attributes["http.request.method_original"] = fields["method"][:_LONGEST_METHOD]
    for attribute, field in (("url.query", "query"), ("client.address", "client_ip")):
        if fields.get(field):
            attributes[attribute] = fields[field]
    return attributes
