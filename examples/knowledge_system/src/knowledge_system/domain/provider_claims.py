"""Claims of an ID token whose signature is verified: whether they are meant for us, and whom they name."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

FEDERATED: Final = "fed"
"""First authentication method of a session that an identity provider began, as Entra ID names it."""
_LEEWAY: Final = 60
"""Seconds by which the clock of the provider may differ."""
_OLDEST: Final = 600
"""Seconds after which an ID token is not accepted, whatever its ``exp`` says; it is fetched by us, at once."""
_LATEST: Final = 1e11
"""Seconds since the epoch; a larger number is no time."""
_LONGEST: Final = 255
_EMAIL: Final = re.compile(r"[!-?A-~]{1,64}@[a-z0-9.-]{1,189}")
_METHOD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,32}", re.ASCII)


class ClaimsError(Exception):
    """Claims that are refused; ``reason`` is a key of ``labels.REASONS``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ProviderRules(NamedTuple):
    """Whom the settings admit, and what counts as a second factor.

    Attributes:
        tenant: required ``tid``; empty for any.
        hosted_domain: required ``hd``; empty for any.
        tenant_emails: whether an address counts as verified because its tenant is the required one.
        factor_amr: values of ``amr`` of which one is a second factor.
        factor_acr: values of ``acr`` or ``acrs`` of which one is a second factor.
    """

    tenant: str = ""
    hosted_domain: str = ""
    tenant_emails: bool = False
    factor_amr: frozenset[str] = frozenset()
    factor_acr: frozenset[str] = frozenset()


class Identity(NamedTuple):
    """A person as the provider knows them.

    Attributes:
        key: digest of issuer and subject, which never change; the only link to an account.
        email: verified address in small letters; empty without one.
        name: name to show.
        amr: how the provider authenticated the person.
        auth_time: when it did so; ``None`` if it does not say.
        second_factor: whether it checked a second factor.
    """

    key: str
    email: str
    name: str
    amr: tuple[str, ...]
    auth_time: float | None
    second_factor: bool


def check_token(claims: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str, now: float) -> None:
    """Check whom an ID token is from and for, its times and its nonce (OpenID Connect Core 1.0, 3.1.3.7).

    Raises:
        ClaimsError: ``issuer``, ``audience``, ``nonce``, ``expired``, ``malformed``.
    """
    audience = claims.get("aud")
    for_whom = [audience] if isinstance(audience, str) else audience
    if claims.get("iss") != issuer:
        raise ClaimsError("issuer")
    if not isinstance(for_whom, list) or client_id not in for_whom:
        raise ClaimsError("audience")
    if claims.get("azp", client_id if len(for_whom) == 1 else None) != client_id:
        raise ClaimsError("audience")
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), nonce.encode()
    ):
        raise ClaimsError("nonce")
    issued, expires, begins = _number(claims, "iat"), _number(claims, "exp"), _number(claims, "nbf")
    if issued is None or expires is None:
        raise ClaimsError("malformed")
    begun = issued - _LEEWAY <= now and (begins is None or begins - _LEEWAY <= now)
    if not (begun and now < expires + _LEEWAY and now < issued + _OLDEST):
        raise ClaimsError("expired")


def identify(claims: Mapping[str, Any], rules: ProviderRules) -> Identity:
    """Return the person that checked claims name.

    Raises:
        ClaimsError: ``tenant``, ``domain``: of another organization; ``malformed``: without a usable subject.
    """
    if rules.tenant and _text(claims, "tid").lower() != rules.tenant.lower():
        raise ClaimsError("tenant")
    if rules.hosted_domain and _text(claims, "hd").lower() != rules.hosted_domain.lower():
        raise ClaimsError("domain")
    subject = _text(claims, "sub")
    if not subject:
        raise ClaimsError("malformed")
    amr = tuple(each for each in _texts(claims, "amr") if _METHOD.fullmatch(each))[:8]
    acr = {*_texts(claims, "acr"), *_texts(claims, "acrs")}
    email = _verified_email(claims, rules)
    name = " ".join(_text(claims, "name").split())[:100]
    return Identity(
        key=hashlib.sha256(f"{_text(claims, 'iss')}\n{subject}".encode()).hexdigest(),
        email=email,
        name=name if name.isprintable() else "",
        amr=(FEDERATED, *(each for each in amr if each != FEDERATED)),
        auth_time=_number(claims, "auth_time"),
        second_factor=not rules.factor_amr.isdisjoint(amr) or not rules.factor_acr.isdisjoint(acr),
    )


def _verified_email(claims: Mapping[str, Any], rules: ProviderRules) -> str:
    """Return the address if the provider vouches for it; Entra ID sends none of the two claims by default."""
    verified = claims.get("email_verified")
    vouched = verified is True or (verified is None and claims.get("xms_edov") is True)
    if verified is None and rules.tenant and rules.tenant_emails:
        vouched = True
    email = _text(claims, "email").lower()
    return email if vouched and _EMAIL.fullmatch(email) else ""


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    usable = isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()
    return value if usable and isinstance(value, str) else ""


def _texts(claims: Mapping[str, Any], name: str) -> list[str]:
    value = claims.get(name)
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _number(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LATEST
    return float(value) if usable and isinstance(value, (int, float)) else None
