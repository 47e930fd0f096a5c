"""What is public in this area refuses a value of a wrong kind by the name of its parameter, where it is given."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from sqlalchemy import MetaData

from mks_hardening import security
from mks_hardening.db import hardened_engine
from mks_hardening.exceptions import ConfigurationError, DecodeError, InvalidCodeError
from mks_hardening.security.passwords import hashing
from mks_hardening.security.passwords._scrypt import Scrypt
from sign_in_scenario import HERE, Scenario
from wrong_kinds import WRONG, called

# Made by this area and handed out, not built by users.
ANSWERS = {
    "ChangeResult", "Decision", "Enrolment", "LimitState", "Passkey", "PasskeyOptions", "PasskeyRegistration",
    "PasskeySignIn", "PasskeyTables", "Passkeys", "PasswordErrorCode", "PasswordVerdict", "RecoveryCodes",
    "ReencryptionProgress", "RememberedDevice", "Reservation", "SignInDevice", "SignInEntry",
    "SignInNotice", "SignInStep", "Slot", "TOTPMatch", "Turn", "TwoFactorNotice", "TwoFactorStatus",
    "VerificationResult",
}  # fmt: skip

# What clients send comes as it is: of a wrong kind it is a wrong password, a wrong code, no device.
FROM_CLIENTS = {
    ("SignInClient", "device"),
    ("PasskeyAssertion", "response"),
    ("PasskeyAssertion", "session"),
    ("normalize_recovery_code", "text"),
    ("verify_password", "password"),
    ("verify_totp", "code"),
}
# Plain tuples; a limiter checks what is in them.
CHECKED_LATER = {"Limit"}
# Documented to be a ValueError, as of every hasher.
VALUE_ERRORS = {("hash_password", "password")}
# A class can be called; what comes of that is its own matter.
CALLED = {("build_breach_filter", "progress")}
# There is no such file, or its name is too long for one.
OS_ERRORS = {("build_breach_filter", "source"), ("build_breach_filter", "target")}


def usual(folder: Path) -> dict[str, dict[str, Any]]:
    """Arguments with which everything that is public can be called."""
    scenario = Scenario()
    engine = hardened_engine("sqlite://")
    listed = folder / "leaked"
    listed.write_text(
        "".join(
            sorted(f"{hashlib.sha1(b'%d' % n, usedforsecurity=False).hexdigest()}:1\n" for n in range(50))
        )
    )
    secret = security.generate_secret()
    decision = scenario.limiter.hit("auth_login", "k")
    party = security.RelyingParty("example.com", name="K", origins=["https://example.com"])
    parts = {name: scenario.parts[name] for name in ("store", "limiter", "factors", "end_sessions")}
    return {
        "BreachedPasswords": {"path": listed},
        "ConcurrencyLimiter": {"limits": {"a": 1}},
        "CredentialChanges": {"sign_in": scenario.sign_in},
        "FailureBudget": {},
        "Limit": {"name": "a", "quota": 1, "window": 1.0},
        "MemoryPasskeyStore": {},
        "MemorySignInStore": {},
        "MemoryTwoFactorStore": {},
        "PasskeyAssertion": {"response": "{}", "session": "s"},
        "PasswordHasher": {},
        "PasswordPolicy": {},
        "RateLimiter": {"groups": {"a": security.Limit("a", 1, 1.0)}},
        "RedisPasskeyStore": {"url_or_client": fakeredis.FakeRedis()},
        "RedisSignInStore": {"url_or_client": fakeredis.FakeRedis()},
        "RedisTwoFactorStore": {"url_or_client": fakeredis.FakeRedis()},
        "RelyingParty": {"rp_id": "example.com", "name": "K", "origins": ["https://example.com"]},
        "SQLAlchemyPasskeyStore": {"engine": engine},
        "SQLAlchemyTwoFactorStore": {"engine": engine},
        "SecretBox": {"keys": b"k" * 32},
        "SignIn": {"accounts": scenario.people, **parts},
        "SignInAccount": {"user_id": "1", "password_hash": None},
        "SignInClient": {"address": "192.0.2.1"},
        "TwoFactorManager": {
            "store": security.MemoryTwoFactorStore(),
            "issuer": "K",
            "secret_box": security.SecretBox(bytes(range(32))),
            "relying_party": party,
            "passkey_store": security.MemoryPasskeyStore(),
        },
        "build_breach_filter": {"source": listed, "target": folder / "filter"},
        "client_key": {"ip": "192.0.2.1"},
        "generate_recovery_codes": {},
        "generate_secret": {},
        "hash_password": {"password": "x"},
        "needs_rehash": {"stored": "x"},
        "normalize_recovery_code": {"text": "x"},
        "passkey_tables": {"metadata": MetaData()},
        "provisioning_uri": {"secret": secret, "account_name": "a", "issuer": "b"},
        "qr_code": {"uri": "x"},
        "rate_limit_headers": {"decision": decision},
        "sign_in_headers": {"step": security.SignInStep(state="limited")},
        "rate_limit_problem": {"decision": decision},
        "totp_code": {"secret": secret},
        "two_factor_table": {"metadata": MetaData()},
        "verify_password": {"password": "x", "stored": None},
        "verify_totp": {"secret": secret, "code": "000000"},
    }


def public() -> Iterator[str]:
    for name in vars(security)["__all__"]:
        found = getattr(security, name)
        if callable(found) and not getattr(found, "_is_protocol", False) and name not in ANSWERS:
            yield name


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a path that is only a name is written here
    cheap = security.PasswordHasher(scheme="scrypt")
    cheap._scheme = Scrypt(method="scrypt:16:1:1", nobody="scrypt:16:1:1$salt$00")
    cheap._expected = (cheap._scheme,)
    monkeypatch.setattr(hashing, "_create_hasher", lambda: cheap)


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("name", list(public()))
def test_a_wrong_kind_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """Of each parameter: an object of no use is refused, and nothing else ends in an error that names nothing."""
    found, arguments = getattr(security, name), usual(tmp_path)[name]
    faults = []
    for parameter in inspect.signature(found).parameters:
        for kind, value in WRONG.items():
            if kind == "class" and (name, parameter) in CALLED:
                continue
            try:
                called(found, {**arguments, parameter: value})
            except ConfigurationError as refused:
                # A text that is no URL is told of as one; of several values in one, the one at fault.
                if not (refused.parameter or "").startswith((parameter, "url")) and kind == "object":
                    faults.append(f"{parameter}: {kind} is told of as {refused.parameter}")
            except ValueError as error:
                if (name, parameter) not in VALUE_ERRORS:
                    faults.append(f"{parameter}: {kind} is {error!r:.80}")
            except OSError as error:
                if (name, parameter) not in OS_ERRORS:
                    faults.append(f"{parameter}: {kind} is {error!r:.80}")
            except Exception as error:  # noqa: BLE001 - that there is none is what is shown
                faults.append(f"{parameter}: {kind} is {error!r:.80}")
            else:
                if kind == "object" and (name, parameter) not in FROM_CLIENTS and name not in CHECKED_LATER:
                    faults.append(f"{parameter}: {kind} is taken")
    assert faults == []


# --- calls ---------------------------------------------------------------------------------------------------


def calls() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """What is called at each request, by what the application (not the client) gives it."""
    scenario = Scenario()
    session, factors = scenario.signed_in(), scenario.factors
    box = security.SecretBox(bytes(range(32)))
    outcome = security.PasskeySignIn(user_id="1", result=factors.verify("1", "000000"))
    slots = security.ConcurrencyLimiter({"a": 1})
    step = {"client": HERE, "session": scenario.browser(), "data": {}}
    asked = {"client": HERE, "session": session}
    fast = security.RateLimiter({"a": security.Limit("second", 1_000_000, 1.0)})

    def paced(**options: Any) -> float:
        return fast.pace(**options).wait()

    sealed = box.encrypt("x", user_id="1", purpose="p")
    sign_in, changes = scenario.sign_in, scenario.changes
    return {
        "passwordless_sign_in": (sign_in.passwordless_sign_in, {"outcome": outcome, **step}),
        "external_sign_in": (
            sign_in.external_sign_in,
            {"user_id": "2", "amr": ["pwd"], "auth_time": 1.0, "second_factor": True, **step},
        ),
        "password": (sign_in.password, {"name": "x", "password": "x", **step}),
        "second_factor": (sign_in.second_factor, {"challenge": "x", "code": "x", **step}),
        "challenged_user": (sign_in.challenged_user, {"challenge": "x", **asked}),
        "confirm_password": (sign_in.confirm_password, {"password": "x", **asked}),
        "confirm_factor": (sign_in.confirm_factor, {"code": "x", **asked}),
        "factor_within": (sign_in.factor_within, {"session": session, "longest": 5}),
        "confirmed_within": (sign_in.confirmed_within, {"session": session, "longest": 5}),
        "unlock": (sign_in.unlock, {"user_id": "1", "actor": "a", "reason": "r"}),
        "admin_reset": (sign_in.admin_reset, {"user_id": "1", "actor": "a", "reason": "r"}),
        "change_password": (changes.change_password, {"current": "x", "new": "x", **asked}),
        "request_reset": (changes.request_reset, {"name": "x", "client": HERE}),
        "reset_password": (changes.reset_password, {"token": "x", "new": "x", "client": HERE}),
        "request_email_change": (changes.request_email_change, {"email": "x", **asked}),
        "confirm_email": (changes.confirm_email, {"token": "x", "client": HERE}),
        "check": (
            security.PasswordPolicy().check,
            {"password": "x", "username": "", "email": "", "context": ()},
        ),
        "encrypt": (box.encrypt, {"plaintext": "x", "user_id": "1", "purpose": "p"}),
        "decrypt": (box.decrypt, {"ciphertext": sealed, "user_id": "1", "purpose": "p"}),
        "hit": (scenario.limiter.hit, {"group": "auth_login", "key": "k", "cost": 1}),
        "reserve": (scenario.limiter.reserve, {"group": "auth_login", "key": "k", "cost": 1}),
        "test": (scenario.limiter.test, {"group": "auth_login", "key": "k", "cost": 1}),
        "reset": (scenario.limiter.reset, {"group": "auth_login", "key": "k"}),
        "pace": (paced, {"group": "a", "key": "k", "cost": 1, "burst": 1, "timeout": 1}),
        "limit": (scenario.limiter.limit, {"group": "auth_login", "key": str}),
        "acquire": (slots.acquire, {"limit": "a", "key": "k", "wait": 0}),
        "held": (slots.held, {"limit": "a", "key": "k"}),
        "verify": (factors.verify, {"user_id": "1", "code": "x", "client": None, "methods": ["totp"]}),
        "reencrypt": (factors.reencrypt, {"batch": 1, "cursor": None}),
        "status": (factors.status, {"user_id": "1", "client": None}),
        "verified_within": (factors.verified_within, {"user_id": "1", "seconds_ago": 5}),
        "begin_enrolment": (factors.begin_enrolment, {"user_id": "9", "account_name": "n"}),
        "remember_device": (factors.remember_device, {"user_id": "1", "name": "n"}),
        "rename_device": (factors.rename_device, {"user_id": "1", "device_id": "d", "name": "n"}),
        "check_device": (factors.check_device, {"user_id": "1", "token": "t"}),
        "factors.unlock": (factors.unlock, {"user_id": "1", "actor": "a"}),
    }


TYPED = {
    "name",
    "password",
    "code",
    "challenge",
    "current",
    "new",
    "token",
    "email",
    "device_id",
    "recovery_code",
}


@pytest.mark.parametrize("name", list(calls()))
def test_a_wrong_kind_is_refused_at_the_call(name: str) -> None:
    """What clients typed is refused as wrong; what the application gives is refused by name."""
    call, arguments = calls()[name]
    faults = []
    for parameter, right in arguments.items():
        for kind, value in WRONG.items():
            try:
                call(**{**arguments, parameter: value})
            except (ConfigurationError, DecodeError, InvalidCodeError) as refused:
                named = getattr(refused, "parameter", parameter)
                if named != parameter and kind == "object":
                    faults.append(f"{parameter}: {kind} is told of as {named}")
            except Exception as error:  # noqa: BLE001 - that there is none is what is shown
                faults.append(f"{parameter}: {kind} is {error!r:.80}")
            else:
                if kind == "object" and parameter not in TYPED:
                    faults.append(f"{parameter}: {kind} is taken (not {right!r:.20})")
    assert faults == []
