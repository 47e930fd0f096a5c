"""Validate the tags of cache entries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mks_hardening._core.checks import strings
from mks_hardening.exceptions import ConfigurationError

__all__ = ["check_tags"]

_TAG: Final = re.compile(r"\S{1,200}")


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags without duplicates.

    Raises:
        ConfigurationError: a single string, or a tag that is empty, too long or contains whitespace.
    """
    listed = tuple(dict.fromkeys(strings(tags, parameter="tags", of="tags")))
    if not all(_TAG.fullmatch(tag) for tag in listed):
        raise ConfigurationError(
            "tags must be a list of strings of 1 to 200 characters without whitespace", parameter="tags"
        )
    return listed
