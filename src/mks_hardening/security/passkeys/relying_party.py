"""Relying party: the site that passkeys belong to, with its domain, origins and requirements."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from mks_hardening._core.checks import boolean, number, strings
from mks_hardening._core.durations import seconds
from mks_hardening._core.origin.hostname import authority, parse_host
from mks_hardening.exceptions import ConfigurationError

__all__ = ["RelyingParty"]

_LONGEST_NAME: Final = 64
_LOCALHOST: Final = "localhost"


class RelyingParty:
    """The site that requests passkeys (WebAuthn level 3, section 5.1.2 and 13.4.9).

    Args:
        rp_id: the domain that passkeys are permanently bound to, for example ``example.com``; no scheme, no port.
        name: shown by browsers and authenticators.
        origins: the exact origins of pages that may use passkeys, ``https`` and on the domain or below it;
            ``http`` for ``localhost`` only.
        passwordless: whether a passkey may be the whole sign-in. New passkeys are then created as discoverable,
            and user verification (fingerprint, face or PIN) is always required, which makes them two factors in
            one.
        allow_synced: whether to accept passkeys that their provider copies between devices; ``False`` for sites
            that need to know in how many places a key is (NIST SP 800-63B-4, appendix B).
        challenge_ttl: time allowed for the browser's response, in seconds, 30 to 900.

    Raises:
        ConfigurationError: a value is invalid, or an origin does not belong to the domain.
    """

    __slots__ = ("allow_synced", "challenge_ttl", "name", "origins", "passwordless", "rp_id")

    def __init__(
        self,
        rp_id: str,
        *,
        name: str,
        origins: Iterable[str],
        passwordless: bool = False,
        allow_synced: bool = True,
        challenge_ttl: float | timedelta = 300,
    ) -> None:
        # No IP address: browsers refuse it, with an obscure error at the first registration.
        host = parse_host(rp_id) if isinstance(rp_id, str) else None
        if host is None or host.name != rp_id or host.name.startswith("[") or host.name[-1].isdigit():
            raise ConfigurationError(
                "rp_id must be a domain in lower case, without scheme or port", parameter="rp_id"
            )
        if (
            not isinstance(name, str)
            or not name.strip()
            or not name.isprintable()
            or len(name) > _LONGEST_NAME
        ):
            raise ConfigurationError(
                f"name must be printable and of 1 to {_LONGEST_NAME} characters", parameter="name"
            )
        self.rp_id: str = rp_id
        self.name: str = name
        self.origins: tuple[str, ...] = strings(origins, parameter="origins", of="origins")
        if not self.origins or not all(_belongs(origin, rp_id) for origin in self.origins):
            raise ConfigurationError(
                "origins must be like https://example.com, without a path, on rp_id or below it, "
                "with http for localhost alone",
                parameter="origins",
            )
        self.passwordless: bool = boolean(passwordless, parameter="passwordless")
        self.allow_synced: bool = boolean(allow_synced, parameter="allow_synced")
        self.challenge_ttl: float = number(
            seconds(challenge_ttl, parameter="challenge_ttl"),
            parameter="challenge_ttl",
            minimum=30,
            maximum=900,
        )

    def __repr__(self) -> str:
        return f"RelyingParty({self.rp_id!r}, origins={list(self.origins)})"


def _belongs(origin: str, rp_id: str) -> bool:
    scheme, _, rest = origin.partition("://")
    host = parse_host(rest)
    if host is None or rest != authority(scheme, host.name, host.port) or urlsplit(origin).path:
        return False
    if scheme != "https" and (scheme, host.name) != ("http", _LOCALHOST):
        return False
    return host.name == rp_id or host.name.endswith(f".{rp_id}")
