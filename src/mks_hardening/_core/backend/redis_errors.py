"""Map exceptions of Redis clients to a ``BackendUnavailableError.reason``.

Uses class names, so that redis-py, valkey and fakes are recognised without importing any of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from traceback import walk_tb
from types import MappingProxyType
from typing import Final

__all__ = [
    "detail_of",
    "is_cluster_wide",
    "is_handshake_timeout",
    "is_missing_script",
    "is_reset",
    "reason_of",
]

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

# Text of an ``ssl.SSLError``. redis-py keeps the text where it drops the exception (sentinels, clusters).
_TLS: Final = re.compile(r"\[SSL(?:: (?P<code>[A-Z0-9_]+))?\] (?P<said>[^(]*)")
# A connection that was closed, in the words of redis-py, which are all that is left of the errors of sentinels and
# nodes of a cluster: while it read (the first two), while it wrote (the others).
_CLOSED: Final = re.compile("reset by peer|closed by server|Connection lost|Broken pipe")
_MOST_CAUSES: Final = 5
_CONNECTING: Final = frozenset({"ConnectionError", "MasterNotFoundError", "RedisClusterException"})


def reason_of(error: BaseException) -> str | None:
    """Return the reason, or ``None`` if the exception comes neither from a Redis client nor from the network."""
    text = str(error)
    if "max number of clients" in text:
        return "clients"
    for prefix, reason in _BY_PREFIX:
        if text.startswith(prefix):
            return reason
    names = [kind.__name__ for kind in type(error).__mro__]
    if not _CONNECTING.isdisjoint(names) and (tls := _tls_reason(text)):
        return tls
    if " connecting to " in text and "TimeoutError" not in names:  # redis-py: no connection was established
        return "refused"
    for name in names:
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    return None


def detail_of(error: BaseException) -> str:
    """Return the reason of a TLS failure, for example about the certificate; empty for any other error."""
    found = _TLS.search(str(error))
    return found["said"].strip() if found and reason_of(error) in ("certificate", "tls") else ""


def is_reset(error: BaseException) -> bool:
    """Whether the connection was closed before a response, also by sentinels or cluster nodes."""
    return reason_of(error) == "reset" or (
        reason_of(error) == "refused" and _CLOSED.search(str(error)) is not None
    )


def is_handshake_timeout(error: BaseException) -> bool:
    """Whether a TLS handshake timed out, with a server or with every sentinel."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None:
            return False
        if "handshake operation timed out" in str(cause):  # wording of ``ssl``
            return True
        # asyncio connects and performs the handshake in one call, which the deadline cancels: this frame waits
        # for TLS.
        if any(
            frame.f_code.co_name == "_create_connection_transport"
            for frame, _ in walk_tb(cause.__traceback__)
        ):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def is_cluster_wide(error: BaseException) -> bool:
    """Whether the cluster as a whole is unavailable, rather than the addressed node or slot."""
    return reason_of(error) in ("refused", "certificate", "tls") and (
        str(error).startswith("CLUSTERDOWN")
        or any(kind.__name__ in ("RedisClusterException", "ClusterDownError") for kind in type(error).__mro__)
    )


def is_missing_script(error: BaseException) -> bool:
    """Whether the server does not know the script's hash (restart, failover, SCRIPT FLUSH)."""
    return type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")


def _tls_reason(text: str) -> str | None:
    """Return ``certificate`` if either side rejected the other's, ``tls`` for another handshake failure."""
    found = _TLS.search(text)
    if found is None:
        return None
    code = found["code"] or ""
    if "CERTIFICATE" in code or "UNKNOWN_CA" in code:
        return "certificate"
    # Once commands are sent, a broken record is a lost connection: the command may have been executed.
    return None if "while reading from" in text or "while writing to" in text else "tls"
