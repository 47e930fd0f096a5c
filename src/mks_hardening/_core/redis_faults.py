"""What an exception of a Redis client means, in the words of ``BackendUnavailableError.reason``.

Works on class names, so that redis-py, valkey and fakes are understood without importing any of them.
"""

from __future__ import annotations

from typing import Final

__all__ = ["is_missing_script", "reason_of"]

_BY_CLASS: Final = {
    "AuthenticationError": "auth",
    "AuthorizationError": "auth",
    "NoPermissionError": "auth",
    "AuthenticationWrongNumberOfArgsError": "auth",
    "BusyLoadingError": "loading",
    "ReadOnlyError": "readonly",
    "OutOfMemoryError": "oom",
    "MaxConnectionsError": "clients",
    "InvalidResponse": "protocol",
    "MasterNotFoundError": "refused",
    "SlaveNotFoundError": "refused",
    "ClusterDownError": "refused",
    "MasterDownError": "refused",
    "RedisClusterException": "refused",
    "TimeoutError": "timeout",
    "ConnectionRefusedError": "refused",
    "ConnectionError": "reset",
    "OSError": "refused",
    "RedisError": "error",
}

_BY_PREFIX: Final = (
    ("NOAUTH", "auth"),
    ("WRONGPASS", "auth"),
    ("NOPERM", "auth"),
    ("LOADING", "loading"),
    ("READONLY", "readonly"),
    ("OOM", "oom"),
    ("BUSY ", "busy"),
    ("MISCONF", "readonly"),
    ("MASTERDOWN", "refused"),
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
    if " connecting to " in text:  # redis-py's words for a connection that never came about
        return "refused"
    for kind in type(error).__mro__:
        reason_by_class = _BY_CLASS.get(kind.__name__)
        if reason_by_class is not None:
            return reason_by_class
    return None


def is_missing_script(error: BaseException) -> bool:
    """Whether the server does not know the script by its hash (restarted, failed over, SCRIPT FLUSH)."""
    return type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")
