import unicodedata
from typing import Any

import pytest
import werkzeug.security

from mks_hardening.security import hash_password, needs_rehash, passwords, verify_password

STORED = hash_password("足場の点検は毎朝")


def test_right_and_wrong() -> None:
    assert verify_password("足場の点検は毎朝", STORED)
    assert not verify_password("足場の点検は毎晩", STORED)
    assert not verify_password("足場の点検は毎朝 ", STORED)


def test_the_same_password_has_another_form_each_time() -> None:
    assert hash_password("x") != hash_password("x")


def test_decomposed_spelling_is_the_same_password_and_width_is_not() -> None:
    stored = hash_password("ガード")
    assert verify_password(unicodedata.normalize("NFD", "ガード"), stored)
    assert not verify_password("ｶﾞｰﾄﾞ", stored)


@pytest.mark.parametrize("tail", ["a", "é", "足"])
def test_every_character_of_a_long_password_counts(tail: Any) -> None:
    long = "x" * 127 + tail
    stored = hash_password(long)
    assert verify_password(long, stored)
    assert not verify_password(long[:-1] + "z", stored)


@pytest.mark.parametrize("password", ["", "x" * 1025, "\ud800", None, 12, b"x", ["x"]])
def test_what_cannot_be_a_password(password: Any) -> None:
    assert not verify_password(password, STORED)
    assert not verify_password(password, None)
    with pytest.raises(ValueError, match="password must be"):
        hash_password(password)


@pytest.mark.parametrize("stored", [None, "", "x", "scrypt:bad$x$y", "md5$a$b", "$$"])
def test_unknown_users_and_unusable_forms_are_refused(stored: Any) -> None:
    assert not verify_password("-", stored)


@pytest.mark.parametrize(
    ("password", "stored"),
    [("right", STORED), ("wrong", None), ("", None), ("", STORED), ("x" * 2000, None), ("a", "")],
)
def test_every_answer_costs_one_hash_of_the_same_strength(
    monkeypatch: pytest.MonkeyPatch, password: Any, stored: Any
) -> None:
    seen = []
    original = werkzeug.security.check_password_hash

    def counting(form: Any, text: Any) -> Any:
        seen.append(form.partition("$")[0])
        return original(form, text)

    monkeypatch.setattr(werkzeug.security, "check_password_hash", counting)
    verify_password(password, stored)
    assert seen == [STORED.partition("$")[0]]


def test_the_form_of_nobody_has_todays_parameters() -> None:
    assert not needs_rehash(passwords._NOBODY)
    assert passwords._NOBODY.count("$") == 2
    assert len(passwords._NOBODY) == len(STORED)


def test_needs_rehash() -> None:
    assert not needs_rehash(STORED)
    assert needs_rehash(werkzeug.security.generate_password_hash("x", method="scrypt:32768:8:1"))
    assert needs_rehash(werkzeug.security.generate_password_hash("x", method="pbkdf2:sha256:1000"))
    assert needs_rehash(
        werkzeug.security.generate_password_hash("x", method="scrypt:32768:8:3", salt_length=8)
    )
    assert needs_rehash("rubbish")
