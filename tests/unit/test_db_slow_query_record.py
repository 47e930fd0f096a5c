"""The pure record: shape of a statement, never its values."""

from __future__ import annotations

from typing import Any

import pytest

from mks_hardening.db import fingerprint, slow_query_record


class DriverError(Exception):
    sqlstate = "23505"


class WrappedError(Exception):
    def __init__(self, orig: BaseException) -> None:
        super().__init__("[SQL: ...]")
        self.orig = orig


LEAKS = [
    'duplicate key value violates unique constraint "users_email_key"\nDETAIL:  Key (email)=(S3CRET) exists.',
    'invalid input syntax for type integer: "S3CRET"',
    'invalid input syntax for type integer: "S3CRET" and more "x y S3CRET"',
    "Duplicate entry 'S3CRET' for key 'email'",
    "syntax error at or near \"x\"\nLINE 1: SELECT 'S3CRET'",
    "value 'it''s S3CRET' is too long",
    "unterminated 'S3CRET",
    'time zone "S3CRET with blanks" not recognized',
]


@pytest.mark.parametrize("message", LEAKS)
def test_error_texts_lose_their_values(message: str) -> None:
    record = slow_query_record("select 1", (), error=WrappedError(DriverError(message)))
    assert "S3CRET" not in str(record)
    assert record["error"]["type"] == "DriverError"
    assert record["error"]["code"] == "23505"


def test_names_in_error_texts_stay() -> None:
    record = slow_query_record("select 1", (), error=DriverError('relation "public.users" does not exist'))
    assert record["error"]["message"] == 'relation "public.users" does not exist'


def test_literals_never_appear_and_parameters_only_by_number() -> None:
    record = slow_query_record("select * from t where a = 'S3CRET' and b = :b", {"b": "S3CRET", "c": 1})
    assert record == {
        "fingerprint": fingerprint("select * from t where a = '' and b = 1"),
        "statement": "select * from t where a = ? and b = ?",
        "parameter_count": 2,
    }


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [
        ({"id": 1, "password": "hunter2"}, {"id": 1, "password": "[REDACTED]"}),
        ([(1, "a"), (2, None)], [[1, "a"], [2, None]]),
        ((b"\x00\xff",), ["<2 bytes>"]),
        ({"text": "x" * 1000}, {"text": "x" * 200 + "…"}),
        (list(range(100)), list(range(50))),
        ((), []),
        ({1: 2.5}, {"1": 2.5}),
    ],
)
def test_shown_values_are_redacted_and_bounded(parameters: Any, shown: Any) -> None:
    assert slow_query_record("select 1", parameters, show_values=True)["parameters"] == shown


def test_a_long_statement_is_cut() -> None:
    record = slow_query_record("select " + ", ".join(f"column_{n}" for n in range(2000)), ())
    assert len(record["statement"]) == 4097
