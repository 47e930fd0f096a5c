"""Header fields that arrive from anywhere: any bytes lead to a decision, quickly, and to no other host."""

from __future__ import annotations

from typing import Any

from mks_hardening._core.origin.hostname import parse_host
from mks_hardening.wsgi import CSRFMiddleware, HTTPSRedirectMiddleware, ProxyTrust, TrustedProxyMiddleware

TRUSTS = [
    ProxyTrust(["10.0.0.0/8"]),
    ProxyTrust(["10.0.0.0/8"], family="forwarded"),
    ProxyTrust(hops=2),
    ProxyTrust(family="forwarded", hops=2),
]
HEADERS = ("FORWARDED", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "X_FORWARDED_PORT")


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Say nothing."""
    start_response("200 OK", [])
    return []


STACKS = [
    TrustedProxyMiddleware(
        HTTPSRedirectMiddleware(
            CSRFMiddleware(application, allowed_origins=["https://www.example.com"]),
            allowed_hosts=["www.example.com"],
        ),
        trust=trust,
    )
    for trust in TRUSTS
]


def one_input(data: bytes) -> None:
    """Put the bytes into every field that is read, and watch where the answer points."""
    text = data.decode("latin-1")
    for stack in STACKS:
        for host in ("www.example.com", text):
            environ: dict[str, Any] = {
                "REQUEST_METHOD": "POST" if len(data) % 2 else "GET",
                "REMOTE_ADDR": "10.0.0.1",
                "wsgi.url_scheme": "http",
                "HTTP_HOST": host,
                "PATH_INFO": "/" + text,
                "QUERY_STRING": text,
                "HTTP_COOKIE": text,
                "HTTP_ORIGIN": text,
                "HTTP_REFERER": text,
                **{f"HTTP_{name}": text for name in HEADERS},
            }
            stack(environ, _check)
    found = parse_host(text)
    assert found is None or parse_host(found.name) == (found.name, None)


def _check(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
    del status, exc_info
    for name, value in headers:
        assert name != "Location" or value.startswith("https://www.example.com/")
        assert value.isprintable()
        assert value.isascii()
