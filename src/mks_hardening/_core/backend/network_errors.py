"""Map network errors to one reason, whatever library wrapped them.

requests, urllib3 (1.26 and 2) and smtplib each wrap the same few network errors. Classes are recognised by name
where importing them would load TLS or a third-party package.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

__all__ = ["PERMANENT_REASONS", "UNSENT_REASONS", "network_error_reason"]

PERMANENT_REASONS: Final = frozenset({"certificate", "unknown-host"})
"""Reasons that a retry does not fix: a certificate, a name or a setting must be changed."""

UNSENT_REASONS: Final = frozenset({"certificate", "dns", "refused", "unknown-host", "unreachable"})
"""Reasons that occur before anything is sent."""

# The first row that names a class among the causes decides.
_BY_CLASS: Final = (
    ("certificate", {"SSLCertVerificationError", "CertificateError"}),
    ("timeout", {"TimeoutError", "Timeout", "ReadTimeoutError", "ConnectTimeoutError"}),
    ("tls", {"SSLError"}),
    ("refused", {"ConnectionRefusedError"}),
    ("reset", {"ConnectionError", "IncompleteRead", "SMTPServerDisconnected"}),
)
# Raised by requests and urllib3 for a syntactically impossible host name.
_IMPOSSIBLE_NAME: Final = {"InvalidURL", "LocationParseError"}
_NO_SUCH_NAME: Final = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_MOST_CAUSES: Final = 20


def network_error_reason(error: BaseException) -> str:
    """Return the reason for an error of an HTTP or SMTP client.

    Returns:
        ``unknown-host``, ``dns`` (temporary resolver failure), ``certificate``, ``tls``, ``timeout``, ``refused``,
        ``unreachable``, ``reset``, or ``protocol`` for anything else.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return "unknown-host" if cause.errno in _NO_SUCH_NAME else "dns"
        if type(cause).__name__ in _IMPOSSIBLE_NAME:
            return "unknown-host"
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__ if not _misleads(cause)}
    for reason, known in _BY_CLASS:
        if names & known:
            return reason
    return "unreachable" if any(_is_plain_os_error(cause) for cause in causes) else "protocol"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its origins: causes, contexts, ``reason`` of urllib3, and exceptions in its arguments."""
    found: dict[int, BaseException] = {}
    waiting: list[object] = [error]
    while waiting and len(found) < _MOST_CAUSES:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in found:
            found[id(one)] = one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return iter(found.values())


def _misleads(error: BaseException) -> bool:
    """Whether the class says nothing about the cause."""
    # requests raises ConnectionError for everything; NewConnectionError of urllib3 is a subclass of a timeout.
    kind = type(error)
    return kind.__module__.startswith("requests.") or kind.__name__ == "NewConnectionError"


def _is_plain_os_error(error: BaseException) -> bool:
    return type(error) is OSError and error.errno is not None
