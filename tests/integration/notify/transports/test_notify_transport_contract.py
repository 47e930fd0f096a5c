"""All transports keep the contract that third parties can run theirs through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mks_hardening._core.clock import SYSTEM_CLOCK
from mks_hardening._core.mail.smtp_session import SmtpSession
from mks_hardening.exceptions import DeliveryError
from mks_hardening.notify.transports._http_transport import HttpTransport
from mks_hardening.notify.transports._smtp_transport import SmtpTransport
from mks_hardening.protocols import Transport
from mks_hardening.testing import RecordingTransport, TransportContract
from testbed.certificates import Certificates
from testbed.http_sink import HttpSink
from testbed.smtp_server import SmtpServer


class TestRecording(TransportContract):
    def make_transport(self) -> Transport:
        self.transport = RecordingTransport()
        return self.transport

    def received(self) -> list[bytes]:
        return [message.body for message in self.transport.messages]

    def make_unreachable(self) -> None:
        self.transport.failures = [DeliveryError("refused", temporary=True)]

    def make_reachable(self) -> None:
        self.transport.failures = []


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
class TestHttp(TransportContract):
    @pytest.fixture(autouse=True)
    def serve(self, make_http_sink: Callable[..., HttpSink], certificates: Certificates, tls: bool) -> None:
        self.sink = make_http_sink(tls=tls)
        self.ca_file = str(certificates.ca_file) if tls else None

    def make_transport(self) -> Transport:
        return HttpTransport(
            self.sink.url,
            parameter="url",
            timeout=5,
            secret=None,
            ca_file=self.ca_file,
            ssl_context=None,
            allow_plaintext=False,
            clock=SYSTEM_CLOCK,
        )

    def received(self) -> list[bytes]:
        return [request.body for request in self.sink.requests]

    def make_unreachable(self) -> None:
        self.sink.stop()

    def make_reachable(self) -> None:
        self.sink.start()


@pytest.mark.parametrize("security", ["plain", "starttls", "tls"])
class TestSmtp(TransportContract):
    @pytest.fixture(autouse=True)
    def serve(self, make_smtp: Callable[..., SmtpServer], certificates: Certificates, security: Any) -> None:
        self.server = make_smtp(security=security)
        self.security = security
        self.context = certificates.client_context

    def make_transport(self) -> Transport:
        session = SmtpSession(
            "localhost",
            self.server.port,
            security=self.security,
            loopback_only=True,
            context=self.context,
            username=None,
            password=None,
            timeout=5,
        )
        return SmtpTransport(session, sender="mks@example.com", recipients=["ops@example.com"])

    def received(self) -> list[bytes]:
        return [mail.content for mail in self.server.received]

    def make_unreachable(self) -> None:
        self.server.stop()

    def make_reachable(self) -> None:
        self.server.start()
