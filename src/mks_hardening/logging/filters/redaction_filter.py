"""Filter that redacts secrets in the record itself, for handlers whose formatter does not redact."""

from __future__ import annotations

import logging
from typing import Final

from mks_hardening._core.checks import offers
from mks_hardening._core.redaction.plain_data import LONGEST_TEXT, Bounds
from mks_hardening._core.redaction.record_attributes import (
    CONTEXT_ATTRIBUTE,
    EXCEPTION_ATTRIBUTE,
    STANDARD_NAMES,
    exception_of,
)
from mks_hardening._core.redaction.record_text import RecordText
from mks_hardening._core.redaction.redactor import default_redactor
from mks_hardening.protocols import Redactor

__all__ = ["RedactionFilter"]

_KEPT: Final = frozenset((CONTEXT_ATTRIBUTE, EXCEPTION_ATTRIBUTE))


class RedactionFilter(logging.Filter):
    """Redact secrets in a record, for handlers whose formatter does not.

    Message, arguments, extra fields, exception and stack are covered. The record itself is changed (before Python
    3.12 a filter cannot replace it), so later handlers receive the redacted record too. The exception is stored
    separately for ``JsonFormatter``, which still logs its structure.

    Args:
        redactor: redactor of secrets; the package's own if ``None``.
    """

    def __init__(self, *, redactor: Redactor | None = None) -> None:
        super().__init__()
        if redactor is not None:
            offers(redactor, "redact", "redact_text", parameter="redactor", kind="a SecretRedactor")
        self._reader = RecordText(redactor or default_redactor(), bounds=Bounds(), longest=LONGEST_TEXT)

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record; every record passes."""
        reader, data = self._reader.of_one_record(), record.__dict__
        # Render first: a secret may be split between the template and an argument.
        record.msg = reader.clean_text(reader.message(record))
        record.args = None
        # May contain the secret if another formatter has set it.
        data.pop("message", None)
        extra = {name: data.pop(name) for name in data.keys() - STANDARD_NAMES - _KEPT}
        data.update(reader.clean_fields(extra))
        error = exception_of(record)
        if error is not None:
            # Formatters print exc_text if it is set instead of rendering the exception again.
            data[EXCEPTION_ATTRIBUTE] = error
            record.exc_info, record.exc_text = None, reader.clean_exception(error).text.rstrip("\n")
        elif record.exc_text:
            record.exc_text = reader.clean_text(record.exc_text)
        if record.stack_info:
            record.stack_info = reader.clean_text(record.stack_info)
        return True
