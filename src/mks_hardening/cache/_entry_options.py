"""Validate the options of a cache entry: key and time to live."""

from __future__ import annotations

from datetime import timedelta
from random import random
from typing import Final

from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

__all__ = ["check_key", "check_ttl", "jittered"]

# Redis accepts far longer keys, but each key takes memory twice and is part of every command.
_LONGEST_KEY: Final = 512


def check_key(key: str) -> str:
    """Return the key if it is valid.

    Raises:
        ConfigurationError: not a string of 1 to 512 characters.
    """
    if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY:
        raise ConfigurationError(f"key must be text of 1 to {_LONGEST_KEY} characters", parameter="key")
    return key


def check_ttl(ttl: float | timedelta | None, default: float) -> float:
    """Return the time to live in seconds; zero means that the value is not stored.

    Raises:
        ConfigurationError: negative or not a duration.
    """
    return default if ttl is None else seconds(ttl, parameter="ttl")


def jittered(ttl: float, share: float) -> float:
    """Return a ttl shortened by up to ``share`` of it, so that values made together do not expire together."""
    return ttl * (1.0 - share * random()) if share else ttl  # noqa: S311 - spreads load, protects nothing
