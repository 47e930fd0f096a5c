"""What a cache keeps of a value, what it tells about itself, and the checks all backends share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from random import random
from typing import Any, Final, NamedTuple

from mks_hardening._core.durations import seconds
from mks_hardening.exceptions import ConfigurationError

__all__ = ["CacheStats", "Entry", "Lease", "Terms", "check_key", "check_namespace", "check_tags", "jittered"]

_LONGEST_KEY: Final = 512
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TAG: Final = re.compile(r"\S{1,200}")


class CacheStats(NamedTuple):
    """Counts since the cache was made, in this process.

    Attributes:
        hits: values found.
        misses: values not found, damaged ones included.
        stale: values handed out past their time while a new one was computed.
        errors: operations the backend could not do.
        bypasses: calls that were not cached on purpose (condition, no cache, value too large).
    """

    hits: int = 0
    misses: int = 0
    stale: int = 0
    errors: int = 0
    bypasses: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of reads that found a value, 0 to 1."""
        reads = self.hits + self.stale + self.misses
        return (self.hits + self.stale) / reads if reads else 0.0


class Entry(NamedTuple):
    """A value with the times it holds for, on the wall clock, and the versions of its tags when it was made."""

    value: Any
    fresh_until: float
    expires_at: float
    tags: Mapping[str, str]


class Lease(NamedTuple):
    """Permission to store one computed value; void as soon as the key is written or invalidated."""

    token: Any
    tags: Mapping[str, str]


class Terms(NamedTuple):
    """How a computed value is to be kept: seconds fresh, further seconds stale, tags."""

    lifetime: float
    grace: float
    tags: tuple[str, ...]


def check_key(key: str) -> str:
    """The key, when it is one.

    Raises:
        ConfigurationError: not text of 1 to 512 characters.
    """
    if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY:
        raise ConfigurationError(f"key must be text of 1 to {_LONGEST_KEY} characters", parameter="key")
    return key


def check_namespace(namespace: str) -> str:
    """The namespace, when it is one.

    Raises:
        ConfigurationError: not 1 to 64 characters of ``A-Za-z0-9_.-``.
    """
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise ConfigurationError(
            "namespace must be 1 to 64 characters of A-Za-z0-9_.-", parameter="namespace"
        )
    return namespace


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags, each once.

    Raises:
        ConfigurationError: one string instead of several, or a tag that is empty, too long or holds a blank.
    """
    listed = (tags,) if isinstance(tags, str) else tuple(dict.fromkeys(tags))
    if isinstance(tags, str) or not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in listed):
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
