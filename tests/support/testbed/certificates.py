"""A temporary certificate authority, created once per test run."""

from __future__ import annotations

import datetime as dt
import ssl
from functools import cached_property
from pathlib import Path

import trustme


class Certificates:
    """A local authority and one certificate for ``localhost`` and 127.0.0.1, as files and as contexts.

    Args:
        directory: where the PEM files go.
    """

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        issued = self._authority.issue_cert("localhost", "127.0.0.1", "::1")
        self.ca_file = directory / "ca.pem"
        self.cert_file = directory / "server.pem"
        self.key_file = directory / "server.key"
        self._authority.cert_pem.write_to_path(self.ca_file)
        issued.cert_chain_pems[0].write_to_path(self.cert_file)
        issued.private_key_pem.write_to_path(self.key_file)
        for file in (self.ca_file, self.cert_file, self.key_file):
            file.chmod(0o644)  # servers read them under another account

    @cached_property
    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server on loopback."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context

    @cached_property
    def client_context(self) -> ssl.SSLContext:
        """Return the context of a client that trusts only this authority."""
        return ssl.create_default_context(cafile=self.ca_file)

    def spoilt_context(self, kind: str) -> ssl.SSLContext:
        """Return the context of a server whose certificate is ``expired``, ``unknown`` or of an ``other-host``."""
        now = dt.datetime.now(dt.UTC)
        issuer = trustme.CA() if kind == "unknown" else self._authority
        issued = issuer.issue_cert(
            "other.example" if kind == "other-host" else "localhost",
            not_before=now - dt.timedelta(days=9),
            not_after=now + dt.timedelta(days=-2 if kind == "expired" else 9),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        return context
