"""General formatting path: for containers, objects, invalid arguments and overridden hooks.

It builds the fields as data, limits and redacts them, and encodes them with an encoder that accepts everything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Unpack, cast

from mks_hardening._core.checks import boolean, choice, mapping, offers, strings, text_of, whole_number
from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.exception_text import CUT, safe_text
from mks_hardening._core.optional_imports import optional
from mks_hardening._core.process.context import fields_var
from mks_hardening._core.redaction.plain_data import LONGEST_TEXT, Bounds, Fields, UniqueNames, is_a, to_plain
from mks_hardening._core.redaction.record_attributes import CONTEXT_ATTRIBUTE, STANDARD_NAMES, exception_of
from mks_hardening._core.redaction.record_text import RecordText
from mks_hardening._core.redaction.redactor import REDACTED, SecretRedactor, default_redactor
from mks_hardening._core.redaction.secret_names import reveals_secret
from mks_hardening.exceptions import ConfigurationError
from mks_hardening.logging.formatting._field_names import FieldNames
from mks_hardening.logging.formatting._json_text import encode_plain, fast_encoder
from mks_hardening.logging.formatting._python_json_logger import NAME as PYTHON_JSON_LOGGER
from mks_hardening.logging.formatting._python_json_logger import (
    PythonJsonLoggerEncoder,
    PythonJsonLoggerOptions,
    check_options,
    lines_or_text,
)
from mks_hardening.logging.formatting._schemas import schema_named
from mks_hardening.protocols import Redactor

with optional("pythonjsonlogger", extra="logging"):
    from pythonjsonlogger.core import BaseJsonFormatter

__all__ = ["MILLISECONDS", "MOST_FIELDS", "GeneralFormatter", "same"]

MILLISECONDS: Final = tuple(f".{number:03d}Z" for number in range(1000))
#: Maximum number of fields per record, including the standard attributes.
MOST_FIELDS: Final = 128
_FRAMES: Final = 40
# With fewer members a container would be meaningless; then other fields are dropped instead.
_FEWEST_MEMBERS: Final = 4


class GeneralFormatter(BaseJsonFormatter):
    """Format every record on the general path; see ``JsonFormatter`` for the parameters."""

    def __init__(
        self,
        fmt: str | Sequence[str] | None = None,
        datefmt: str | None = None,
        style: str = "%",
        validate: bool = True,  # noqa: FBT001, FBT002 - position and name are those of logging.Formatter
        *,
        schema: str = "default",
        static_fields: Mapping[str, object] | None = None,
        environment: str | None = None,
        redactor: Redactor | None = None,
        encoder: str = "auto",
        max_record_bytes: int = 65_536,
        rename_fields: Mapping[str, str] | None = None,
        defaults: Mapping[str, object] | None = None,
        reserved_attrs: Sequence[str] | None = None,
        prefix: str = "",
        **options: Unpack[PythonJsonLoggerOptions],
    ) -> None:
        check_options(schema, options)
        whole_number(max_record_bytes, parameter="max_record_bytes", minimum=1024)
        for name, text in (("datefmt", datefmt), ("environment", environment)):
            if text is not None:
                text_of(text, parameter=name)
        text_of(prefix, parameter="prefix")
        choice(style, ("%", "{", "$", ","), parameter="style")
        boolean(validate, parameter="validate")
        for name, fields in (
            ("static_fields", static_fields),
            ("rename_fields", rename_fields),
            ("defaults", defaults),
        ):
            if fields is not None:
                mapping(fields, parameter=name, of="names to values")
                strings(fields.keys(), parameter=name, of="names")
        for name, names in (
            ("rename_fields", None if rename_fields is None else rename_fields.values()),
            ("reserved_attrs", reserved_attrs),
            ("fmt", None if isinstance(fmt, str) else fmt),
        ):
            if names is not None:
                strings(names, parameter=name, of="names")
        if redactor is not None:
            offers(redactor, "redact", "redact_text", parameter="redactor", kind="a SecretRedactor")
        try:
            super().__init__(
                fmt,
                datefmt,
                style,
                validate,
                prefix=prefix,
                rename_fields=_resolved_values(rename_fields),
                rename_fields_keep_missing=options.get("rename_fields_keep_missing", False),
                static_fields=_resolved_values(static_fields),
                reserved_attrs=reserved_attrs,
                timestamp=options.get("timestamp", False),
                defaults=_resolved_values(defaults),
                exc_info_as_array=options.get("exc_info_as_array", False),
                stack_info_as_array=options.get("stack_info_as_array", False),
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"fmt and style do not match: {error}", parameter="fmt") from None
        self._schema = schema_named(schema)
        self.json_default: Callable[[Any], Any] | None = options.get("json_default")
        self._environment = environment
        self._dumps = fast_encoder(encoder)
        self._max_bytes = max_record_bytes
        self._bounds = Bounds(min(LONGEST_TEXT, max_record_bytes // 4))
        self._redactor: Redactor = default_redactor() if redactor is None else redactor
        self._reader = RecordText(
            self._redactor, bounds=self._bounds, longest=self._bounds.characters, frames=_FRAMES
        )
        own = self._redactor if isinstance(self._redactor, SecretRedactor) else default_redactor()
        self._names = FieldNames(
            self._schema,
            rename=self.rename_fields,
            static=self.static_fields,
            hidden=STANDARD_NAMES | frozenset(reserved_attrs or ()),
            redactor=self._redactor,
            is_secret_key=own.is_secret_key,
        )
        self._shown = tuple(
            name for name in self._required_fields if name in STANDARD_NAMES and name != "message"
        )
        self._message_key = self._names.renamed(self._schema.message)
        self._theirs = (
            PythonJsonLoggerEncoder(self._redactor, options) if schema == PYTHON_JSON_LOGGER else None
        )
        self._get_ready()

    def _get_ready(self) -> None:
        """Hook that runs when all parameters are set."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON, without a newline. Never raises."""
        return self._safely(record)

    def _safely(self, record: logging.LogRecord) -> str:
        try:
            return self._carefully(record)
        except Exception as error:  # noqa: BLE001 - an error of a custom hook or redactor
            return self._last_resort(record, error)

    def _carefully(self, record: logging.LogRecord) -> str:
        message_dict: Fields = {}
        if is_a(record.msg, dict):
            message_dict.update(cast("Fields", record.msg))
            record.message = safe_text(message_dict.pop("message", "")) if self._theirs is None else ""
        else:
            record.message = self._reader.message(record)
        fields: Fields = {}
        if self._theirs is not None:
            record = self._prepared(record, message_dict)
        self.add_fields(fields, record, message_dict)
        fields = self.process_log_record(fields)
        return self.serialize_log_record(fields)

    def add_fields(self, log_data: Fields, record: logging.LogRecord, message_dict: Fields) -> None:
        """Fill ``log_data`` with the fields of the record; extension point for subclasses.

        Fields that a subclass adds are limited and redacted like all others.
        """
        if self._theirs is not None:
            super().add_fields(log_data, record, message_dict)
            return
        schema, names = self._schema, UniqueNames()
        log_data.update(self.defaults)
        log_data[self._names.renamed(schema.timestamp)] = self._careful_timestamp(record.created)
        log_data.update(self._head_fields(safe_text(record.levelname), safe_text(record.name)))
        log_data[self._message_key] = record.message
        log_data.update(self._exception_fields(record))
        log_data.update(self._shown_fields(record))
        context = record.__dict__.get(CONTEXT_ATTRIBUTE)
        for fields in (fields_var.get() if context is None else context, message_dict, record.__dict__):
            left = len(fields) - MOST_FIELDS
            for key, value in tuple(islice(fields.items(), MOST_FIELDS)):
                self._add(log_data, key, value, names)
            if left > 0:
                log_data[CUT] = f"{left} more"

    def _prepared(self, record: logging.LogRecord, message_dict: Fields) -> logging.LogRecord:
        """Prepare what the base class of python-json-logger expects before it collects the fields."""
        context = record.__dict__.get(CONTEXT_ATTRIBUTE)
        for name, value in (fields_var.get() if context is None else context).items():
            message_dict.setdefault(name, value)
        if self._environment is not None:
            message_dict.setdefault(self._schema.environment, self._environment)
        for name, text, as_array in (
            ("exc_info", self._exception_text(record), self.exc_info_as_array and bool(record.exc_info)),
            ("stack_info", self._reader.clean_text(record.stack_info or ""), self.stack_info_as_array),
        ):
            if text and not message_dict.get(name):
                message_dict[name] = lines_or_text(text, as_array=as_array)
        if "asctime" in self._required_fields:
            record.asctime = self.formatTime(record, self.datefmt)
        if len(record.__dict__) > MOST_FIELDS:
            message_dict[CUT] = f"{len(record.__dict__) - MOST_FIELDS} more"
            record = logging.makeLogRecord(dict(islice(record.__dict__.items(), MOST_FIELDS)))
        return record

    def _exception_text(self, record: logging.LogRecord) -> str:
        error = exception_of(record)
        if error is not None:
            return self._reader.of_one_record().clean_exception(error).text
        if record.exc_info and is_a(record.exc_info, tuple) and all(part is None for part in record.exc_info):
            return "NoneType: None"  # ``exc_info=True`` without an exception
        return self._reader.clean_text(record.exc_text or "")

    def _shown_fields(self, record: logging.LogRecord) -> Fields:
        """Return the standard attributes that ``fmt`` selects in addition to the canonical fields."""
        if "asctime" in self._shown:
            record.asctime = self.formatTime(record, self.datefmt)
        return {self._names.renamed(name): record.__dict__.get(name) for name in self._shown}

    def _add(self, log_data: Fields, key: object, value: object, names: UniqueNames) -> None:
        key = key if isinstance(key, str) else safe_text(key)
        name, secret = self._names[key]
        if not name:
            return
        if name in log_data and name not in self.defaults:
            # A context field repeated as an extra with the same value is redundant; a different value must not be
            # lost.
            if log_data[name] is value or same(log_data[name], value):
                return
            name = names.free(f"extra_{name}", log_data)
        log_data[name] = REDACTED if secret and reveals_secret(value, key) else value

    def _careful_timestamp(self, created: object) -> str:
        try:
            moment = datetime.fromtimestamp(float(created), UTC)  # type: ignore[arg-type]  # a record may contain anything
        except Exception:  # noqa: BLE001 - out of range or not a number: the current time is the best approximation
            moment = SYSTEM_CLOCK.now()
        return f"{moment:%Y-%m-%dT%H:%M:%S}{MILLISECONDS[moment.microsecond // 1000]}"

    def jsonify_log_record(self, log_data: Fields) -> str:
        """Return the fields as JSON text: limited, redacted, strict."""
        theirs = self._theirs
        encode = encode_plain if theirs is None else theirs.encode
        default = None if theirs is None else theirs.default
        clean = self._redactor.redact(to_plain(log_data, self._reader.loose, default=default))
        bounds = self._bounds
        while bounds.members > _FEWEST_MEMBERS:
            text = encode(to_plain(clean, bounds))
            # A character has at most four bytes, so usually the text need not be encoded to measure it.
            if len(text) * 4 <= self._max_bytes or len(text.encode()) <= self._max_bytes:
                return text
            bounds = bounds.tighter()
        # It does not fit otherwise: keep only the canonical fields.
        fields = cast("Fields", clean) if isinstance(clean, dict) else {}
        essential = {name: fields[name] for name in fields if name in self._names.reserved}
        return encode_plain(to_plain({**essential, CUT: "fields left out"}, Bounds(64, 16, 1)))

    def _last_resort(self, record: logging.LogRecord, error: Exception) -> str:
        fields = {
            self._schema.timestamp: self._careful_timestamp(getattr(record, "created", None)),
            self._schema.level: safe_text(record.levelname, limit=64),
            self._schema.logger: safe_text(record.name, limit=256),
            self._schema.message: f"a log record could not be formatted ({type(error).__name__})",
        }
        return self.prefix + encode_plain(fields)

    def _exception_fields(self, record: logging.LogRecord) -> Fields:
        """Return the exception and the stack of the record, redacted."""
        fields: Fields = {}
        error, reader = exception_of(record), self._reader.of_one_record()
        if error is not None:
            described = reader.clean_exception(error)
            fields = self._schema.exception_fields(described.structure, described.text)
        elif record.exc_text:
            fields = self._schema.exception_fields({}, reader.clean_text(record.exc_text))
        if record.stack_info:
            fields[self._schema.stack] = reader.clean_text(record.stack_info)
        return {self._names.renamed(name): value for name, value in fields.items() if value is not None}

    def _head_fields(self, level: str, logger: str) -> Fields:
        schema = self._schema
        fields: Fields = {
            self._names.renamed(schema.level): schema.level_text(level),
            self._names.renamed(schema.logger): logger,
        }
        if self._environment is not None:
            fields[self._names.renamed(schema.environment)] = self._environment
        return fields | {
            self._names.renamed(name): value
            for name, value in (*schema.constants.items(), *self.static_fields.items())
        }


def same(known: object, value: object) -> bool:
    """Whether two fields with the same name have the same value."""
    # Compare types first: True == 1, and comparing custom objects runs their code.
    return type(known) is type(value) and isinstance(value, (str, int)) and known == value


def _resolved_values(given: Mapping[str, Any] | None) -> dict[str, Any]:
    # By key: the dictionaries of ``dictConfig`` resolve ``ext://`` and ``cfg://`` only on item access.
    return {} if given is None else {key: given[key] for key in given}
