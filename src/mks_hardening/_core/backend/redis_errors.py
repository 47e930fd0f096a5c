"""What an exception of a Redis client means, in the words of ``BackendUnavailableError.reason``.

Works on class names, so that redis-py, valkey and fakes are understood without importing any of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from traceback import walk_tb
from types import MappingProxyType
from typing import Final

__all__ = ["detail_of", "is_about_all", "is_handshake_timeout", "is_missing_script", "is_reset", "reason_of"]

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

# How ``ssl.SSLError`` writes itself. redis-py keeps the text where it drops the exception (sentinels, clusters).
_TLS: Final = re.compile(r"\[SSL(?:: (?P<code>[A-Z0-9_]+))?\] (?P<said>[^(]*)")
_MOST_CAUSES: Final = 5
_CONNECTING: Final = frozenset({"ConnectionError", "MasterNotFoundError", "RedisClusterException"})


def reason_of(error: BaseException) -> str | None:
    """The reason in one word, or ``None`` when the exception does not come from a Redis client or the network."""
    text = str(error)
    if "max number of clients" in text:
        return "clients"
    for prefix, reason in _BY_PREFIX:
        if text.startswith(prefix):
            return reason
    names = [kind.__name__ for kind in type(error).__mro__]
    if not _CONNECTING.isdisjoint(names) and (tls := _tls_reason(text)):
        return tls
    if " connecting to " in text and "TimeoutError" not in names:  # redis-py: the connection never came about
        return "refused"
    for name in names:
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    return None


def detail_of(error: BaseException) -> str:
    """What TLS found wrong, for example with the certificate; empty for any other error."""
    found = _TLS.search(str(error))
    return found["said"].strip() if found and reason_of(error) in ("certificate", "tls") else ""


def is_reset(error: BaseException) -> bool:
    """Whether a connection was closed before an answer, also where sentinels or nodes of a cluster did so."""
    return reason_of(error) == "reset" or (
        reason_of(error) == "refused" and re.search("reset by peer|closed by server", str(error)) is not None
    )


def is_handshake_timeout(error: BaseException) -> bool:
    """Whether a TLS handshake was not answered in time, by a server or by every sentinel."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None:
            return False
        if "handshake operation timed out" in str(cause):  # how ``ssl`` says it
            return True
        # asyncio connects and shakes hands in one call, which the deadline cancels: this part of it waits for TLS.
        if any(
            frame.f_code.co_name == "_create_connection_transport"
            for frame, _ in walk_tb(cause.__traceback__)
        ):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def is_about_all(error: BaseException) -> bool:
    """Whether a cluster as a whole is unavailable, and not only the node or the slot that was addressed."""
    return reason_of(error) in ("refused", "certificate", "tls") and (
        str(error).startswith("CLUSTERDOWN")
        or any(kind.__name__ in ("RedisClusterException", "ClusterDownError") for kind in type(error).__mro__)
    )


def is_missing_script(error: BaseException) -> bool:
    """Whether the server does not know the script by its hash (restarted, failed over, SCRIPT FLUSH)."""
    return type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")


def _tls_reason(text: str) -> str | None:
    """``certificate`` where either side refused the other's, ``tls`` for another failure of the handshake."""
    found = _TLS.search(text)
    if found is None:
        return None
    code = found["code"] or ""
    if "CERTIFICATE" in code or "UNKNOWN_CA" in code:
        return "certificate"
    # Once commands flow, a broken record is a lost connection: the command may have been carried out.
    return None if "while reading from" in text or "while writing to" in text else "tls"
