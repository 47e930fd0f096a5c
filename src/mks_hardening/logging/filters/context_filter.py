"""The context of the request as attributes of a record, for formatters that do not know it."""

from __future__ import annotations

import logging

from mks_hardening._core.checks import texts
from mks_hardening._core.process.context import fields_var

__all__ = ["ContextFilter"]


class ContextFilter(logging.Filter):
    """Puts the bound fields of the request (``request_id``, ``user_id`` ...) on the record as attributes.

    For formatters other than ``JsonFormatter``, which shows them anyway. Attributes that the record has stay.

    Args:
        names: fields that every record shall have; ``"-"`` stands in for what is not bound.
    """

    def __init__(self, *, names: tuple[str, ...] = ("request_id", "trace_id", "user_id")) -> None:
        super().__init__()
        self._blank = dict.fromkeys(texts(names, parameter="names", of="names"), "-")

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
        for name, value in {**self._blank, **fields_var.get()}.items():
            # The call's own value wins: who logs for another user says so.
            record.__dict__.setdefault(name, value)
        return True
