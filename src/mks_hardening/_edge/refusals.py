"""Refusals of requests by middleware, and the hook with which an application replaces the response."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mks_hardening._core.checks import instances, text_of, whole_number
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CustomResponse", "Refusal"]

_FIELD_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_FIELD_VALUE: Final = re.compile(
    r"[\x21-\x7e\xa0-\xff](?:[\t\x20-\x7e\xa0-\xff]*[\x21-\x7e\xa0-\xff])?"
).fullmatch
_SET_HERE: Final = {"content-type": "content_type", "content-length": "body"}
# Connections belong to the server (PEP 3333; RFC 9110, 7.6.1).
_HOP_BY_HOP: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
_WITHOUT_BODY: Final = (204, 205, 304)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request refused by a middleware, as it is also written to the request log.

    Attributes:
        wrapper: ``https``, ``csrf``, ``rate_limit``, ``session``, ``health``, ``record``, ``cors``,
            ``client_rules``, ``maintenance``, ``request_limits``, ``request_timeout`` or ``concurrency``;
            ``application`` if an adapter responded for a view that ran into an outage.
        rule: name of the rule that refused the request, in one word.
        status: status code of the response.
        detail: the reason in one sentence, for the client.
        seen: the value that broke the rule, at most 200 printable characters; empty if it is a secret.
        headers: header fields sent with every response to this refusal, also a custom one, for example
            ``Retry-After``.
        setting: name of the setting that decides, for operators; empty if none lets such a request pass.
    """

    wrapper: str
    rule: str
    status: int
    detail: str
    seen: str = ""
    headers: Sequence[tuple[str, str]] = ()
    setting: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomResponse:
    """A custom response to a refused request, returned by ``on_refusal``.

    Attributes:
        body: body of the response.
        content_type: value of ``Content-Type``.
        status: status code; by default that of the refusal.
        headers: additional header fields, for example ``Content-Language``. ``Cache-Control: no-store`` is added
            unless they include ``Cache-Control``. They replace fields of the refusal, such as ``Retry-After``.

    Raises:
        ConfigurationError: an attribute has the wrong type; ``status`` is not between 200 and 599, or allows no
            body although there is one; a header field is malformed (RFC 9110, 5.5), has an attribute of its own
            (``Content-Type``, ``Content-Length``) or concerns the connection.
    """

    body: str | bytes
    content_type: str = "text/html; charset=utf-8"
    status: int | None = None
    headers: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.body, bytes):
            try:
                text_of(self.body, parameter="body").encode()
            except UnicodeEncodeError:
                raise ConfigurationError("body contains a lone surrogate", parameter="body") from None
        _field_value(text_of(self.content_type, parameter="content_type", empty=False), "content_type")
        if self.status is not None:
            whole_number(self.status, parameter="status", minimum=200, maximum=599)
            if self.status in _WITHOUT_BODY and self.body:
                raise ConfigurationError(
                    f"a response with status {self.status} has no body; leave body empty, or use another status",
                    parameter="body",
                )
        for field in instances(self.headers, tuple, parameter="headers"):
            _check_field(field)


OnRefusal = Callable[[dict[str, Any], Refusal], CustomResponse | None]
"""Takes the environ and the refusal; returns a custom response, or ``None`` to keep the default one."""


def _check_field(field: tuple[object, ...]) -> None:
    name = field[0] if len(field) == 2 else None
    if not isinstance(name, str) or not _FIELD_NAME(name):
        raise ConfigurationError(
            "headers must contain pairs of a field name and a value, such as ('Content-Language', 'ja')",
            parameter="headers",
        )
    lower = name.lower()
    if lower in _SET_HERE:
        raise ConfigurationError(
            f"headers: {name} follows from {_SET_HERE[lower]}; omit it", parameter="headers"
        )
    if lower in _HOP_BY_HOP:
        raise ConfigurationError(
            f"headers: {name} concerns the connection, which is the server's; omit it", parameter="headers"
        )
    value = field[1]
    if not isinstance(value, str):
        raise ConfigurationError(
            f"headers: the value of {name} must be a text, not {type(value).__name__}", parameter="headers"
        )
    _field_value(value, "headers", name)


def _field_value(value: str, parameter: str, name: str = "") -> None:
    if value and not _FIELD_VALUE(value):
        what = f"the value of {name}" if name else "it"
        raise ConfigurationError(
            f"{parameter}: {what} must be visible characters of Latin-1 without line breaks",
            parameter=parameter,
        )
