import json
import re
from typing import Any

import pytest

from mks_hardening.security import RecoveryCodes, generate_recovery_codes, normalize_recovery_code
from mks_hardening.security.second_factor._digests import KeyedDigests, new_digest_key
from mks_hardening.security.second_factor.codes.recovery_codes import hash_recovery_code, new_salt

PLAIN = "01ABCDEFGHJKMNPQRSTVWXYZ"
SHOWN = "01AB-CDEF-GHJK-MNPQ-RSTV-WXYZ"


def test_codes_are_typeable_and_carry_120_bits() -> None:
    codes = generate_recovery_codes()
    assert len(set(codes)) == 10
    for code in codes:
        assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){5}", code)
    assert 32**24 >= 2**112


def test_every_letter_is_used() -> None:
    letters = set("".join(generate_recovery_codes(200))) - {"-"}
    assert letters == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@pytest.mark.parametrize(
    "typed",
    [
        SHOWN,
        PLAIN,
        SHOWN.lower(),
        SHOWN.replace("-", " "),
        SHOWN.replace("-", "ー"),
        SHOWN.replace("-", "−"),
        SHOWN.replace("0", "O").replace("1", "l"),
        SHOWN.replace("0", "o").replace("1", "I"),
        "".join(chr(ord(c) + 0xFEE0) for c in SHOWN),
        f"\u3000{SHOWN}\n",
        SHOWN.replace("-", " - "),
    ],
)
def test_what_people_type(typed: Any) -> None:
    assert normalize_recovery_code(typed) == PLAIN


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "-",
        PLAIN[:-1],
        PLAIN + "A",
        PLAIN[:-1] + "U",
        PLAIN[:-1] + "é",
        PLAIN[:-1] + "٣",
        " " * 200 + PLAIN,
        None,
        12,
        b"x",
        [PLAIN],
    ],
)
def test_what_is_no_code(typed: Any) -> None:
    assert normalize_recovery_code(typed) is None


def test_long_input_is_refused_before_it_is_read() -> None:
    assert normalize_recovery_code(PLAIN + " " * (128 - len(PLAIN))) == PLAIN
    assert normalize_recovery_code(PLAIN + " " * (129 - len(PLAIN))) is None


def test_text_forms_hide_the_codes_and_the_tuple_shows_them() -> None:
    codes = RecoveryCodes([SHOWN])
    assert SHOWN not in f"{codes} {codes!r} {codes!s}"
    assert json.loads(json.dumps(codes)) == [SHOWN]
    assert list(codes) == [SHOWN]


def test_hashes_are_salted() -> None:
    salt, other = new_salt(), new_salt()
    assert len(bytes.fromhex(salt)) == 16
    mine = hash_recovery_code(PLAIN, salt=salt)
    assert hash_recovery_code(PLAIN, salt=other) != mine
    assert PLAIN not in mine


def test_digests_need_the_key_and_tell_uses_apart() -> None:
    key, other = KeyedDigests(new_digest_key()), KeyedDigests(new_digest_key())
    salt = new_salt()
    hashed = hash_recovery_code(PLAIN, salt=salt)
    assert key.of_recovery_code(PLAIN, salt=salt) == key.of_salted_code(hashed)
    digests = [one.of_salted_code(hashed) for one in (key, other)]
    digests += [one.of_hashed_token(hashed) for one in (key, other)]
    assert len({hashed, *digests}) == 5
