"""What servers and proxies put into a request besides the URL: who asks, and which place was asked for.

An answer to somebody who was told apart in one of these ways is theirs alone. A place that was named in one of
these ways may be in the answer (an absolute link, a redirect), whoever believed it: it is part of the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from mks_hardening._core.origin.forwarding_headers import IDENTITY_FIELDS, TARGET_FIELDS
from mks_hardening._core.web.environ_keys import header_key

__all__ = ["names_somebody", "place_asked_for"]

_IDENTITY_KEYS: Final = frozenset({
    *("AUTH_USER", "LOGON_USER", "REMOTE_IDENT", "REMOTE_USER", "REDIRECT_REMOTE_USER"),  # RFC 3875, IIS, Apache
    *("CERT_SERIALNUMBER", "CERT_SUBJECT", "GSS_NAME", "HTTPS_DN"),  # IIS, mod_auth_gssapi, uWSGI
    *map(header_key, IDENTITY_FIELDS),
})  # fmt: skip
# What modules of a server put beside the header fields, one name for each fact about the person or certificate.
_IDENTITY_PREFIXES: Final = (
    *("AUTHENTICATE_", "AUTHORIZE_", "HTTPS_CLIENT_", "MELLON_", "OIDC_", "SHIB_", "SSL_CLIENT_"),
    "Shib-",  # mod_shib keeps the dash
)
# Every gateway has names of its own for the fields it adds, made of the same few words. A word too many costs a
# hit, a missing one shows somebody the page of another.
_IDENTITY_WORDS: Final = re.compile(
    r"HTTP_(?!SEC_)(?:\w*_)?"
    r"(?:ACCOUNT|API_?KEY|ASSERTION|AUTH\w*|CERT|CERTIFICATE|CLIENTCERT|CONSUMER|CREDENTIAL|CUSTOMER|DN|DPOP|EMAIL|EPPN"
    r"|GROUPS?|IDENTITY|IMPERSONATE|JWT|LOGIN|MAIL|MEMBER|OIDC|ORG|ORGANIZATION|PRINCIPAL|ROLES?|SAML|SESSION"
    r"|SESSIONID|SHIB|SMUSER|SSO|SUBJECT|TENANT|TOKEN|UID|USER(?!_AGENT)|USERID|USERINFO|USERNAME|VERIFY)(?:_\w*)?",
    re.ASCII,
)
_NOBODY: Final = ("", "NONE")  # what mod_ssl and nginx say of a client without a certificate

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
    return any(_is_identity(key) and environ[key] not in _NOBODY for key in environ)


@lru_cache(maxsize=1024)
def _is_identity(key: str) -> bool:
    return (
        key in _IDENTITY_KEYS
        or key.startswith(_IDENTITY_PREFIXES)
        or _IDENTITY_WORDS.fullmatch(key) is not None
    )


def place_asked_for(environ: Mapping[str, Any]) -> tuple[tuple[str, object], ...]:
    """What a proxy or a client says of host, scheme, port, path and method, as far as it is there."""
    said: list[tuple[str, object]] = [(key, environ[key]) for key in _TARGET_KEYS if key in environ]
    if "HTTP_FORWARDED" in environ:
        said += _TARGETS_OF_FORWARDED.findall(environ["HTTP_FORWARDED"].lower())
    return tuple(said)
