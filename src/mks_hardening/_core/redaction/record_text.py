"""From a log record to redacted text, for log lines and alerts alike.

The work has two halves, since a queue may lie between them. ``message`` and ``snapshot`` run on the logging thread:
they render everything that may change later (arguments, containers, objects) and omit arguments whose placeholder
is secret. The methods whose name starts with ``clean`` redact the result. Both are bounded in depth, members and
characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from mks_hardening._core.database.error_text import database_error_text
from mks_hardening._core.exception_text import ExceptionDescription, describe_exception, safe_text
from mks_hardening._core.process.context import fields_var
from mks_hardening._core.redaction.message_templates import Templates
from mks_hardening._core.redaction.plain_data import Bounds, Fields, cut, is_a, to_plain
from mks_hardening._core.redaction.record_attributes import CONTEXT_ATTRIBUTE, STANDARD_NAMES, exception_of
from mks_hardening._core.redaction.redactor import (
    RecordRedactor,
    SecretRedactor,
    default_redactor,
    encoded_if_clean,
)

if TYPE_CHECKING:
    from logging import LogRecord

    from mks_hardening.protocols import Redactor

__all__ = ["RecordSnapshot", "RecordText"]

# Extra length of a text before it is truncated, so that a secret at the cut is still recognised as a whole.
_SLACK: Final = 1_024
_SCALARS: Final = frozenset((str, int, float, bool, type(None)))


class RecordSnapshot(NamedTuple):
    """Content of a record at the time of the log call; not yet redacted.

    Attributes:
        message: rendered message, without arguments whose placeholder is secret.
        fields: fields from ``extra`` or from a filter, as plain data.
        context: fields bound in the logging thread.
        error: the exception object.
        stack: stack as text, or the exception text if only that is left.
    """

    message: str
    fields: Mapping[str, object]
    context: Mapping[str, object]
    error: BaseException | None
    stack: str


class RecordText:
    """Converts records for one redactor within limits.

    Args:
        redactor: removes the secrets.
        bounds: limits for the fields.
        longest: maximum characters of the message, of the exception and of the stack.
        frames: maximum frames of one traceback.

    Attributes:
        templates: cached plans for rendering message templates.
        loose: limits before redaction, large enough that a secret at a cut is still recognised as a whole.
    """

    __slots__ = ("_bounds", "_frames", "_longest", "_redactor", "_stable", "loose", "templates")

    def __init__(self, redactor: Redactor, *, bounds: Bounds, longest: int, frames: int = 40) -> None:
        own = redactor if isinstance(redactor, SecretRedactor) else default_redactor()
        self._redactor = self._stable = redactor
        self._bounds = bounds
        self._longest = longest
        self.loose = bounds._replace(characters=bounds.characters + _SLACK)
        self._frames = frames
        self.templates = Templates(own.is_secret_key)

    def of_one_record(self) -> RecordText:
        """Return a copy for the parts of one record, which share the step limit of one text."""
        one = copy(self)
        # Nothing is known about other redactor classes.
        if type(self._stable) is SecretRedactor:
            one._redactor = RecordRedactor(self._stable)  # noqa: SLF001 - same class
        return one

    def snapshot(self, record: LogRecord, message: str) -> RecordSnapshot:
        """Return everything that must be read before the log call returns; ``message`` comes from ``message()``."""
        error = exception_of(record)
        exc_text, stack = record.exc_text if error is None else "", record.stack_info
        context = record.__dict__.get(CONTEXT_ATTRIBUTE)
        return RecordSnapshot(
            message,
            self._extra_fields(record),
            fields_var.get() if context is None else context,
            error,
            self._joined(exc_text, stack) if exc_text or stack else "",
        )

    def message(self, record: LogRecord) -> str:
        """Return the message without secret arguments; a structure is redacted by its names."""
        # Called for nearly every record on the caller's thread, and isinstance with abstract classes is slow.
        if type(record.msg) is not str and is_a(record.msg, Mapping, list, tuple):
            return safe_text(self.clean(record.msg), limit=self._longest + _SLACK)
        return cut(self.templates.render(record), self._longest + _SLACK)

    def clean(self, value: object) -> Any:
        """Return any value as bounded plain data without secrets."""
        return self._redactor.redact(to_plain(value, self.loose))

    def encoded_if_clean(
        self, fields: Mapping[str, object], encode: Callable[[object], bytes]
    ) -> bytes | None:
        """Return fields as JSON, or ``None`` if ``clean`` might change them."""
        # Nothing is known about other redactor classes.
        stable = self._stable
        return encoded_if_clean(stable, fields, encode) if type(stable) is SecretRedactor else None

    def clean_fields(self, *sources: Mapping[str, object]) -> Fields:
        """Return the merged fields of all sources; a later source wins for equal names."""
        merged: Fields = {}
        for fields in sources:
            merged.update(islice(fields.items(), self._bounds.members))
        return cast("Fields", self.clean(merged))

    def clean_text(self, text: object) -> str:
        """Return a text without secrets."""
        whole = safe_text(text, limit=self._longest + _SLACK)
        return cut(self._redactor.redact_text(whole), self._longest)

    def clean_exception(self, error: BaseException) -> ExceptionDescription:
        """Return an exception with its chain and tracebacks."""
        return describe_exception(
            error,
            redact_text=self._stable.redact_text,
            redact_message=self._redactor.redact_text,
            text_of=self._text_of,
            max_frames=self._frames,
            max_chars=self._longest,
        )

    def _text_of(self, error: BaseException) -> str | None:
        summary = database_error_text(error)
        return self.templates.of_exception(error) if summary is None else summary

    def _joined(self, *texts: object) -> str:
        return "\n".join(safe_text(text, limit=self._longest + _SLACK) for text in texts if text)

    def _extra_fields(self, record: LogRecord) -> Fields:
        taken: Fields = {}
        for name, value in record.__dict__.items():
            if name not in STANDARD_NAMES and not name.startswith("_"):
                if len(taken) >= self._bounds.members:
                    break
                taken[name] = value if type(value) in _SCALARS else to_plain(value, self.loose)
        return taken
