import base64
import secrets
from typing import Any

import pytest

from mks_hardening.exceptions import ConfigurationError, DecodeError
from mks_hardening.security import SecretBox

OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
WHO = {"user_id": "u1", "purpose": "totp"}


def test_what_is_encrypted_is_read_back() -> None:
    box = SecretBox(NEW)
    for text in ("", "JBSWY3DP", "秘密🔑"):
        assert box.decrypt(box.encrypt(text, **WHO), **WHO) == text


def test_ciphertexts_differ_and_do_not_hold_the_text() -> None:
    box = SecretBox(NEW)
    made = {box.encrypt("plaintext", **WHO) for _ in range(20)}
    assert len(made) == 20
    assert not any(
        "plaintext" in base64.urlsafe_b64decode(one.split(".")[2]).decode("latin-1") for one in made
    )


@pytest.mark.parametrize(
    "who",
    [
        {"user_id": "u2", "purpose": "totp"},
        {"user_id": "u1", "purpose": "totp-pending"},
        {"user_id": "u1t", "purpose": "otp"},
        {"user_id": "", "purpose": "u1totp"},
    ],
)
def test_a_moved_ciphertext_is_refused(who: Any) -> None:
    box = SecretBox(NEW)
    with pytest.raises(DecodeError):
        box.decrypt(box.encrypt("x", **WHO), **who)


def test_every_flipped_bit_is_refused() -> None:
    box = SecretBox(NEW)
    version, key_id, body = box.encrypt("secret", **WHO).split(".")
    sealed = base64.urlsafe_b64decode(body)
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            box.decrypt(f"{version}.{key_id}.{base64.urlsafe_b64encode(damaged).decode()}", **WHO)


@pytest.mark.parametrize(
    "text", ["", "1", "1.", "1.abc", "1..", "x.y.z", "1.{id}.", "1.{id}.%%", "1.{id}.AAAA", "é"]
)
def test_what_is_no_ciphertext_is_refused(text: Any) -> None:
    box = SecretBox(NEW)
    key_id = box.encrypt("x", **WHO).split(".")[1]
    with pytest.raises(DecodeError) as caught:
        box.decrypt(text.format(id=key_id), **WHO)
    assert not caught.value.newer


@pytest.mark.parametrize("junk", ["!", "\n", " ", "=", "é"])
def test_a_ciphertext_has_one_spelling(junk: str) -> None:
    box = SecretBox(NEW)
    sealed = box.encrypt("secret", **WHO)
    for position in (len(sealed) - 20, len(sealed)):
        with pytest.raises(DecodeError):
            box.decrypt(sealed[:position] + junk + sealed[position:], **WHO)


@pytest.mark.parametrize("junk", ["!", "\n", " "])
def test_a_key_has_no_junk(junk: str) -> None:
    key = SecretBox.generate_key()
    with pytest.raises(ConfigurationError):
        SecretBox(key[:4] + junk * 4 + key[4:])


@pytest.mark.parametrize(
    ("version", "newer"),
    [
        ("2", True),
        ("999", True),
        ("0", False),
        ("1000", False),
        ("x", False),
        ("²", False),
        ("", False),
        ("-2", False),
    ],
)
def test_a_newer_version_is_told_apart(version: str, newer: bool) -> None:
    with pytest.raises(DecodeError) as caught:
        SecretBox(NEW).decrypt(f"{version}.00.AAAA", **WHO)
    assert caught.value.newer == newer


def test_what_was_written_by_the_first_release_stays_readable() -> None:
    kept = "1.827a45ba2114.1RUmPrlCgRFnsBeFNiaqbDZP8xhomy64la_nrbZiDPsIXsFRDgLBOpdBkKk="
    box = SecretBox(bytes(range(32)))
    assert box.decrypt(kept, user_id="u1", purpose="totp") == "JBSWY3DPEHPK3PXP"
    assert not box.needs_rotation(kept)
    made = box.encrypt("JBSWY3DPEHPK3PXP", user_id="u1", purpose="totp")
    assert len(made) == len(kept)


def test_rotation() -> None:
    before = SecretBox(OLD).encrypt("secret", **WHO)
    both = SecretBox([NEW, OLD])
    assert both.decrypt(before, **WHO) == "secret"
    assert both.needs_rotation(before)
    after = both.encrypt("secret", **WHO)
    assert not both.needs_rotation(after)
    assert SecretBox(NEW).decrypt(after, **WHO) == "secret"
    with pytest.raises(DecodeError, match="key with id"):
        SecretBox(NEW).decrypt(before, **WHO)


def test_keys_may_be_written_in_base64() -> None:
    key = SecretBox.generate_key()
    raw = base64.b64decode(key)
    assert repr(SecretBox(key)) == repr(SecretBox(key.rstrip("=")))
    assert SecretBox(secrets.token_urlsafe(32))
    assert SecretBox(raw).decrypt(SecretBox(key).encrypt("x", **WHO), **WHO) == "x"
    assert (
        SecretBox(base64.urlsafe_b64encode(raw).decode()).decrypt(SecretBox(key).encrypt("x", **WHO), **WHO)
        == "x"
    )


@pytest.mark.parametrize(
    "keys", [[], b"", b"short", "password", "not base64!", [NEW, NEW], [NEW, b"x" * 31], "é"]
)
def test_unusable_keys(keys: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SecretBox(keys)
    assert caught.value.parameter == "keys"
    assert "password" not in str(caught.value)


@pytest.mark.parametrize(
    "typed",
    [b"\0" * 32, b"k" * 32, b"changeme-changeme-changeme-12345", base64.b64encode(b"ab" * 16).decode()],
)
def test_a_key_that_was_typed_encrypts_nothing_but_can_be_replaced(typed: bytes | str) -> None:
    for keys in (typed, [typed], [typed, NEW]):
        with pytest.raises(ConfigurationError, match=r"random bytes.*generate_key") as caught:
            SecretBox(keys)
        assert caught.value.parameter == "keys"
        assert str(typed) not in str(caught.value)
    assert SecretBox([NEW, typed])


def test_repr_hides_keys() -> None:
    key = SecretBox.generate_key()
    shown = repr(SecretBox([key, OLD]))
    assert key not in shown
    assert OLD.hex() not in shown
    assert "keys=2" in shown
