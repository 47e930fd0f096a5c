"""Structured logs that never leak or break: formatter, set-up, context, handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mks_hardening._core.facade import facade

if TYPE_CHECKING:
    from mks_hardening._core.context import bind, bound, clear, current
    from mks_hardening._core.redact import REDACTED, SecretRedactor
    from mks_hardening.logging.config import dict_config, remove_logging, setup_logging
    from mks_hardening.logging.filters import BelowLevelFilter, ContextFilter, RedactionFilter
    from mks_hardening.logging.formatter import JsonFormatter
    from mks_hardening.logging.handlers import ReopeningFileHandler, StandardStreamHandler
    from mks_hardening.logging.queue_handler import BoundedQueueHandler
    from mks_hardening.logging.rotating import ProcessSafeRotatingFileHandler, Rotation
    from mks_hardening.logging.uncaught import UncaughtExceptions

__all__ = [
    "REDACTED",
    "BelowLevelFilter",
    "BoundedQueueHandler",
    "ContextFilter",
    "JsonFormatter",
    "ProcessSafeRotatingFileHandler",
    "RedactionFilter",
    "ReopeningFileHandler",
    "Rotation",
    "SecretRedactor",
    "StandardStreamHandler",
    "UncaughtExceptions",
    "bind",
    "bound",
    "clear",
    "current",
    "dict_config",
    "remove_logging",
    "setup_logging",
]

_HOME = {
    "REDACTED": "mks_hardening._core.redact",
    "BelowLevelFilter": "mks_hardening.logging.filters",
    "BoundedQueueHandler": "mks_hardening.logging.queue_handler",
    "ContextFilter": "mks_hardening.logging.filters",
    "JsonFormatter": "mks_hardening.logging.formatter",
    "ProcessSafeRotatingFileHandler": "mks_hardening.logging.rotating",
    "RedactionFilter": "mks_hardening.logging.filters",
    "ReopeningFileHandler": "mks_hardening.logging.handlers",
    "Rotation": "mks_hardening.logging.rotating",
    "SecretRedactor": "mks_hardening._core.redact",
    "StandardStreamHandler": "mks_hardening.logging.handlers",
    "UncaughtExceptions": "mks_hardening.logging.uncaught",
    "bind": "mks_hardening._core.context",
    "bound": "mks_hardening._core.context",
    "clear": "mks_hardening._core.context",
    "current": "mks_hardening._core.context",
    "dict_config": "mks_hardening.logging.config",
    "remove_logging": "mks_hardening.logging.config",
    "setup_logging": "mks_hardening.logging.config",
}

if not TYPE_CHECKING:  # so that a misspelt name is an error to type checkers
    __getattr__, __dir__ = facade(__name__, _HOME)
