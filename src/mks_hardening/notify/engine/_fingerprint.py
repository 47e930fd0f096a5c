"""Fingerprint of records about the same problem: logger, error class, location, and words without numbers."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from logging import LogRecord
    from types import TracebackType

__all__ = ["Fingerprint", "fingerprint_of", "message_without_numbers"]

# Long enough to distinguish messages, short enough to be cheap on the caller's thread.
_MAX_WORDS: Final = 300
_MAX_FRAMES: Final = 200
# UUIDs, memory addresses, other long hexadecimal ids, and decimal digits of any script.
_HEX: Final = "[0-9a-fA-F]"
_NUMBERS: Final = re.compile(
    rf"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}|0x{_HEX}+|(?=[a-fA-F]*[0-9]){_HEX}{{8,}}|\d+"
)
# Without a match of this and without "0x", only digits need replacing, in half the time while the caller waits.
_LONG_HEX: Final = re.compile(rf"{_HEX}{{8}}")
_DIGITS: Final = re.compile(r"\d+")


class Fingerprint(NamedTuple):
    """Equal for records that are repetitions of each other."""

    logger: str
    error: str
    place: str
    line: int
    words: str

    def digest(self) -> str:
        """Return 32 hexadecimal digits, the same in every process."""
        text = "\0".join(map(str, self))
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def fingerprint_of(record: LogRecord, message: str) -> Fingerprint:
    """Return the fingerprint of a record whose arguments are already part of ``message``.

    The place is where the exception was raised, otherwise where the record was logged.
    """
    exc_info = record.exc_info
    if exc_info is None or exc_info[0] is None:
        return Fingerprint(record.name, "", record.pathname, record.lineno, message_without_numbers(message))
    # The raising code: a single `logger.exception` in a middleware may report every error of an application.
    place, line = _raised_at(exc_info[2]) or (record.pathname, record.lineno)
    return Fingerprint(record.name, exc_info[0].__qualname__, place, line, message_without_numbers(message))


def message_without_numbers(message: str) -> str:
    """Return the beginning of a message with its numbers replaced."""
    start = message[:_MAX_WORDS]
    pattern = _NUMBERS if "0x" in start or _LONG_HEX.search(start) else _DIGITS
    return pattern.sub("#", start)


def _raised_at(trace: TracebackType | None) -> tuple[str, int] | None:
    if trace is None:
        return None
    # A RecursionError has a thousand frames, and this runs on the logging thread.
    for _ in range(_MAX_FRAMES):
        if trace.tb_next is None:
            break
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
