"""The parts beside each other: passkeys and the hasher inside the machine that signs people in."""

import secrets
from dataclasses import replace
from typing import Any

import pytest
import werkzeug.security

from mks_hardening.exceptions import BackendUnavailableError
from mks_hardening.security import (
    SIGN_IN_LIMITS,
    MemoryPasskeyStore,
    MemorySignInStore,
    MemoryTwoFactorStore,
    PasskeyAssertion,
    PasswordHasher,
    RateLimiter,
    RelyingParty,
    SecretBox,
    SignIn,
    SignInAccount,
    SignInClient,
    TwoFactorManager,
)
from soft_authenticator import Lies, SoftAuthenticator

HERE = SignInClient(address="192.0.2.1")
OLD_FORM = werkzeug.security.generate_password_hash("坂の上の 足場", method="pbkdf2:sha256:1000")


class Accounts:
    def __init__(self) -> None:
        self.row = SignInAccount(user_id="7", name="tanaka", email="t@example.com", password_hash=OLD_FORM)

    def find(self, name: str, /) -> Any:
        return self.row if name == "tanaka" else None

    def get(self, user_id: str, /) -> Any:
        return self.row if user_id == "7" else None

    def set_password(self, user_id: str, stored: str, /, *, expected: str | None) -> bool:
        if self.row.password_hash != expected:
            return False
        self.row = replace(self.row, password_hash=stored)
        return True


@pytest.fixture
def hasher() -> PasswordHasher:
    return PasswordHasher(max_wait=0)


@pytest.fixture
def scenario(hasher: PasswordHasher) -> Any:
    factors = TwoFactorManager(
        MemoryTwoFactorStore(),
        issuer="MKS",
        secret_box=SecretBox(bytes(range(32))),
        relying_party=RelyingParty("example.com", name="MKS", origins=["https://example.com"]),
        passkey_store=MemoryPasskeyStore(),
    )
    accounts = Accounts()
    sign_in = SignIn(
        accounts,
        store=MemorySignInStore(),
        limiter=RateLimiter(SIGN_IN_LIMITS),
        factors=factors,
        passwords=hasher,
        end_sessions=lambda user_id: None,
        device_keys=secrets.token_bytes(32),
    )
    return sign_in, factors, accounts


def test_a_passkey_is_the_second_step(scenario: Any, hasher: PasswordHasher) -> None:
    sign_in, factors, accounts = scenario
    device = SoftAuthenticator()
    asked = factors.passkeys.begin_registration("7", session="s", account_name="tanaka")
    factors.passkeys.finish_registration("7", device.create(asked.json), session="s")
    step = sign_in.password("tanaka", "坂の上の 足場", client=HERE)
    assert step.state == "challenged"
    for lies, state in ((Lies(origin="https://evil.example"), "refused"), (Lies(), "done")):
        asked = factors.passkeys.begin_verification("7", session=step.challenge)
        answer = PasskeyAssertion(device.get(asked.json, lies), session=step.challenge)
        done = sign_in.second_factor(step.challenge, answer, client=HERE)
        assert done.state == state
    assert done.user_id == "7"
    assert {"pwd", "mfa"} <= set(done.amr)
    again = sign_in.second_factor(step.challenge, answer, client=HERE)
    assert again.state != "done"
    assert not hasher.needs_rehash(accounts.row.password_hash)  # renewed on the way


def test_a_hasher_that_is_busy_is_nobodys_wrong_password(scenario: Any, hasher: PasswordHasher) -> None:
    sign_in, _, _ = scenario
    hasher.slots = 1
    hasher.reset_after_fork()
    with hasher._turn("test"):
        for _ in range(20):  # more than any limit of failures
            with pytest.raises(BackendUnavailableError):
                sign_in.password("tanaka", "wrong", client=HERE)
    assert sign_in.password("tanaka", "坂の上の 足場", client=HERE).state == "done"
