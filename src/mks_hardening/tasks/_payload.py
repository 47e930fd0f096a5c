"""What may be kept in a row: JSON that comes back as it was, within 64 kB."""

from __future__ import annotations

import json
from typing import Final

from mks_hardening.exceptions import TaskRefusedError

__all__ = ["LONGEST", "dump", "load", "storable"]

LONGEST: Final = 65_536


def dump(value: object, *, what: str) -> str:
    """The JSON text of a value.

    Raises:
        TaskRefusedError: it is not JSON, would come back as something else (a tuple, a key that is not text,
            NaN), or is longer than 64 kB.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # A lone surrogate passes json.dumps and fails in the driver, when the caller's transaction is half
        # written.
        text.encode()
        # json turns tuples into lists and numbers as keys into text without a word; the task would get something
        # else than the caller gave.
        same = json.loads(text) == value
    except Exception as error:  # noqa: BLE001 - the value's own code runs here (items, ==), and may raise anything
        raise TaskRefusedError(f"{what} must be JSON ({type(error).__name__})") from None
    if not same:
        raise TaskRefusedError(
            f"{what} must be JSON that comes back as it was: lists for tuples, text for keys, no NaN"
        )
    if len(text.encode()) > LONGEST:
        raise TaskRefusedError(f"{what} must be at most {LONGEST} bytes of JSON; keep the data elsewhere")
    return text


def storable(text: str, *, most: int) -> str:
    """A text that any database takes: no NUL, no lone surrogate, and not too long."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:most]


def load(text: str) -> object:
    """The value of a text that ``dump`` made."""
    value: object = json.loads(text)
    return value
