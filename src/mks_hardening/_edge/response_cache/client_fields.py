"""Request fields, set by servers and proxies, that identify the user or the requested host.

A response to a user who is identified by one of them is private to that user. A host, scheme or path given in one
of them may appear in the response (an absolute link, a redirect), whichever component evaluated it, so it is part
of the cache key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from mks_hardening._core.origin.forwarding_headers import IDENTITY_FIELDS, TARGET_FIELDS
from mks_hardening._core.web.environ_keys import header_key

__all__ = ["identifies_user", "requested_target"]

_IDENTITY_KEYS: Final = frozenset({
    *("AUTH_USER", "LOGON_USER", "REMOTE_IDENT", "REMOTE_USER", "REDIRECT_REMOTE_USER"),  # RFC 3875, IIS, Apache
    *("CERT_SERIALNUMBER", "CERT_SUBJECT", "GSS_NAME", "HTTPS_DN"),  # IIS, mod_auth_gssapi, uWSGI
    *map(header_key, IDENTITY_FIELDS),
})  # fmt: skip
# Variables that server modules set besides the header fields, one for each fact about the user or the certificate.
_IDENTITY_PREFIXES: Final = (
    *("AUTHENTICATE_", "AUTHORIZE_", "HTTPS_CLIENT_", "MELLON_", "OIDC_", "SHIB_", "SSL_CLIENT_"),
    "Shib-",  # mod_shib keeps the dash
)
# Each gateway has its own names for the fields it adds, composed of the same few words. A superfluous word costs
# hits; a missing one shows one user the page of another.
_IDENTITY_WORDS: Final = re.compile(
    r"HTTP_(?!SEC_)(?:\w*_)?"
    r"(?:ACCOUNT|API_?KEY|ASSERTION|AUTH\w*|CERT|CERTIFICATE|CLIENTCERT|CONSUMER|CREDENTIAL|CUSTOMER|DN|DPOP|EMAIL|EPPN"
    r"|GROUPS?|IDENTITY|IMPERSONATE|JWT|LOGIN|MAIL|MEMBER|OIDC|ORG|ORGANIZATION|PRINCIPAL|ROLES?|SAML|SESSION"
    r"|SESSIONID|SHIB|SMUSER|SSO|SUBJECT|TENANT|TOKEN|UID|USER(?!_AGENT)|USERID|USERINFO|USERNAME|VERIFY)(?:_\w*)?",
    re.ASCII,
)
_NOBODY: Final = ("", "NONE")  # values of mod_ssl and nginx for a client without a certificate

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


def identifies_user(variables: Mapping[str, Any]) -> bool:
    """Return whether a server or proxy identifies the user."""
    return any(_is_identity(key) and variables[key] not in _NOBODY for key in variables)


@lru_cache(maxsize=1024)
def _is_identity(key: str) -> bool:
    return (
        key in _IDENTITY_KEYS
        or key.startswith(_IDENTITY_PREFIXES)
        or _IDENTITY_WORDS.fullmatch(key) is not None
    )


def requested_target(variables: Mapping[str, Any]) -> tuple[tuple[str, object], ...]:
    """Return the host, scheme, port, path and method that a proxy or client states, as far as present."""
    found: list[tuple[str, object]] = [(key, variables[key]) for key in _TARGET_KEYS if key in variables]
    if "HTTP_FORWARDED" in variables:
        found += _TARGETS_OF_FORWARDED.findall(variables["HTTP_FORWARDED"].lower())
    return tuple(found)
