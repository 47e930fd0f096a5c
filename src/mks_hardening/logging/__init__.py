"""Structured logging: JSON formatter, setup, context fields, filters and handlers, without leaking secrets."""

from __future__ import annotations

from mks_hardening._core.lazy_exports import facade

_HOME = {
    "mks_hardening._core.process.context": ["bind", "bound", "clear", "current"],
    "mks_hardening._core.redaction.redactor": ["REDACTED", "SecretRedactor"],
    "mks_hardening.logging.filters.below_level_filter": ["BelowLevelFilter"],
    "mks_hardening.logging.filters.context_filter": ["ContextFilter"],
    "mks_hardening.logging.filters.redaction_filter": ["RedactionFilter"],
    "mks_hardening.logging.formatting.json_formatter": ["JsonFormatter"],
    "mks_hardening.logging.handlers.bounded_queue_handler": ["BoundedQueueHandler"],
    "mks_hardening.logging.handlers.reopening_file_handler": ["ReopeningFileHandler"],
    "mks_hardening.logging.handlers.rotating_file_handler": ["ProcessSafeRotatingFileHandler", "Rotation"],
    "mks_hardening.logging.handlers.standard_stream_handler": ["StandardStreamHandler"],
    "mks_hardening.logging.setup.dictionary_setup": ["dict_config"],
    "mks_hardening.logging.setup.process_setup": ["remove_logging", "setup_logging"],
    "mks_hardening.logging.setup.uncaught_exceptions": ["UncaughtExceptions"],
}

__getattr__, __dir__, __all__ = facade(__name__, _HOME)
