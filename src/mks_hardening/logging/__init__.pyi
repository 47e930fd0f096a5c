# What type checkers see of this facade; made by `make facades` from _HOME in __init__.py.

from mks_hardening._core.process.context import bind as bind
from mks_hardening._core.process.context import bound as bound
from mks_hardening._core.process.context import clear as clear
from mks_hardening._core.process.context import current as current
from mks_hardening._core.redaction.redactor import REDACTED as REDACTED
from mks_hardening._core.redaction.redactor import SecretRedactor as SecretRedactor
from mks_hardening.logging.filters.below_level_filter import BelowLevelFilter as BelowLevelFilter
from mks_hardening.logging.filters.context_filter import ContextFilter as ContextFilter
from mks_hardening.logging.filters.redaction_filter import RedactionFilter as RedactionFilter
from mks_hardening.logging.formatting.json_formatter import JsonFormatter as JsonFormatter
from mks_hardening.logging.handlers.bounded_queue_handler import BoundedQueueHandler as BoundedQueueHandler
from mks_hardening.logging.handlers.reopening_file_handler import ReopeningFileHandler as ReopeningFileHandler
from mks_hardening.logging.handlers.rotating_file_handler import (
    ProcessSafeRotatingFileHandler as ProcessSafeRotatingFileHandler,
)
from mks_hardening.logging.handlers.rotating_file_handler import Rotation as Rotation
from mks_hardening.logging.handlers.standard_stream_handler import (
    StandardStreamHandler as StandardStreamHandler,
)
from mks_hardening.logging.setup.dictionary_setup import dict_config as dict_config
from mks_hardening.logging.setup.process_setup import remove_logging as remove_logging
from mks_hardening.logging.setup.process_setup import setup_logging as setup_logging
from mks_hardening.logging.setup.uncaught_exceptions import UncaughtExceptions as UncaughtExceptions
