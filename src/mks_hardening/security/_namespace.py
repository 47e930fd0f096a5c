"""Prefixes of our keys in Redis."""

from __future__ import annotations

from mks_hardening.exceptions import ConfigurationError

__all__ = ["check_namespace"]


def check_namespace(namespace: str) -> None:
    """Refuse what would break the hash tags by which keys share a cluster slot.

    Raises:
        ConfigurationError: empty, or with braces or blanks.
    """
    if not namespace or set(namespace) & set("{} \r\n"):
        raise ConfigurationError("namespace must be a text without braces and blanks", parameter="namespace")
