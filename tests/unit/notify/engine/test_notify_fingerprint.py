from __future__ import annotations

import logging

import pytest

from mks_hardening.notify.engine._alert import Fingerprint, fingerprint_of, message_without_numbers


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("order 4711 failed", "order # failed"),
        ("order 1234567890123 failed", "order # failed"),
        ("wait 1.5 s", "wait #.# s"),
        ("v2", "v#"),
        ("<Job object at 0x7fa3B0>", "<Job object at #>"),
        ("id 550e8400-e29b-41d4-a716-446655440000", "id #"),
        ("id ABCDEFAB-ABCD-ABCD-ABCD-ABCDEFABCDEF", "id #"),
        ("commit 3f2a9c81d0", "commit #"),
        ("deadbeef", "deadbeef"),
        ("face2face", "#"),
        ("工事 １２３ 号が失敗", "工事 # 号が失敗"),
        ("no numbers", "no numbers"),
        ("", ""),
    ],
)
def test_numbers_are_taken_out_of_the_words(message: str, words: str) -> None:
    assert message_without_numbers(message) == words


def test_ids_with_other_digits_have_the_same_words() -> None:
    assert message_without_numbers("user 5b1e77f0c2 left") == message_without_numbers("user 9b1e70f8c1 left")


@pytest.mark.parametrize("message", ["a" * 100_000, "1a" * 50_000, "0x" * 50_000, "aaaaaaa1" * 10_000])
def test_long_messages_are_looked_at_in_part(message: str) -> None:
    assert len(message_without_numbers(message)) <= 300


def record(*, name: str = "app", line: int = 1, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.ERROR, "/srv/app.py", line, "x", None, exc_info, "run")


def raised(kind: type[Exception], *, elsewhere: bool = False) -> Exception:
    def here() -> None:
        raise kind("x")

    def there() -> None:
        raise kind("x")

    try:
        (there if elsewhere else here)()
    except kind as error:
        return error
    raise AssertionError


def test_kinds() -> None:
    same = fingerprint_of(record(), "failed 1")
    assert (
        same == fingerprint_of(record(), "failed 22") == Fingerprint("app", "", "/srv/app.py", 1, "failed #")
    )
    others = [
        fingerprint_of(record(name="other"), "failed 1"),
        fingerprint_of(record(line=2), "failed 1"),
        fingerprint_of(record(), "other 1"),
        fingerprint_of(record(error=raised(ValueError)), "failed 1"),
        fingerprint_of(record(error=raised(KeyError)), "failed 1"),
        fingerprint_of(record(error=raised(ValueError, elsewhere=True)), "failed 1"),
    ]
    assert len({same, *others}) == 7
    assert len({kind.digest() for kind in (same, *others)}) == 7


def test_the_place_of_an_exception_is_where_it_was_raised() -> None:
    error = raised(ValueError, elsewhere=True)
    kind = fingerprint_of(record(error=error), "x")
    assert kind.place == __file__
    assert kind == fingerprint_of(record(line=99, error=error), "x")


def test_an_exception_without_a_traceback_lies_where_it_was_logged() -> None:
    assert fingerprint_of(record(error=ValueError()), "x").place == "/srv/app.py"


def test_exc_info_of_nothing_is_no_exception() -> None:
    empty = record()
    empty.exc_info = (None, None, None)
    assert fingerprint_of(empty, "x") == fingerprint_of(record(), "x")


def test_a_very_deep_traceback_is_not_walked_to_its_end() -> None:
    def deeper(n: int) -> None:
        if n == 0:
            raise ValueError
        deeper(n - 1)

    with pytest.raises(ValueError, match=r"^$") as caught:
        deeper(600)
    shallow = fingerprint_of(record(error=raised(ValueError)), "x")
    deep = fingerprint_of(record(error=caught.value), "x")
    assert (deep.error, deep.place) == ("ValueError", __file__)
    assert deep.line != shallow.line


def test_the_digest_is_the_same_in_every_process_and_takes_any_text() -> None:
    assert Fingerprint("a", "E", "p", 1, "w").digest() == "160c29236e25e006d3833cd11df7f6ea"
    assert len(Fingerprint("a\ud800", "E", "p", 1, "w").digest()) == 32
