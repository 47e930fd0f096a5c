"""Whatever bytes a browser sends, the answer is a refusal: no error, and never in."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mks_hardening.exceptions import InvalidCodeError
from mks_hardening.security import (
    MemoryPasskeyStore,
    MemoryTwoFactorStore,
    PasskeyAssertion,
    RelyingParty,
    SecretBox,
    TwoFactorManager,
)
from mks_hardening.security.passkeys._response import base64url, read_response
from soft_authenticator import SoftAuthenticator, b64, unb64

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
places = st.integers(0, 9999)  # whatever the length, which differs from one signature to the next
NAMES = ("clientDataJSON", "authenticatorData", "signature", "attestationObject", "userHandle")


def site() -> tuple[TwoFactorManager, SoftAuthenticator]:
    manager = TwoFactorManager(
        MemoryTwoFactorStore(),
        issuer="MKS",
        secret_box=SecretBox(bytes(range(32))),
        relying_party=RelyingParty(
            "example.com", name="MKS", origins=["https://example.com"], passwordless=True
        ),
        passkey_store=MemoryPasskeyStore(),
    )
    device = SoftAuthenticator(counts=False)
    asked = manager.passkeys.begin_registration("u", session="s", account_name="u")
    manager.passkeys.finish_registration("u", device.create(asked.json), session="s")
    return manager, device


MANAGER, DEVICE = site()


def refused(answer: Any) -> bool:
    """By everything that takes an answer; what is well-formed may be charged, so the account is unlocked."""
    MANAGER.unlock("u", actor="test")
    try:
        MANAGER.passkeys.finish_registration("u", answer, session="s")
    except InvalidCodeError:
        pass
    else:
        return False
    verified = MANAGER.verify("u", PasskeyAssertion(answer, session="s"))
    return not verified and not MANAGER.passkeys.finish_sign_in(answer, session="s")


@given(json_values)
def test_any_json(value: Any) -> None:
    assert refused(value)
    assert refused(json.dumps(value))


@given(st.text(max_size=200) | st.binary(max_size=50))
def test_any_text(text: Any) -> None:
    assert refused(text)


@given(st.sampled_from(["verify", "sign-in"]), st.sampled_from(NAMES[:3]), st.data())
def test_one_changed_byte(ceremony: str, name: str, data: Any) -> None:
    keys = MANAGER.passkeys
    asked = (
        keys.begin_sign_in(session="s")
        if ceremony == "sign-in"
        else keys.begin_verification("u", session="s")
    )
    answer = DEVICE.get(asked.json)
    changed = bytearray(unb64(answer["response"][name]))
    changed[data.draw(places) % len(changed)] ^= data.draw(st.integers(1, 255))
    answer["response"][name] = b64(bytes(changed))
    MANAGER.unlock("u", actor="test")
    if ceremony == "sign-in":
        assert not keys.finish_sign_in(answer, session="s")
    else:
        assert not MANAGER.verify("u", PasskeyAssertion(answer, session="s"))


@given(st.sampled_from(["clientDataJSON", "attestationObject"]), st.data())
def test_a_registration_with_cut_or_changed_bytes(name: str, data: Any) -> None:
    """Changed bytes may make another valid registration (nothing is signed), but never an error of another kind."""
    device = SoftAuthenticator()
    asked = MANAGER.passkeys.begin_registration("v", session="s", account_name="v")
    answer = device.create(asked.json)
    body = bytearray(unb64(answer["response"][name]))
    if data.draw(st.booleans()):
        body = body[: data.draw(places) % len(body)]
    else:
        body[data.draw(places) % len(body)] ^= data.draw(st.integers(1, 255))
    answer["response"][name] = b64(bytes(body))
    try:
        MANAGER.passkeys.finish_registration("v", answer, session="s")
    except InvalidCodeError:
        return
    MANAGER.admin_reset("v", actor="test", reason="next example")


@given(st.binary(max_size=100))
def test_base64url_has_one_spelling(data: bytes) -> None:
    text = base64url(data)
    assert unb64(text) == data
    assert read_response({"id": text + "=", "rawId": text + "=", "response": {}}, body=()) is None
