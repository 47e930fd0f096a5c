"""Parameter checks: one verdict, one wording, never the value."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mks_hardening._core import checks
from mks_hardening._core.closing import Closing
from mks_hardening.exceptions import ConfigurationError

Check = Callable[[Any], object]


def whole(value: Any) -> int:
    return checks.whole_number(value, parameter="p", minimum=1, maximum=9)


def least(value: Any) -> int:
    return checks.whole_number(value, parameter="p", minimum=1)


def number(value: Any) -> float:
    return checks.number(value, parameter="p", minimum=0, maximum=1)


def above(value: Any) -> float:
    return checks.number(value, parameter="p", minimum=0, above=True)


def choice(value: Any) -> str:
    return checks.choice(value, ("web", "api"), parameter="p")


def listed(value: Any) -> tuple[str, ...]:
    return checks.strings(value, parameter="p", of="hosts")


def duration(value: Any) -> timedelta:
    return checks.instance(value, timedelta, parameter="p")


def call(value: Any) -> object:
    return checks.function(value, parameter="p")


def port(value: Any) -> int:
    return checks.port_number(value, parameter="p")


def namespace(value: Any) -> str:
    return checks.namespace_of(value, parameter="p")


def level(value: Any) -> int:
    return checks.level_number(value, parameter="p")


def offer(value: Any) -> object:
    return checks.offers(value, "keys", "get", parameter="p", kind="a mapping")


def mapped(value: Any) -> object:
    return checks.mapping(value, parameter="p", of="names to limits")


@pytest.mark.parametrize(
    ("check", "given", "result"),
    [
        (whole, 1, 1),
        (whole, 9, 9),
        (least, 10**30, 10**30),
        (number, 0, 0.0),
        (number, 1, 1.0),
        (above, 0.001, 0.001),
        (choice, "api", "api"),
        (listed, ["a", "b"], ("a", "b")),
        (listed, (), ()),
        (duration, timedelta(1), timedelta(1)),
        (call, len, len),
        (port, 65535, 65535),
        (namespace, "mks:sessions", "mks:sessions"),
        (namespace, "A" * 64, "A" * 64),
        (level, " error ", logging.ERROR),
        (level, 35, 35),
        (level, 0, 0),
        (offer, {"a": 1}, {"a": 1}),
        (mapped, {"a": 1}, {"a": 1}),
    ],
)
def test_accepted_as_given(check: Check, given: object, result: object) -> None:
    assert check(given) == result


@pytest.mark.parametrize(
    ("check", "given", "message"),
    [
        (whole, 0, "p must be a whole number from 1 to 9"),
        (whole, 10, "p must be a whole number from 1 to 9"),
        (whole, True, "p must be a whole number from 1 to 9, not bool"),
        (whole, 1.0, "p must be a whole number from 1 to 9"),
        (whole, None, "p must be a whole number from 1 to 9, not NoneType"),
        (least, 0, "p must be a whole number of at least 1"),
        (number, 1.1, "p must be a finite number from 0 to 1"),
        (number, float("nan"), "p must be a finite number from 0 to 1"),
        (above, 0, "p must be a finite number above 0"),
        (above, float("inf"), "p must be a finite number above 0"),
        (choice, "WEB", "p must be one of web, api"),
        (choice, None, "p must be one of web, api, not NoneType"),
        (listed, "hunter2", "p must be a list of hosts"),
        (listed, {"hunter2": 1}, "p must be a list of hosts, not dict"),
        (listed, 5, "p must be a list of hosts"),
        (listed, type, "p must be a list of hosts, not type"),
        (mapped, ["hunter2"], "p must be a mapping of names to limits, not list"),
        (mapped, "hunter2", "p must be a mapping of names to limits"),
        (listed, ["a", 1], "p must be a list of hosts; one of them is int"),
        (duration, 5, "p must be a timedelta"),
        (call, 5, "p must be callable"),
        (port, 0, "p must be a whole number from 1 to 65535"),
        (namespace, "", "p must be 1 to 64 characters of A-Za-z0-9_.:-, beginning with a letter or digit"),
        (namespace, "a{b}", "p must be 1 to 64 characters"),
        (namespace, "a\n", "p must be 1 to 64 characters"),
        (namespace, "A" * 65, "p must be 1 to 64 characters"),
        (namespace, b"mks", "p must be 1 to 64 characters"),
        (offer, None, "p must be a mapping, not NoneType"),
        (offer, "hunter2", "p must be a mapping, not str"),
        (offer, dict, "p must be a mapping, not the class dict"),
        (level, "LOUD", "p must be the name of a level (CRITICAL, FATAL, ERROR, WARN"),
        (level, -1, "p must be a whole number of at least 0"),
        (level, None, "p must be a whole number of at least 0, not NoneType"),
    ],
)
def test_refused_with_name_and_bounds_and_without_the_value(
    check: Check, given: object, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(given)
    assert str(caught.value).startswith(message)
    assert caught.value.parameter == "p"
    assert "hunter2" not in str(caught.value)


def test_with_closes_what_was_opened() -> None:
    class Door(Closing):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    with Door() as door:
        assert door.closed == 0
    assert door.closed == 1
