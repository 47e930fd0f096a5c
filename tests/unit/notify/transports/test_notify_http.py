"""HTTP destinations: how the client is set up, what it sends, and what each response means for the alert."""

from __future__ import annotations

import hashlib
import hmac
import logging
import ssl
from collections.abc import Callable
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest

from mks_hardening.exceptions import BackendUnavailableError, DeliveryError
from mks_hardening.notify import SlackNotificationHandler, WebhookNotificationHandler
from mks_hardening.notify.engine._alert import AlertMessage
from mks_hardening.notify.transports import _http_transport
from mks_hardening.notify.transports._http_transport import HttpTransport
from mks_hardening.testing import FrozenClock

URL = "https://hooks.example.com/services/x"
NOW = 1_700_000_000.75
SECRET = "0123456789abcdef"


class Service:
    """Stands in for the HTTP client: records how it was set up and what it sent, and responds as told."""

    def __init__(self, *responses: Any) -> None:
        self.responses = list(responses)
        self.set_up: tuple[str, dict[str, Any]] | None = None
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    def __call__(self, backend: str, **options: Any) -> Service:
        self.set_up = (backend, options)
        return self

    def post(self, url: str, **options: Any) -> Any:
        self.sent.append({"url": url, **options})
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    def close(self) -> None:
        self.closed = True


def responds(status: int, body: bytes = b"", **headers: str) -> Any:
    return SimpleNamespace(
        status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Service]:
    def make(*responses: Any) -> Service:
        service = Service(*responses)
        monkeypatch.setattr(_http_transport, "HttpSession", service)
        return service

    return make


def delivered(service: Service, kind: Any = WebhookNotificationHandler, **options: Any) -> dict[str, Any]:
    """Send one alert through a handler; its counts."""
    log = logging.Logger("app")  # noqa: LOG001 - not in the registry, so nothing is left behind
    with kind(URL, clock=FrozenClock(NOW), environment="test", **options) as handler:
        log.addHandler(handler)
        log.error("order failed")
        handler.flush(5)
        stats = handler.stats()
    assert service.closed
    return {"delivered": stats.delivered, "dropped": stats.dropped}


def unavailable(reason: str, retry_after: float | None = None) -> BackendUnavailableError:
    return BackendUnavailableError("webhook", reason, retry_after=retry_after)


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (responds(199), ("http-199", False, None)),
        (responds(200), None),
        (responds(202, b"accepted"), None),
        (responds(299), None),
        (responds(300), ("http-300", False, None)),
        (responds(302), ("http-302", False, None)),
        (responds(400), ("http-400", False, None)),
        (responds(404, Retry_After="9"), ("http-404", False, 9.0)),
        (responds(408), ("http-408", True, None)),
        (responds(425), ("http-425", True, None)),
        (responds(429, Retry_After="7"), ("http-429", True, 7.0)),
        (responds(499), ("http-499", False, None)),
        (responds(500), ("http-500", True, None)),
        (responds(503, Retry_After=formatdate(int(NOW) + 31, usegmt=True)), ("http-503", True, 30.25)),
        (unavailable("timeout"), ("timeout", True, None)),
        (unavailable("open", 4.0), ("open", True, 4.0)),
        (unavailable("certificate"), ("certificate", False, None)),
    ],
)
def test_what_a_response_means(
    serve: Callable[..., Service], response: Any, outcome: tuple[str, bool, float | None] | None
) -> None:
    serve(response)
    transport = HttpTransport(
        URL,
        parameter="url",
        timeout=10,
        ca_file=None,
        ssl_context=None,
        allow_plaintext=False,
        clock=FrozenClock(NOW),
    )
    try:
        transport.send(AlertMessage("one", "", "", {}, b""))
        result = None
    except DeliveryError as error:
        result = (error.reason, error.temporary, error.retry_after)
    assert result == outcome


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode()], ids=["text", "bytes"])
def test_a_webhook_with_a_secret_is_signed_for_the_time_of_the_attempt(
    serve: Callable[..., Service], secret: str | bytes
) -> None:
    service = serve(responds(204))
    assert delivered(service, secret=secret) == {"delivered": 1, "dropped": 0}
    (sent,) = service.sent
    stamp = str(int(NOW))
    signed = hmac.new(SECRET.encode(), f"v1:{stamp}:".encode() + sent["data"], hashlib.sha256).hexdigest()
    assert sent["url"] == URL
    assert sent["status_suffices"] is True
    assert sent["headers"]["X-MKS-Timestamp"] == stamp
    assert sent["headers"]["X-MKS-Signature"] == f"v1={signed}"
    assert sent["headers"]["Content-Type"].startswith("application/json")
    assert sent["headers"]["Idempotency-Key"]


def test_without_a_secret_nothing_is_signed(serve: Callable[..., Service]) -> None:
    service = serve(responds(200))
    delivered(service)
    assert [name for name in service.sent[0]["headers"] if name.startswith("X-MKS")] == []


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        (b"ok", {"delivered": 1, "dropped": 0}),
        (b" ok\r\n", {"delivered": 1, "dropped": 0}),
        (b"", {"delivered": 0, "dropped": 1}),
        (b"<html>Sign in</html>", {"delivered": 0, "dropped": 1}),
    ],
)
def test_slack_has_to_confirm_with_ok(
    serve: Callable[..., Service], body: bytes, counts: dict[str, int]
) -> None:
    service = serve(responds(200, body))
    assert delivered(service, SlackNotificationHandler) == counts
    (sent,) = service.sent
    assert sent["status_suffices"] is False
    assert "X-MKS-Signature" not in sent["headers"]


def test_slack_that_is_not_confirmed_is_not_sent_again(serve: Callable[..., Service]) -> None:
    """A proxy may have forwarded it: the error says so, and is final."""
    serve(responds(200, b"no"))
    transport = HttpTransport(
        URL,
        parameter="webhook_url",
        timeout=1,
        ca_file=None,
        ssl_context=None,
        allow_plaintext=False,
        confirmation=b"ok",
        clock=FrozenClock(NOW),
    )
    with pytest.raises(DeliveryError) as caught:
        transport.send(AlertMessage("one", "", "", {}, b""))
    assert (caught.value.reason, caught.value.temporary) == ("not-confirmed", False)


@pytest.mark.parametrize("kind", [WebhookNotificationHandler, SlackNotificationHandler])
def test_the_client_is_set_up_as_the_handler_was(serve: Callable[..., Service], kind: Any) -> None:
    service, context = serve(), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    kind(URL).close()
    assert service.set_up == ("webhook", {"timeout": 10.0, "ca_file": None, "ssl_context": None})
    kind(URL, timeout=2.5, ca_file="/etc/ca.pem", ssl_context=context).close()
    assert service.set_up == (
        "webhook",
        {"timeout": 2.5, "ca_file": "/etc/ca.pem", "ssl_context": context},
    )


@pytest.mark.parametrize(
    ("kind", "parameter"), [(WebhookNotificationHandler, "url"), (SlackNotificationHandler, "webhook_url")]
)
@pytest.mark.parametrize(
    "options", [{}, {"timeout": 0}, {"allow_plaintext": 1}, {"ca_file": 5}, {"ssl_context": "x"}]
)
def test_a_wrong_option_is_named(
    serve: Callable[..., Service], kind: Any, parameter: str, options: dict[str, Any]
) -> None:
    serve()
    with pytest.raises(ValueError, match=f"^{next(iter(options), parameter)}\\b"):
        kind(URL if options else "http://hooks.example.com/x", **options)
