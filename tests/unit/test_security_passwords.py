import unicodedata
from typing import Any

import pytest
import werkzeug.security

from mks_hardening.security import hash_password, needs_rehash, passwords, verify_password

METHOD, NOBODY = passwords._METHOD, passwords._NOBODY
CHEAP = "scrypt:1024:8:1"
STORED = werkzeug.security.generate_password_hash("足場の点検は毎朝", method=CHEAP)


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules do not depend on the cost; one test below pays the real one."""
    monkeypatch.setattr(passwords, "_METHOD", CHEAP)
    monkeypatch.setattr(passwords, "_NOBODY", werkzeug.security.generate_password_hash("-", method=CHEAP))


def test_the_real_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_METHOD", METHOD)
    stored = hash_password("足場の点検は毎朝")
    assert verify_password("足場の点検は毎朝", stored)
    assert not needs_rehash(stored)
    assert needs_rehash(STORED)
    method, _, cost = METHOD.partition(":")
    n, r, p = map(int, cost.split(":"))
    assert method == "scrypt"
    assert n * r * p >= 2**15 * 8 * 3  # OWASP: N=2**15, r=8, p=3 or stronger
    assert (NOBODY.partition("$")[0], len(NOBODY)) == (METHOD, len(stored))


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


def test_needs_rehash() -> None:
    assert not needs_rehash(STORED)
    assert needs_rehash(werkzeug.security.generate_password_hash("x", method="scrypt:512:8:1"))
    assert needs_rehash(werkzeug.security.generate_password_hash("x", method="pbkdf2:sha256:1000"))
    assert needs_rehash(werkzeug.security.generate_password_hash("x", method=CHEAP, salt_length=8))
    assert needs_rehash("rubbish")
