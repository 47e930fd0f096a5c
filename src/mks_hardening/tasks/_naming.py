"""Validation of the names of tasks and queues, and of keys and ids."""

from __future__ import annotations

import re
from typing import Final

from mks_hardening._core.checks import text_of
from mks_hardening.exceptions import ConfigurationError, TaskRefusedError
from mks_hardening.tasks._payload import storable

__all__ = ["SLOT", "check_key", "check_name", "check_queue", "check_user_id", "id_text"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,199}", re.ASCII)
# Queue names are used in brokers, metrics and command lines, all of which accept these characters unescaped.
_QUEUE: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
SLOT: Final = "slot:"
"""Prefix of the keys of scheduled runs."""
_LONGEST_KEY: Final = 200
_LONGEST_USER_ID: Final = 255


def check_name(name: object) -> str:
    """Validate the name of a task; it is stored in rows and must not change while tasks are waiting.

    Raises:
        ConfigurationError: it is not 1 to 200 letters, digits, underscores and dots, or it starts with a digit or
            dot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            "name must be 1 to 200 letters, digits, underscores and dots", parameter="name"
        )
    return name


def check_queue(queue: object) -> str:
    """Validate the name of a queue.

    Raises:
        ConfigurationError: it is not 1 to 40 lower-case letters, digits, underscores and hyphens, starting with a
            letter.
    """
    if not isinstance(queue, str) or not _QUEUE.fullmatch(queue):
        raise ConfigurationError(
            "queue must be 1 to 40 of a-z, 0-9, _ and -, beginning with a letter", parameter="queue"
        )
    return queue


def check_key(key: str | None) -> str | None:
    """Validate an idempotency key.

    Raises:
        TaskRefusedError: it is not text of 1 to 200 characters that a database can store.
    """
    if key is not None and (
        not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY or not _is_storable(key)
    ):
        raise TaskRefusedError(f"key must be text of 1 to {_LONGEST_KEY} characters, without NUL")
    return key


def check_user_id(user_id: object) -> str:
    """Validate the id of the user who owns a task.

    Raises:
        ConfigurationError: it is not text of at most 255 characters that a database can store.
    """
    if not isinstance(user_id, str) or len(user_id) > _LONGEST_USER_ID or not _is_storable(user_id):
        raise ConfigurationError(
            f"user_id must be text of at most {_LONGEST_USER_ID} characters, without NUL", parameter="user_id"
        )
    return user_id


def id_text(task_id: object) -> str:
    """Return a task id that is safe to query; empty for text that cannot be an id, which is common in URLs.

    Raises:
        ConfigurationError: it is not a string.
    """
    text = text_of(task_id, parameter="task_id")
    # Empty text matches no row. A NUL or a lone surrogate from a URL would make the driver raise instead.
    return text if text.isascii() and text.isalnum() else ""


def _is_storable(text: str) -> bool:
    return storable(text, most=len(text)) == text
