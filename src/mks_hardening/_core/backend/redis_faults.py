"""What an exception of a Redis client means, in the words of ``BackendUnavailableError.reason``.

Works on class names, so that redis-py, valkey and fakes are understood without importing any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["is_about_all", "is_missing_script", "reason_of"]

_BY_CLASS: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        "AuthenticationError": "auth",
        "AuthorizationError": "auth",
        "NoPermissionError": "denied",
        "AuthenticationWrongNumberOfArgsError": "auth",
        "BusyLoadingError": "loading",
        "ReadOnlyError": "readonly",
        "OutOfMemoryError": "oom",
        "MaxConnectionsError": "pool",
        "DataError": None,  # an argument that cannot be sent: a programming error
        "InvalidResponse": "protocol",
        "MasterNotFoundError": "refused",
        "SlaveNotFoundError": "refused",
        "ClusterDownError": "refused",
        "MasterDownError": "refused",
        "SlotNotCoveredError": "uncovered",
        "RedisClusterException": "refused",
        "MovedError": "moved",
        "TimeoutError": "timeout",
        "ConnectionRefusedError": "refused",
        "ConnectionError": "reset",
        "OSError": "refused",
        "RedisError": "error",
    }
)

_BY_PREFIX: Final = (
    ("NOAUTH", "auth"),
    ("WRONGPASS", "auth"),
    ("NOPERM", "denied"),
    ("LOADING", "loading"),
    ("READONLY", "readonly"),
    ("OOM", "oom"),
    ("BUSY ", "busy"),
    ("MISCONF", "readonly"),
    ("MASTERDOWN", "refused"),
    ("CLUSTERDOWN Hash slot not served", "uncovered"),
    ("Hash slot not served", "uncovered"),
    ("CLUSTERDOWN", "refused"),
)


def reason_of(error: BaseException) -> str | None:
    """The reason in one word, or ``None`` when the exception does not come from a Redis client or the network."""
    text = str(error)
    if "max number of clients" in text:
        return "clients"
    for prefix, reason in _BY_PREFIX:
        if text.startswith(prefix):
            return reason
    names = [kind.__name__ for kind in type(error).__mro__]
    if " connecting to " in text and "TimeoutError" not in names:  # redis-py: the connection never came about
        return "refused"
    for name in names:
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    return None


def is_about_all(error: BaseException) -> bool:
    """Whether a cluster as a whole is away, and not only the node or the slot that was asked for."""
    return reason_of(error) == "refused" and (
        str(error).startswith("CLUSTERDOWN")
        or any(kind.__name__ in ("RedisClusterException", "ClusterDownError") for kind in type(error).__mro__)
    )


def is_missing_script(error: BaseException) -> bool:
    """Whether the server does not know the script by its hash (restarted, failed over, SCRIPT FLUSH)."""
    return type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")
