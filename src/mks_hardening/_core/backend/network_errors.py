"""What broke between us and a server, in one word, whatever library wrapped it.

requests, urllib3 (1.26 and 2) and smtplib each dress up the same few faults of the network. Classes are recognised
by name where importing them would load TLS or a third-party package.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

__all__ = ["LASTING", "NOT_SENT", "network_fault"]

LASTING: Final = frozenset({"certificate", "unknown-host"})
"""Faults that trying again does not mend: somebody must change a certificate, a name or a setting."""

NOT_SENT: Final = frozenset({"certificate", "dns", "refused", "unknown-host", "unreachable"})
"""Faults before anything was sent."""

# The first row that names a class among the causes decides.
_BY_CLASS: Final = (
    ("certificate", {"SSLCertVerificationError", "CertificateError"}),
    ("timeout", {"TimeoutError", "Timeout", "ReadTimeoutError", "ConnectTimeoutError"}),
    ("tls", {"SSLError"}),
    ("refused", {"ConnectionRefusedError"}),
    ("reset", {"ConnectionError", "IncompleteRead", "SMTPServerDisconnected"}),
)
# What requests and urllib3 say of a name that no host can have.
_IMPOSSIBLE_NAME: Final = {"InvalidURL", "LocationParseError"}
_NO_SUCH_NAME: Final = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_MOST_CAUSES: Final = 20


def network_fault(error: BaseException) -> str:
    """The fault behind an error of an HTTP or SMTP client.

    Returns:
        ``unknown-host``, ``dns`` (no answer to the question for now), ``certificate``, ``tls``, ``timeout``,
        ``refused``, ``unreachable``, ``reset``, or ``protocol`` for anything else.
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
    """The error and what it was made from: causes, contexts, ``reason`` of urllib3, errors among the arguments."""
    found: dict[int, BaseException] = {}
    waiting: list[object] = [error]
    while waiting and len(found) < _MOST_CAUSES:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in found:
            found[id(one)] = one
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return iter(found.values())


def _misleads(error: BaseException) -> bool:
    """Requests says ConnectionError whatever happened; a NewConnectionError of urllib3 is a kind of time-out."""
    kind = type(error)
    return kind.__module__.startswith("requests.") or kind.__name__ == "NewConnectionError"


def _is_plain_os_error(error: BaseException) -> bool:
    return type(error) is OSError and error.errno is not None
