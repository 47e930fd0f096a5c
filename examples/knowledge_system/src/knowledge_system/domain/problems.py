"""Problem documents (RFC 9457) in Japanese and English.

Any code may raise ``Problem``; the web layer turns it into JSON or a page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from knowledge_system.domain import content


class FieldError(NamedTuple):
    """An error in one field; ``code`` is a key of the message catalogue, ``limit`` the number in the message."""

    field: str
    code: str
    limit: object = ""


class Problem(Exception):  # noqa: N818 - the term of RFC 9457
    """An error response with an HTTP status.

    Attributes:
        code: key of the catalogue in ``content/messages.json``; also the last part of the document's ``type``.
        errors: errors of single fields.
        extra: additional members of the document.
        headers: response headers, for example ``Retry-After``.
    """

    def __init__(
        self,
        code: str,
        *,
        errors: Sequence[FieldError] = (),
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.status: int = _catalogue()["problems"][code]["status"]
        self.errors = tuple(errors)
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    @property
    def is_correctable(self) -> bool:
        """Whether the user can correct the input of a form, which is then shown again."""
        return "correctable" in _catalogue()["problems"][self.code]

    @property
    def wait(self) -> int:
        """Seconds to wait before a retry, from ``Retry-After``; 0 if unknown."""
        value = self.headers.get("Retry-After", "")
        return int(value) if value.isdecimal() else 0


@cache
def _catalogue() -> dict[str, Any]:
    catalogue: dict[str, Any] = json.loads(content.read_text("messages.json"))
    return catalogue


_GENERAL = {
    400: "bad-request",
    401: "sign-in-required",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    409: "conflict",
    412: "precondition-failed",
    413: "too-large",
    415: "unsupported-media-type",
    416: "range-refused",
    422: "invalid",
    428: "precondition-required",
    429: "rate-limited",
    501: "not-implemented",
    502: "unavailable",
    503: "unavailable",
    507: "storage-full",
}


def code_for_status(status: int) -> str:
    """Return the general problem code of a status, for errors raised by the framework."""
    return _GENERAL.get(status, "bad-request" if 400 <= status < 500 else "internal")


def error_text(error: FieldError, *, language: str) -> str:
    """Return the message of a field error."""
    sentence: str = _catalogue()["errors"][error.code][language]
    return sentence.format(limit=error.limit)


def describe(problem: Problem, *, language: str) -> dict[str, Any]:
    """Return the members of the problem document that do not depend on the request."""
    entry = _catalogue()["problems"][problem.code]
    detail: str = entry[language]["detail"]
    if "limit_bytes" in problem.extra:
        detail += entry[language]["limit"].format(**problem.extra)
    document: dict[str, Any] = {
        "type": f"/problems/{problem.code}",
        "title": entry[language]["title"],
        "status": problem.status,
        "detail": detail,
        **problem.extra,
    }
    if problem.errors:
        document["errors"] = [
            {"field": error.field, "code": error.code, "message": error_text(error, language=language)}
            for error in problem.errors
        ]
    return document
