"""Names of forwarding headers: those that are read, and those that are removed.

Every other forwarding header is removed, even from trusted peers unless it is named: an application that reads such
a header itself would trust whoever sent it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mks_hardening._core.checks import strings
from mks_hardening.exceptions import ConfigurationError

__all__ = [
    "ALWAYS_REMOVED",
    "FORWARDED",
    "IDENTITY_FIELDS",
    "OTHER_FIELDS",
    "TARGET_FIELDS",
    "X_FORWARDED",
    "ignored_fields",
    "kept_fields",
]

X_FORWARDED: Final = (
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
)
"""The ``X-Forwarded-*`` headers."""

FORWARDED: Final = ("Forwarded",)
"""The ``Forwarded`` header (RFC 7239)."""

_ADDRESSES: Final = (
    "Ali-CDN-Real-IP", "CDN-Src-IP", "CF-Connecting-IP", "CF-Connecting-IPv6", "CF-Pseudo-IPv4", "Client-IP",
    "CloudFront-Viewer-Address", "DO-Connecting-IP", "Fastly-Client-IP", "Fly-Client-IP", "Incap-Client-IP",
    "Proxy-Client-IP", "True-Client-IP", "WL-Proxy-Client-IP", "X-Appengine-Remote-Addr",
    "X-Appengine-User-IP", "X-Azure-ClientIP", "X-Azure-SocketIP", "X-Client-IP", "X-Cluster-Client-IP",
    "X-Envoy-External-Address", "X-NF-Client-Connection-IP", "X-Original-Forwarded-For", "X-Originating-IP",
    "X-ProxyUser-IP", "X-Real-IP", "X-Real-Port", "X-Remote-Addr", "X-Remote-IP", "X-Remote-Port",
    "X-Sucuri-ClientIP", "X-Vercel-Forwarded-For", "X-Vercel-Proxied-For",
)  # fmt: skip
TARGET_FIELDS: Final = (
    "Front-End-Https", "X-Envoy-Original-Host", "X-Envoy-Original-Path", "X-Forwarded-By", "X-Forwarded-Path",
    "X-Forwarded-Protocol", "X-Forwarded-Scheme", "X-Forwarded-Server", "X-Forwarded-SSL", "X-Forwarded-URI",
    "X-HTTP-Host-Override", "X-Host", "X-Original-Host", "X-Original-Method", "X-Original-URI",
    "X-Original-URL", "X-Rewrite-URL", "X-Scheme", "X-Script-Name", "X-URL-Scheme",
)  # fmt: skip
IDENTITY_FIELDS: Final = (
    # Client certificates; Client-Cert is RFC 9440.
    "Client-Cert", "Client-Cert-Chain", "SSL-Client-Cert", "SSL-Client-S-DN", "SSL-Client-Verify",
    "X-ARR-ClientCert", "X-Client-Cert", "X-Client-DN", "X-Client-Verify", "X-Forwarded-Client-Cert",
    "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-SSL-Client-Cert",
    "X-SSL-Client-S-DN", "X-SSL-Client-Verify", "X-Tls-Client-Cert",
    # User identities, as set by authenticating proxies.
    "CF-Access-Authenticated-User-Email", "Remote-Email", "Remote-Groups", "Remote-Name", "Remote-User",
    "X-Amzn-Oidc-Identity", "X-Auth-Request-Access-Token", "X-Auth-Request-Email", "X-Auth-Request-Groups",
    "X-Auth-Request-Preferred-Username", "X-Auth-Request-User", "X-Authenticated-User",
    "X-Forwarded-Access-Token", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username",
    "X-Forwarded-User", "X-Goog-Authenticated-User-Email", "X-Goog-Authenticated-User-ID",
    "X-MS-Client-Principal", "X-MS-Client-Principal-ID", "X-MS-Client-Principal-Name", "X-Remote-User",
    "X-WebAuth-User",
)  # fmt: skip
ALWAYS_REMOVED: Final = "Proxy"
"""Becomes ``HTTP_PROXY``, which HTTP clients read as a setting (httpoxy); no peer may send it."""

OTHER_FIELDS: Final = (*_ADDRESSES, *TARGET_FIELDS, *IDENTITY_FIELDS, ALWAYS_REMOVED)
"""Headers in which products pass on addresses, targets and identities."""


def kept_fields(names: Iterable[str], *, parameter: str) -> frozenset[str]:
    """Return the headers that are kept in requests of trusted peers, in lower case.

    Raises:
        ConfigurationError: a header that would not be removed anyway, or that must always be removed.
    """
    kept = frozenset(name.lower() for name in strings(names, parameter=parameter, of="header names"))
    known = {name.lower() for name in (*_ADDRESSES, *TARGET_FIELDS, *IDENTITY_FIELDS)}
    if not kept <= known:
        raise ConfigurationError(
            f"{parameter} may name {', '.join((*_ADDRESSES, *TARGET_FIELDS, *IDENTITY_FIELDS))}",
            parameter=parameter,
        )
    return kept


_IGNORABLE: Final = ("X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix")


def ignored_fields(names: Iterable[str], *, parameter: str) -> frozenset[str]:
    """Return the headers of the ``X-Forwarded-*`` family that are not read, in lower case.

    Raises:
        ConfigurationError: another header; the client and the scheme are what a proxy is trusted for.
    """
    ignored = frozenset(name.lower() for name in strings(names, parameter=parameter, of="header names"))
    if not ignored <= {name.lower() for name in _IGNORABLE}:
        raise ConfigurationError(f"{parameter} may name {', '.join(_IGNORABLE)}", parameter=parameter)
    return ignored
