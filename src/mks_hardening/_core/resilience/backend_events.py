"""Events that the shared core emits; public through ``mks_hardening.events``."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BackendFailed", "BreakerChanged"]


class BreakerChanged(NamedTuple):
    """A circuit breaker changed its state (``closed``, ``open``, ``half_open``).

    ``endpoint`` is the address of the server without credentials, or empty if the backend has none.
    """

    backend: str
    before: str
    after: str
    reason: str
    endpoint: str = ""


class BackendFailed(NamedTuple):
    """A call to a server outside the process failed; ``endpoint`` as in ``BreakerChanged``."""

    backend: str
    operation: str
    reason: str
    endpoint: str = ""
