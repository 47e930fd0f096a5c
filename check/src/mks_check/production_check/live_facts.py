"""What checks judge of a live site: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mks_check.production_check.http_response import HttpResponse
from mks_check.production_check.page_faults import PageFault

__all__ = ["LiveFacts", "TlsFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """The TLS handshakes with a site.

    Attributes:
        error: why the certificate was refused; empty if it was accepted.
        not_before: begin of the certificate's validity, as a Unix time; 0 if unknown.
        not_after: its end.
        old_versions: versions before TLS 1.2 that the server accepted.
    """

    error: str = ""
    not_before: float = 0
    not_after: float = 0
    old_versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFacts:
    """A site that runs.

    Attributes:
        url: its address.
        now: Unix time of the check.
        responses: responses by the name of the request.
        tls: the handshakes; ``None`` for ``http://``.
        marker: host name that was sent in spoofed header fields.
        body_limit: largest body that is promised, in bytes; ``None`` if nothing is promised.
        page_faults: what a browser would not show of the pages.
    """

    url: str
    now: float
    responses: Mapping[str, HttpResponse]
    tls: TlsFacts | None = None
    marker: str = "spoofed.example.net"
    body_limit: int | None = None
    page_faults: tuple[PageFault, ...] = ()
