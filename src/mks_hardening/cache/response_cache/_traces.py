"""What servers and proxies put into a request besides the URL: who asks, and which place was asked for.

An answer to somebody who was told apart in one of these ways is theirs alone. A place that was named in one of
these ways may be in the answer (an absolute link, a redirect), whoever believed it: it is part of the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from mks_hardening._core.origin.forwarding_headers import IDENTITY_FIELDS, TARGET_FIELDS
from mks_hardening._core.web.environ_keys import header_key

__all__ = ["names_somebody", "place_asked_for"]

_IDENTITY_KEYS: Final = frozenset(
    {
        *("AUTH_USER", "LOGON_USER", "REMOTE_IDENT", "REMOTE_USER"),  # RFC 3875, and IIS
        *map(header_key, IDENTITY_FIELDS),
        *map(
            header_key, ("Proxy-Authorization", "Remote-User", "X-API-Key", "X-Auth-Token", "X-Webauth-User")
        ),
    }
)
# Names of which there is one for each fact about the person or the certificate.
_IDENTITY_PREFIXES: Final = (
    "SSL_CLIENT_",  # mod_ssl and uWSGI
    *map(
        header_key,
        (
            *(
                "CF-Access-",
                "SSL-Client-",
                "X-Amzn-Mtls-",
                "X-Amzn-Oidc-",
                "X-Auth-Request-",
                "X-Authenticated-",
            ),
            *(
                "X-Goog-Authenticated-",
                "X-Goog-Iap-",
                "X-MS-Client-Principal",
                "X-MS-Token-",
                "X-SSL-Client-",
            ),
        ),
    ),
)
_NOBODY: Final = frozenset({"", "NONE"})  # what mod_ssl and nginx say of a client without a certificate

_TARGET_KEYS: Final = tuple(
    map(
        header_key,
        (
            *(
                "X-Forwarded-Host",
                "X-Forwarded-Port",
                "X-Forwarded-Prefix",
                "X-Forwarded-Proto",
                *TARGET_FIELDS,
            ),
            *("X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override"),
        ),
    )
)
_TARGETS_OF_FORWARDED: Final = re.compile(r"""\b(host|proto)\s*=\s*("[^"]*"|[^\s;,"]*)""", re.IGNORECASE)


def names_somebody(environ: Mapping[str, Any]) -> bool:
    """Whether a server or proxy says who asks."""
    return any(
        (key in _IDENTITY_KEYS or key.startswith(_IDENTITY_PREFIXES)) and environ[key] not in _NOBODY
        for key in environ
    )


def place_asked_for(environ: Mapping[str, Any]) -> tuple[tuple[str, object], ...]:
    """What a proxy or a client says of host, scheme, port, path and method, as far as it is there."""
    said: list[tuple[str, object]] = [(key, environ[key]) for key in _TARGET_KEYS if key in environ]
    if "HTTP_FORWARDED" in environ:
        said += _TARGETS_OF_FORWARDED.findall(environ["HTTP_FORWARDED"].lower())
    return tuple(said)
