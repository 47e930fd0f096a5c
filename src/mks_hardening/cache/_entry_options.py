"""What callers say of a value to be kept: key, tags, time to live."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from random import random
from typing import Final

from mks_hardening._core.checks import texts
from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

__all__ = ["check_key", "check_tags", "check_ttl", "jittered"]

# Redis takes far longer ones, but each stands in memory twice and in every command.
_LONGEST_KEY: Final = 512
_TAG: Final = re.compile(r"\S{1,200}")


def check_key(key: str) -> str:
    """The key, when it is one.

    Raises:
        ConfigurationError: not text of 1 to 512 characters.
    """
    if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY:
        raise ConfigurationError(f"key must be text of 1 to {_LONGEST_KEY} characters", parameter="key")
    return key


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags, each once.

    Raises:
        ConfigurationError: one string instead of several, or a tag that is empty, too long or holds a blank.
    """
    listed = tuple(dict.fromkeys(texts(tags, parameter="tags", of="tags")))
    if not all(_TAG.fullmatch(tag) for tag in listed):
        raise ConfigurationError(
            "tags must be several texts of 1 to 200 characters without blanks", parameter="tags"
        )
    return listed


def check_ttl(ttl: float | timedelta | None, default: float) -> float:
    """The time to live in seconds; zero means that the value is not kept.

    Raises:
        ConfigurationError: negative or not a duration.
    """
    return default if ttl is None else seconds(ttl, parameter="ttl")


def jittered(ttl: float, share: float) -> float:
    """A ttl up to ``share`` shorter, never longer, so that values made together do not end together."""
    return ttl * (1.0 - share * random()) if share else ttl  # noqa: S311 - spreads load, protects nothing
