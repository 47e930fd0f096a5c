"""What a wrapper answers in place of the application, and how the application may say it in its own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mks_hardening._core.checks import several, text_of, whole_number

__all__ = ["OwnAnswer", "Refusal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that a wrapper refuses; the request record says the same.

    Attributes:
        wrapper: ``https``, ``csrf``, ``rate_limit``, ``session``, ``health`` or ``record``; ``application`` where
            an adapter answered for a view that met an outage.
        rule: which of its rules refused, in one word.
        status: status code of the answer.
        detail: the same in a sentence for the client.
        seen: the value that broke the rule, at most 200 printable characters; empty where that is a secret.
        headers: fields that the answer carries whoever words it, for example ``Retry-After``.
    """

    wrapper: str
    rule: str
    status: int
    detail: str
    seen: str = ""
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAnswer:
    """What ``on_refusal`` returns to answer a refused request in the application's words.

    Attributes:
        body: the page or document.
        content_type: its type.
        status: status code; the refusal's own when left out.
        headers: further fields, for example ``Content-Language``. ``Cache-Control: no-store`` is added unless there
            is one.

    Raises:
        ConfigurationError: one of them is of another kind.
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
        several(self.headers, tuple, parameter="headers")


OnRefusal = Callable[[dict[str, Any], Refusal], OwnAnswer | None]
"""Takes the environ and the refusal; ``None`` leaves the answer as it is."""
