"""Filter that adds context fields to records, for formatters without support for them."""

from __future__ import annotations

import logging

from mks_hardening._core.checks import strings
from mks_hardening._core.process.context import fields_var

__all__ = ["ContextFilter"]


class ContextFilter(logging.Filter):
    """Add the context fields of the request (``request_id``, ``user_id`` ...) to records as attributes.

    For formatters other than ``JsonFormatter``, which includes them anyway. Existing attributes are kept.

    Args:
        names: fields that every record must have; ``"-"`` is the value of unbound fields.
    """

    def __init__(self, *, names: tuple[str, ...] = ("request_id", "trace_id", "user_id")) -> None:
        super().__init__()
        self._blank = dict.fromkeys(strings(names, parameter="names", of="names"), "-")

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; every record passes."""
        for name, value in {**self._blank, **fields_var.get()}.items():
            # An explicit value wins: a caller may log on behalf of another user.
            record.__dict__.setdefault(name, value)
        return True
