"""An alert in the form in which it leaves the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from mks_hardening.notify.outbox import Parcel

__all__ = ["AlertMessage", "Render"]


class AlertMessage(NamedTuple):
    """What a transport is given.

    Attributes:
        id: the same for every try.
        subject: one line.
        text: all of it as plain text.
        headers: header fields of the e-mail or of the HTTP request.
        body: the bytes that are sent: a whole e-mail, or a JSON document.
    """

    id: str
    subject: str
    text: str
    headers: Mapping[str, str]
    body: bytes


Render: TypeAlias = Callable[[Parcel], AlertMessage]
