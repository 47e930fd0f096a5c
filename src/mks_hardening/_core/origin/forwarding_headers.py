"""Names of the header fields in which proxies hand on who asked for what: those that are read, and those that go.

Whatever is not read here is removed, from trusted peers too unless it is named: an application that reads such a
field by itself would believe whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mks_hardening._core.checks import texts
from mks_hardening.exceptions import ConfigurationError

__all__ = ["FORWARDED", "IDENTITY_FIELDS", "OTHER_FIELDS", "TARGET_FIELDS", "X_FORWARDED", "kept_fields"]

X_FORWARDED: Final = (
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
)
"""The usual family."""

FORWARDED: Final = ("Forwarded",)
"""RFC 7239."""

_ADDRESSES: Final = (
    *("CF-Connecting-IP", "CF-Connecting-IPv6", "CF-Pseudo-IPv4", "Client-IP", "Fastly-Client-IP"),
    *("Proxy-Client-IP", "True-Client-IP", "WL-Proxy-Client-IP", "X-Azure-ClientIP", "X-Azure-SocketIP"),
    *("X-Client-IP", "X-Cluster-Client-IP", "X-Envoy-External-Address", "X-Original-Forwarded-For"),
    *("X-Originating-IP", "X-Real-IP", "X-Remote-Addr", "X-Remote-IP"),
)
TARGET_FIELDS: Final = (
    *("Front-End-Https", "X-Forwarded-By", "X-Forwarded-Path", "X-Forwarded-Protocol", "X-Forwarded-Scheme"),
    *("X-Forwarded-Server", "X-Forwarded-SSL", "X-Forwarded-URI", "X-HTTP-Host-Override", "X-Host"),
    *("X-Original-Host", "X-Original-URI", "X-Original-URL", "X-Rewrite-URL", "X-Script-Name"),
    "X-URL-Scheme",
)
IDENTITY_FIELDS: Final = (
    *("X-Client-Cert", "X-Forwarded-Access-Token", "X-Forwarded-Client-Cert", "X-Forwarded-Email"),
    *("X-Forwarded-Groups", "X-Forwarded-Preferred-Username", "X-Forwarded-Tls-Client-Cert"),
    *("X-Forwarded-Tls-Client-Cert-Info", "X-Forwarded-User", "X-Remote-User", "X-SSL-Client-Cert"),
    *("X-SSL-Client-S-DN", "X-SSL-Client-Verify"),
)
_NEVER: Final = ("Proxy",)  # becomes HTTP_PROXY, which outgoing clients take for a setting (httpoxy)

OTHER_FIELDS: Final = (*_ADDRESSES, *TARGET_FIELDS, *IDENTITY_FIELDS, *_NEVER)
"""Names under which one product or another hands on addresses, targets and identities."""


def kept_fields(names: Iterable[str], *, parameter: str) -> frozenset[str]:
    """The fields that are left in requests of trusted peers, in lower case.

    Raises:
        ConfigurationError: a field that would not be removed, or that must always be.
    """
    kept = frozenset(name.lower() for name in texts(names, parameter=parameter, of="header names"))
    known = {name.lower() for name in (*_ADDRESSES, *TARGET_FIELDS, *IDENTITY_FIELDS)}
    if not kept <= known:
        raise ConfigurationError(
            f"{parameter} may name {', '.join((*_ADDRESSES, *TARGET_FIELDS, *IDENTITY_FIELDS))}",
            parameter=parameter,
        )
    return kept
