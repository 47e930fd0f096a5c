"""The pure record: shape of a statement, never its values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mks_hardening.db import fingerprint, slow_query_record


class DriverError(Exception):
    sqlstate: str | None = None
    diag: object = None


class WrappedError(Exception):
    def __init__(self, orig: BaseException | str) -> None:
        super().__init__("[SQL: ...]" if isinstance(orig, BaseException) else orig)
        self.orig = orig


S = "S3CRET"
LEAKS = [
    (
        "23505",
        f'duplicate key value violates unique constraint "{S}"\nDETAIL:  Key (token)=({S}) already exists.',
        'duplicate key value violates unique constraint "?"',
    ),
    ("22P02", f'invalid input syntax for type integer: "{S}"', 'invalid input syntax for type integer: "?"'),
    ("22P02", f'invalid input syntax for type {S}: "{S}"', 'invalid input syntax for type ?: "?"'),
    (
        "22P02",
        f'invalid input syntax for type integer: "{S}" and "x y {S}"',
        'invalid input syntax for type integer: "?"',
    ),
    ("22003", f'value "{S}" is out of range for type integer', 'value "?" is out of range for type integer'),
    ("22001", "value too long for type character varying(12)", "value too long for type character varying"),
    ("42P01", f'relation "{S}" does not exist', 'relation "?" does not exist'),
    ("42601", f"syntax error at or near \"x\"\nLINE 1: SELECT '{S}'", 'syntax error at or near "?"'),
    ("22023", f'time zone "{S} with blanks" not recognized', 'time zone "?" not recognized'),
    ("P0001", f"order of {S} refused", None),  # RAISE: the function's own words
    ("P0001", "deadlock detected", None),
    ("23505", f"the token {S} is taken", None),  # RAISE ... USING ERRCODE
    ("23514", f"Prüfregel «{S}» verletzt", None),  # a server that speaks another language
    ("40P01", "deadlock detected\nDETAIL:  Process 1 waits for S3CRET", "deadlock detected"),
    ("SQLITE_CONSTRAINT_UNIQUE", f"UNIQUE constraint failed: {S}.name", "UNIQUE constraint failed: ?"),
    ("SQLITE_CONSTRAINT_TRIGGER", f"{S} is not welcome", None),
    ("SQLITE_BUSY_SNAPSHOT", "database is locked", "database is locked"),
    ("SQLITE_ERROR", f"no such table: {S}", "no such table: ?"),
    ("99999", f"{S}", None),
]


@pytest.mark.parametrize(("code", "message", "shown"), LEAKS)
def test_only_the_known_form_of_a_message_is_shown(code: str, message: str, shown: str | None) -> None:
    origin = DriverError(message)
    name = "sqlite_errorname" if code.startswith("SQLITE") else "sqlstate"
    setattr(origin, name, code)
    record = slow_query_record("select 1", (), error=WrappedError(origin))
    assert S not in str(record)
    assert record["error"]["type"] == "DriverError"
    assert record["error"].get("message") == shown
    assert code.startswith(record["error"]["code"])


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (
            DriverError(1062, f"Duplicate entry '{S}' for key 'email'"),
            ("1062", "Duplicate entry '?' for key '?'"),
        ),
        (DriverError(9012345678, S), (None, None)),
        (DriverError(), (None, None)),
        (
            DriverError(
                f'connection to server at "{S}", port 5432 failed: Connection refused\n\tIs the server'
            ),
            (None, "connection refused"),
        ),
        (
            DriverError(f"invalid input for query argument $1: {S} (value out of int32 range)"),
            (None, "invalid input for query argument ?"),
        ),
        (ValueError(f"could not convert string to float: '{S}'"), (None, None)),
        (WrappedError(f"(builtins.ValueError) no\n[SQL: ...]\n[parameters: {{'a': '{S}'}}]"), (None, None)),
    ],
)
def test_errors_without_a_state_tell_no_more(error: Exception, result: tuple[str | None, str | None]) -> None:
    record = slow_query_record("select 1", (), error=error)["error"]
    assert (record.get("code"), record.get("message")) == result
    assert S not in str(record)


def test_a_violated_constraint_is_named_where_the_server_names_it_apart() -> None:
    origin = DriverError("duplicate key value violates unique constraint")
    origin.sqlstate = "23505"
    origin.diag = SimpleNamespace(constraint_name="users_email_key", table_name="users", column_name=None)
    result = slow_query_record("select 1", (), error=origin)["error"]
    assert (result["constraint"], result["table"], "column" in result) == ("users_email_key", "users", False)
    origin.sqlstate = "P0001"  # RAISE may fill those fields with anything
    assert "constraint" not in slow_query_record("select 1", (), error=origin)["error"]


class HostileError(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override] # as hostile as can be
        return ()

    def __str__(self) -> str:
        raise RuntimeError(S)


@pytest.mark.parametrize("show_values", [False, True])
def test_an_error_whose_text_raises_is_described_all_the_same(show_values: bool) -> None:
    record = slow_query_record(
        "select 1", {"a": HostileError()}, error=HostileError(), show_values=show_values
    )
    assert record["error"]["type"] == "HostileError"
    assert S not in str(record)


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
