"""Password hashes that other systems stored, made by their own libraries."""

from __future__ import annotations

import hashlib
from typing import Any

import argon2
import bcrypt
import pytest
import werkzeug.security
from django.conf import settings
from django.contrib.auth import hashers
from hypothesis import given
from hypothesis import strategies as st

from mks_hardening.security import PasswordHasher
from mks_hardening.security.passwords import hasher
from mks_hardening.security.passwords._hash_forms import method_of, translated
from mks_hardening.security.passwords._scrypt import Scrypt

TYPED = "足場の点検は毎朝"
CHEAP = "scrypt:1024:8:1"


def of_django(kind: type[Any], **parameters: int) -> str:
    """A hash with few rounds, by the class that projects name in ``PASSWORD_HASHERS``."""
    if not settings.configured:
        settings.configure()
    one = kind()
    for name, value in parameters.items():
        setattr(one, name, value)
    salt = bcrypt.gensalt(4) if "bcrypt" in one.algorithm else "pinchOfSalt9"
    return str(one.encode(TYPED, salt))


def of_bcrypt(prefix: bytes = b"2b") -> str:
    return bcrypt.hashpw(TYPED.encode(), bcrypt.gensalt(4)).replace(b"$2b", b"$" + prefix).decode()


FORMS = {
    "bcrypt": of_bcrypt,
    "bcrypt of PHP": lambda: of_bcrypt(b"2y"),
    "bcrypt, older": lambda: of_bcrypt(b"2a"),
    "Django bcrypt": lambda: of_django(hashers.BCryptPasswordHasher),
    "Django bcrypt_sha256": lambda: of_django(hashers.BCryptSHA256PasswordHasher),
    "Django pbkdf2_sha256": lambda: of_django(hashers.PBKDF2PasswordHasher, iterations=10),
    "Django pbkdf2_sha1": lambda: of_django(hashers.PBKDF2SHA1PasswordHasher, iterations=10),
    "Django scrypt": lambda: of_django(hashers.ScryptPasswordHasher, work_factor=1024),
    "Django argon2": lambda: of_django(hashers.Argon2PasswordHasher, memory_cost=64, time_cost=1),
    "argon2 PHC": lambda: argon2.PasswordHasher(memory_cost=64, time_cost=1).hash(TYPED),
    "werkzeug scrypt": lambda: werkzeug.security.generate_password_hash(TYPED, method=CHEAP),
    "werkzeug pbkdf2": lambda: werkzeug.security.generate_password_hash(TYPED, method="pbkdf2:sha512:10"),
}


def cheap() -> PasswordHasher:
    made = PasswordHasher(scheme="scrypt")
    made._scheme = Scrypt(method=CHEAP, nobody=werkzeug.security.generate_password_hash("-", method=CHEAP))
    made._expected = (made._scheme,)
    return made


@pytest.mark.parametrize("form", FORMS)
def test_a_hash_of_each_library_is_verified_and_replaced(form: str) -> None:
    stored, one = FORMS[form](), cheap()
    assert one.can_verify(stored)
    assert one.verify(TYPED, stored)
    assert not one.verify(TYPED + "x", stored)
    assert not one.verify("", stored)
    assert one.needs_rehash(stored) is (form != "werkzeug scrypt")


@pytest.mark.parametrize("cut", [slice(-1), slice(1, None), slice(0, 20)])
@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_hash_matches_nothing(form: str, cut: slice) -> None:
    assert not cheap().verify(TYPED, FORMS[form]()[cut])


@pytest.mark.parametrize(
    "stored",
    [
        hashlib.sha1(TYPED.encode()).hexdigest(),  # noqa: S324
        hashlib.sha256(TYPED.encode()).hexdigest(),
        hashlib.md5(TYPED.encode()).hexdigest(),  # noqa: S324
        "sha1$salt$" + "0" * 40,
        "md5$salt$" + "0" * 32,
        "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
        "$6$salt$" + "a" * 86,
        TYPED,
        "",
        "!",
        # Checks that would take minutes, or memory that a server does not have.
        "$2b$31$" + "a" * 53,
        "$2b$03$" + "a" * 53,
        "pbkdf2_sha256$999999999$salt$" + "A" * 43 + "=",
        "pbkdf2:sha256:999999999$salt$00",
        "scrypt$1073741824$salt$8$1$AAAA",
        "scrypt:32768:8:999$salt$00",
        "$argon2id$v=19$m=999999999,t=1,p=1$c2FsdHNhbHQ$aGFzaA",
        "$argon2id$v=19$m=64,t=999999999,p=1$c2FsdHNhbHQ$aGFzaA",
    ],
)
def test_fast_unknown_and_unaffordable_hashes_are_refused_at_once(stored: str) -> None:
    one = cheap()
    assert not one.can_verify(stored)
    assert not one.verify(TYPED, stored)


ANY = PasswordHasher()


@given(st.text(max_size=80) | st.from_regex(r"\A(\$2b\$|pbkdf2_sha256\$|scrypt\$|argon2\$|bcrypt\$)[ -~]*\Z"))
def test_no_stored_text_is_an_error(stored: str) -> None:
    ANY.needs_rehash(stored)
    ANY.can_verify(stored)


def test_bcrypt_compares_as_many_bytes_as_it_hashed() -> None:
    """Other libraries cut off the rest, so that a longer password was stored as its first 72 bytes."""
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert cheap().verify("x" * 80, stored)
    assert not cheap().verify("x" * 71, stored)


def test_the_cost_of_bcrypt_is_known_by_its_number() -> None:
    assert method_of("$2b$12$" + "a" * 53) == "$2b$12"
    assert method_of("bcrypt_sha256$$2b$10$" + "a" * 53) == "$2b$10"
    assert method_of(translated("pbkdf2_sha256$10$salt$AAAA")) == "pbkdf2:sha256:10"


@pytest.mark.parametrize("form", FORMS)
def test_a_cheaper_hash_takes_as_long_as_an_unknown_user(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The padding makes up for whatever the check of another system costs less."""
    one, now = cheap(), [0.0]
    monkeypatch.setattr(hasher, "thread_time", lambda: now[0])
    monkeypatch.setattr(hasher, "_padding_work", lambda: now.__setitem__(0, now[0] + 0.001))
    one._work[CHEAP] = hasher.deque([0.24] * 15, maxlen=15)
    began = now[0]
    stored = FORMS[form]()
    one.verify(TYPED, stored)
    spent = now[0] - began
    # Django 4.2 stores scrypt with the parameters that are the cheap ones here.
    assert spent == pytest.approx(0.24, rel=0.05) or method_of(translated(stored)) == CHEAP
