"""Refusals of requests by middleware, and the hook with which an application replaces the response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mks_hardening._core.checks import instances, text_of, whole_number

__all__ = ["CustomResponse", "Refusal"]


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
    """

    wrapper: str
    rule: str
    status: int
    detail: str
    seen: str = ""
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomResponse:
    """A custom response to a refused request, returned by ``on_refusal``.

    Attributes:
        body: body of the response.
        content_type: value of ``Content-Type``.
        status: status code; by default that of the refusal.
        headers: additional header fields, for example ``Content-Language``. ``Cache-Control: no-store`` is added
            unless they include ``Cache-Control``.

    Raises:
        ConfigurationError: an attribute has the wrong type, or ``status`` is not between 200 and 599.
    """

    body: str | bytes
    content_type: str = "text/html; charset=utf-8"
    status: int | None = None
    headers: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.body, bytes):
            text_of(self.body, parameter="body")
        text_of(self.content_type, parameter="content_type", empty=False)
        if self.status is not None:
            whole_number(self.status, parameter="status", minimum=200, maximum=599)
        instances(self.headers, tuple, parameter="headers")


OnRefusal = Callable[[dict[str, Any], Refusal], CustomResponse | None]
"""Takes the environ and the refusal; returns a custom response, or ``None`` to keep the default one."""
