"""JSON payloads of task rows: they round-trip unchanged and are limited to 64 kB."""

from __future__ import annotations

import json
from typing import Final

from mks_hardening.exceptions import TaskRefusedError

__all__ = ["LONGEST", "dump", "load", "storable"]

LONGEST: Final = 65_536


def dump(value: object, *, what: str) -> str:
    """Serialize a value to JSON.

    Raises:
        TaskRefusedError: it is not JSON, would not round-trip unchanged (a tuple, a key that is not text, NaN), or
            is longer than 64 kB.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # json.dumps accepts a lone surrogate, but the driver fails on it in the middle of the caller's transaction.
        text.encode()
        # json silently turns tuples into lists and numeric keys into text; the task would receive something else
        # than the caller passed.
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
    """Return text that any database can store: no NUL, no lone surrogates, at most ``most`` characters."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()[:most]


def load(text: str) -> object:
    """Deserialize text written by ``dump``."""
    value: object = json.loads(text)
    return value
