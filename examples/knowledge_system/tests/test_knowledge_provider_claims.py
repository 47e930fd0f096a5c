"""Claims of ID tokens as Entra ID, Google and Keycloak send them, and everything that is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge_system.domain.provider_claims import ClaimsError, ProviderRules, check_token, identify

NOW = 1_800_000_000.0
ISSUER, CLIENT, NONCE = "https://id.example.com", "knowledge", "n" * 43
TENANT = "5f4b1c1e-0000-4a6f-9d2e-000000000001"
TOKEN: dict[str, Any] = {"iss": ISSUER, "aud": CLIENT, "nonce": NONCE, "iat": NOW - 1, "exp": NOW + 300}

ENTRA: dict[str, Any] = {
    "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "tid": TENANT,
    "oid": "00000000-0000-0000-0000-00000000000a",
    "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
    "preferred_username": "Mori@example.co.jp",
    "email": "Mori@example.co.jp",
    "name": "森 直子",
    "ver": "2.0",
}
GOOGLE: dict[str, Any] = {
    "iss": "https://accounts.google.com",
    "azp": "1-x.apps.googleusercontent.com",
    "sub": "110248495921238986420",
    "hd": "example.co.jp",
    "email": "mori@example.co.jp",
    "email_verified": True,
    "name": "森 直子",
}
KEYCLOAK: dict[str, Any] = {
    "iss": "https://sso.example.co.jp/realms/company",
    "sub": "f:0b5f:mori",
    "typ": "ID",
    "acr": "2",
    "auth_time": 1_799_999_990,
    "email": "mori@example.co.jp",
    "email_verified": True,
    "preferred_username": "mori",
    "name": "森 直子",
}


def reason_of(**changes: Any) -> str:
    claims = {name: value for name, value in {**TOKEN, **changes}.items() if value is not ...}
    try:
        check_token(claims, issuer=ISSUER, client_id=CLIENT, nonce=NONCE, now=NOW)
    except ClaimsError as error:
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"aud": [CLIENT]}, ""),
        ({"azp": CLIENT}, ""),
        ({"aud": [CLIENT, "other"], "azp": CLIENT}, ""),
        ({"exp": NOW - 59}, ""),  # the clock of the provider differs
        ({"iat": NOW + 59}, ""),
        ({"nbf": NOW + 59}, ""),
        ({"iss": f"{ISSUER}/"}, "issuer"),
        ({"iss": ISSUER.upper()}, "issuer"),
        ({"iss": ...}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": ["other"]}, "audience"),
        ({"aud": f"{CLIENT} other"}, "audience"),
        ({"aud": {CLIENT: 1}}, "audience"),
        ({"aud": ...}, "audience"),
        ({"aud": [CLIENT, "other"]}, "audience"),  # for several, without the one it was issued to
        ({"aud": [CLIENT, "other"], "azp": "other"}, "audience"),
        ({"azp": "other"}, "audience"),
        ({"azp": None}, "audience"),
        ({"nonce": "m" * 43}, "nonce"),
        ({"nonce": NONCE[:-1]}, "nonce"),
        ({"nonce": ...}, "nonce"),
        ({"nonce": [NONCE]}, "nonce"),
        ({"nonce": "ｎ" * 43}, "nonce"),
        ({"nonce": "\ud800"}, "nonce"),  # JSON can hold half a character
        ({"exp": NOW - 60}, "expired"),
        ({"exp": ...}, "malformed"),
        ({"exp": "9999999999"}, "malformed"),
        ({"exp": math.nan}, "malformed"),
        ({"exp": math.inf}, "malformed"),
        ({"exp": 10**400}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"iat": ...}, "malformed"),
        ({"iat": NOW + 61}, "expired"),
        ({"iat": NOW - 600, "exp": NOW + 9999}, "expired"),  # old, though it says that it is good for longer
        ({"nbf": NOW + 61}, "expired"),
    ],
)
def test_a_token_is_for_us_and_for_now(changes: dict[str, Any], reason: str) -> None:
    assert reason_of(**changes) == reason


ENTRA_RULES = ProviderRules(tenant=TENANT, factor_amr=frozenset({"mfa"}))
TRUSTING = ENTRA_RULES._replace(tenant_emails=True)
GOOGLE_RULES = ProviderRules(hosted_domain="example.co.jp", factor_amr=frozenset({"mfa"}))
KEYCLOAK_RULES = ProviderRules(factor_acr=frozenset({"2"}))


@pytest.mark.parametrize(
    ("claims", "rules", "email"),
    [
        (ENTRA, ENTRA_RULES, ""),  # no email_verified: its address is not verified by anybody
        (ENTRA, TRUSTING, "mori@example.co.jp"),
        ({**ENTRA, "xms_edov": True}, ENTRA_RULES, "mori@example.co.jp"),
        ({**ENTRA, "xms_edov": "true"}, ENTRA_RULES, ""),
        ({**ENTRA, "email_verified": False}, TRUSTING, ""),
        ({**ENTRA, "email_verified": False, "xms_edov": True}, ENTRA_RULES, ""),
        ({**ENTRA, "email": "mori@example.co.jp@evil.example"}, TRUSTING, ""),
        ({**ENTRA, "email": ["mori@example.co.jp"]}, TRUSTING, ""),
        (GOOGLE, GOOGLE_RULES, "mori@example.co.jp"),
        ({**GOOGLE, "email_verified": False}, GOOGLE_RULES, ""),
        ({**GOOGLE, "email_verified": "true"}, GOOGLE_RULES, ""),
        ({**GOOGLE, "email_verified": 1}, GOOGLE_RULES, ""),
        (KEYCLOAK, KEYCLOAK_RULES, "mori@example.co.jp"),
        ({**KEYCLOAK, "email": "mori@exa\nmple.co.jp"}, KEYCLOAK_RULES, ""),
        ({**KEYCLOAK, "email": "mori@ｅxample.co.jp"}, KEYCLOAK_RULES, ""),
        ({**KEYCLOAK, "email": f"{'a' * 300}@example.co.jp"}, KEYCLOAK_RULES, ""),
    ],
)
def test_an_address_counts_only_if_somebody_vouches_for_it(
    claims: dict[str, Any], rules: ProviderRules, email: str
) -> None:
    found = identify(claims, rules)
    assert (found.email, found.name) == (email, "森 直子")


@pytest.mark.parametrize(
    ("claims", "rules", "reason"),
    [
        ({**ENTRA, "tid": "9188040d-6c67-4c5b-b112-36a304b66dad"}, ENTRA_RULES, "tenant"),  # private accounts
        ({**ENTRA, "tid": None}, ENTRA_RULES, "tenant"),
        ({**GOOGLE, "hd": "evil.example"}, GOOGLE_RULES, "domain"),
        (
            {name: value for name, value in GOOGLE.items() if name != "hd"},
            GOOGLE_RULES,
            "domain",
        ),  # gmail.com
        ({**KEYCLOAK, "sub": ""}, KEYCLOAK_RULES, "malformed"),
        ({**KEYCLOAK, "sub": 7}, KEYCLOAK_RULES, "malformed"),
        ({**KEYCLOAK, "sub": "x" * 256}, KEYCLOAK_RULES, "malformed"),
    ],
)
def test_people_of_other_organizations_are_refused(
    claims: dict[str, Any], rules: ProviderRules, reason: str
) -> None:
    with pytest.raises(ClaimsError) as caught:
        identify(claims, rules)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("claims", "rules", "second_factor"),
    [
        (ENTRA, ENTRA_RULES, False),
        ({**ENTRA, "amr": ["pwd", "mfa"]}, ENTRA_RULES, True),
        ({**ENTRA, "amr": ["pwd", "rsa"]}, ENTRA_RULES, False),
        ({**ENTRA, "amr": "mfa"}, ENTRA_RULES, True),
        ({**ENTRA, "amr": ["pwd mfa"]}, ENTRA_RULES, False),
        ({**ENTRA, "amr": {"mfa": True}}, ENTRA_RULES, False),
        ({**ENTRA, "acrs": ["c1", "c2"]}, ENTRA_RULES._replace(factor_acr=frozenset({"c2"})), True),
        (KEYCLOAK, KEYCLOAK_RULES, True),
        ({**KEYCLOAK, "acr": "1"}, KEYCLOAK_RULES, False),
        ({**KEYCLOAK, "acr": 2}, KEYCLOAK_RULES, False),
        ({**KEYCLOAK, "amr": ["mfa"], "acr": "1"}, KEYCLOAK_RULES, False),  # only what the settings name
    ],
)
def test_only_what_the_settings_name_is_a_second_factor(
    claims: dict[str, Any], rules: ProviderRules, *, second_factor: bool
) -> None:
    assert identify(claims, rules).second_factor is second_factor


def test_a_person_is_issuer_and_subject() -> None:
    keys = {
        identify(claims, ProviderRules()).key
        for claims in (ENTRA, GOOGLE, KEYCLOAK, {**KEYCLOAK, "iss": f"{KEYCLOAK['iss']}2"})
    }
    assert len(keys) == 4
    same = identify({**KEYCLOAK, "email": "other@example.co.jp", "name": "x"}, ProviderRules()).key
    assert same == identify(KEYCLOAK, ProviderRules()).key


_ANY = st.sampled_from(
    [
        *(None, True, 0, -1, 7, 10**400, 1e300, math.inf, math.nan, NOW),
        *("", "mfa", "é", "\0", "\ud800", "x" * 300, "森", ISSUER, CLIENT, NONCE, TENANT, "a@example.com"),
        *([], {}, ["mfa"], ["\ud800", CLIENT], [[CLIENT]], [None, {}], {"mfa": CLIENT}),
    ]
)
_NAMES = (
    "iss",
    "sub",
    "tid",
    "hd",
    "email",
    "email_verified",
    "xms_edov",
    "name",
    "amr",
    "acr",
    "acrs",
    "auth_time",
)


@given(
    claims=st.dictionaries(st.sampled_from(_NAMES), _ANY),
    token=st.dictionaries(st.sampled_from([*TOKEN]), _ANY),
)
def test_whatever_is_signed_is_refused_or_plain(claims: dict[str, Any], token: dict[str, Any]) -> None:
    try:
        check_token({**TOKEN, **token}, issuer=ISSUER, client_id=CLIENT, nonce=NONCE, now=NOW)
        found = identify(claims, TRUSTING)
    except ClaimsError:
        return
    assert found.name.isprintable()
    assert all(each.isascii() for each in (*found.amr, found.email))
    assert found.auth_time is None or math.isfinite(found.auth_time)
